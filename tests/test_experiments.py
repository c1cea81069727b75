"""What the experiments measure, checked on models whose answers are known."""

import numpy as np
import pytest
import torch
from PIL import Image

from erddci import experiments
from erddci.inversion import dual_chain
from erddci.metrics import compare


@pytest.fixture
def pictures():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    return [(Image.fromarray(each), "a red cube on a grey floor") for each in pixels]


def test_error_accumulation_has_a_row_per_picture_scale_inversion_and_node(tiny, pictures):
    frame = experiments.error_accumulation(tiny, pictures, scales=(1, 3), steps=4)
    assert len(frame) == 2 * 2 * 2 * 5
    # The way back starts where inversion ended.
    assert (frame.loc[frame["node"] == 4, "latent max"] == 0).all()
    # At w = 1 both inversions are the same walk.
    same = frame[frame["guidance_scale"] == 1].pivot(
        index=["picture", "node"], columns="inverted", values="latent rms"
    )
    np.testing.assert_array_equal(same["unguided"], same["same scale"])
    assert frame["psnr vae"].notna().sum() == 2 * 2 * 2


def test_reconstruction_is_exact_against_the_round_trip_and_not_against_the_input(tiny, pictures):
    frame = experiments.reconstruction(tiny, pictures, steps=4)
    floor = experiments.vae_floor(tiny, pictures)
    dual = frame[frame["method"] == "dual-chain"]
    assert (dual["latent max"] < 1e-12).all()
    assert (dual["ssim vae"] > 1 - 1e-9).all()
    np.testing.assert_allclose(dual["psnr input"], floor["psnr"], atol=1e-3)


def test_vae_floor_is_the_round_trip_against_the_input(tiny, pictures):
    picture = pictures[0][0]
    image = np.asarray(picture) / np.float32(255)
    expected = compare(image, tiny.decode(tiny.encode(picture))[0])
    frame = experiments.vae_floor(tiny, pictures)
    assert frame.loc[0, "psnr"] == pytest.approx(expected["psnr"])


def test_the_last_aim_of_the_way_back_is_the_reconstruction(tiny, pictures):
    picture, prompt = pictures[0]
    strips = experiments.way_back(tiny, picture, prompt, scales=(1,), nodes=(4, 2, 1))
    _, back = experiments.reconstruct_one(tiny, picture, prompt, "ddim", 4)
    difference = strips[1][-1] - np.asarray(back) / 255
    # With steps_offset 1 the last node still holds a trace of noise: aim and latent differ by it.
    assert strips[1].shape == (3, 16, 16, 3)
    assert np.abs(difference).mean() < 0.02


def test_rows_are_counted_in_all_three_orders(toy):
    x = toy.sample(2, "left", torch.Generator().manual_seed(0))
    frame = experiments.network_rows(toy, x, toy.condition("left"), steps=7).set_index("order")
    assert frame.loc["as published", ["up", "back", "total"]].tolist() == [14, 14, 28]
    assert frame.loc["noise kept", ["up", "back", "total"]].tolist() == [14, 0, 14]
    assert frame.loc["noise kept and shared", ["up", "back", "total"]].tolist() == [8, 0, 8]
    assert (frame["latent max"] < 1e-12).all()


def test_published_order_walks_the_same_chains_as_dual_chain(toy):
    x = toy.sample(1, "left", torch.Generator().manual_seed(0))
    condition = toy.condition("left")
    published = experiments.published_order(toy, x, condition, 7)
    assert published["latent max"] < 1e-12
    # Its first chain is DDIM inversion, as is the one that dual_chain keeps.
    path = dual_chain(toy, x, condition, toy.grid(7))
    eps = toy(path.kept["z"][1], path.grid.t[1], condition)
    torch.testing.assert_close(path.kept["eps"][0], eps)


def test_step_order_of_two_steps_by_hand():
    target = experiments.step_order(2).drop(columns="ask").to_dict("split")["data"]
    assert target == [
        ["ask", "z", 0, 1],  # z_0, told t_1, moves the original chain
        ["move", "z", 0, 1],
        ["ask", "z", 1, 1],  # z_1, told t_1, moves the auxiliary chain
        ["ask", "z", 1, 2],
        ["move", "x", 0, 1],
        ["move", "z", 1, 2],
        ["ask", "z", 2, 2],
        ["move", "x", 1, 2],
    ]
    source = experiments.step_order(2, asks="source")
    assert (source["event"] == "ask").sum() == 3


def test_noise_trajectories_agree_where_the_walks_do(toy):
    x = toy.sample(1, "left", torch.Generator().manual_seed(0))
    frame = experiments.noise_trajectories(toy, x, toy.condition("left"), steps=6)
    assert len(frame) == 3 * 6
    assert sum(frame.attrs["explained"]) == pytest.approx(1)
    # The way back starts with the noise at (x_N, t_N), which is what the dual chain asks for too.
    last = frame[frame["node"] == 6].set_index("walk")[["pc1", "pc2"]]
    np.testing.assert_allclose(last.loc["DDIM inference"], last.loc["dual-chain inference"])


def test_noise_trajectories_want_one_latent(toy, points):
    with pytest.raises(ValueError, match="expected one latent"):
        experiments.noise_trajectories(toy, points, toy.condition("left"))


def test_ddim_is_first_order_in_the_step_and_the_dual_chain_is_not_in_error():
    frame = experiments.step_size(steps=(100, 200, 500), count=50)
    error = frame.pivot(index="steps", columns="method", values="latent rms")
    slope = np.polyfit(np.log(error.index), np.log(error["ddim"]), 1)[0]
    assert -1.15 < slope < -0.85
    assert (error["dual-chain"] < 1e-12).all()
