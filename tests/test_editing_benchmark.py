"""The editing benchmark: what it runs, what its rows say, and how ways to edit are ranked."""

import numpy as np
import pandas as pd
import pytest

from erddci import METHODS
from erddci.experiments import editing_benchmark as edit_benchmark
from erddci.experiments.editing_benchmark import CEILING, KEY, WAYS, case, cases
from erddci.scenes.examples import edits

WHAT = [(CEILING, "none", "constant"), WAYS[1], ("ddim", "refine", "constant")]
WHAT += [("dual-chain", "none", "fading"), ("dual-chain shared", "none", "constant")]


@pytest.fixture(scope="module")
def drawn():
    return edits(2, ("colour", "remove"), start=edit_benchmark.START)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("edits")


@pytest.fixture(scope="module")
def rows(scenes, drawn, folder):
    return edit_benchmark.run(scenes, drawn, cases(WHAT, (7.5,), (2,)), folder)


def test_every_way_is_inverted_as_it_is_meant_to_be():
    for name, method in METHODS.items():
        assert case(name, "none", "constant", 5, 10).inverted_at == (5 if method.guided else 1)
    assert case("dual-chain", "none", "constant", 5, 10).inverted_at == 1
    assert case("dual-chain", "refine", "fading", 5, 10).inverted_at == 5
    assert case("dual-chain", "none", "unmirrored", 5, 10).inverted_at == 1
    assert case("dual-chain shared", "none", "fading", 5, 10).inverted_at == 5
    assert len(cases(WAYS, (1, 3), (5, 10))) == 4 * len(WAYS)
    assert len(cases([*WAYS, WAYS[0]], (1,), (5,))) == len(WAYS)


@pytest.mark.parametrize(
    ("way", "message"),
    [
        (("best", "none", "constant"), "unknown method 'best': expected one of ddim"),
        (("ddim", "best", "constant"), "unknown control 'best': expected one of none, refine"),
        (
            ("ddim", "none", "best"),
            "unknown dynamic 'best': expected one of constant, fading, unm",
        ),
    ],
)
def test_unknown_ways_are_refused(way, message):
    with pytest.raises(ValueError, match=message):
        case(*way, 1, 10)
    with pytest.raises(ValueError, match="unknown profile 'huge': expected one of small"):
        edit_benchmark.known_profile("huge")


def test_rows_are_tidy(rows):
    assert list(rows.columns) == edit_benchmark.COLUMNS and len(rows) == 2 * len(WHAT)
    assert set(rows["kind"]) == {"colour", "remove"} and rows["problem"].isna().all()
    assert rows[["asked", "kept"]].stack().between(0, 1).all()
    ddim = rows[rows["method"] == "ddim"]
    # Up 2; back a source row, a conditional and an unconditional target row for each step.
    assert (ddim["rows up"] == 2).all() and (ddim["rows back"] == 6).all()
    assert (ddim["seconds back"] > 0).all()
    shared = rows[rows["method"] == "dual-chain shared"]
    assert (shared["rows up"] == 3).all() and (shared["rows back"] == 4).all()


def test_the_ceiling_is_the_truth_as_the_auto_encoder_has_it(rows):
    ceiling = rows[rows["method"] == CEILING]
    assert np.isinf(ceiling["psnr truth"]).all() and (ceiling["lpips truth"] == 0).all()
    assert (ceiling[["asked", "kept"]] == 1).all(axis=None)
    assert ceiling["psnr rendered"].between(28, 45).all()


def test_what_is_known_is_not_run_again(scenes, drawn, folder, rows):
    before = scenes.rows
    again = edit_benchmark.run(scenes, drawn, cases(WHAT, (7.5,), (2,)), folder)
    assert scenes.rows == before
    pd.testing.assert_frame_equal(again, rows)
    with pytest.raises(ValueError, match="other prompts"):
        edit_benchmark.run(scenes, drawn[::-1], cases(WHAT, (7.5,), (2,)), folder)


def test_ranks_are_taken_on_each_picture_and_shared_by_equals():
    frame = pd.DataFrame(
        {
            "method": ["ddim", "direct", CEILING] * 2,
            "picture": [0, 0, 0, 1, 1, 1],
            "psnr truth": [30.0, 20.0, np.inf, 20.0, 20.0, np.inf],
            "lpips truth": [0.1, 0.2, 0.0, 0.1, 0.2, 0.0],
            "background": [30.0, 20.0, np.inf, 20.0, 30.0, np.inf],
            "asked": 1.0,
            "kept": [1.0, 0.5, 1.0, 1.0, 1.0, 1.0],
        }
    ).assign(steps=10, guidance_scale=7.5)
    found = edit_benchmark.ranks(frame)
    first = [(1 + 1 + 1 + 1.5 + 1) / 5, (2 + 2 + 2 + 1.5 + 2) / 5]
    second = [(1.5 + 1 + 2 + 1.5 + 1.5) / 5, (1.5 + 2 + 1 + 1.5 + 1.5) / 5]
    np.testing.assert_allclose(found, [*first, np.nan, *second, np.nan])


def test_summary_and_kinds(rows):
    table = edit_benchmark.summary(rows)
    assert list(table["way"])[-1] == "ceiling" and len(table) == len(WHAT)
    assert {"ddim + refine", "no inversion", "dual-chain, fading"} < set(table["way"])
    fading = rows[(rows["method"] == "dual-chain")]
    mean = table.set_index("way").loc["dual-chain, fading"]
    assert mean["psnr truth"] == pytest.approx(fading["psnr truth"].mean())
    assert mean["psnr truth low"] <= mean["psnr truth"] <= mean["psnr truth high"]
    assert mean["rows"] == 4 + 2  # neither step is from t ≥ 600
    kinds = edit_benchmark.by_kind(rows)
    assert list(kinds) == ["colour", "remove"] and "ddim + refine" in kinds.index
    assert set(KEY) <= set(rows)


def test_gains_are_taken_edit_by_edit():
    frame = pd.DataFrame(
        {
            "method": ["ddim", "direct"] * 3,
            "picture": [0, 0, 1, 1, 2, 2],
            "psnr truth": [30.0, 20.0, 21.0, 10.0, 32.0, 20.0],
        }
    ).assign(control="none", dynamic="constant", steps=10, guidance_scale=7.5)
    ways = (("ddim", "none", "constant"), ("direct", "none", "constant"))
    found = edit_benchmark.gain(frame, *ways)
    assert found["psnr truth"] == 11
    assert found["psnr truth low"] == 10 and found["psnr truth high"] == 12


def test_speed_counts_the_rows_of_an_edit(scenes, drawn):
    table = edit_benchmark.speed(scenes, drawn[0], steps=4, repeats=1).set_index("run")
    assert table["rows"]["direct + refine"] == 4 + 2 * 4 + 4 * 4
    # One of the four steps, that from t = 751, is guided.
    assert table["rows"]["dual-chain, fading"] == (2 * 4 + 1) + (4 + 1)
    assert table["rows"]["dual-chain, fading, shared"] == (4 + 1 + 1) + (4 + 1)
    assert table["rows"]["dual-chain + refine, fading, shared"] == (4 + 1 + 1) + 4 + (4 + 1)
    assert table["speedup"]["null-text + refine"] == 1 and (table["seconds"] > 0).all()
