"""Where ways to edit part: over guidance scales, for 5, 10, 20 and 50 steps.

Means of 16 held-out edits, two of each kind, with bootstrap 95 % intervals, against the VAE round
trip of the truth.
"""

from erddci import plots
from erddci.experiments import EDITING, edit_summary
from erddci.workbook.figures import rows_folder


def draw(model, folder=None):
    """Draw the benchmark's rows; what is missing of them is measured first."""
    rows = EDITING.run_profile(model, "sweep", folder or rows_folder(model, "table_editing"))
    table = edit_summary(rows)
    return plots.edit_sweeps(table), {"means": table}
