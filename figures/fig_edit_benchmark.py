"""Edits against their true answers: accuracy, preservation, and cost, by kind of edit.

Means of the rows of `table_editing`, with bootstrap 95 % intervals.
"""

from erddci import plots
from erddci.experiments import CEILING, EDITING, edit_by_kind, edit_summary
from erddci.workbook.figures import rows_folder


def draw(model, folder=None):
    """Draw the benchmark's rows; what is missing of them is measured first."""
    rows = EDITING.run_profile(model, "table", folder or rows_folder(model, "table_editing"))
    table = edit_summary(rows)
    kinds = edit_by_kind(rows[rows["method"] != CEILING])
    kinds = kinds.loc[[way for way in table["setting"] if way in kinds.index]]
    return plots.edit_benchmark(table, kinds), {"means": table, "kinds": kinds.reset_index()}
