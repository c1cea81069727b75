"""Figure 1: reconstruction by DDIM accumulates error, and guidance amplifies it."""

from erddci import experiments, plots
from erddci.scenes.examples import examples, held_out


def draw(model, images=16, steps=50):
    """Measure held-out scenes, and decode estimates of the first example."""
    scenes = held_out(images)
    errors = experiments.error_accumulation(model, scenes, steps=steps)
    floor = experiments.vae_floor(model, scenes)
    first, nodes = examples()[0], [steps, *range(steps - steps // 5, 0, -(steps // 5)), 1]
    strips = experiments.decoded_estimates(model, first.image, first.source, nodes=nodes)
    figure = plots.error_accumulation(errors, floor["psnr"].median(), strips, nodes)
    return figure, {"errors": errors, "floor": floor}
