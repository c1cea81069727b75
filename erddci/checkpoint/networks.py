"""Building a checkpoint's networks and its tokenizer, with nothing missing and nothing said."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from erddci.checkpoint.reading import Checkpoint

NETWORKS: dict[str, Any] = {
    "vae": AutoencoderKL,
    "unet": UNet2DConditionModel,
    "text_encoder": CLIPTextModel,
}


def load_network(part: str, checkpoint: Checkpoint, dtype: torch.dtype) -> Any:  # noqa: ANN401
    """Build a network of a checkpoint, "vae", "unet" or "text_encoder", with all of its weights.

    Raises:
        ValueError: the weights do not fit the network of its config, or are not finite.
    """
    # transformers writes a table of wrong shapes to its log alone, unless it is to pass over them.
    own = {"ignore_mismatched_sizes": True} if part == "text_encoder" else {}
    path = checkpoint.folder / part
    try:
        network, found = NETWORKS[part].from_pretrained(
            path,
            variant=checkpoint.variants[part],
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            dtype=dtype,
            **own,
        )
    except Exception as error:  # a config can be wrong in more ways than libraries check
        raise ValueError(
            f"{path}: expected weights that fit config.json, got an error ({_brief(error)}); "
            "fetch the folder again"
        ) from error
    _check_keys(found, path)
    _check_finite(network, path, dtype)
    return network


def _brief(error: Exception) -> str:
    text = str(error).split(". ")[0].strip()
    return text.splitlines()[0] if text else type(error).__name__


def _check_keys(found: dict[str, list[Any]], path: Path) -> None:
    for kind, expected in {
        "missing_keys": "all weights, got none as",
        "mismatched_keys": "weights of the shapes that config.json tells, got another as",
        "unexpected_keys": "no weights that config.json tells nothing of, got",
    }.items():
        names = sorted(each if isinstance(each, str) else each[0] for each in found[kind])
        names = [name for name in names if "position_ids" not in name]
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise ValueError(
                f"{path}: expected {expected} {names[0]}{more}; fetch the folder again"
            )


def _check_finite(network: nn.Module, path: Path, dtype: torch.dtype) -> None:
    for name, tensor in network.state_dict().items():
        # A sum is quicker than a look at every number, and finite only if all of them are.
        total = tensor.sum(dtype=torch.promote_types(tensor.dtype, torch.float32))
        if not total.isfinite() and not tensor.isfinite().all():
            raise ValueError(
                f"{path}: expected finite weights, got NaN or infinity in {name}, read as "
                f"{dtype}; fetch the folder again, or load it in torch.float32"
            )


def load_tokenizer(checkpoint: Checkpoint, text_encoder: CLIPTextModel) -> CLIPTokenizer:
    """Read a checkpoint's tokenizer, whose tokens the text encoder has to know.

    Raises:
        ValueError: damaged files, or tokens of another text encoder.
    """
    path = checkpoint.folder / "tokenizer"
    try:
        tokenizer = CLIPTokenizer.from_pretrained(path, local_files_only=True)
        largest = max(tokenizer.get_vocab().values(), default=0)
    except Exception as error:  # the tokenizers library raises plain exceptions
        raise ValueError(
            f"{path}: expected the files of a CLIPTokenizer, got damaged ones ({_brief(error)}); "
            "fetch them again"
        ) from error
    known = text_encoder.get_input_embeddings().num_embeddings
    if len(tokenizer) < 10 or largest >= known:  # transformers makes up an empty one
        raise ValueError(
            f"{path}: expected tokens of the text encoder, which knows {known}, got "
            f"{len(tokenizer)}; take both from one checkpoint"
        )
    tokenizer.model_max_length = min(tokenizer.model_max_length, checkpoint.length)
    return tokenizer


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the libraries while they load: what matters is checked, and slow bars still show.

    What the user had set is back afterwards.
    """

    def late(bar: Callable, args: tuple, options: dict) -> object:
        return bar(*args, **{"delay": 1, "leave": False, **options})

    loggers = (diffusers_logging, transformers_logging)
    levels = [each.get_verbosity() for each in loggers]
    hook = transformers_logging.set_tqdm_hook(late)
    try:
        for each in loggers:
            each.set_verbosity_error()
        yield
    finally:
        transformers_logging.set_tqdm_hook(hook)
        for each, level in zip(loggers, levels, strict=True):
            each.set_verbosity(level)
