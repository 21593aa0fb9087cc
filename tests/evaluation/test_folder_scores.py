"""Scores of folders: the same pictures score as the same, others do not, and copies are told by what is given."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import nn

import corgi
from corgi.evaluation.folder_scores import HASH, PIXELS, Networks, copies, hash_rows, scores
from corgi.evaluation.folders import Folder
from corgi.evaluation.judges import Judge
from corgi.feeding.pictures import at_side
from tests.support.painting_run import painting_run


class Colours(nn.Module):
    """A network whose features are the picture at 4 x 4."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return nn.functional.adaptive_avg_pool2d(pixels, 4).flatten(1)


JUDGE = Judge("colours", "colours", Colours(), 16, {"package": "none", "version": "1"})


def folder(name: str, seed: int, number: int = 60, captions: bool = False) -> Folder:
    draws = np.random.default_rng(seed)
    small = draws.integers(0, 256, (number, 4, 4, 3)).astype(np.uint8)
    pictures = [Image.fromarray(one).resize((16, 16), Image.Resampling.NEAREST) for one in small]
    return Folder(name, pictures, [f"picture {n}" for n in range(number)] if captions else None)


def drawing(seed: int) -> Image.Image:
    """A picture of 64 px with five shapes of drawn places, sizes and colours."""
    draws = np.random.default_rng(seed)
    made = Image.new("RGB", (64, 64), tuple(draws.integers(0, 256, 3).tolist()))
    for _ in range(5):
        left, top = draws.integers(0, 48, 2).tolist()
        width, height = draws.integers(10, 36, 2).tolist()
        fill = tuple(draws.integers(0, 256, 3).tolist())
        ImageDraw.Draw(made).rectangle((left, top, left + width, top + height), fill=fill)
    return made


def test_law_a_folder_against_itself_is_no_distance_away(tmp_path: Path) -> None:
    generator = corgi.load(painting_run(tmp_path).folder)
    one, other = folder("one", 0, captions=True), folder("other", 1)
    same = scores(one, one, Networks(judge=JUDGE, generator=generator))
    different = scores(one, other, Networks(judge=JUDGE))
    own, far = same["colours"], different["colours"]
    assert isinstance(own, dict)
    assert isinstance(far, dict)
    assert own["Frechet distance"] == pytest.approx(0, abs=1e-6)
    assert own["coverage, k = 5"] == own["precision, k = 5"] == 1
    assert far["Frechet distance"] > 0.1
    assert far["package"] == "none"
    clip = same["CLIP"]
    assert isinstance(clip, dict)
    assert clip["towers"] == "transformer"
    assert clip["CLIP score, low 95%"] <= clip["CLIP score"] <= clip["CLIP score, high 95%"]
    assert "caption to picture R@1" in clip


def test_law_copies_of_training_pictures_are_told_and_others_are_not() -> None:
    training, held_out = folder("training", 0, 120), folder("held out", 1, 60)
    networks = Networks(judge=JUDGE)
    copied = Folder("copied", training.pictures[:10], None)
    found, told = copies(copied, training, held_out, networks)
    assert found.is_copy.all()
    spaces = told["spaces"]
    assert isinstance(spaces, dict)
    assert [spaces[name]["near"] for name in (PIXELS, HASH, "colours")] == [1, 1, 1]
    others, told = copies(folder("own", 2, 30), training, held_out, networks)
    assert told["copies"] == others.is_copy.mean()
    assert others.is_copy.mean() <= 0.05


def test_law_rows_of_hashes_differ_as_the_bits_do() -> None:
    rows = hash_rows(folder("one", 0, 6).pictures)
    assert rows.shape == (6, 64)
    assert set(np.unique(rows)) == {-1, 1}


@pytest.mark.parametrize("size", [(48, 32), (32, 50)])
def test_law_a_copy_of_the_middle_of_a_picture_that_is_no_square_has_its_hash(size: tuple[int, int]) -> None:
    stored = [drawing(seed).crop((7, 3, 7 + size[0], 3 + size[1])) for seed in range(40)]
    painted = [at_side(picture, 24) for picture in stored]
    apart = (hash_rows(painted) != hash_rows(stored)).sum(1)
    assert np.median(apart) <= 2
    assert apart.max() <= 10


def test_what_no_network_sees_is_counted_only() -> None:
    assert scores(folder("one", 0), folder("other", 1, 30), Networks()) == {
        "pictures": {"painted": 60, "real": 30}
    }
