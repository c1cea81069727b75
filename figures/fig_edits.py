"""Edits by several ways at w = 7.5 in 20 steps, beside the true answer.

PSNR in dB to the VAE round trip of the true answer; the input's own shows what doing nothing
scores. P2P is prompt-to-prompt refinement with the source's cross-attention for 40 % and its
self-attention for 20 % of the sampling. The dual chain has our dynamic guidance, both ways.
"""

from dataclasses import replace

from erddci import experiments, plots
from erddci.editing import EditConfig
from erddci.scenes.examples import examples

WAYS = {
    "DDIM + P2P": EditConfig("ddim", "refine", schedule=None),
    "null-text + P2P": EditConfig("null-text", "refine", schedule=None),
    "direct + P2P": EditConfig("direct", "refine", schedule=None),
    "dual chain": EditConfig("dual-chain"),
    "dual chain + P2P": EditConfig("dual-chain", "refine"),
}


def draw(model, ways=WAYS, guidance_scale=7.5, steps=20):
    """Edit all examples in all ways, and measure them against the true answers."""
    scenes = examples()
    ways = {
        name: replace(config, guidance_scale=guidance_scale, steps=steps)
        for name, config in ways.items()
    }
    images, table = experiments.edit_gallery(model, scenes, ways)
    lines = {
        way: [f"{v:.1f} dB" for v in rows["psnr_truth"]] for way, rows in table.groupby("setting")
    }
    return plots.edit_gallery(images, [s.name for s in scenes], lines), {"measures": table}
