"""Figure 4: an image brought back by every method at w = 7.5 in 20 steps, and what differs."""

import pandas as pd

from erddci import experiments, plots
from erddci.metrics import compare
from erddci.scenes.examples import examples


def draw(model, guidance_scale=7.5, steps=20):
    """Reconstruct the first example by every method, inverted as its paper has it."""
    first = examples()[0]
    truth, images = experiments.reconstructions(
        model, first.image, first.source, guidance_scale=guidance_scale, steps=steps
    )
    measures = {name: compare(truth, image) for name, image in images.items()}
    lines = {name: f"{m['psnr']:.1f} dB, LPIPS {m['lpips']:.4f}" for name, m in measures.items()}
    table = pd.DataFrame(measures).T.rename_axis("method").reset_index()
    return plots.reconstructions(truth, images, lines), {"measures": table}
