"""What a model is, whatever the place it was loaded from: its weights and its settings."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import xxhash
from diffusers import DDIMScheduler
from torch import Tensor, nn
from transformers import CLIPTokenizer

# What of a scheduler's configuration decides its noise levels; clipping is never done here.
SCHEDULER = (
    "beta_end",
    "beta_schedule",
    "beta_start",
    "num_train_timesteps",
    "prediction_type",
    "rescale_betas_zero_snr",
    "set_alpha_to_one",
    "steps_offset",
    "timestep_spacing",
    "trained_betas",
)
# What adapters (PEFT's LoRA, diffusers' IP-Adapter) keep beside their weights.
ADAPTERS = ("active_adapters", "disable_adapters", "merged_adapters", "scale", "scaling")
# What configs hold that decides nothing: where and by which version they were written.
OUTSIDE = ("architectures", "dtype", "torch_dtype", "transformers_version")


@dataclass(frozen=True)
class Identity:
    """All that decides what a model computes: two equal ones compute the same.

    Args:
        unet, text_encoder, vae: fingerprints of the weights that are in the networks, adapters
            included, and of the settings they are used with.  Weights count by value: float16
            weights and their exact copies in float32 have one fingerprint.
        tokenizer: fingerprint of its vocabulary and rules.
        scheduler: the settings that decide the noise levels, and the prediction type.
        dtype: of the networks, such as "float32".
    """

    unet: str
    text_encoder: str
    vae: str
    tokenizer: str
    scheduler: dict[str, Any] = field(hash=False)
    dtype: str

    @property
    def short(self) -> str:
        """Eight hexadecimal digits for labels, of everything but the dtype."""
        parts = asdict(self) | {"dtype": None}
        return xxhash.xxh3_64_hexdigest(json.dumps(parts, sort_keys=True).encode())[:8]

    def difference(self, other: Identity) -> str | None:
        """Name what differs, this model's side first, or None if the two are equal."""
        names = ("unet", "text_encoder", "vae", "tokenizer")
        found = [f"another {n}" for n in names if getattr(self, n) != getattr(other, n)]
        mine = {**self.scheduler, "dtype": self.dtype}
        theirs = {**other.scheduler, "dtype": other.dtype}
        for name in sorted({*mine, *theirs}):
            one, two = mine.get(name), theirs.get(name)
            if one != two:
                found.append(f"{name} {one!r} and not {two!r}")
        return ", ".join(found) or None

    def to_json(self) -> str:
        """One line of JSON, keys in order, that `from_json` reads."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Identity:
        """Read what `to_json` wrote.

        Raises:
            ValueError: the text holds no identity.
        """
        try:
            return cls(**json.loads(text))
        except (TypeError, ValueError) as error:
            raise ValueError("expected the identity of a model as `to_json` writes it") from error


def scheduler_settings(scheduler: DDIMScheduler) -> dict[str, Any]:
    """The settings of a scheduler that decide its noise levels, a list of betas as its hash."""
    settings = {name: scheduler.config[name] for name in SCHEDULER}
    if settings["trained_betas"] is not None:
        betas = json.dumps([float(beta) for beta in settings["trained_betas"]])
        settings["trained_betas"] = xxhash.xxh3_128_hexdigest(betas.encode())
    return settings


def fingerprint(network: nn.Module) -> str:
    """Hash a network's settings and all tensors that it holds now, 32 hexadecimal digits.

    Weights changed in place or by fusing an adapter are seen, for nothing is remembered.  It
    takes a second for 4 GB on a CPU.
    """
    network = getattr(network, "_orig_mod", network)  # as torch.compile wraps it
    digest = xxhash.xxh3_128(settings(network).encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(_canonical(tensor).numpy())  # type: ignore[arg-type]
    return digest.hexdigest()


def stamp(network: nn.Module) -> tuple[str, list[tuple]]:
    """What tells in milliseconds whether a network's fingerprint may have changed.

    Counters tell what is changed in place, three values of each tensor what goes round them, as
    PEFT does when it fuses a LoRA.  On a GPU `torch.hash_tensor`, which adds up all bits there,
    is quicker than to fetch values.
    """
    network = getattr(network, "_orig_mod", network)
    tensors = network.state_dict(keep_vars=True).values()
    return settings(network), [_mark(tensor) for tensor in tensors]


def _mark(tensor: Tensor) -> tuple:
    if tensor.is_cuda:
        return (int(torch.hash_tensor(tensor).view(torch.int64)),)
    flat = tensor.detach().reshape(-1)
    values = flat[:: max(1, len(flat) // 2)][:3].tolist()
    return tensor.data_ptr(), tensor._version, *values


def settings(network: nn.Module) -> str:
    """A network's configuration and the state of its adapters, as JSON."""
    config: Any = network.config
    known = dict(config.to_diff_dict() if hasattr(config, "to_diff_dict") else config)
    # Switches that are off are left out: later versions of a library add more of them.
    known = {
        name: value
        for name, value in known.items()
        if not name.startswith("_") and name not in OUTSIDE and value not in (None, False)
    }
    for path, module in network.named_modules():
        # A number called `scale` is an attention layer's own; an IP-Adapter has a list of them.
        state = {name: getattr(module, name, None) for name in ADAPTERS}
        known |= {f"{path}.{k}": v for k, v in state.items() if isinstance(v, dict | list)}
        if state["disable_adapters"] is True:
            known[f"{path}.disable_adapters"] = True
    return json.dumps(known, sort_keys=True, default=str)


def tokenizer_fingerprint(tokenizer: CLIPTokenizer) -> str:
    """Hash a tokenizer's vocabulary and rules; how it last padded does not count."""
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    rules = {name: rules[name] for name in sorted(rules) if name not in ("padding", "truncation")}
    rules["length"] = tokenizer.model_max_length
    return xxhash.xxh3_128_hexdigest(json.dumps(rules, sort_keys=True).encode())


def _canonical(tensor: Tensor) -> Tensor:
    # Values and not bytes are compared, so as float32, or float64 where that would round.
    tensor = tensor.cpu().contiguous()
    if not tensor.is_floating_point():
        return tensor
    single = tensor.float()
    exact = tensor.dtype != torch.float64 or torch.equal(single.double(), tensor)
    return single if exact else tensor
