"""The dual chain under dynamic guidance by attention control, on the same two hundred edits.

Means and bootstrap 95 % intervals, best mean rank first, as in `table_editing`; 10 steps, w = 7.5.
"""

from erddci.experiments import EDITING, edit_table
from erddci.workbook.figures import rows_folder


def table(model, folder=None):
    """Summarise the benchmark's rows; what is missing of them is measured first."""
    folder = folder or rows_folder(model, "table_editing")
    return edit_table(EDITING.run_profile(model, "controls", folder))
