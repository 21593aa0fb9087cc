"""A new user's way: pictures with captions in a folder, `corgi new`, `corgi plan`, `corgi run`, `corgi status`.

One stage of training, the tower of 60 steps, is run; a finished smoke run stands in for the others (tests/web/test_client.py
serves it).
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

PICTURES = 200
COLOURS = ("red", "green", "blue", "yellow", "black", "white", "orange", "purple")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with 200 captioned pictures, all of them different."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "images").mkdir()
    for number in range(PICTURES):
        name = COLOURS[number % len(COLOURS)]
        picture = Image.new("RGB", (96, 96), name)
        picture.paste((number, 255 - number, 128), (10, 10, 12 + number // 4, 60))
        picture.save(folder / "images" / f"{number:03}.png")
        (folder / "images" / f"{number:03}.txt").write_text(f"a {name} square with bar {number}")
    return folder


def corgi(folder: Path, *words: str) -> str:
    """Run the command as a user does, away from the checkout; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "corgi.commands", *words], cwd=folder, capture_output=True, text=True, timeout=300, check=False,
        stdin=subprocess.DEVNULL, env={**os.environ, "WANDB_MODE": "disabled"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_from_a_folder_of_pictures_to_a_trained_tower(folder):
    assert "corgi run squares.yaml" in corgi(folder, "new", "squares", "--source", "images")
    assert "would run" in corgi(folder, "plan", "squares.yaml")
    small = ["tower.training.num_steps=60", "tower.training.global_batch=64"]
    corgi(folder, "run", "squares.yaml", *small, "--until", "tower")
    status = corgi(folder, "status", "runs/squares")
    counts = {line.split()[0]: line.split() for line in status.splitlines()}
    assert counts["download"][5] == str(PICTURES)
    assert "tower" in counts
    assert "done before" in corgi(folder, "run", "runs/squares", "--until", "tower")
    assert "squares" in corgi(folder, "lineage", "runs/squares")
