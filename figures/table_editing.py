"""Two hundred edits of held-out scenes in 10 steps at w = 7.5, against their true answers.

Means and bootstrap 95 % intervals, best mean rank first. "psnr", "ssim" and "lpips_truth" are
against the VAE round trip of the true answer, and so is "background", PSNR where no thing is;
"edit_accuracy" and "kept" are shares of attributes that the scene reader finds as they should be.
"""

from erddci.experiments import editing_benchmark as edit_benchmark
from erddci.workbook.figures import rows_folder


def table(model, folder=None):
    """Summarise the benchmark's rows; what is missing of them is measured first."""
    folder = folder or rows_folder(model, "table_editing")
    return edit_benchmark.printed(edit_benchmark.profile(model, "table", folder))
