"""A command line painted: every file is there, tells what it was made from, and is what the run paints from Python."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import corgi
from corgi.inference.command import REJECTED, paint_request
from corgi.inference.generate import Generator
from corgi.inference.request import request_of
from corgi.settings.errors import InputError
from corgi.tables.run import Run
from tests.support.painting_run import SIDE, painting_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return painting_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def generator(run: Run) -> Generator:
    return corgi.load(run.folder)


def painted(run: Run, out: Path, *arguments: str) -> list[str]:
    return list(paint_request(request_of([str(run.folder), *arguments, "--out", str(out)])))


def opened(path: str) -> Image.Image:
    with Image.open(path) as picture:
        picture.load()
        return picture


def is_same(a: Image.Image, b: Image.Image) -> bool:
    return a.size == b.size and int(np.abs(np.asarray(a).astype(int) - np.asarray(b)).max()) <= 1


def test_a_file_of_prompts_with_a_bad_row_is_painted_without_it(
    run: Run, generator: Generator, tmp_path: Path
) -> None:
    rows = [f"picture number {row}".encode() for row in range(80)]  # two batches
    rows[70] = b"\xff\xfe"
    (tmp_path / "prompts.txt").write_bytes(b"\n".join(rows))
    told = painted(run, tmp_path / "out", "a fox", "--prompts", str(tmp_path / "prompts.txt"), "--seed", "7")
    assert told[-1].endswith("1 of 80 rows were not painted")
    assert len(set(told)) == 1 + 79 + 1
    prompts = [opened(path).info["prompt"] for path in told[:-1]]
    assert prompts == ["a fox", *(f"picture number {row}" for row in range(80) if row != 70)]
    for path in (told[0], told[40], told[-2]):
        about = opened(path).info
        assert about["seed"] == "7"
        assert is_same(opened(path), generator.generate(about["prompt"], seed=7)[0]), path
    with (tmp_path / "out" / REJECTED).open() as table:
        assert list(csv.DictReader(table)) == [
            {"row": "70", "reason": "no_caption", "detail": "is no UTF-8 text"}
        ]


def test_steps_variations_mixtures_and_ways_are_files_of_their_own(
    run: Run, generator: Generator, tmp_path: Path
) -> None:
    [given] = painted(run, tmp_path, "a fox")
    arguments = ["red heart", "--vary", given, "--mix", "a fox", f"@{given}", "--weights", "1", "2"]
    told = painted(
        run, tmp_path, *arguments, "--between", "a fox", f"@{given}", "--frames", "3", "--show-steps", "strip"
    )
    heart, steps, variation, mixture, way = map(opened, told)
    assert is_same(heart, generator.generate("red heart")[0])
    assert steps.size == (4 * SIDE + 3 * 2, SIDE)
    assert is_same(steps.crop((3 * (SIDE + 2), 0, 4 * SIDE + 6, SIDE)), heart)
    assert is_same(variation, generator.variations(opened(given))[0])
    assert is_same(mixture, generator.mix(["a fox", opened(given)], [1.0, 2.0])[0])
    assert way.size == (3 * SIDE + 2 * 2, SIDE)
    [_, gif] = painted(run, tmp_path, "red heart", "--show-steps", "gif")
    with Image.open(gif) as frames:
        assert getattr(frames, "n_frames", 1) == 4


def test_other_settings_have_files_of_their_own_and_the_runs_own_keep_their_names(
    run: Run, generator: Generator, tmp_path: Path
) -> None:
    plain = painted(run, tmp_path, "a fox")
    same = painted(run, tmp_path, "a fox", "--steps", "4")
    others = [
        painted(run, tmp_path, "a fox", *arguments)
        for arguments in (["--steps", "3"], ["--guidance", "4"], ["--best-of", "2"], ["--enlarge"])
    ]
    assert plain == same
    assert len({tuple(told) for told in (plain, *others)}) == 5
    assert opened(others[-1][0]).size == (2 * SIDE, 2 * SIDE)
    assert is_same(opened(plain[0]), generator.generate("a fox")[0])


def test_a_picture_that_is_none_is_one_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "no.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="cannot be read as a picture") as caught:
        painted(run, tmp_path / "out", "--vary", str(tmp_path / "no.png"))
    assert "\n" not in str(caught.value)
