"""docs/tour.ipynb: every cell is run, in a kernel as a notebook has it."""

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parent.parent / "docs/tour.ipynb"


def text(cell: Any) -> str:
    """What a cell has printed and shown."""
    shown = [output.get("text") or output["data"]["text/plain"] for output in cell.outputs]
    return "".join(map(str, shown))


def test_every_cell_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PYTHONPATH", str(PAGE.parents[1]), prepend=":")
    (tmp_path / "here").mkdir()
    page = nbformat.read(PAGE, as_version=4)
    nbclient.NotebookClient(page, timeout=900, resources={"metadata": {"path": tmp_path / "here"}}).execute()
    cells = [cell for cell in page.cells if cell.cell_type == "code"]
    said = {index: text(cell) for index, cell in enumerate(cells)}
    assert re.search(r"^update 2/2  passed .*", said[0], re.MULTILINE)
    assert "\x1b" not in said[0]  # no bars, no colours
    assert re.search(r"test after update 2  task/mean@2 [\d.]+%", said[1])
    assert "eval/per_case/best@2" in said[2]
    assert "eval/per_case/best@4" in said[6]
    assert "Verdict(reward=0.0, passed=False" in said[7]
    assert "1 update" in said[8]
    assert "verify/lost" not in said[8]
    assert said[9].startswith("stepz is not a setting: did you mean steps?")
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["runs"]


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", PAGE.read_text()):
        assert (PAGE.parent / target).exists(), target
