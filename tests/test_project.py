"""The files that describe the project agree with each other and with what is installed."""

import re
import subprocess
import tomllib
from importlib.metadata import distributions
from itertools import chain
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"].values()
REQUIREMENTS = [Requirement(each) for each in chain(PROJECT["dependencies"], *EXTRAS)]
CODE = {"erddci", "figures", "notebooks", "tests"}
DOCUMENTS = {"CITATION.cff", "LICENSE", "README.md"}
SETUP = {"Makefile", "constraints.txt", "environment.yml", "pyproject.toml"}
MACHINE_PATH = re.compile(rb"(?<![\w.])/(?:home|root|work|Users)/")


@pytest.fixture(scope="module")
def pins():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if not line.startswith("#"))
    return {canonicalize_name(name): Version(version) for name, version in pairs}


@pytest.fixture(scope="module")
def files():
    """What git tracks, or would if asked to."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [Path(name) for name in listing.split("\0") if (ROOT / name).is_file()]


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_requirement_is_pinned_within_its_range(requirement, pins):
    pin = pins.get(canonicalize_name(requirement.name))
    assert pin, "no pin: run `make constraints`"
    assert pin in requirement.specifier


def test_installed_versions_are_the_pinned_ones(pins):
    # A build of the pinned version will do (2.13.0+cpu for 2.13.0), and some packages are only
    # wanted on some systems, so an absent one is no disagreement.
    installed = {canonicalize_name(d.name): Version(d.version).public for d in distributions()}
    wrong = {
        name: f"{installed[name]} is installed, {pin} is pinned"
        for name, pin in pins.items()
        if installed.get(name, str(pin)) != str(pin)
    }
    assert not wrong, 'run `pip install -c constraints.txt -e ".[test]"`'


def test_conda_installs_the_same_packages():
    python = PROJECT["requires-python"].removeprefix(">=")
    *conda, pip = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert conda == [f"python={python}", "pip"]
    assert pip == {"pip": ["-c constraints.txt", "-e .[test]"]}


def test_pre_commit_runs_the_pinned_ruff(pins):
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    revisions = {Path(each["repo"]).name: each["rev"] for each in repositories}
    assert revisions["ruff-pre-commit"] == f"v{pins['ruff']}"


def test_top_level_holds_nothing_unexpected(files):
    names = {file.parts[0] for file in files if not file.parts[0].startswith(".")}
    assert names <= CODE | DOCUMENTS | SETUP


def test_no_file_mentions_a_path_of_one_machine(files):
    assert not [str(file) for file in files if MACHINE_PATH.search((ROOT / file).read_bytes())]
