"""The notebook of examples/ runs as it stands, and shows rich results."""

import html
import json
import os
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples" / "first_hour.ipynb"


def test_it_is_kept_without_outputs():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert all(not cell["outputs"] for cell in cells if cell["cell_type"] == "code")


@pytest.mark.slow
def test_no_cell_fails_and_results_are_shown(tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    source = str(Path(__file__).parents[2] / "src")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([source, os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3").execute(cwd=str(tmp_path))

    outputs = {cell.source: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}
    pages = {
        source: output["data"]["text/html"]
        for source, outputs_of_cell in outputs.items()
        for output in outputs_of_cell
        if "text/html" in output.get("data", {})
    }
    headline = outputs["result.verdict.headline"][0]["data"]["text/plain"].strip("'\"")
    page = html.unescape(html.unescape(pages["result"]))
    assert all(sentence in page for sentence in headline.rstrip(".").split(". "))
    assert "&lt;canvas" in pages["result"]  # the report with its figures
    assert "validation_nll" in pages["result.to_pandas()"]
    assert any("memorization (" in page for page in pages.values())  # the lights of the diagnosis
    assert all(page for page in pages.values())
