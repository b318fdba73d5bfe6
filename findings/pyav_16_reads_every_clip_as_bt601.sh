#!/usr/bin/env bash
# PyAV up to 16 converts a decoded frame to RGB by BT.601's matrix, also where the clip and the frame say BT.709.
#
# Packages: av==16.1.0, and av==17.0.0 beside it; numpy==2.4.6 (Python 3.11, CPU).
# A green clip is written as BT.709, with the tag that H.264 has for it. Both versions read the tag (`frame.colorspace` is 1)
# and the same luma, but `to_ndarray(format="rgb24")` of 16.1 gives another green than went in; 17.0 gives it back. One
# expects a frame's own colour space to be where its conversion starts from. With 16.1 it does not help to name it in
# `reformat`, either: measures that compare a clip with what was written are off by up to 19 of 255.
#
# Output seen:
#   16.1.0: colorspace 1, luma 173, green [19, 255, 8]; with its colour space named [19, 255, 8]
#   17.0.0: colorspace 1, luma 173, green [0, 254, 0]; with its colour space named [0, 254, 0]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for version in 16.1.0 17.0.0; do
  python3 -m venv "$folder/$version"
  "$folder/$version/bin/python" -m pip install --quiet --disable-pip-version-check av==$version numpy==2.4.6
done
for version in 16.1.0 17.0.0; do
  "$folder/$version/bin/python" - "$folder/green.mp4" <<'PYTHON'
import sys
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

path = Path(sys.argv[1])
if not path.exists():
    green = np.zeros((64, 64, 3), np.uint8)
    green[..., 1] = 255
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = Colorspace.ITU709, ColorRange.MPEG
        frame = av.VideoFrame.from_ndarray(green, format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
with av.open(str(path)) as container:
    frame = next(container.decode(video=0))
    luma = np.asarray(frame.planes[0])[0]
    plain = frame.to_ndarray(format="rgb24")[0, 0].tolist()
    named = frame.reformat(format="rgb24", src_colorspace=frame.colorspace).to_ndarray()[0, 0].tolist()
print(f"{av.__version__}: colorspace {int(frame.colorspace)}, luma {luma}, green {plain}; with its colour space named {named}")
PYTHON
done 2>/dev/null >"$folder/seen"
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN' || { echo "This is no longer so." >&2; exit 1; }
16.1.0: colorspace 1, luma 173, green [19, 255, 8]; with its colour space named [19, 255, 8]
17.0.0: colorspace 1, luma 173, green [0, 254, 0]; with its colour space named [0, 254, 0]
SEEN
