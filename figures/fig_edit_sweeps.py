"""Where ways to edit part: over guidance scales (10 steps) and over numbers of steps (w = 7.5).

Means of held-out edits with bootstrap 95 % intervals, against the VAE round trip of the truth.
"""

from erddci import edit_benchmark, plots
from erddci.record import rows_folder


def draw(model, folder=None):
    """Draw the benchmark's rows; what is missing of them is measured first."""
    folder = folder or rows_folder(model, "table_editing")
    sweeps = {
        by: edit_benchmark.summary(edit_benchmark.profile(model, profile, folder))
        for by, profile in (("guidance_scale", "scales"), ("steps", "steps"))
    }
    return plots.edit_sweeps(sweeps), sweeps
