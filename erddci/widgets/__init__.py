"""Interactive views: explorers and the editing studio."""

from erddci.widgets.explorers import (
    reconstruction_explorer,
    reconstruction_view,
    trajectory_explorer,
    trajectory_view,
)
from erddci.widgets.studio import editing_studio

__all__ = [
    "editing_studio",
    "reconstruction_explorer",
    "reconstruction_view",
    "trajectory_explorer",
    "trajectory_view",
]
