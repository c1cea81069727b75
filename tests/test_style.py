"""The house rules of the code that ruff does not know."""

import ast
from pathlib import Path

import pytest

import erddci

ROOT = Path(erddci.__file__).parents[1]
TREES = {
    path.relative_to(ROOT).as_posix(): ast.parse(path.read_text())
    for folder in ("erddci", "figures")
    for path in sorted((ROOT / folder).rglob("*.py"))
}
each_file = pytest.mark.parametrize("file", TREES)


def every(kind, file):
    return [node for node in ast.walk(TREES[file]) if isinstance(node, kind)]


def code_lines(function):
    """Lines of statements: the docstring, comments and the signature do not count."""
    start = 1 if ast.get_docstring(function) else 0
    nodes = [inner for each in function.body[start:] for inner in ast.walk(each)]
    return len(
        {n for node in nodes if hasattr(node, "lineno") for n in (node.lineno, node.end_lineno)}
    )


def test_methods_are_short():
    lengths = {each.name: code_lines(each) for each in every(ast.FunctionDef, "erddci/methods.py")}
    for method in erddci.METHODS.values():
        functions = (method.invert, method.sample, method.edit)
        for name in (each.__name__ for each in functions if each):
            assert lengths[name] <= 20, name


def test_length_of_a_function_by_hand():
    long = ["def f(", "    x,", "):", '    """One.', "", '    Two."""', "    # three"]
    long += ["    y = (", "        x + 1", "    )", "", "    return y"]
    (function,) = ast.parse("\n".join(long)).body
    assert code_lines(function) == 4


@each_file
def test_a_choice_of_what_to_do_is_an_if_statement(file):
    statements = (node for node in every(ast.Expr, file))
    chosen = [each for each in statements if isinstance(each.value, ast.IfExp | ast.BoolOp)]
    assert not [ast.unparse(each) for each in chosen]


@each_file
def test_functions_fit_on_a_screen(file):
    lengths = [(each.name, code_lines(each)) for each in every(ast.FunctionDef, file)]
    assert not [(name, length) for name, length in lengths if length > 25]


@each_file
def test_no_truth_value_is_multiplied(file):
    products = (each for each in every(ast.BinOp, file) if isinstance(each.op, ast.Mult))
    found = [each for each in products if is_truth(each.left) or is_truth(each.right)]
    assert not [ast.unparse(each) for each in found], "write it as a condition"


def is_truth(node):
    negated = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
    return negated or isinstance(node, ast.Compare | ast.BoolOp)


@each_file
def test_unknown_names_are_told_by_the_registry(file):
    texts = (each.value for each in every(ast.Constant, file) if isinstance(each.value, str))
    if file != "erddci/registry.py":
        assert not [each for each in texts if "expected one of" in each]
