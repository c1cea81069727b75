"""Two hundred edits of held-out scenes in 10 steps at w = 7.5, against their true answers.

Means and bootstrap 95 % intervals, best mean rank first. "psnr", "ssim" and "lpips_truth" are
against the VAE round trip of the true answer, and so is "background", PSNR where no object is;
"edit_accuracy" and "preservation" are the shares of the attributes that should change, and of all
others, that the attribute classifier finds as they should be.
"""

from erddci.experiments import EDITING, edit_table
from erddci.workbook.figures import rows_folder


def table(model, folder=None):
    """Summarise the benchmark's rows; what is missing of them is measured first."""
    folder = folder or rows_folder(model, "table_editing")
    return edit_table(EDITING.run_profile(model, "table", folder))
