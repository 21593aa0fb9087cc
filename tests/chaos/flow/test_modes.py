"""Training modes on 300 pictures, whole: semi-supervised, and language-free by each way of making pseudo text.

They share a root, so that tables, tower and autoencoder are made once, by the first.
"""

import subprocess
import sys
from pathlib import Path

import pytest

import corgi
from corgi.tables.run import Run
from tests.support.ports import free_port

HOME = Path(__file__).resolve().parents[3]
MODES = {
    "language-free": ["decoder.pseudo_text_xi=2.65"],
    "lafite-trained": ["decoder.pseudo_text=trained"],
    "retrieved": ["decoder.pseudo_text=retrieved"],
    "semi-supervised": ["curate.caption_share=0.3"],
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("modes")


@pytest.mark.flow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("mode", MODES)
def test_each_mode_runs_through_every_stage_and_paints(home: Path, mode: str) -> None:
    script, recipe = HOME / "pipelines" / "demo.py", "pipelines/recipes/smoke.yaml"
    command = [sys.executable, str(script), "--pictures", "300", "--port", str(free_port())]
    command += ["--work", str(home / "site"), "--recipe", recipe, f"root={home / 'runs'}", f"name={mode}"]
    done = subprocess.run(
        [*command, *MODES[mode]], capture_output=True, text=True, timeout=1100, cwd=HOME, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
    run = Run.open(home / "runs" / mode)
    prior, decoder = (run.shards(stage)[0].facts["train_pictures"] for stage in ("prior", "decoder"))
    assert (prior < 0.6 * decoder) is (mode == "semi-supervised")
    generator = corgi.load(run.folder)
    assert generator.embedder == ("prior" if mode == "semi-supervised" else "text")
    assert len(generator.generate("red heart", n=2)) == 2
