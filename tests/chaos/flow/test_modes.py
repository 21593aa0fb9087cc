"""Training modes on 300 pictures, whole: semi-supervised, and language-free by Lafite's pseudo text."""

import subprocess
import sys
from pathlib import Path

import pytest

import corgi
from corgi.tables.run import Run
from tests.support.ports import free_port

HOME = Path(__file__).resolve().parents[3]
MODES = {
    "semi-supervised": ["curate.caption_share=0.3"],
    "language-free": ["decoder.pseudo_text_xi=2.65"],
}


@pytest.mark.flow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("mode", MODES)
def test_each_mode_runs_through_every_stage_and_paints(tmp_path: Path, mode: str) -> None:
    command = [
        *(
            sys.executable,
            str(HOME / "pipelines" / "demo.py"),
            "--pictures",
            "300",
            "--port",
            str(free_port()),
        ),
        *(
            "--work",
            str(tmp_path / "site"),
            "--recipe",
            "pipelines/recipes/smoke.yaml",
            f"root={tmp_path / 'runs'}",
        ),
        *MODES[mode],
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1100, cwd=HOME, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
    run = Run.open(tmp_path / "runs" / "smoke")
    prior, decoder = (run.shards(stage)[0].facts["train_pictures"] for stage in ("prior", "decoder"))
    assert (prior < 0.6 * decoder) is (mode == "semi-supervised")
    generator = corgi.load(run.folder)
    assert generator.embedder == ("text" if mode == "language-free" else "prior")
    assert len(generator.generate("red heart", n=2)) == 2
