"""Reading a checkpoint's scheduler as DDIM on the betas that it was trained with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers

from erddci.checkpoint.files import is_count, is_number, read_json, refuse

# Schedulers that sample what DDIM samples, on the same betas.
FAMILIES = {each.name for each in KarrasDiffusionSchedulers} - {"EDMEulerScheduler"}
# What keeps the others from it, by a part of their names.
OTHER_FAMILIES = {
    "Flow": "flow matching is not supported yet",
    "EDM": "EDM's noise levels are not supported yet",
    "LCM": "a network distilled to few steps has no path to invert: load what it was made from",
    "TCD": "a network distilled to few steps has no path to invert: load what it was made from",
}
# Ways to choose noise levels other than by timesteps.
OTHER_LEVELS = (
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "use_lu_lambdas",
)
CHOICES = {
    "beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2"),
    "prediction_type": ("epsilon", "v_prediction", "sample"),
    "timestep_spacing": ("leading", "trailing", "linspace"),
}
WRITE = "write what the model was trained with"


def read_scheduler(folder: Path, changes: list[str]) -> DDIMScheduler:
    """Read the scheduler of a checkpoint as DDIM with its betas, timesteps and prediction type.

    Args:
        folder: of the checkpoint.
        changes: takes a sentence for every setting that has no effect, or another one, here.

    Raises:
        ValueError: another kind of scheduler, or settings that make no schedule.
    """
    path = folder / "scheduler" / "scheduler_config.json"
    config = read_json(path)
    index = read_json(folder / "model_index.json").get("scheduler")
    family = index[-1] if isinstance(index, list) and index else None
    for name in (family, config.get("_class_name", family)):
        _check_family(str(name), config, path)
    settings = _with_defaults(config, str(family))
    _check_settings(settings, path)
    scheduler = DDIMScheduler(**settings, clip_sample=False)
    _check_alphas(scheduler, path)
    _note_zero_snr(scheduler, path, changes)
    _note_changes(config, changes)
    return scheduler


def _check_family(name: str, config: dict[str, Any], path: Path) -> None:
    expected = "a scheduler on betas (DDIM, DDPM, PNDM, Euler, DPM-Solver, UniPC, …)"
    if name not in FAMILIES:
        why = [words for part, words in OTHER_FAMILIES.items() if part in name]
        raise refuse(path, expected, name, why[0] if why else WRITE)
    flows = config.get("use_flow_sigmas") or config.get("prediction_type") == "flow_prediction"
    if flows:
        raise refuse(path, expected, f"{name} set to flow matching", OTHER_FAMILIES["Flow"])
    if "sigma_data" in config or config.get("timestep_type") == "continuous":
        raise refuse(path, expected, f"{name} on continuous noise levels", OTHER_FAMILIES["EDM"])


def _with_defaults(config: dict[str, Any], family: str) -> dict[str, Any]:
    # Betas have no defaults: those of the libraries' classes fit no Stable Diffusion.
    short = family in ("DDIMScheduler", "DDPMScheduler", "PNDMScheduler")
    defaults = {
        "beta_start": None,
        "beta_end": None,
        "beta_schedule": None,
        "trained_betas": None,
        "num_train_timesteps": 1000,
        "prediction_type": "epsilon",
        "rescale_betas_zero_snr": False,
        "set_alpha_to_one": family != "PNDMScheduler",
        "steps_offset": 0,
        "timestep_spacing": "leading" if short else "linspace",
    }
    return {name: config.get(name, default) for name, default in defaults.items()}


def _check_settings(settings: dict[str, Any], path: Path) -> None:
    count, betas = settings["num_train_timesteps"], settings["trained_betas"]
    if not is_count(count):
        raise refuse(path, "a whole number as num_train_timesteps", _brief(count), WRITE)
    if betas is None:
        for name in ("beta_start", "beta_end"):
            if not is_number(settings[name]) or not 0 < settings[name] < 1:
                found = _brief(settings[name])
                raise refuse(path, f"a number between 0 and 1 as {name}", found, WRITE)
    elif not (isinstance(betas, list) and len(betas) == count and all(map(is_number, betas))):
        raise refuse(path, f"{count} numbers as trained_betas", _brief(betas), WRITE)
    offset = settings["steps_offset"]
    if not (is_count(offset) or offset == 0) or offset >= count:
        raise refuse(path, f"a steps_offset from 0 to {count - 1}", _brief(offset), WRITE)
    for name, values in CHOICES.items():
        if settings[name] not in values and not (name == "beta_schedule" and betas):
            raise refuse(path, f"{name} {' or '.join(values)}", _brief(settings[name]), WRITE)
    for name in ("rescale_betas_zero_snr", "set_alpha_to_one"):
        if not isinstance(settings[name], bool):
            raise refuse(path, f"true or false as {name}", _brief(settings[name]), WRITE)


def _check_alphas(scheduler: DDIMScheduler, path: Path) -> None:
    alphas = scheduler.alphas_cumprod
    inner = alphas[:-1]
    falls = bool((alphas.diff() <= 0).all() and (inner > 0).all() and alphas[0] <= 1)
    if not (falls and torch.isfinite(alphas).all() and alphas[-1] >= 0):
        found = f"alphas_cumprod from {alphas[0]:.3g} to {alphas[-1]:.3g}"
        raise refuse(path, "betas that lead from an image to noise", found, WRITE)
    if alphas[-1] == 0 and scheduler.config["prediction_type"] == "epsilon":
        raise refuse(
            path,
            "v_prediction or sample with zero terminal SNR",
            "epsilon",
            "noise predicted from noise says nothing of the image: set rescale_betas_zero_snr "
            "to false, or the prediction type to that of the network",
        )


def _note_zero_snr(scheduler: DDIMScheduler, path: Path, changes: list[str]) -> None:
    if scheduler.alphas_cumprod[-1] > 0:
        return
    if scheduler.config["timestep_spacing"] == "leading":
        changes.append(
            "its last timestep has zero SNR, and timestep_spacing 'leading' stops before it: "
            f"set 'trailing' (or 'linspace') in {path}"
        )
    else:
        changes.append("its last alpha of 0 is taken as 2⁻²⁴, as diffusers' Euler scheduler does")


def _note_changes(config: dict[str, Any], changes: list[str]) -> None:
    for name in OTHER_LEVELS:
        if config.get(name):
            changes.append(f"{name} of its scheduler has no effect: timesteps are DDIM's")
    for name in ("clip_sample", "thresholding"):
        if config.get(name):
            changes.append(f"{name} of its scheduler has no effect: latents are never clipped")


def _brief(value: object) -> str:
    text = repr(value) if not isinstance(value, list) else f"a list of {len(value)}"
    return text if len(text) < 60 else f"{text[:57]}…"
