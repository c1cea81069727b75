"""Drawing: every function takes data that `erddci.experiments` measured.

How a method looks is looked up in `erddci.METHODS`; what is not there is drawn in grey.
"""

from erddci.plots.editing import (
    alignment,
    attention_maps,
    edit_benchmark,
    edit_gallery,
    edit_sweeps,
    injection_sweep,
)
from erddci.plots.looks import Look, edit_looks, look, setting_looks
from erddci.plots.reconstruction import (
    cost_quality,
    guidance_sweep,
    reconstructions,
    steps_quality,
    throughput,
)
from erddci.plots.style import LEVELS, SCALES, SERIES, image_grid, png, show
from erddci.plots.trajectories import (
    dual_chain,
    error_accumulation,
    noise_trajectories,
    noise_trajectories_3d,
    plane,
    step_size,
)

__all__ = [
    "LEVELS",
    "SCALES",
    "SERIES",
    "Look",
    "alignment",
    "attention_maps",
    "cost_quality",
    "dual_chain",
    "edit_benchmark",
    "edit_gallery",
    "edit_looks",
    "edit_sweeps",
    "error_accumulation",
    "guidance_sweep",
    "injection_sweep",
    "look",
    "noise_trajectories",
    "noise_trajectories_3d",
    "image_grid",
    "plane",
    "png",
    "reconstructions",
    "setting_looks",
    "show",
    "step_size",
    "steps_quality",
    "throughput",
]
