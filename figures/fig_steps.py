"""What more steps are worth: PSNR to the VAE round trip by number of steps.

Medians of ten held-out scenes with bootstrap 95 % intervals, for methods that neither iterate nor
optimise in every step; ∞ is an image that comes back to the last bit.
"""

from erddci import plots
from erddci.experiments import RECONSTRUCTION, reconstruction_summary
from erddci.workbook.figures import rows_folder


def draw(model, folder=None):
    """Draw the benchmark's rows; what is missing of them is measured first."""
    rows = RECONSTRUCTION.run_profile(model, "steps", folder or rows_folder(model))
    table = reconstruction_summary(rows, ("psnr_vae",))
    return plots.steps_quality(table), {"medians": table}
