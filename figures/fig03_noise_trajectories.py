"""Figure 3: predicted noise on different inference trajectories, growing lighter from T to 0."""

import pandas as pd

from erddci import experiments, plots
from erddci.scenes.examples import examples


def draw(model, scales=(1, 7.5), steps=50):
    """Follow the noise of the first example along three walks, at each guidance scale."""
    first = examples()[0]
    x, condition = model.encode(first.image), model.condition(first.source)
    frames = {w: experiments.noise_trajectories(model, x, condition, w, steps) for w in scales}
    table = pd.concat(frames, names=["guidance_scale"]).reset_index("guidance_scale")
    return plots.noise_trajectories(frames), {"walks": table}
