"""COCO's FID on a stand-in of a few images: which captions are painted is fixed, and both sets go one way to the network."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from corgi.evaluation import inception as inception_module
from corgi.evaluation.coco import IDS, Caption, chosen, features_of, named, read_annotations, scores
from corgi.evaluation.coco_command import main
from corgi.evaluation.inception import Inception
from corgi.inference.bulk_command import RESULT
from corgi.settings.errors import InputError
from corgi.tables.run import Run
from tests.support.painting_run import painting_run

IMAGES = 12


class Means(nn.Module):
    """A network of Inception's call: the pixels' means on a grid of 2 x 2."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor]:
        assert pixels.shape[1:] == (3, 256, 256)
        return (nn.functional.adaptive_avg_pool2d(pixels.float(), 2).flatten(1),)


INCEPTION = Inception(Means(), {"network": "means", "sha256": "0"})


def write_coco(folder: Path) -> tuple[Path, Path]:
    """Write a stand-in of COCO: images of several sides, five captions per image, their ids in no order."""
    draws = np.random.default_rng(0)
    (folder / "val2014").mkdir()
    images, annotations = [], []
    for number in range(IMAGES):
        name = f"COCO_val2014_{number:012d}.jpg"
        pixels = draws.integers(0, 256, (30 + number, 40, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "val2014" / name)
        images.append({"id": 100 + number, "file_name": name})
        for n in range(5):
            one = {
                "id": 1000 - 7 * number - n,
                "image_id": 100 + number,
                "caption": f"image {number}, {n} \n",
            }
            annotations.append(one)
    path = folder / "captions_val2014.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return path, folder / "val2014"


def captions(number: int) -> list[Caption]:
    return [Caption(n, n // 5, f"caption {n}", f"{n // 5}.jpg") for n in range(5 * number)]


def test_law_the_choice_is_one_caption_per_image_whatever_the_order_of_the_file() -> None:
    all_of_them = captions(50)
    found = chosen(all_of_them, 20)
    assert len({one.image_id for one in found}) == 20
    assert all(one.id == 5 * one.image_id for one in found)
    assert chosen(all_of_them[::-1], 20) == found
    assert chosen(all_of_them, 30)[:20] == found
    assert [one.image_id for one in found] != sorted(one.image_id for one in found)


def test_a_given_list_is_kept_in_its_order_and_an_unknown_id_is_one_line() -> None:
    assert [one.id for one in named(captions(4), [7, 3, 11])] == [7, 3, 11]
    with pytest.raises(InputError, match="not have caption 99"):
        named(captions(4), [7, 99])


def test_law_images_equal_to_the_real_ones_have_no_distance_and_others_have_one() -> None:
    draws = np.random.default_rng(1)
    images = [Image.fromarray(draws.integers(0, 256, (60, 80, 3)).astype(np.uint8)) for _ in range(30)]
    same = scores(iter(images), iter(images), captions(3), INCEPTION)
    assert same["FID"] == pytest.approx(0, abs=1e-6)
    dark = [image.point([value // 2 for value in range(256)] * 3) for image in images]
    assert scores(dark, images, captions(3), INCEPTION)["FID"] > 100  # pyright: ignore[reportOperatorIssue]
    assert features_of(iter(images), INCEPTION).shape == (30, 12)


@pytest.mark.usefixtures("in_process")
def test_the_command_paints_the_list_and_tells_what_the_figure_depends_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = painting_run(tmp_path / "runs")
    annotations, images = write_coco(tmp_path)
    monkeypatch.setattr(inception_module, "load_inception", lambda *_: INCEPTION)
    out = tmp_path / "out"
    words = [
        str(run.folder),
        "--annotations",
        str(annotations),
        "--images",
        str(images),
        "--inception",
        "w.pth",
    ]
    words += ["--number", "8", "--out", str(out), "--steps", "2"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    told: dict[str, Any] = json.loads((out / "coco.json").read_text())
    assert json.loads(shown[shown.index("{") :]) == told
    assert (told["painted"], told["real"], told["captions"]) == (8, IMAGES, 8)
    ids = [int(line) for line in (out / IDS).read_text().split()]
    assert ids == [one.id for one in chosen(read_annotations(annotations), 8)]
    before = [shard.digest for shard in Run.open(out / RESULT).shards("pictures")]
    again = [*words[:-4], "--ids", str(out / IDS), *words[-4:]]
    assert main(again) == 0
    assert [shard.digest for shard in Run.open(out / RESULT).shards("pictures")] == before
    assert json.loads((out / "coco.json").read_text()) == told


@pytest.mark.parametrize("text", ["", "[]", '{"images": [], "annotations": [{"id": 1}]}'])
def test_a_file_that_is_no_annotations_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "captions.json"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_annotations(path)
    assert "is not a file of COCO captions" in str(caught.value)
    assert "\n" not in str(caught.value)
