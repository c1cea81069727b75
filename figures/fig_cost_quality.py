"""Quality against cost: PSNR to the VAE round trip by function evaluations, one point a method.

Medians of a hundred held-out scenes in 10 steps, with bootstrap 95 % intervals; ∞ is an image that
comes back to the last bit.
"""

from erddci import plots
from erddci.experiments import RECONSTRUCTION, reconstruction_summary
from erddci.workbook.figures import rows_folder

SCALES = (1.0, 7.5)


def draw(model, folder=None):
    """Draw the benchmark's rows; what is missing of them is measured first."""
    rows = RECONSTRUCTION.run_profile(model, "table", folder or rows_folder(model))
    rows = rows[rows["guidance_scale"].isin(SCALES)].copy()
    rows["nfe"] = rows["nfe_inversion"] + rows["nfe_sampling"]
    table = reconstruction_summary(rows, ("psnr_vae", "nfe"))
    return plots.cost_quality(table), {"medians": table}
