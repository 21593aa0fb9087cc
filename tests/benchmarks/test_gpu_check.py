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


def check(tmp_path: Path, *options: str) -> tuple[int, dict[str, dict]]:
    (tmp_path / "sitecustomize.py").write_text(FINDER)
    paths = os.pathsep.join([str(tmp_path), str(HOME)])
    command = [
        sys.executable,
        "-m",
        "benchmarks.gpu_check",
        "--toy",
        "--out",
        str(tmp_path / "out"),
        *options,
    ]
    done = subprocess.run(command, cwd=HOME, env={**os.environ, "PYTHONPATH": paths}, check=False)
    rows = json.loads((tmp_path / "out" / "rows.json").read_text())
    assert (tmp_path / "out" / "table.md").read_text().count("\n| ") >= len(rows)
    return done.returncode, {row["part"]: row["figures"] for row in rows}


def test_parts_run_without_ray_and_others_and_tell_their_figures(tmp_path: Path) -> None:
    parts = ["prior-demo", "decoder", "resume", "generate", "embed"]
    code, rows = check(tmp_path, "--limit-s", "600", "--parts", *parts)
    assert code == 0, rows
    assert list(rows) == ["device", *parts]
    assert rows["device"]["sizes"] == "toy"
    assert rows["resume"]["bit-equal"] is True
    for part in ("prior-demo", "decoder"):
        assert rows[part]["samples/s"] > 0
        shares = {name for name in rows[part] if name.startswith("share of ")}
        assert shares == {f"share of {phase}" for phase in ("forward", "backward", "optimizer", "average")}
    assert rows["prior-demo"]["GiB of states by --plan"] > 0
    assert rows["generate"]["s/picture, 64 at once"] > 0
    assert all(rate > 0 for name, rate in rows["embed"].items() if "pictures/s" in name)


def test_a_part_past_its_limit_is_a_row_and_an_exit_status(tmp_path: Path) -> None:
    code, rows = check(tmp_path, "--limit-s", "0.01", "--parts", "resume", "generate")
    assert code == 1
    assert rows["resume"]["stopped"] == rows["generate"]["stopped"] == "its 0.01 s were over"


def test_a_part_whose_library_is_missing_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert gpu_check.run_part("prior-demo", True, 60) == {"left out": "deepspeed is missing"}
    assert gpu_check.run_part("embed", True, 60) == {"left out": "open_clip is missing"}
