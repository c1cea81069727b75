"""Drawing: every function takes data that `erddci.experiments` measured and knows no model."""

from erddci.plots.editing import (
    alignment,
    attention_maps,
    edit_benchmark,
    edit_gallery,
    edit_sweeps,
    injection_sweep,
)
from erddci.plots.reconstruction import (
    GUIDED,
    cost_quality,
    guidance_sweep,
    reconstructions,
    steps_quality,
    throughput,
)
from erddci.plots.style import COLOURS, LEVELS, SCALES, image_grid, show
from erddci.plots.trajectories import (
    dual_chain,
    error_accumulation,
    noise_trajectories,
    noise_trajectories_3d,
    plane,
    step_size,
)

__all__ = [
    "COLOURS",
    "GUIDED",
    "LEVELS",
    "SCALES",
    "alignment",
    "attention_maps",
    "cost_quality",
    "dual_chain",
    "edit_benchmark",
    "edit_gallery",
    "edit_sweeps",
    "error_accumulation",
    "guidance_sweep",
    "injection_sweep",
    "noise_trajectories",
    "noise_trajectories_3d",
    "image_grid",
    "plane",
    "reconstructions",
    "show",
    "step_size",
    "steps_quality",
    "throughput",
]
