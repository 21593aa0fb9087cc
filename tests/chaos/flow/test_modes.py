"""Training modes on 300 pictures, whole: semi-supervised, language-free by each way of making pseudo text, cascades with autoguidance.

They share a root, so that tables, tower and autoencoder are made once, by the first.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import corgi
from corgi.tables.run import Run
from tests.support.ports import free_port

HOME = Path(__file__).resolve().parents[3]
TRAINING = {"num_steps": 20, "global_batch": 16, "precision": "fp32", "num_workers": 2}
STEP: dict[str, Any] = {"unet": {"widths": [16, 32]}, "width": 32, "depth": 1, "sample_steps": 4}
STEP |= {"dit": {"heads": 2, "patch": 8}, "training": TRAINING}


def cascade(network: str, **changes: Any) -> list[str]:
    """Return two steps, 32 to 64 and to 128 px, behind a decoder that a weak network guides."""
    steps = {"upsampler": (32, 64), "second_upsampler": (64, 128)}
    crop = 32 if network == "unet" else 0
    asked = {**STEP, "network": network, "crop": crop, **changes}
    sections = [
        f"{name}={json.dumps({**asked, 'low_side': low, 'side': side})}"
        for name, (low, side) in steps.items()
    ]
    return ["decoder.weak={}", *sections]


MODES = {
    "language-free": ["decoder.pseudo_text_xi=2.65"],
    "lafite-trained": ["decoder.pseudo_text=trained"],
    "retrieved": ["decoder.pseudo_text=retrieved"],
    "semi-supervised": ["curate.caption_share=0.3"],
    "cascade-unet": cascade("unet"),
    "cascade-dit": cascade("dit"),
    "language-free-cascade": ["decoder.pseudo_text_xi=2.65", *cascade("unet", pseudo_text_xi=2.65)],
}
LANGUAGE_FREE = ("language-free", "lafite-trained", "retrieved", "language-free-cascade")


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
    assert generator.embedder == ("text" if mode in LANGUAGE_FREE else "prior")
    painted = generator.generate("red heart", n=2)
    side = 128 if "cascade" in mode else 32
    assert [picture.size for picture in painted] == 2 * [(side, side)]
    assert (generator.decoder.weak is not None) is ("cascade" in mode)
