"""Reconstruction of held-out scenes in 10 steps: medians and bootstrap 95 % intervals.

PSNR, SSIM and LPIPS (AlexNet) are against the VAE round trip of each scene; "inf" is an image
that came back to the last bit. "images" counts the scenes, "nfe" the function evaluations of
inversion and sampling.  Seconds are not shown: they are of a machine that was shared.
"""

from erddci import METHODS
from erddci.experiments import RECONSTRUCTION, reconstruction_summary
from erddci.workbook.figures import rows_folder


def table(model, folder=None):
    """Summarise the benchmark's rows; what is missing of them is measured first."""
    rows = RECONSTRUCTION.run_profile(model, "table", folder or rows_folder(model))
    rows["nfe"] = rows["nfe_inversion"] + rows["nfe_sampling"]
    columns = ("psnr_vae", "ssim_vae", "lpips_vae", "latent_max", "nfe")
    found = reconstruction_summary(rows, columns)
    found.insert(1, "reversible", [METHODS[name].reversible for name in found["method"]])
    return found
