"""The notebooks and figures of the repository: running, checking and saving them."""

from erddci.workbook.exercises import check, live
from erddci.workbook.notebooks import execute, notebooks

__all__ = ["check", "execute", "live", "notebooks"]
