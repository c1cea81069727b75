"""The modules of the package know only what lies below them."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import erddci

PACKAGE = Path(erddci.__file__).parent
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): ast.parse(path.read_text())
    for path in sorted(PACKAGE.rglob("*.py"))
}

# What each module or folder may import of the package, from the bottom to the top.
BASE = ("registry", "notices")  # all may
LAYERS = {
    **dict.fromkeys(BASE, ()),
    "grid": (),
    "guidance": ("grid",),
    "trajectory": ("grid", "guidance"),
    "methods": ("grid", "guidance", "trajectory"),
    "inversion": ("grid", "guidance", "trajectory", "methods"),
    "images": (),
    "masks": (),
    "metrics": ("images", "metrics"),
    "toy": ("grid", "guidance"),
    "scenes": ("scenes",),
    "checkpoint": ("checkpoint",),
    "identity": (),
    "prompts": (),
    "attention": (),
    "controls": ("attention", "prompts"),
    "model": ("grid", "guidance", "images", "attention", "checkpoint", "identity", "prompts"),
    "training": ("training", "scenes", "grid", "metrics", "checkpoint", "model"),
}
LAYERS["editing"] = tuple(set(LAYERS) - {"metrics", "scenes", "toy", "model", "training"})
LAYERS["plots"] = ("plots", "inversion", "controls")
LAYERS["experiments"] = (*(set(LAYERS) - {"training", "plots"}), "experiments")
# These may import anything.
TOP = ("__init__", "__main__", "cli", "widgets", "workbook")


def imported(tree):
    """The full names of what a module imports, such as "erddci.grid.move"."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports inside the package are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def calls(tree):
    return [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]


@pytest.mark.parametrize("module", [name for name in MODULES if name.split(".")[0] not in TOP])
def test_imports_point_down(module):
    layer = module.split(".")[0]
    assert layer in LAYERS, "a new module needs a place in LAYERS"
    parts = [name.split(".") for name in imported(MODULES[module])]
    below = {*LAYERS[layer], *BASE}
    for name in (each for each in parts if each[0] == "erddci"):
        assert len(name) > 1 and name[1] in below, f"imports {'.'.join(name)}"


@pytest.mark.parametrize(
    "code",
    [
        "import erddci; dir(erddci)",
        "from erddci.cli import app; app(['--help'], standalone_mode=False)",
        "from erddci.workbook import doctor; next(doctor.report())",
        'from erddci import workbook; workbook.check("03-1", 1)',
    ],
)
def test_torch_is_imported_when_it_is_needed(code):
    code += "; import sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_the_package_gives_all_that_it_lists():
    for name in erddci.__all__:
        assert getattr(erddci, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        erddci.nonsense  # noqa: B018


def test_methods_know_no_networks():
    known = {name.split(".")[0] for name in imported(MODULES["methods"])}
    assert not known & {"diffusers", "transformers", "numpy", "PIL"}


def test_no_module_is_a_drawer_for_everything():
    assert not {"utils", "helpers", "common", "misc"} & {
        part for module in MODULES for part in module.split(".")
    }


@pytest.mark.parametrize("module", MODULES)
def test_randomness_comes_from_generators(module):
    # A seed of the whole process would change what the caller draws.
    shared = {"torch.manual_seed", "torch.seed", "random.seed", "np.random.seed"}
    assert not shared & set(calls(MODULES[module]))
    assert not [name for name in calls(MODULES[module]) if name.startswith("np.random.r")]
