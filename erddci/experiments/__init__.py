"""What the figures and tables measure: each function returns a tidy DataFrame.

A row is one image (or one node of a trajectory), a column one quantity.  "vae" in a column's name
means that the reference is the VAE round trip of the image, "input" that it is the image itself;
latent errors compare with the latents that the inversion started from.
"""

from erddci.experiments.editing import (
    EDITING,
    edit_by_kind,
    edit_gain,
    edit_images,
    edit_one,
    edit_ranks,
    edit_summary,
    edit_table,
)
from erddci.experiments.gallery import (
    edit_gallery,
    edit_scenes,
    injection_sweep,
    invert_scenes,
)
from erddci.experiments.guidance import BASELINES, FORMS, SETTINGS, edit_sweep, guidance_sweep
from erddci.experiments.measures import (
    TRUTH,
    CaptionedImages,
    edit_measures,
    edit_rows,
    image_measures,
    latent_errors,
    vae_floor,
)
from erddci.experiments.order import nfe_by_order, published_order, step_order
from erddci.experiments.reconstruction import (
    RECONSTRUCTION,
    ReconstructionConfig,
    reconstruct_images,
    reconstruct_one,
    reconstruction_cases,
    reconstruction_summary,
    reconstruction_sweep,
    reconstructions,
)
from erddci.experiments.speed import edit_speed, reconstruction_speed, throughput
from erddci.experiments.sweep import Benchmark, Profile, processes, select
from erddci.experiments.trajectories import (
    decoded_estimates,
    error_accumulation,
    noise_trajectories,
    step_size,
)
from erddci.experiments.ways import (
    CEILING,
    CONTROLLED,
    EDITORS,
    FEW,
    SCHEDULES,
    WAYS,
    Way,
    edit_cases,
    edit_config,
)

__all__ = [
    "BASELINES",
    "Benchmark",
    "CEILING",
    "CONTROLLED",
    "CaptionedImages",
    "EDITING",
    "EDITORS",
    "FEW",
    "FORMS",
    "Profile",
    "RECONSTRUCTION",
    "ReconstructionConfig",
    "SCHEDULES",
    "SETTINGS",
    "TRUTH",
    "WAYS",
    "Way",
    "decoded_estimates",
    "edit_by_kind",
    "edit_cases",
    "edit_config",
    "edit_gain",
    "edit_gallery",
    "edit_images",
    "edit_measures",
    "edit_one",
    "edit_ranks",
    "edit_rows",
    "edit_scenes",
    "edit_speed",
    "edit_summary",
    "edit_sweep",
    "edit_table",
    "error_accumulation",
    "guidance_sweep",
    "image_measures",
    "injection_sweep",
    "invert_scenes",
    "latent_errors",
    "nfe_by_order",
    "noise_trajectories",
    "processes",
    "published_order",
    "reconstruct_images",
    "reconstruct_one",
    "reconstruction_cases",
    "reconstruction_speed",
    "reconstruction_summary",
    "reconstruction_sweep",
    "reconstructions",
    "select",
    "step_order",
    "step_size",
    "throughput",
    "vae_floor",
]
