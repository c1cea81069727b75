"""The editing benchmark: what it runs, what its rows say, and how ways to edit are ranked."""

from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest

from erddci import METHODS
from erddci.experiments import (
    CEILING,
    EDITING,
    WAYS,
    edit_by_kind,
    edit_cases,
    edit_gain,
    edit_ranks,
    edit_speed,
    edit_summary,
)
from erddci.metrics import compare
from erddci.scenes.examples import edits
from erddci.scenes.scene import FirstSeed

WHAT = [(CEILING, "none", "constant"), WAYS[1], ("ddim", "refine", "constant")]
WHAT += [("dual-chain", "none", "dynamic"), ("dual-chain (current timestep)", "none", "constant")]


@pytest.fixture(scope="module")
def drawn():
    return edits(2, ("colour", "remove"), start=FirstSeed.EDITING_BENCHMARK)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("edits")


@pytest.fixture(scope="module")
def rows(scenes, drawn, folder):
    return EDITING.run(scenes, drawn, edit_cases(WHAT, (7.5,), (2,)), folder)


def inverted_at(*way):
    return edit_cases([way], [5], [10])[0].inverted_at


def test_every_way_is_inverted_as_it_is_meant_to_be():
    for name, method in METHODS.items():
        assert inverted_at(name, "none", "constant") == (5 if (method.inverts == "guided") else 1)
    assert inverted_at("dual-chain", "none", "constant") == 1
    assert inverted_at("dual-chain", "refine", "dynamic") == 5
    assert inverted_at("dual-chain", "none", "dynamic-inverted-at-1") == 1
    assert inverted_at("dual-chain (current timestep)", "none", "dynamic") == 5
    assert len(edit_cases(WAYS, (1, 3), (5, 10))) == 4 * len(WAYS)
    assert len(edit_cases([*WAYS, WAYS[0]], (1,), (5,))) == len(WAYS)


@pytest.mark.parametrize(
    ("way", "message"),
    [
        (("best", "none", "constant"), "unknown method 'best': expected one of ddim"),
        (("ddim", "best", "constant"), "unknown control 'best': expected one of none, refine"),
        (
            ("ddim", "none", "best"),
            "unknown schedule 'best': expected one of constant, ",
        ),
    ],
)
def test_unknown_ways_are_refused(way, message):
    with pytest.raises(ValueError, match=message):
        edit_cases([way], [1], [10])
    with pytest.raises(ValueError, match="unknown profile 'huge': expected one of small"):
        EDITING.profile("huge")


def test_rows_are_tidy(rows):
    assert list(rows.columns) == list(EDITING.columns) and len(rows) == 2 * len(WHAT)
    assert set(rows["kind"]) == {"colour", "remove"} and rows["problem"].isna().all()
    assert rows[["edit_accuracy", "preservation"]].stack().between(0, 1).all()
    ddim = rows[rows["method"] == "ddim"]
    # Up 2; back a source row, a conditional and an unconditional target row for each step.
    assert (ddim["nfe_inversion"] == 2).all() and (ddim["nfe_sampling"] == 6).all()
    assert (ddim["seconds_sampling"] > 0).all()
    shared = rows[rows["method"] == "dual-chain (current timestep)"]
    assert (shared["nfe_inversion"] == 3).all() and (shared["nfe_sampling"] == 4).all()


def test_the_ceiling_is_the_truth_as_the_auto_encoder_has_it(rows):
    ceiling = rows[rows["method"] == CEILING]
    assert np.isinf(ceiling["psnr_truth"]).all() and (ceiling["lpips_truth"] == 0).all()
    assert (ceiling[["edit_accuracy", "preservation"]] == 1).all(axis=None)
    assert ceiling["psnr_rendered"].between(28, 45).all()


def test_what_is_known_is_not_run_again(scenes, drawn, folder, rows):
    before = scenes.nfe
    again = EDITING.run(scenes, drawn, edit_cases(WHAT, (7.5,), (2,)), folder)
    assert scenes.nfe == before
    pd.testing.assert_frame_equal(again, rows)
    with pytest.raises(ValueError, match="other images or prompts"):
        EDITING.run(scenes, drawn[::-1], edit_cases(WHAT, (7.5,), (2,)), folder)


def test_ranks_are_taken_on_each_image_and_shared_by_equals():
    frame = pd.DataFrame(
        {
            "method": ["ddim", "direct", CEILING] * 2,
            "image": [0, 0, 0, 1, 1, 1],
            "psnr_truth": [30.0, 20.0, np.inf, 20.0, 20.0, np.inf],
            "lpips_truth": [0.1, 0.2, 0.0, 0.1, 0.2, 0.0],
            "background": [30.0, 20.0, np.inf, 20.0, 30.0, np.inf],
            "edit_accuracy": 1.0,
            "preservation": [1.0, 0.5, 1.0, 1.0, 1.0, 1.0],
        }
    ).assign(steps=10, guidance_scale=7.5)
    found = edit_ranks(frame)
    first = [(1 + 1 + 1 + 1.5 + 1) / 5, (2 + 2 + 2 + 1.5 + 2) / 5]
    second = [(1.5 + 1 + 2 + 1.5 + 1.5) / 5, (1.5 + 2 + 1 + 1.5 + 1.5) / 5]
    np.testing.assert_allclose(found, [*first, np.nan, *second, np.nan])


def test_summary_and_kinds(rows):
    table = edit_summary(rows)
    assert list(table["setting"])[-1] == "ceiling" and len(table) == len(WHAT)
    assert {"ddim + refine", "sdedit", "dual-chain, dynamic"} < set(table["setting"])
    fading = rows[(rows["method"] == "dual-chain")]
    mean = table.set_index("setting").loc["dual-chain, dynamic"]
    assert mean["psnr_truth"] == pytest.approx(fading["psnr_truth"].mean())
    assert mean["psnr_truth_low"] <= mean["psnr_truth"] <= mean["psnr_truth_high"]
    assert mean["nfe"] == 4 + 2  # neither step is from t ≥ 600
    kinds = edit_by_kind(rows)
    assert list(kinds) == ["colour", "remove"] and "ddim + refine" in kinds.index


def test_gains_are_taken_edit_by_edit():
    frame = pd.DataFrame(
        {
            "method": ["ddim", "direct"] * 3,
            "image": [0, 0, 1, 1, 2, 2],
            "psnr_truth": [30.0, 20.0, 21.0, 10.0, 32.0, 20.0],
        }
    ).assign(control="none", schedule="constant", steps=10, guidance_scale=7.5)
    ways = (("ddim", "none", "constant"), ("direct", "none", "constant"))
    found = edit_gain(frame, *ways)
    assert found["psnr_truth"] == 11
    assert found["psnr_truth_low"] == 10 and found["psnr_truth_high"] == 12


def test_speed_counts_the_rows_of_an_edit(scenes, drawn):
    table = edit_speed(scenes, drawn[0], steps=4, repeats=1).set_index("run")
    assert table["nfe"]["direct + refine"] == 4 + 2 * 4 + 4 * 4
    # One of the four steps, that from t = 751, is guided.
    assert table["nfe"]["dual-chain, dynamic"] == (2 * 4 + 1) + (4 + 1)
    assert table["nfe"]["dual-chain (current timestep), dynamic"] == (4 + 1 + 1) + (4 + 1)
    assert table["nfe"]["dual-chain (current timestep) + refine, dynamic"] == (4 + 1 + 1) + 4 + (
        4 + 1
    )
    assert table["speedup"]["null-text + refine"] == 1 and (table["seconds"] > 0).all()


def test_the_benchmark_edits_as_python_does(scenes, drawn, rows):
    for case in edit_cases(WHAT[2:], (7.5,), (2,)):
        x = scenes.encode([each.image for each in drawn])
        sources = [each.source for each in drawn]
        path = case.config.invert(scenes, x, sources)
        edited = case.config.edit(scenes, path, sources, [each.target for each in drawn])
        ours = rows.merge(pd.DataFrame([asdict(case)]))
        truths = scenes.decode(scenes.encode([each.truth for each in drawn]))
        pairs = zip(truths, scenes.decode(edited.x0), strict=True)
        expected = [compare(*pair)["psnr"] for pair in pairs]
        np.testing.assert_allclose(ours["psnr_truth"], expected, rtol=1e-4)
