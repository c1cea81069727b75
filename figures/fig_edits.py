"""Edits by several ways at w = 7.5 in 20 steps, beside the true answer.

PSNR in dB to the VAE round trip of the true answer; the input's own shows what doing nothing
scores. P2P is prompt-to-prompt refinement with 40 % of the walk for cross-attention and 20 % for
self-attention. The dual chain has our dynamic control: fading guidance, both ways.
"""

from erddci import DEFAULT_SCHEDULE, experiments, plots
from erddci.scenes.examples import examples

WAYS = {
    "DDIM + P2P": ("ddim", "refine", None),
    "null-text + P2P": ("null-text", "refine", None),
    "direct + P2P": ("direct", "refine", None),
    "dual chain": ("dual-chain", "none", DEFAULT_SCHEDULE),
    "dual chain + P2P": ("dual-chain", "refine", DEFAULT_SCHEDULE),
}


def draw(model, ways=WAYS, guidance_scale=7.5, steps=20):
    """Edit all examples in all ways, and measure them against the true answers."""
    scenes = examples()
    images, table = experiments.edit_gallery(model, scenes, ways, guidance_scale, steps)
    lines = {
        way: [f"{v:.1f} dB" for v in rows["psnr_truth"]] for way, rows in table.groupby("setting")
    }
    return plots.edit_gallery(images, [s.name for s in scenes], lines), {"measures": table}
