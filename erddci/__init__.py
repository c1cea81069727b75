"""ERDDCI: exact reversible diffusion via dual-chain inversion, to see, test and trust.

model = erddci.load()
example = erddci.examples()[0]
source = model.condition(example.source)
path = erddci.invert(model, model.encode(example.image), source, method="dual-chain")
back = erddci.reconstruct(model, path)
path.latent_error(back).max()
edited = erddci.edit(model, path, model.condition(example.target, guidance_scale=3))
"""

from erddci.editing import edit
from erddci.grid import Grid, ddim_step
from erddci.guidance import DEFAULT_SCHEDULE, Condition, GuidanceSchedule
from erddci.inversion import METHODS, invert, reconstruct
from erddci.model import StableDiffusion, load
from erddci.scenes.examples import examples, photographs
from erddci.trajectory import Trajectory

__all__ = [
    "DEFAULT_SCHEDULE",
    "METHODS",
    "Condition",
    "GuidanceSchedule",
    "Grid",
    "StableDiffusion",
    "Trajectory",
    "edit",
    "examples",
    "invert",
    "load",
    "ddim_step",
    "photographs",
    "reconstruct",
]
