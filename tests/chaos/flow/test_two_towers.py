"""The whole DAG with two towers: vectors, statistics, prior and decoder all see both blocks."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import load_file

from corgi.tables.run import Run
from corgi.tables.vectors import concatenated, tower_names
from tests.support.ports import free_port

HOME = Path(__file__).resolve().parents[3]
DIMS = {"own": 128, "vit": 256}


@pytest.mark.flow
@pytest.mark.timeout(1500)
def test_two_towers_run_through_every_stage(tmp_path: Path) -> None:
    command = [
        *(
            sys.executable,
            str(HOME / "pipelines" / "demo.py"),
            "--pictures",
            "300",
            "--port",
            str(free_port()),
        ),
        *("--work", str(tmp_path / "site"), "--recipe", "pipelines/recipes/two-towers.yaml"),
        f"root={tmp_path / 'runs'}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1400, cwd=HOME, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
    run = Run.open(tmp_path / "runs" / "two-towers")
    assert set(run.stages()) >= {"embed", "curate", "shift", "prior", "decoder", "evaluate"}
    table = run.store.read(run.shards("embed")[0], "image_embeddings")
    assert tower_names(table.schema) == list(DIMS)
    assert {name: table.schema.field(f"{name}/image").type.list_size for name in DIMS} == DIMS
    vectors = concatenated(table, "image", list(DIMS))
    np.testing.assert_allclose(np.linalg.norm(vectors[:, :128], axis=1), np.sqrt(0.5), atol=1e-3)
    shift = run.shards("shift")[0]
    with safe_open(run.store.path(shift, "shift"), "np") as file:
        assert json.loads(file.metadata()["towers"]) == list(DIMS)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    assert tensors["mean"].shape == (4, sum(DIMS.values()))
    assert tensors["factor"].shape == (4, sum(DIMS.values()), 8)
    assert all(np.isfinite(value).all() for value in tensors.values())
    assert shift.facts["scale"] == shift.facts["scale_matched_to_captions"]
    assert (run.folder / "report.html").exists()
    prior = load_file(run.store.path(run.shards("prior")[0], "prior_shifted"))
    assert prior["null_encodings"].shape == (12, 64)
    paint = [sys.executable, str(HOME / "pipelines" / "generate.py"), str(run.folder), "red heart"]
    subprocess.run([*paint, "--out", str(tmp_path / "pictures")], check=True, timeout=120, cwd=HOME)
    assert len(list((tmp_path / "pictures").glob("red-heart-*-0.png"))) == 1
