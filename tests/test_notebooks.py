"""The notebooks keep the rules of the course, and run."""

import ast
import json
import re
import statistics
import sys
from functools import cache

import nbformat
import numpy as np
import pytest

from erddci import workbook
from erddci.workbook import exercises, notebooks
from erddci.workbook.notebooks import NOTEBOOKS

PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))
HEAD = ("**Goal", "**Prerequisites", "**Time", "**You will learn")
INTERACTIVE = {"ipywidgets", "plotly", "widgets", "interact", "noise_trajectories_3d"}

each_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


@cache
def read(path):
    return nbformat.read(path, 4)


def cells(path, kind=None):
    return [cell for cell in read(path).cells if kind in (None, cell.cell_type)]


def tagged(path, tag):
    return [cell for cell in cells(path, "code") if tag in cell.metadata.get("tags", ())]


def lines(cell):
    """Lines of code: blank ones do not count."""
    return [line for line in cell.source.splitlines() if line.strip()]


def prose(source):
    """What a reader reads as sentences: no headings, tables, code blocks and display formulas.

    An inline formula or code span is one word, a link the words it shows.
    """
    source = re.sub(r"```.*?```|\$\$.*?\$\$", "", source, flags=re.S)
    source = re.sub(r"^\s*[#|].*$", "", source, flags=re.M)
    source = re.sub(r"\$[^$]+\$|`[^`]+`", "formula", source)
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", source)


def words(source):
    return [word for word in prose(source).split() if re.search(r"\w", word)]


def anchors(path):
    """The headings of a notebook as Jupyter links to them."""
    titles = re.findall(r"^#+ (.+)$", "\n".join(c.source for c in cells(path, "markdown")), re.M)
    return {title.strip().replace(" ", "-") for title in titles}


def outside_live(node):
    """All nodes of a tree but those guarded by `if workbook.live():`."""
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "workbook.live()":
            continue
        yield from outside_live(child)


def names(node):
    """The names that a node mentions."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        dotted = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
        return {part for name in dotted for part in name.split(".")}
    return {getattr(node, "id", ""), getattr(node, "attr", "")}


def check_outputs(notebook):
    """No errors, and every image has alternative text."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            assert output.output_type != "error", f"{cell.id} failed"
            for kind in output.get("data", {}):
                if kind.startswith("image/"):
                    assert output.metadata.get(kind, {}).get("alt"), f"{cell.id} has no alt text"


def test_numbers_are_the_order():
    assert [path.stem[:3] for path in PATHS] == [f"{n:02}_" for n in range(len(PATHS))]


@each_notebook
def test_file(path):
    notebook = read(path)
    nbformat.validate(notebook)
    # Each image of 128 pixels is drawn at twice its size, so that its pixels can be judged.
    assert path.stat().st_size < 1_200_000
    assert notebook.metadata.kernelspec.name == "python3"
    assert "widgets" not in notebook.metadata, "GitHub refuses to show such a notebook"
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    assert not [name for name in ids if re.fullmatch(r"[0-9a-f]{8}", name)], "give cells names"


@each_notebook
def test_head(path):
    first = cells(path)[0]
    assert first.cell_type == "markdown" and first.source.startswith("# ")
    missing = [each for each in HEAD if each not in first.source]
    assert not missing
    assert re.search(r"about \d+ s\b.* two CPU cores", first.source, re.I)
    objectives = first.source.split(HEAD[-1])[1]
    assert 3 <= len(re.findall(r"^- ", objectives, re.M)) <= 4


@each_notebook
def test_parameters_are_literals(path):
    (cell,) = tagged(path, "parameters")
    for statement in ast.parse(cell.source).body:
        assert isinstance(statement, ast.Assign)
        ast.literal_eval(statement.value)
    code = cells(path, "code")
    before = [s for each in code[: code.index(cell)] for s in ast.parse(each.source).body]
    assert all(isinstance(statement, ast.Import | ast.ImportFrom) for statement in before)


@each_notebook
def test_cells_are_short(path):
    counts = sorted(len(lines(cell)) for cell in cells(path, "code"))
    assert statistics.median(counts) <= 4
    assert statistics.quantiles(counts, n=10, method="inclusive")[-1] <= 12
    assert counts[-1] <= 25


@each_notebook
def test_words_for_every_line(path):
    said = sum(len(words(cell.source)) for cell in cells(path, "markdown"))
    written = sum(len(lines(cell)) for cell in cells(path, "code"))
    assert 6 <= said / written <= 16


@each_notebook
def test_a_sentence_before_every_code_cell(path):
    all_cells = cells(path)
    for before, cell in zip(all_cells, all_cells[1:], strict=False):
        if cell.cell_type == "code":
            assert before.cell_type == "markdown", f"nothing is said before {cell.id}"
            last = prose(before.source).strip().split("\n\n")[-1]
            assert len(words(last)) >= 3, f"no sentence before {cell.id}"


@each_notebook
def test_functions_live_in_the_package(path):
    code = cells(path, "code")
    defining = [
        cell
        for cell in code
        if any(
            isinstance(n, ast.FunctionDef | ast.ClassDef) for n in ast.walk(ast.parse(cell.source))
        )
    ]
    assert len(defining) <= len(code) / 10


@each_notebook
def test_figures_have_alternative_text(path):
    for cell in cells(path, "code"):
        for node in ast.walk(ast.parse(cell.source)):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            assert called != "plt.show", "plots.show gives a figure alternative text"
            if called == "plots.show":
                _, alt = node.args
                assert isinstance(alt, ast.Constant | ast.JoinedStr), f"{cell.id}: write the text"
                assert len(ast.unparse(alt)) > 25, f"{cell.id}: say what is to be seen"


@each_notebook
def test_outputs(path):
    notebook = read(path)
    check_outputs(notebook)
    bars = [cell.id for cell in cells(path, "code") if "widget-view" in str(cell.outputs)]
    assert not bars, "GitHub cannot draw widgets and progress bars"
    counts = [cell.execution_count for cell in cells(path, "code")]
    executed = any(cell.outputs for cell in cells(path, "code"))
    assert counts == (list(range(1, len(counts) + 1)) if executed else [None] * len(counts))


@each_notebook
def test_exercises(path):
    sources = [cell.source for cell in cells(path)]
    start = sources.index(next(s for s in sources if re.search(r"^## Exercises$", s, re.M)))
    answers = [n for n, s in enumerate(sources) if re.match(r"answer = None  # replace None", s)]
    assert 2 <= len(answers) <= 3 and min(answers) > start
    tasks = " ".join(sources[start:])
    assert tasks.count("*Hint:*") == len(answers)
    solutions = tagged(path, "solution")
    assert len(solutions) == len(answers)
    for cell in solutions:
        before = cells(path)[cells(path).index(cell) - 1]
        assert "Solution (folded)" in before.source
        assert cell.metadata.jupyter.source_hidden
        assert "answer" not in cell.source


def checks(cell):
    """The calls of `workbook.check` in a cell."""
    calls = [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call)]
    return [call for call in calls if ast.unparse(call.func) == "workbook.check"]


@each_notebook
def test_answers_are_not_on_the_page(path):
    names = []
    for cell in cells(path, "code"):
        solves = cell in tagged(path, "solution")
        for call in checks(cell):
            assert not call.keywords and len(call.args) == 2, f"{cell.id}: nothing but the answer"
            exercise, answer = call.args
            assert isinstance(exercise, ast.Constant) and isinstance(exercise.value, str)
            assert ast.unparse(answer) == ("solution" if solves else "answer")
            names.append((exercise.value, solves))
        if checks(cell) and not solves:
            assert len(lines(cell)) == 1, f"{cell.id}: a check says nothing of the answer"
        if solves:
            assert not cell.outputs, f"{cell.id}: save without the output of a solution"
            assert checks(cell), f"{cell.id}: check the solution"
    numbers = [f"{path.stem[:2]}-{n}" for n in range(1, len(names) // 2 + 1)]
    assert names == [(number, solves) for number in numbers for solves in (False, True)]


def test_every_exercise_has_an_answer():
    found = {
        call.args[0].value
        for path in PATHS
        for cell in cells(path, "code")
        for call in checks(cell)
    }
    assert found == set(json.loads(exercises.ANSWERS.read_text()))


@each_notebook
def test_end(path):
    last = cells(path)[-1]
    assert last.cell_type == "markdown"
    _, summary, references = re.split(r"^## (?:Summary|References)$", last.source, flags=re.M)
    assert len(re.findall(r"^- ", summary, re.M)) == 3
    assert re.search(r"arXiv \d{4}\.\d{5}", references)
    follows = PATHS[PATHS.index(path) + 1 :]
    assert not follows or f"]({follows[0].name})" in references.split("Next:")[1]


@each_notebook
def test_interactive_views_are_guarded(path):
    for cell in cells(path, "code"):
        found = {n for node in outside_live(ast.parse(cell.source)) for n in names(node)}
        assert not found & INTERACTIVE, f"{cell.id}: put it under `if workbook.live():`"


@each_notebook
def test_internal_links_lead_somewhere(path):
    text = "\n".join(cell.source for cell in cells(path, "markdown"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://", target):
            continue
        name, _, anchor = target.partition("#")
        goal = (path.parent / name).resolve() if name else path
        assert goal.exists(), f"no {target}"
        assert not anchor or anchor in anchors(goal), f"no heading for {target}"


@pytest.mark.slow
@each_notebook
def test_runs_from_top_to_bottom(path, tmp_path):
    before = path.read_bytes()
    assert notebooks.execute(path, tmp_path) > 0
    executed = nbformat.read(tmp_path / path.name, 4)
    check_outputs(executed)
    for cell in executed.cells:
        if "solution" in cell.metadata.get("tags", ()):
            said = "".join(output.get("text", "") for output in cell.outputs)
            assert "✓" in said and "✗" not in said, f"{cell.id}: {said}"
    assert path.read_bytes() == before


# How notebooks are executed.


def write(path, *sources):
    notebook = nbformat.v4.new_notebook(cells=list(map(nbformat.v4.new_code_cell, sources)))
    nbformat.write(notebook, path)
    return path


def test_failure_is_an_error_and_leaves_the_copy(tmp_path):
    path = write(tmp_path / "00_fails.ipynb", "print('fine')", "1 / 0", "print('never')")
    with pytest.raises(notebooks.NotebookError, match="failed in cell 2: ZeroDivisionError"):
        notebooks.execute(path, tmp_path / "out")
    copy = nbformat.read(tmp_path / "out" / path.name, 4)
    ran, failed, skipped = (cell.outputs for cell in copy.cells if cell.cell_type == "code")
    assert ran[0].text == "fine\n" and failed[0].ename == "ZeroDivisionError" and not skipped
    assert workbook.live(), "the environment is as it was"


def test_saving_keeps_the_outputs_and_nothing_else(tmp_path):
    path = write(tmp_path / "00_runs.ipynb", "from erddci import workbook", "workbook.live()")
    before = nbformat.read(path, 4)
    notebooks.execute(path, tmp_path / "out", save=True)
    after = nbformat.read(path, 4)
    assert after.cells[1].outputs[0].data["text/plain"] == "False"
    assert [cell.execution_count for cell in after.cells] == [1, 2]
    for cell in after.cells:
        cell.outputs, cell.execution_count = [], None
    assert after == before


def test_names_choose_notebooks(tmp_path):
    first, second = (write(tmp_path / f"0{n}_x.ipynb") for n in (0, 1))
    assert notebooks.files(folder=tmp_path) == [first, second]
    assert notebooks.files(["01"], tmp_path) == [second]
    with pytest.raises(ValueError, match="unknown notebook '7': expected one of 00_x, 01_x"):
        notebooks.files(["7"], tmp_path)
    with pytest.raises(ValueError, match="no notebooks in"):
        notebooks.files(folder=tmp_path / "nowhere")


def test_progress_bars_are_not_saved(tmp_path):
    bar = "from tqdm.auto import tqdm\n\nlen(list(tqdm(range(3))))"
    path = write(tmp_path / "00_bars.ipynb", bar)
    notebooks.execute(path, tmp_path / "out", save=True)
    (result,) = nbformat.read(path, 4).cells[0].outputs
    assert result.data == {"text/plain": "3"}


def test_solutions_are_not_saved(tmp_path):
    path = write(tmp_path / "00_solved.ipynb", "print('seen')", "print('unseen')")
    notebook = nbformat.read(path, 4)
    notebook.cells[1].metadata.tags = ["solution"]
    nbformat.write(notebook, path)
    notebooks.execute(path, tmp_path / "out", save=True)
    first, second = nbformat.read(path, 4).cells
    assert first.outputs[0].text == "seen\n" and not second.outputs


# How answers are checked.


@pytest.fixture
def answers(tmp_path, monkeypatch):
    """A table of answers of its own, with some exercises."""
    monkeypatch.setattr(exercises, "ANSWERS", tmp_path / "answers.json")
    exercises.record("measured", 33.04)
    exercises.record("share", 0.745)
    exercises.record("count", 19, tolerance=0)
    exercises.record("nothing", 0)
    return exercises.ANSWERS


@pytest.mark.parametrize(
    ("exercise", "answer", "said"),
    [
        ("measured", None, exercises.NO_ANSWER),
        ("measured", 33.04, exercises.RIGHT),
        ("measured", 33.2, exercises.RIGHT),
        ("measured", 32.8, exercises.RIGHT),
        ("measured", 33.9, exercises.WRONG),
        ("measured", 32.2, exercises.WRONG),
        ("measured", -33.04, exercises.SIGN),
        ("share", 74.5, exercises.UNIT),
        ("share", 0.745, exercises.RIGHT),
        ("count", 19, exercises.RIGHT),
        ("count", 20, exercises.WRONG),
        ("count", 19.01, exercises.WRONG),
        ("nothing", 0, exercises.RIGHT),
        ("nothing", 0.5, exercises.WRONG),
    ],
)
def test_check_of_an_answer(exercise, answer, said, answers, capsys):
    workbook.check(exercise, answer)
    assert capsys.readouterr().out == said + "\n"
    assert not re.search(r"\d", said), "a message that prints numbers may print the answer"


def test_every_answer_within_the_tolerance_is_right(answers, capsys):
    for error in np.linspace(-0.0099, 0.0099, 50):
        for sign in (1, -1):
            exercises.record("any", sign * 7.3)
            workbook.check("any", sign * 7.3 * (1 + error))
            workbook.check("any", sign * 7.3 * (1 + 3 * np.sign(error) * 0.01))
            right, wrong = capsys.readouterr().out.splitlines()
            assert (right, wrong) == (exercises.RIGHT, exercises.WRONG)


def test_the_table_shows_no_answer(answers):
    for number in ("33", "745", "19"):
        assert f" {number}" not in answers.read_text()


def test_check_of_what_is_no_answer(answers):
    with pytest.raises(ValueError, match="expected a finite number as answer, got 'twelve'"):
        workbook.check("measured", "twelve")
    with pytest.raises(ValueError, match="expected a finite number"):
        workbook.check("measured", float("nan"))
    with pytest.raises(ValueError, match="unknown exercise 'mesured'.*did you mean 'measured'"):
        workbook.check("mesured", 1)


def test_recorded_answers_are_right(answers, capsys, monkeypatch):
    monkeypatch.setenv(exercises.RECORD, "1")
    workbook.check("measured", 12.5)
    monkeypatch.delenv(exercises.RECORD)
    workbook.check("measured", 12.5)
    workbook.check("measured", 33.04)
    assert capsys.readouterr().out.splitlines()[1:] == [exercises.RIGHT, exercises.WRONG]


def test_notebooks_run_on_this_interpreter_in_folders_of_any_name(tmp_path):
    folder = tmp_path / "Übung {1} of 2"
    folder.mkdir()
    path = write(folder / "00_python.ipynb", "import sys", "print(sys.executable)")
    notebooks.execute(path, folder / "out {x}", save=True)
    (result,) = nbformat.read(path, 4).cells[-1].outputs
    assert result.text.strip() == sys.executable
