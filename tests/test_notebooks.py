"""What nbval does not check: the halves of each pair agree, and outputs are stored and clean."""

from pathlib import Path

import jupytext
import nbformat
import pytest
from jupytext.compare import compare_notebooks

NOTEBOOKS = sorted((Path(__file__).resolve().parent.parent / "notebooks").glob("*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def file(request):
    return request.param


def test_the_pair_agrees(file):
    compare_notebooks(jupytext.read(file), jupytext.read(file.with_suffix(".py")), fmt="py:percent")


def test_it_is_stored_as_run_top_to_bottom_without_a_warning(file):
    code = [cell for cell in nbformat.read(file, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs), "show a figure, by plots or charts"
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]


def test_its_cells_are_short_and_it_opens_like_the_others(file):
    code = [cell for cell in nbformat.read(file, as_version=4).cells if cell.cell_type == "code"]
    opening = [cell.source for cell in nbformat.read(NOTEBOOKS[0], as_version=4).cells if cell.cell_type == "code"][:3]
    assert [cell.source for cell in code[:3]] == opening
    assert file.read_text(encoding="utf-8").count(f"/notebooks/{file.name})") >= 2  # the badges open this one
    assert code[0].metadata.tags == ["parameters"]
    assert max(len(cell.source.splitlines()) for cell in code) <= 12
    assert sum(len(cell.source.splitlines()) for cell in code) <= 150
