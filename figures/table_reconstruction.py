"""Reconstruction of held-out scenes in 10 steps: medians and bootstrap 95 % intervals.

PSNR, SSIM and LPIPS (AlexNet) are against the VAE round trip of each scene; "inf" is a picture
that came back to the last bit. "pictures" counts the scenes, "rows" the
network rows both ways.  Seconds are not shown: they are of a machine that was shared.
"""

from erddci import METHODS
from erddci.experiments import reconstruction_benchmark as benchmark
from erddci.workbook.figures import rows_folder


def table(model, folder=None):
    """Summarise the benchmark's rows; what is missing of them is measured first."""
    rows = benchmark.profile(model, "table", folder or rows_folder(model))
    rows["rows"] = rows["rows up"] + rows["rows back"]
    columns = ("psnr vae", "ssim vae", "lpips vae", "latent max", "rows")
    found = benchmark.summary(rows, columns)
    found.insert(1, "reversible", [METHODS[name].reversible for name in found["method"]])
    return found
