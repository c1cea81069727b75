"""Two hundred edits of held-out scenes in 10 steps at w = 7.5, against their true answers.

Means and bootstrap 95 % intervals, best mean rank first. "psnr", "ssim" and "lpips truth" are
against the VAE round trip of the true answer, and so is "background", PSNR where no thing is;
"asked" and "kept" are shares of attributes that the scene reader finds as they should be.
"""

from erddci import edit_benchmark
from erddci.record import rows_folder


def table(model, folder=None):
    """Summarise the benchmark's rows; what is missing of them is measured first."""
    rows = edit_benchmark.profile(model, "table", folder or rows_folder(model, "table_editing"))
    found = edit_benchmark.summary(rows)
    # Seconds are of a machine that was shared.
    bare = ("mse", "ssim rendered", "lpips rend", "seconds")
    left_out = [name for name in found if name.startswith(bare)]
    return found.drop(columns=[*edit_benchmark.KEY, "failed", *left_out])
