"""The command that scores folders: JSON on the screen and in a file; one line for what is wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from corgi.evaluation.score_command import main


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    draws = np.random.default_rng(0)
    for name in ("painted", "real", "training", "held"):
        (tmp_path / name).mkdir()
        for number in range(12):
            small = draws.integers(0, 256, (4, 4, 3)).astype(np.uint8)
            drawn = Image.fromarray(small).resize((24, 16), Image.Resampling.NEAREST)
            drawn.save(tmp_path / name / f"{number}.png")
    return [str(tmp_path / name) for name in ("painted", "real", "training", "held")]


def test_scores_are_printed_and_written(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    painted, real, training, held = folders
    out = tmp_path / "scores.json"
    options = ["--side", "16", "--training", training, "--held-out", held, "--out", str(out)]
    assert main([painted, real, *options]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads(out.read_text())
    assert told["pictures"] == {"painted": 12, "real": 12}
    assert "Pillow bicubic" in told["resize before the networks"]
    assert set(told["memorisation"]["spaces"]) == {"pixels", "perceptual hash"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--training", "."], "belong together"),
        (["--side", "2"], "--side=2"),
        (["--inception", "absent.pth"], "absent.pth is not a file of Inception weights"),
        (["--run", "absent"], "absent holds no run"),
    ],
)
def test_what_cannot_be_scored_is_one_line(
    folders: list[str], capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    assert main([*folders[:2], *options]) == 3
    said = capsys.readouterr()
    assert said.out == ""
    assert [words in line for line in said.err.splitlines()] == [True]
