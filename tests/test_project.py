"""The files that describe the project agree with each other and with what is installed."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import distributions, packages_distributions
from itertools import chain
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = {
    name: [Requirement(each) for each in extra]
    for name, extra in PROJECT["optional-dependencies"].items()
}
HARD = [Requirement(each) for each in PROJECT["dependencies"]]
REQUIREMENTS = [each for each in chain(HARD, *EXTRAS.values()) if each.name != "erddci"]
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


def test_the_test_extra_brings_the_others():
    (ours,) = (each for each in EXTRAS["test"] if each.name == "erddci")
    assert ours.extras == set(EXTRAS) - {"test"}


# What a part of the package imports must be installed with it: with the package, or its extra.
MODULES = sorted((ROOT / "erddci").rglob("*.py"))
FOLDERS = {"plots": "notebooks", "widgets": "notebooks", "training": "train"}
FILES = {f"workbook/{name}.py": "notebooks" for name in ("figures", "notebooks")}
FILES["scenes/captions.py"] = "train"
DISTRIBUTIONS = packages_distributions()


def imported(path):
    """The packages that a module imports, the standard library's and ours left out."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [str(node.module)]
        else:
            continue
        yield from {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"erddci"}


def distributions_of(package):
    return {canonicalize_name(name) for name in DISTRIBUTIONS[package]}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_what_is_imported_is_required(path):
    inside = path.relative_to(ROOT / "erddci")
    extra = FILES.get(inside.as_posix()) or FOLDERS.get(inside.parts[0])
    required = {canonicalize_name(each.name) for each in HARD + EXTRAS.get(extra, [])}
    assert not [name for name in imported(path) if not distributions_of(name) & required]


def test_what_is_required_is_imported():
    used = set().union(*(distributions_of(name) for path in MODULES for name in imported(path)))
    assert not [each.name for each in HARD if canonicalize_name(each.name) not in used]


def test_the_command_line_needs_no_extra():
    names = {canonicalize_name(each.name) for each in EXTRAS["notebooks"]} - {"jinja2"}  # torch's
    absent = [name for name in DISTRIBUTIONS if distributions_of(name) & names]
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({absent})); from erddci.cli import app; "
        "from erddci.experiments import EDITING, RECONSTRUCTION; app()"
    )
    done = subprocess.run([sys.executable, "-c", code, "doctor"], capture_output=True, text=True)
    assert "dual-chain reconstruction" in done.stdout, done.stderr


def test_the_citation_names_the_package_as_it_is():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert citation["authors"] == PROJECT["authors"]
    assert citation["references"][0]["url"] == PROJECT["urls"]["Paper"]


def test_conda_installs_the_same_packages():
    python = PROJECT["requires-python"].removeprefix(">=")
    *conda, pip = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert conda == [f"python={python}", "pip"]
    assert pip == {"pip": ["-c constraints.txt", "-e .[test]"]}


def test_pre_commit_runs_the_pinned_ruff(pins):
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    revisions = {Path(each["repo"]).name: each.get("rev") for each in repositories}
    assert revisions["ruff-pre-commit"] == f"v{pins['ruff']}"


def test_pre_commit_can_read_its_hooks():
    command = [sys.executable, "-m", "pre_commit", "validate-config"]
    subprocess.run(command, cwd=ROOT, check=True)


def test_pins_are_read_from_the_report_of_pip():
    found = [("torch", "2.13.0+cpu"), ("Jinja2", "3.1.6"), ("erddci", "0.1.0")]
    report = {"install": [{"metadata": {"name": n, "version": v}} for n, v in found]}
    command = [sys.executable, ROOT / ".ci" / "pins.py"]
    done = subprocess.run(command, input=json.dumps(report), capture_output=True, text=True)
    assert done.stdout.split() == ["Jinja2==3.1.6", "torch==2.13.0"]


def test_top_level_holds_nothing_unexpected(files):
    names = {file.parts[0] for file in files if not file.parts[0].startswith(".")}
    assert names <= CODE | DOCUMENTS | SETUP


def test_the_map_of_the_package_is_whole():
    text = (ROOT / ".github" / "CONTRIBUTING.md").read_text()
    named = set(re.findall(r"\w+", text.split("erddci/\n")[1].split("```")[0]))
    top = {path.relative_to(ROOT / "erddci").parts[0].removesuffix(".py") for path in MODULES}
    assert top - {"__init__", "__main__"} <= named


def test_no_file_mentions_a_path_of_one_machine(files):
    assert not [str(file) for file in files if MACHINE_PATH.search((ROOT / file).read_bytes())]
