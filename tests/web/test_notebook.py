"""The notebook runs over a finished run from its first cell to its last, and leaves pictures and plots."""

# pyright: reportMissingImports=false
# the extra `web` is installed by make test-web

import base64
import json
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "finished_run.ipynb"
CELL_TIMEOUT_S = 120


def test_every_cell_runs_and_the_plots_are_there(run, monkeypatch):
    monkeypatch.setenv("CORGI_RUN", str(run.absolute()))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(
        notebook, timeout=CELL_TIMEOUT_S, resources={"metadata": {"path": str(NOTEBOOK.parent)}}
    )
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert [output for output in outputs if output.output_type == "error"] == []
    pictures = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 5
    assert all(base64.b64decode(picture)[:4] == b"\x89PNG" for picture in pictures)
    said = "".join(output.text for output in outputs if output.output_type == "stream")
    assert f"{run.name} plan download" in said
    assert "shifted" in said


def test_it_is_committed_without_outputs():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in cells)
