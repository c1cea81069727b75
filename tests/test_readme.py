"""The README: what it says of methods is so, and its code runs."""

import re
from pathlib import Path

import pytest

from erddci import METHODS, methods

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_method_table():
    rows = re.findall(r"^\| `([\w-]+)` \| `(\w+)` \| `(\w+)` \| (.+) \|$", README, re.M)
    expected = [
        (name, method.invert.__name__, method.sample.__name__, method.source)
        for name, method in METHODS.items()
    ]
    assert rows == expected
    assert all(hasattr(methods, name) for row in rows for name in row[1:3])


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)\s]+)\)", README):
        if not target.startswith("https://"):
            assert (ROOT / target.partition("#")[0]).exists(), f"no {target}"


@pytest.mark.slow
def test_code_runs(capsys):
    first, second, _ = re.findall(r"^```python\n(.*?)^```$", README, re.M | re.S)
    names: dict = {}
    exec(first, names)
    dual_chain, ddim = map(float, capsys.readouterr().out.split())
    assert dual_chain < 1e-12 < 0.1 < ddim < 0.3
    exec(second, names)
    assert names["image"].shape == (128, 128, 3)
