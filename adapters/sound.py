"""Sound of a clip, and its encoding as AAC, which every browser plays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import av
    import numpy as np
    from av.container import OutputContainer

AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
"""Samples a second that AAC has a number for; sound at another rate is resampled to the largest that browsers play."""
USUAL_RATE = 48000

MOST_CHANNELS = 2
"""Further channels are left out."""

# Taken for transparent for two channels.
AAC_BITS_A_SECOND = 192_000


@dataclass(frozen=True)
class Sound:
    """Sound that goes with a clip, from its first frame on.

    Attributes:
        samples: float32, (channels, N), in [-1, 1].
        rate: samples a second of each channel.
    """

    samples: np.ndarray
    rate: int


def aac(container: OutputContainer, sound: Sound, seconds: float) -> Iterator[list[av.Packet]]:
    """Add a stream of sound to a container, and return its packets, encoded one frame of AAC at a time."""
    import av
    import numpy as np

    rate = sound.rate if sound.rate in AAC_RATES else USUAL_RATE
    layout = "mono" if len(sound.samples) == 1 else "stereo"
    stream = container.add_stream("aac", rate=rate, layout=layout)
    stream.codec_context.bit_rate = AAC_BITS_A_SECOND
    length = round(seconds * sound.rate)
    samples = np.zeros((min(len(sound.samples), MOST_CHANNELS), length), np.float32)
    kept = sound.samples[:MOST_CHANNELS, :length]
    samples[:, : kept.shape[1]] = kept
    wave = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
    wave.sample_rate, wave.time_base, wave.pts = sound.rate, Fraction(1, sound.rate), 0
    resampler = av.AudioResampler("fltp", layout, rate, frame_size=stream.codec_context.frame_size or 1024)

    def packets() -> Iterator[list[av.Packet]]:
        for part in (*resampler.resample(wave), *resampler.resample(None)):
            yield stream.encode(part)
        yield stream.encode(None)

    return packets()
