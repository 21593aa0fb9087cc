"""`make gpu-check` at toy sizes on a CPU, in an environment where Ray and others cannot be imported."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import gpu_check

HOME = Path(__file__).resolve().parents[2]
BLOCKED = ("ray", "wandb", "img2dataset", "obstore", "faiss")
FINDER = f"""
import sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {BLOCKED}:
            raise ImportError(name + " is blocked")

sys.meta_path.insert(0, Finder())
"""


PARTS_HERE = (
    "import sys; from benchmarks import gpu_check; [gpu_check.inside(part, True) for part in sys.argv[1:]]"
)


@pytest.fixture
def blocked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let processes started from here import none of the blocked libraries."""
    (tmp_path / "sitecustomize.py").write_text(FINDER)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(HOME)]))


def check(monkeypatch: pytest.MonkeyPatch, out: Path, *options: str) -> tuple[int, dict[str, dict]]:
    monkeypatch.setattr(sys, "argv", ["gpu_check", "--toy", "--out", str(out), *options])
    code = gpu_check.main()
    rows = json.loads((out / "rows.json").read_text())
    assert (out / "table.md").read_text().count("\n| ") >= len(rows)
    return code, {row["part"]: row["figures"] for row in rows}


def test_a_part_runs_in_a_process_of_its_own_and_is_a_row(
    blocked: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, rows = check(monkeypatch, tmp_path / "out", "--limit-s", "600", "--parts", "generate")
    assert code == 0, rows
    assert list(rows) == ["device", "generate"]
    assert rows["device"]["sizes"] == "toy"
    assert rows["generate"]["s/picture, 64 at once"] > 0


def test_parts_run_without_ray_and_others_and_tell_their_figures(blocked: None) -> None:
    """In one process, since each start of DeepSpeed takes longer than a toy training."""
    parts = ["prior-demo", "decoder", "resume", "embed"]
    done = subprocess.run(
        [sys.executable, "-c", PARTS_HERE, *parts], capture_output=True, text=True, cwd=HOME
    )
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    rows = dict(zip(parts, told, strict=True))
    assert rows["resume"]["bit-equal"] is True
    for part in ("prior-demo", "decoder"):
        assert rows[part]["samples/s"] > 0
        shares = {name for name in rows[part] if name.startswith("share of ")}
        assert shares == {f"share of {phase}" for phase in ("forward", "backward", "optimizer", "average")}
    assert rows["prior-demo"]["GiB of states by --plan"] > 0
    assert all(rate > 0 for name, rate in rows["embed"].items() if "pictures/s" in name)


def test_a_part_past_its_limit_is_a_row_and_an_exit_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, rows = check(monkeypatch, tmp_path, "--limit-s", "0.01", "--parts", "resume", "generate")
    assert code == 1
    assert rows["resume"]["stopped"] == rows["generate"]["stopped"] == "its 0.01 s were over"


def test_a_part_whose_library_is_missing_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert gpu_check.run_part("prior-demo", True, 60) == {"left out": "deepspeed is missing"}
    assert gpu_check.run_part("embed", True, 60) == {"left out": "open_clip is missing"}
