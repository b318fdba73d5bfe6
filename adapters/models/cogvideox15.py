"""cogvideox1.5: CogVideoX1.5-5B (arXiv 2408.06072), v-prediction under DDIM with trailing steps, as its checkpoint says.

Its card recommends 16 n + 1 frames. The VAE gives 4 L frames for an even number L of latent frames and 4 L - 3 for an odd
one, so that only 8 n + 1 frames come out as asked for.
"""

from genrun.adapters.adapter import Adapter

ADAPTER = Adapter(
    name="cogvideox1.5",
    title="CogVideoX1.5 5B, text to video: 1360x768, 81 frames at 16 a second",
    kind="video",
    pipeline="CogVideoXPipeline",
    checkpoint="zai-org/CogVideoX1.5-5B",
    fps=16,
    defaults={
        "steps": 50,
        "guidance_scale": 6.0,
        "height": 768,
        "width": 1360,
        "num_frames": 81,
    },
    multiples=16,
    frames=(8, 1),
    billions={"transformer": 5.6, "text_encoder": 4.8},
)
