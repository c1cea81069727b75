"""What the figures and tables measure: each function returns a tidy DataFrame.

A row is one image (or one node of one walk), a column one quantity.  "vae" in a column's name
means that the reference is the VAE round trip of the image, "input" that it is the image
itself; latent errors compare with the latents that the walk started from.
"""

from erddci.experiments.editing import (
    climbed,
    edit_gallery,
    edit_one,
    edited,
    injection_sweep,
    word_maps,
)
from erddci.experiments.guidance import FORMS, OTHERS, edit_sweep, guidance_sweep
from erddci.experiments.measures import (
    TRUTH,
    CaptionedImages,
    edit_measures,
    edit_rows,
    latent_errors,
    measures,
    vae_floor,
)
from erddci.experiments.order import network_rows, published_order, step_order
from erddci.experiments.reconstruction import (
    error_accumulation,
    reconstruct_one,
    reconstruction,
    reconstructions,
    way_back,
)
from erddci.experiments.trajectories import noise_trajectories, step_size

__all__ = [
    "FORMS",
    "OTHERS",
    "TRUTH",
    "CaptionedImages",
    "climbed",
    "edit_gallery",
    "edit_measures",
    "edit_one",
    "edit_rows",
    "edit_sweep",
    "edited",
    "error_accumulation",
    "guidance_sweep",
    "injection_sweep",
    "latent_errors",
    "measures",
    "network_rows",
    "noise_trajectories",
    "published_order",
    "reconstruct_one",
    "reconstruction",
    "reconstructions",
    "step_order",
    "step_size",
    "vae_floor",
    "way_back",
    "word_maps",
]
