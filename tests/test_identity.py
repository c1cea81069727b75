"""What a model is: equal wherever it lies, other after any change, and the change is named."""

import json
import re
import shutil
import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

import erddci
from erddci.identity import Identity, fingerprint

PARTS = ("unet", "text_encoder", "vae")


@pytest.fixture
def copied(tiny_folder, tmp_path):
    return shutil.copytree(tiny_folder, tmp_path / "copied")


@pytest.fixture
def model(tiny_folder):
    return erddci.load(tiny_folder, device="cpu")


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_equal_models_at_two_places_are_equal(tiny, copied):
    other = erddci.load(copied, device="cpu")
    assert other.identity == tiny.identity and hash(other.identity) == hash(tiny.identity)
    assert other.identity.difference(tiny.identity) is None
    assert other.name.split("@")[1] == tiny.name.split("@")[1] == tiny.identity.short
    assert len(tiny.identity.short) == 8


@pytest.mark.parametrize("part", PARTS)
def test_every_tensor_of_every_network_counts(model, tiny, part):
    before = getattr(tiny.identity, part)
    for name, tensor in getattr(model, part).state_dict().items():
        kept = tensor.clone()
        tensor.flatten()[-1] += 0.5
        assert getattr(model.identity, part) != before, name
        tensor.copy_(kept)
    assert model.identity == tiny.identity


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("part", PARTS)
def test_weights_changed_in_place_are_another_model(model, tiny, part, device):
    # On CUDA a model looks at its fingerprints again only if `stamp` tells it to.
    model.device = torch.device(device)
    assert model.identity == tiny.identity
    name = model.name
    # What fusing a LoRA does; it raises no version counter of the tensor.
    weight = next(p for p in getattr(model, part).parameters() if p.ndim == 2)
    weight.data += 1e-3 * torch.outer(torch.ones(weight.shape[0]), torch.ones(weight.shape[1]))
    assert model.name != name
    assert model.identity.difference(tiny.identity) == f"another {part}"


def test_fingerprints_are_computed_again_only_after_a_change(model, monkeypatch):
    first = model.identity
    monkeypatch.setattr("erddci.model.fingerprint", lambda network: "again")
    assert model.identity == first
    model.unet.conv_in.weight.data += 1e-3  # raises no counter, as when PEFT fuses a LoRA
    assert model.identity.unet == "again" and model.identity.vae == first.vae
    with torch.no_grad():
        model.vae.decoder.conv_in.bias[1] += 1e-3
    assert model.identity.vae == "again"


def test_two_exchanged_weights_are_another_network(model):
    weight, before = model.unet.conv_in.weight, fingerprint(model.unet)
    with torch.no_grad():
        weight.copy_(weight.flip(0))
    assert fingerprint(model.unet) != before


def test_an_adapter_counts_once_it_is_loaded_and_so_does_its_scale(model, tiny):
    unet, width, weights = model.unet, model.unet.config["cross_attention_dim"], {}
    crossing = [name for name in unet.attn_processors if ".attn2." in name]
    for number, name in enumerate(crossing):
        inner = unet.get_submodule(name.removesuffix(".processor")).inner_dim
        for kind in ("k", "v"):
            weights[f"{2 * number + 1}.to_{kind}_ip.weight"] = torch.ones(inner, width)
    project = {
        "proj.weight": torch.ones(4 * width, 8),
        "proj.bias": torch.zeros(4 * width),
        "norm.weight": torch.ones(width),
        "norm.bias": torch.zeros(width),
    }
    unet._load_ip_adapter_weights([{"image_proj": project, "ip_adapter": weights}])
    loaded = model.identity
    assert loaded.difference(tiny.identity) == "another unet"
    unet.get_submodule(crossing[0]).scale = [0.25]
    assert model.identity.difference(loaded) == "another unet"


def test_a_compiled_network_is_the_same(model, tiny):
    model.unet = torch.compile(model.unet, backend="eager")
    assert model.identity == tiny.identity


def test_memory_layout_plays_no_part(model, tiny):
    model.unet.to(memory_format=torch.channels_last)
    assert model.identity == tiny.identity


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("timestep_spacing", "trailing", "timestep_spacing 'trailing' and not 'leading'"),
        ("prediction_type", "v_prediction", "prediction_type 'v_prediction' and not 'epsilon'"),
        ("beta_end", 0.013, "beta_end 0.013 and not 0.012"),
        ("steps_offset", 0, "steps_offset 0 and not 1"),
        ("set_alpha_to_one", True, "set_alpha_to_one True and not False"),
        ("trained_betas", [0.01] * 1000, "trained_betas '.{32}' and not None"),
    ],
)
def test_the_difference_of_two_schedulers_is_named(copied, tiny, setting, value, words):
    edit(copied / "scheduler/scheduler_config.json", **{setting: value})
    other = erddci.load(copied, device="cpu")
    assert re.fullmatch(words, other.identity.difference(tiny.identity))
    assert other.identity.short != tiny.identity.short


def test_two_lists_of_betas_are_two_schedulers(copied):
    path, found = copied / "scheduler/scheduler_config.json", []
    for last in (0.01, 0.011):
        edit(path, trained_betas=[0.01] * 999 + [last])
        found.append(erddci.load(copied, device="cpu").identity)
    assert found[0].difference(found[1]).startswith("trained_betas")


@pytest.mark.parametrize(
    ("part", "setting"), [("unet", {"norm_eps": 1e-3}), ("vae", {"scaling_factor": 0.2})]
)
def test_settings_of_a_network_count(copied, tiny, part, setting):
    edit(copied / part / "config.json", **setting)
    other = erddci.load(copied, device="cpu")
    assert other.identity.difference(tiny.identity) == f"another {part}"


def test_the_version_that_wrote_a_checkpoint_plays_no_part(copied, tiny):
    for part in ("unet", "vae", "scheduler"):
        name = "scheduler_config.json" if part == "scheduler" else "config.json"
        edit(copied / part / name, _diffusers_version="0.9.0", _name_or_path="elsewhere")
    edit(copied / "text_encoder/config.json", transformers_version="4.30.0", dtype="float16")
    assert erddci.load(copied, device="cpu").identity == tiny.identity


def test_words_added_to_the_tokenizer_are_another_one(model, tiny):
    model.condition("a red cube")  # pads, which is remembered in the tokenizer
    assert model.identity == tiny.identity
    model.tokenizer.add_tokens(["<my-toy>"])
    assert model.identity.difference(tiny.identity) == "another tokenizer"


def test_only_the_dtype_differs_where_all_values_are_the_same(tiny, tiny64, copied):
    words = "dtype 'float64' and not 'float32'"
    assert tiny64.identity.difference(tiny.identity) == words
    assert tiny64.name == tiny.name
    for path in copied.glob("*/*.safetensors"):
        halves = {name: tensor.half() for name, tensor in load_file(path).items()}
        save_file(halves, path, metadata={"format": "pt"})
    half, single = (
        erddci.load(copied, device="cpu", dtype=d) for d in (torch.float16, torch.float32)
    )
    assert half.identity.difference(single.identity) == "dtype 'float16' and not 'float32'"
    assert "another unet" in half.identity.difference(tiny.identity)


def test_values_that_only_float64_holds_count(tiny_folder, tiny64):
    model = erddci.load(tiny_folder, device="cpu", dtype=torch.float64)
    model.unet.conv_in.weight.data += 1e-12
    assert model.identity.difference(tiny64.identity) == "another unet"


def test_an_identity_is_kept_as_one_line_of_json(tiny):
    text = tiny.identity.to_json()
    assert "\n" not in text and Identity.from_json(text) == tiny.identity
    assert Identity.from_json(text).short == tiny.identity.short


@pytest.mark.parametrize("text", ["", "[]", "3", "{}", '{"unet": "a"}', '{"more": 1}'])
def test_other_json_is_refused(text):
    with pytest.raises(ValueError, match="expected the identity of a model as `to_json` writes"):
        Identity.from_json(text)


def test_everything_that_differs_is_named(tiny):
    other = replace(tiny.identity, unet="0", vae="1", dtype="float16")
    words = "another unet, another vae, dtype 'float32' and not 'float16'"
    assert tiny.identity.difference(other) == words


def test_the_identity_of_the_embedded_model_is_quick(scenes):
    spent = []
    for _ in range(5):
        start = time.perf_counter()
        assert scenes.identity.dtype == "float32"
        spent.append(time.perf_counter() - start)
    assert min(spent) < 0.1
