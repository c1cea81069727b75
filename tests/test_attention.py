"""Attention control: state that change nothing, controls by hand, maps, masks, what is refused."""

import re
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from diffusers import StableDiffusionPipeline, UNet2DConditionModel, UNet2DModel
from diffusers.models.attention_processor import Attention as AttentionLayer
from diffusers.models.attention_processor import (
    AttnProcessor,
    AttnProcessor2_0,
    SlicedAttnProcessor,
    XFormersAttnProcessor,
)
from torch import nn
from torch._dynamo.exc import BackendCompilerFailed

import erddci
from erddci import invert, reconstruct
from erddci.attention import Attention, AttentionSite, AttentionState, attention_control
from erddci.controls import (
    CONTROLS,
    AttentionStore,
    LocalBlend,
    MasaCtrl,
    PlugAndPlay,
    PromptToPrompt,
    make_control,
)
from erddci.editing import edit
from erddci.prompts import Alignment, align

SOURCE = "a small red matte cube on a teal floor"
TARGET = "a small blue matte cube on a teal floor"

DOWN = "down_blocks.1.attentions.0.transformer_blocks.0.attn{}.processor"
UP = DOWN.replace("down", "up")
CROSS = AttentionSite(UP.format(2), 0.5)
SELF = AttentionSite(UP.format(1), 0.5)


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def attention(seed, rows=1, keys=5):
    """Two heads of four queries of three numbers."""
    query, key = normal(rows, 2, 4, 3, seed=seed), normal(rows, 2, keys, 3, seed=seed + 50)
    return Attention(query, key, normal(rows, 2, keys, 3, seed=seed + 90), 3**-0.5)


def looking(*rows):
    """An attention of one sample and one head with these probabilities."""
    probs = torch.tensor(rows, dtype=torch.float64)
    keys = torch.eye(probs.shape[1], dtype=torch.float64)[None, None]
    return Attention(probs.log()[None, None], keys, normal(1, 1, len(keys[0, 0]), 2), 1.0)


def words(answers, keeps=None, weights=None):
    answers = torch.tensor(answers, dtype=torch.float64)[None]
    ones = torch.ones(answers.shape[:2], dtype=torch.float64)
    keeps, weights = (ones if e is None else torch.tensor([e]).double() for e in (keeps, weights))
    return Alignment(answers, keeps, weights)


class Call:
    """Calls of a UNet on fixed latents, numbered by row, with a prompt for each."""

    def __init__(self, model, shape=(8, 8)):
        self.model, self.shape = model, shape

    @torch.no_grad()
    def __call__(self, *prompts, rows=(0, 1, 2, 3)):
        x = torch.cat([normal(1, 4, *self.shape, seed=n) for n in rows[: len(prompts)]])
        text = self.model.condition(list(prompts)).text
        return self.model.unet(x.to(self.model.dtype), 500, text).sample


@pytest.fixture
def call(tiny64):
    return Call(tiny64)


def attach(call, control=None):
    return attention_control(call.model.unet, control or AttentionStore(), call.shape)


# Attention self_until.


def test_probabilities_are_those_of_torch():
    one = attention(0, rows=3)
    expected = F.scaled_dot_product_attention(one.query, one.key, one.value)
    torch.testing.assert_close(one.probs @ one.value, expected, rtol=0, atol=1e-14)
    expected = F.scaled_dot_product_attention(one.query, one.key, one.value, scale=0.2)
    scaled = Attention(one.query, one.key, one.value, 0.2)
    torch.testing.assert_close(scaled.probs @ one.value, expected, rtol=0, atol=1e-14)


def test_repeating_is_target_by_target():
    one = attention(0, rows=2)
    assert one.repeat(1) is one
    thrice = one.repeat(3)
    assert torch.equal(thrice.probs, torch.cat([one.probs] * 3)) and thrice.scale == one.scale
    assert torch.equal(thrice.value[2:4], one.value)


def test_sites_know_what_they_are():
    assert CROSS.cross and CROSS.decoder and not SELF.cross
    assert (
        not AttentionSite(DOWN.format(2)).decoder
        and not AttentionSite("mid_block.attentions.0").decoder
    )


# AttentionState: what they leave alone.


@pytest.mark.parametrize(("network", "limit"), [("tiny", 1e-6), ("tiny64", 1e-12)])
def test_storing_computes_what_diffusers_does(network, limit, request):
    call = Call(request.getfixturevalue(network))
    source, target = call(SOURCE, TARGET), call(TARGET, SOURCE)
    with attach(call) as state:
        assert torch.equal(call(SOURCE, TARGET), source)  # off
        with state.set("source"):
            assert (call(SOURCE, TARGET) - source).abs().max() <= limit
        for mode in ("target", "null"):
            with state.set(mode, 0.5):
                assert (call(TARGET, SOURCE) - target).abs().max() <= limit
        assert torch.equal(call(TARGET, SOURCE), target)
        assert not state.changed and state.calls == 2 * len(call.model.unet.attn_processors)
    assert torch.equal(call(SOURCE, TARGET), source)


def is_as(unet, before):
    after = unet.attn_processors
    hooks = sum(len(module._forward_hooks) for module in unet.modules())
    return list(after) == list(before) and hooks == 0 and all(after[n] is before[n] for n in after)


def test_processors_come_back(call):
    unet = call.model.unet
    before = dict(unet.attn_processors)
    with attach(call) as state:
        assert not is_as(unet, before)
        with state.set("source"):
            call(SOURCE)
        with state.set("target"):
            call(TARGET)
    assert is_as(unet, before)


def test_processors_come_back_after_an_error(call):
    unet = call.model.unet
    before = dict(unet.attn_processors)
    with pytest.raises(ZeroDivisionError), attach(call) as state, state.set("source"):
        raise ZeroDivisionError
    assert is_as(unet, before) and state.mode == "off"


def test_a_control_that_is_never_asked_is_reported(call):
    before = dict(call.model.unet.attn_processors)
    with pytest.raises(RuntimeError, match="MasaCtrl was never called: no attention"):
        with attach(call, MasaCtrl()) as state, state.set("source"):
            call(SOURCE)
    assert is_as(call.model.unet, before)


# Networks that have no attention to control.


def unet(*blocks):
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8,) * len(blocks),
        down_block_types=blocks,
        up_block_types=tuple(block.replace("Down", "Up") for block in blocks[::-1]),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=16,
        attention_head_dim=4,
    )


def test_networks_without_cross_attention_are_refused():
    plain = UNet2DModel(
        sample_size=8,
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        attention_head_dim=4,
    )
    for network, name in ((None, "NoneType"), (plain, "UNet2DModel")):
        words = f"cross-attention, got {name} without: .* edit with control=None"
        with (
            pytest.raises(ValueError, match=words),
            attention_control(network, AttentionStore(), (8, 8)),
        ):
            pass


def test_attention_of_another_kind_is_refused():
    grouped = unet("CrossAttnDownBlock2D", "AttnDownBlock2D")
    before = dict(grouped.attn_processors)
    words = "plain attention at down_blocks.1.*, got group_norm: .* knows Stable Diffusion 1 and 2"
    with (
        pytest.raises(ValueError, match=words),
        attention_control(grouped, AttentionStore(), (8, 8)),
    ):
        pass
    assert is_as(grouped, before)


def test_features_of_a_network_without_attention_in_its_decoder_are_refused():
    bare = unet("DownBlock2D")
    before = dict(bare.attn_processors)
    assert len(before) == 2  # in the middle
    with (
        pytest.raises(ValueError, match="attention in its up blocks, got none: .* plug-and-play$"),
        attention_control(bare, PlugAndPlay(), (8, 8)),
    ):
        pass
    assert is_as(bare, before)
    with pytest.raises(RuntimeError), attention_control(bare, AttentionStore(), (8, 8)):
        pass
    assert is_as(bare, before)


# Prompt-to-prompt by hand.

OLD = looking([0.5, 0.3, 0.2], [0.1, 0.2, 0.7])
NEW = looking([0.2, 0.2, 0.6], [0.6, 0.3, 0.1])


def close(found, rows):
    torch.testing.assert_close(found, torch.tensor(rows, dtype=torch.float64)[None, None])


def test_replaced_words_look_where_the_old_ones_looked():
    # Place 1 of the target answers place 2 of the source and the other way round.
    swap = PromptToPrompt(words([[1, 0, 0], [0, 0, 1], [0, 1, 0]]))
    probs, value = swap(CROSS, OLD, NEW, 0.0)
    close(probs, [[0.5, 0.2, 0.3], [0.1, 0.7, 0.2]])
    assert value is NEW.value


def test_refined_words_look_where_they_would():
    refine = PromptToPrompt(words([[1, 0, 0], [0, 0, 0], [0, 1, 0]], keeps=[1, 0, 1]))
    probs, _ = refine(CROSS, OLD, NEW, 0.0)
    close(probs, [[0.5, 0.2, 0.3], [0.1, 0.3, 0.2]])


def test_shares_are_of_what_several_tokens_see():
    half = PromptToPrompt(words([[1, 0, 0], [0, 0.5, 0.5], [0, 0.5, 0.5]]))
    probs, _ = half(CROSS, OLD, NEW, 0.0)
    close(probs, [[0.5, 0.25, 0.25], [0.1, 0.45, 0.45]])


def test_weights_scale_at_all_times():
    heavy = PromptToPrompt(words(torch.eye(3).tolist(), weights=[1, 3, -1]), cross_until=0.5)
    close(heavy(CROSS, OLD, NEW, 0.4)[0], [[0.5, 0.9, -0.2], [0.1, 0.6, -0.7]])
    close(heavy(CROSS, OLD, NEW, 0.5)[0], [[0.2, 0.6, -0.6], [0.6, 0.9, -0.1]])


def test_windows_of_prompt_to_prompt():
    control = PromptToPrompt(
        words(torch.eye(3).tolist()), cross_until=0.8, self_until=0.4, max_relative_size=0.5
    )
    assert torch.equal(control(CROSS, OLD, NEW, 0.79)[0], OLD.probs)
    assert torch.equal(control(CROSS, OLD, NEW, 0.8)[0], NEW.probs)
    for site in (SELF, AttentionSite(DOWN.format(1), 0.25)):
        probs, value = control(site, OLD, NEW, 0.39)
        assert torch.equal(probs, OLD.probs) and value is NEW.value
    assert control(SELF, OLD, NEW, 0.4) is None
    assert control(AttentionSite(UP.format(1), 1.0), OLD, NEW, 0.0) is None
    wide = PromptToPrompt(control.words, max_relative_size=1.0)
    assert torch.equal(wide(AttentionSite(UP.format(1), 1.0), OLD, NEW, 0.0)[0], OLD.probs)


def test_every_sample_has_its_own_words():
    old, new = attention(0, 2, keys=3), attention(1, 2, keys=3)
    pair = [words(torch.eye(3).tolist()), words([[1, 0, 0], [0, 0, 0], [0, 1, 0]], [1, 0, 1])]
    parts = zip(*((e.mapping, e.mapped, e.weights) for e in pair), strict=True)
    probs, _ = PromptToPrompt(Alignment(*map(torch.cat, parts)))(CROSS, old, new, 0.0)
    assert torch.equal(probs[0], old.probs[0])
    assert torch.equal(probs[1, ..., 1], new.probs[1, ..., 1])
    assert torch.equal(probs[1, ..., 2], old.probs[1, ..., 1])


def test_replacing_as_many_words_shares_out_all_attention(tiny):
    targets = ["a large blue shiny cone on a navy floor", TARGET]
    control = make_control("replace", tiny.tokenizer, [SOURCE] * 2, targets)
    old, new = attention(0, 2, keys=24), attention(1, 2, keys=24)
    probs, _ = control(CROSS, old, new, 0.0)
    torch.testing.assert_close(probs.sum(-1), torch.ones(2, 2, 4).double(), rtol=0, atol=1e-6)


# The other controls by hand.


def test_masactrl_looks_at_the_keys_and_values_of_the_source():
    old, new, control = attention(0), attention(1), MasaCtrl(start=0.1)
    probs, value = control(SELF, old, new, 0.1)
    expected = F.scaled_dot_product_attention(new.query, old.key, old.value)
    torch.testing.assert_close(probs @ value, expected)
    assert control(SELF, old, new, 0.09) is None
    assert control(CROSS, old, new, 0.5) is None
    assert control(AttentionSite(DOWN.format(1), 0.5), old, new, 0.5) is None


def test_plug_and_play_takes_the_probabilities_of_the_source():
    old, new, control = attention(0), attention(1), PlugAndPlay(self_until=0.5)
    probs, value = control(SELF, old, new, 0.49)
    assert torch.equal(probs, old.probs) and value is new.value
    assert control(SELF, old, new, 0.5) is None
    assert control(CROSS, old, new, 0.0) is None
    assert control(AttentionSite(DOWN.format(1), 0.5), old, new, 0.0) is None


@pytest.mark.parametrize("mode", ["target", "null"])
def test_plug_and_play_takes_features_until_their_share(call, mode):
    seen, layer = [], call.model.unet.up_blocks[1].resnets[1]

    def look(*prompts):
        call(*prompts)
        return seen[-1]

    with attach(call, PlugAndPlay(self_until=0.0, features_until=0.5)) as state:
        handle = layer.register_forward_hook(lambda _module, _inputs, out: seen.append(out))
        own = look(TARGET)
        with state.set("source"):
            source = look(SOURCE)
        assert (own - source).abs().max() > 1e-3
        with state.set(mode, 0.5):
            torch.testing.assert_close(look(TARGET), own, rtol=0, atol=1e-12)
            assert not state.changed
        with state.set(mode, 0.49):
            assert torch.equal(look(TARGET), source) and state.changed
            assert torch.equal(look(TARGET, SOURCE), torch.cat([source] * 2))
        assert torch.equal(look(TARGET), own)
        handle.remove()


STEERING = ("replace", "refine", "reweight", "masactrl", "plug-and-play")


def control(model, name):
    """A control that has something to change in every call until the middle of the walk."""
    kind = name if name == "replace" else "refine"
    weights = {"blue": 3.0} if name == "reweight" else None
    aligned = align(model.tokenizer, [SOURCE], [TARGET], kind, weights)
    others = {"masactrl": MasaCtrl(start=0.0), "plug-and-play": PlugAndPlay()}
    return others.get(name) or PromptToPrompt(aligned, self_until=0.8, max_relative_size=1.0)


@pytest.mark.parametrize("name", STEERING)
def test_several_targets_see_one_source_as_each_alone(call, name):
    def steered(sources, targets):
        with attach(call, control(call.model, name)) as state:
            with state.set("source"):
                call(*[SOURCE] * len(sources), rows=sources)
            with state.set("target", 0.1):
                found = call(*[TARGET] * len(targets), rows=targets)
            assert state.changed
        return found

    # Two samples with two targets each: the first ones of both, then the second ones.
    together, plain = steered((0, 1), (0, 1, 2, 3)), call(*[TARGET] * 4)
    for row in range(4):
        one = steered((row % 2,), (row,))
        torch.testing.assert_close(together[row : row + 1], one, rtol=0, atol=1e-12)
        assert (one - plain[row]).abs().max() > 1e-5


@pytest.mark.parametrize("name", STEERING)
@pytest.mark.parametrize("w", [1, 3])
def test_controls_leave_the_source_as_it_is(tiny64, latents, name, w):
    path = invert(tiny64, latents, tiny64.condition(SOURCE), "ddim", steps=4)
    source = tiny64.condition(SOURCE, guidance_scale=w)
    path = replace(path, condition=source, guided=True)
    expected = reconstruct(tiny64, path)
    target = tiny64.condition(TARGET, guidance_scale=w)
    found = edit(tiny64, path, target, control(tiny64, name))
    assert expected.latent_error(found.source).max() < 1e-12
    assert found.target.latent_error(edit(tiny64, path, target).target)[0].min() > 1e-4


# Attention that others have set.


class XFormersLike(AttnProcessor2_0):
    """A processor of somebody else's."""


class LowRank(nn.Module):
    """What LoRA puts in place of a linear layer."""

    def __init__(self, base, seed):
        super().__init__()
        self.base = base
        size, width = base.weight.shape
        self.down, self.up = normal(2, width, seed=seed), normal(size, 2, seed=seed + 1)

    def forward(self, x):
        return self.base(x) + 0.3 * x @ self.down.mT @ self.up.mT


def add_lora(network):
    layers = [m for m in network.modules() if isinstance(m, AttentionLayer)]
    for seed, layer in enumerate(layers):
        layer.to_q, layer.to_v = LowRank(layer.to_q, seed), LowRank(layer.to_v, seed + 50)
        layer.to_out[0] = LowRank(layer.to_out[0], seed + 90)


def add_image_prompt(network):
    """What loading an IP-Adapter does to a UNet."""
    width, weights, number = network.config["cross_attention_dim"], {}, 1
    for name in network.attn_processors:
        if ".attn2." in name:
            inner = network.get_submodule(name.removesuffix(".processor")).inner_dim
            for kind in "kv":
                weights[f"{number}.to_{kind}_ip.weight"] = normal(inner, width)
            number += 2
    projection = {
        "proj.weight": normal(4 * width, 64),
        "proj.bias": torch.zeros(4 * width),
        "norm.weight": torch.ones(width),
        "norm.bias": torch.zeros(width),
    }
    network._load_ip_adapter_weights([{"image_proj": projection, "ip_adapter": weights}])


@pytest.fixture
def own(tiny_folder):
    """A model that a test may change."""
    return Call(erddci.load(tiny_folder, device="cpu", dtype=torch.float64))


def controlled(call, kind):
    """What a control makes of a call, after a source call."""
    with attach(call, control(call.model, kind)) as state:
        with state.set("source"):
            source = call(SOURCE)
        with state.set("target", 0.1):
            target = call(TARGET)
        assert state.changed
        return source, target, call(TARGET)


PLAIN = {
    "plain": AttnProcessor,
    "sliced": lambda: SlicedAttnProcessor(1),
    "xformers": XFormersAttnProcessor,
}


@pytest.mark.parametrize("name", STEERING)
@pytest.mark.parametrize("set_by_others", [*PLAIN, "LoRA", "LoRA, sliced"])
def test_control_of_any_plain_attention_is_that_of_the_default(own, set_by_others, name):
    network = own.model.unet
    if "LoRA" in set_by_others:
        add_lora(network)
    network.set_attn_processor(AttnProcessor2_0())
    source, expected, free = controlled(own, name)
    torch.testing.assert_close(source, own(SOURCE), rtol=0, atol=1e-6)
    if set_by_others != "LoRA":
        network.set_attn_processor(PLAIN[set_by_others.removeprefix("LoRA, ")]())
    before = dict(network.attn_processors)
    if set_by_others == "xformers":  # which is not installed, so it cannot be left alone
        with attach(own, control(own.model, name)) as state:
            with state.set("source"):
                own(SOURCE)
            with state.set("target", 0.1):
                found = own(TARGET)
    else:
        _, found, own_free = controlled(own, name)
        torch.testing.assert_close(own_free, free, rtol=0, atol=1e-6)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert is_as(network, before)


def test_lora_is_in_the_attention_that_a_control_sees(own):
    without = controlled(own, "refine")[1]
    add_lora(own.model.unet)
    assert (controlled(own, "refine")[1] - without).abs().max() > 1e-3


MENDED = {
    "fused": (
        lambda network: network.fuse_qkv_projections(),
        "FusedAttnProcessor2_0: call unet.unfuse_qkv_projections() first",
        lambda network: network.unfuse_qkv_projections(),
    ),
    "somebody's own": (
        lambda network: network.set_attn_processor(XFormersLike()),
        "XFormersLike: call unet.set_attn_processor(AttnProcessor2_0()) first",
        lambda network: network.set_attn_processor(AttnProcessor2_0()),
    ),
    "image prompts": (
        add_image_prompt,
        "IPAdapterAttnProcessor2_0: call unload_ip_adapter() of its pipeline first",
        lambda network: pipeline(network).unload_ip_adapter(),
    ),
}


def pipeline(network):
    return StableDiffusionPipeline(
        vae=None,
        text_encoder=None,
        tokenizer=None,
        unet=network,
        scheduler=None,
        safety_checker=None,
        feature_extractor=None,
    )


@pytest.mark.parametrize("kind", MENDED)
def test_attention_that_is_not_plain_is_refused_with_what_mends_it(own, kind):
    change, words, mend = MENDED[kind]
    network = own.model.unet
    _, expected, _ = controlled(own, "refine")
    with torch.no_grad():
        change(network)
    before = dict(network.attn_processors)
    with pytest.raises(ValueError, match=re.escape(words)), attach(own):
        pass
    assert is_as(network, before)
    mend(network)
    torch.testing.assert_close(controlled(own, "refine")[1], expected, rtol=0, atol=1e-6)


def test_control_in_control_is_refused(own):
    before = dict(own.model.unet.attn_processors)
    with attach(own) as state:
        with (
            pytest.raises(
                ValueError, match="ControlAttnProcessor: it is controlled already, leave"
            ),
            attach(own),
        ):
            pass
        for mode in ("source", "target"):  # the outer one goes on
            with state.set(mode):
                own(SOURCE)
    assert state.calls and is_as(own.model.unet, before)


@pytest.mark.parametrize("how", ["wrapped", "in place", "by blocks"])
def test_a_compiled_network_is_controlled_uncompiled(own, how):
    def backend(module, _inputs):
        raise AssertionError("nothing is compiled under control")

    source, target, free = controlled(own, "plug-and-play")
    plain = own.model.unet
    before = dict(plain.attn_processors)
    if how == "wrapped":
        own.model.unet = torch.compile(plain, backend=backend)
    elif how == "in place":
        plain.compile(backend=backend)
    else:
        plain.compile_repeated_blocks(backend=backend)
    for found, expected in zip(
        controlled(own, "plug-and-play"), (source, target, free), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert is_as(plain, before)
    with pytest.raises(BackendCompilerFailed, match="nothing is compiled under control"):
        own(SOURCE)


def test_an_adapter_loaded_after_the_model_is_refused(own, latents):
    condition = own.model.condition(SOURCE)
    add_image_prompt(own.model.unet)
    words = r"got one with an IP-Adapter: call unload_ip_adapter\(\) of its pipeline first"
    with pytest.raises(ValueError, match=words):
        invert(own.model, latents, condition, steps=2)
    assert own.model.nfe == 0
    pipeline(own.model.unet).unload_ip_adapter()
    invert(own.model, latents, condition, "ddim", steps=2)


@pytest.mark.parametrize("kind", ["none", "refine", "replace"])
def test_a_token_that_means_a_word_edits_as_the_word_does(own, latents, kind):
    # A textual inversion whose embedding is that of "cone", glued to what follows it.
    tokenizer, encoder = own.model.tokenizer, own.model.text_encoder
    tokenizer.add_tokens(["<toy>"])
    encoder.resize_token_embeddings(len(tokenizer))
    with torch.no_grad():
        table = encoder.get_input_embeddings().weight
        table[-1] = table[tokenizer.convert_tokens_to_ids("cone</w>")]
    path = invert(own.model, latents[:1], own.model.condition(SOURCE), "ddim", steps=4)
    found = {}
    for word in ("cone ", "<toy>"):
        target = SOURCE.replace("cube ", word)
        steer = make_control(kind, tokenizer, [SOURCE], [target], 0.8, 0.4)
        blend = LocalBlend.from_prompts(tokenizer, [SOURCE], [target], threshold=0.999)
        condition = own.model.condition(target, guidance_scale=3)
        found[word] = edit(own.model, path, condition, steer, blend=blend).x0
    torch.testing.assert_close(found["<toy>"], found["cone "], rtol=0, atol=1e-12)
    assert (found["<toy>"] - latents[:1]).abs().max() > 1e-3


# Controls by name.


def test_every_control_has_a_name(tiny):
    made = {
        name: make_control(
            name, tiny.tokenizer, [SOURCE], [TARGET], cross_until=0.7, self_until=0.3
        )
        for name in CONTROLS
    }
    assert made["none"] is None
    assert made["masactrl"] == MasaCtrl()
    assert made["plug-and-play"] == PlugAndPlay(self_until=0.3, features_until=0.7)
    for kind in ("refine", "replace"):
        aligned, found = align(tiny.tokenizer, [SOURCE], [TARGET], kind), made[kind]
        assert isinstance(found, PromptToPrompt) and (found.cross_until, found.self_until) == (
            0.7,
            0.3,
        )
        assert torch.equal(found.words.mapping, aligned.mapping)
        assert torch.equal(found.words.mapped, aligned.mapped) and (found.words.weights == 1).all()


def test_unknown_controls_and_words_are_refused(tiny):
    with pytest.raises(ValueError, match="unknown control 'swap': .* none, refine, replace, masa"):
        make_control("swap", tiny.tokenizer, [SOURCE], [TARGET])


# Maps.


def looked(call, *prompts):
    """Mean attention to each token at half the side, by diffusers' own scores, enlarged."""
    layer = call.model.unet.mid_block.attentions[0].transformer_blocks[0].attn2
    inputs = []

    def keep(_module, positional, named):
        inputs.append((positional[0], named["encoder_hidden_states"]))

    handle = layer.register_forward_pre_hook(keep, with_kwargs=True)
    call(*prompts)
    handle.remove()
    pixels, text = inputs[0]
    query, key = (layer.head_to_batch_dim(e) for e in (layer.to_q(pixels), layer.to_k(text)))
    scores = layer.get_attention_scores(query, key).unflatten(0, (len(prompts), -1)).mean(1)
    height, width = (side // 2 for side in call.shape)
    maps = scores.mT.reshape(len(prompts), -1, height, width).float()
    return F.interpolate(maps, call.shape, mode="bilinear").detach()


@pytest.mark.parametrize("shape", [(8, 8), (8, 12), (12, 4)])
def test_maps_are_where_each_token_is_looked_for(tiny64, shape):
    call = Call(tiny64, shape)
    first, second = looked(call, SOURCE, TARGET), looked(call, TARGET, TARGET)
    with attach(call) as state:
        for whose in ("source", "target"):
            with state.set(whose):
                call(SOURCE, TARGET)
            assert state.maps(whose).shape == (2, 24, *shape)
            torch.testing.assert_close(state.maps(whose), first)
            with state.set(whose):
                call(TARGET, TARGET)
            torch.testing.assert_close(state.maps(whose), (first + second) / 2)
            sums = state.maps(whose).sum(1)
            torch.testing.assert_close(sums, torch.ones(2, *shape))


def test_maps_are_of_what_the_control_made_of_them(call):
    expected = looked(call, SOURCE)
    with attach(call, PromptToPrompt(align(call.model.tokenizer, [SOURCE], [TARGET]))) as state:
        with state.set("source"):
            call(SOURCE)
        with state.set("target", 0.0):
            call(TARGET)
        maps = state.maps("target")
    kept = [token for token in range(24) if token != 3]  # small, BLUE
    torch.testing.assert_close(maps[:, kept], expected[:, kept])
    assert (maps[:, 3] - expected[:, 3]).abs().max() > 1e-4


def test_maps_are_of_the_prompt_alone(tiny64, latents):
    # Controls that steer the unconditional rows too are asked there; its maps have other words.
    path = invert(tiny64, latents, tiny64.condition(SOURCE), steps=1)
    target, control = tiny64.condition(TARGET), MasaCtrl(start=0.0)
    plain, guided = (
        edit(tiny64, path, target.with_guidance(w), control).attention for w in (1, 3)
    )
    assert guided.calls == 2 * plain.calls
    for whose in ("source", "target"):
        torch.testing.assert_close(guided.maps(whose), plain.maps(whose))


def test_no_maps_before_a_call():
    with pytest.raises(ValueError, match="expected a call in mode 'target' before its maps"):
        AttentionState(AttentionStore(), (8, 8)).maps("target")


# Blends.


def drawn(*peaks):
    """Maps of three tokens on 6 × 6 pixels: peaks of token, row, column and height."""
    maps = torch.zeros(1, 3, 6, 6)
    for token, row, column, height in peaks:
        maps[0, token, row, column] = height
    return maps


def marks(*places):
    return torch.zeros(1, 3).index_fill(1, torch.tensor(places, dtype=torch.long), 1.0)


def taps_of(source, target):
    return AttentionState(
        AttentionStore(), (6, 6), sums={"source": [source, 1], "target": [2 * target, 2]}
    )


def square(*boxes):
    mask = torch.zeros(1, 1, 6, 6)
    for rows, columns in boxes:
        mask[..., rows, columns] = 1
    return mask


def test_a_blend_is_where_words_are_looked_for_and_beside():
    # Token 1 peaks in the corner and, less, on the right; token 0 is nobody's word.
    source = drawn((1, 0, 0, 1.0), (1, 3, 5, 0.25), (0, 5, 0, 9.0))
    state = taps_of(source, drawn())
    corner, right = (slice(0, 2), slice(0, 2)), (slice(2, 5), slice(4, 6))
    cases = {0.3: square(corner), 0.2: square(corner, right), 0.25: square(corner)}
    for threshold, expected in cases.items():
        found = LocalBlend(marks(1), marks(2), threshold).mask(state)
        assert torch.equal(found, expected)


def test_a_blend_holds_the_words_of_both_prompts():
    state = taps_of(drawn((1, 0, 0, 1.0)), drawn((2, 5, 5, 0.1), (1, 0, 5, 5.0)))
    corner, other = (slice(0, 2), slice(0, 2)), (slice(4, 6), slice(4, 6))
    assert torch.equal(LocalBlend(marks(1), marks(2)).mask(state), square(corner, other))
    assert torch.equal(LocalBlend(marks(1), marks()).mask(state), square(corner))
    assert torch.equal(LocalBlend(marks(), marks(2)).mask(state), square(other))
    assert not LocalBlend(marks(), marks()).mask(state).any()


def test_a_blend_adds_the_words_up():
    # Two marked words at one place together outdo a third elsewhere.
    maps = drawn((0, 0, 0, 0.5), (1, 0, 0, 0.5), (2, 5, 5, 0.6))
    both = LocalBlend(marks(0, 1, 2), marks(), threshold=0.7).mask(taps_of(maps, drawn()))
    assert torch.equal(both, square((slice(0, 2), slice(0, 2))))


def test_several_targets_blend_with_their_source():
    # Two samples with two targets each, of which one has nothing to look for.
    source = torch.cat([drawn((1, 0, 0, 1.0)), drawn((1, 5, 5, 1.0))])
    target = torch.cat([drawn((2, 5, 0, 1.0)), *[drawn()] * 3])
    left, right = (slice(0, 2), slice(0, 2)), (slice(4, 6), slice(4, 6))
    first, second = square(left), square(right)
    expected = [square(left, (slice(4, 6), slice(0, 2))), second, first, second]
    found = LocalBlend(marks(1), marks(2)).mask(taps_of(source, target))
    assert torch.equal(found, torch.cat(expected))


def test_a_blend_of_what_changes(tiny):
    longer = "a large small red matte cube on a teal floor"
    blend = LocalBlend.from_prompts(tiny.tokenizer, [SOURCE] * 2, [TARGET, longer], 0.4, 0.1)
    assert blend.source.nonzero().tolist() == [[0, 3]]
    assert blend.target.nonzero().tolist() == [[0, 3], [1, 2]]
    assert (blend.threshold, blend.start) == (0.4, 0.1)


def test_a_blend_of_equal_prompts_is_refused(tiny):
    with pytest.raises(ValueError, match=f"expected prompts that differ, got “{SOURCE}” twice"):
        LocalBlend.from_prompts(tiny.tokenizer, [SOURCE] * 2, [TARGET, SOURCE])
