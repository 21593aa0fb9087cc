"""The network of FID and KID takes a file of weights that is given, and no other: absent, another or harmful ones are refused.

The weights are random values of the true shapes, so no download is needed.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from corgi.evaluation.inception import Inception, load_inception
from corgi.settings.errors import InputError
from corgi.storage.files import sha256_of_file
from tests.support.inception_weights import write_weights

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


class Planted:
    """Code in a file of weights: whoever unpickles it makes a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("inception") / "weights.pth")


@pytest.fixture(scope="module")
def inception(weights: Path) -> Inception:
    return load_inception(weights, sha256_of_file(weights).upper())


def test_pictures_of_several_sizes_are_seen_one_by_one(inception: Inception) -> None:
    draws = np.random.default_rng(0)
    pictures = [
        Image.fromarray(draws.integers(0, 256, (side, side, 3)).astype(np.uint8)) for side in (20, 31)
    ]
    together = inception.features(pictures)
    alone = np.concatenate([inception.features([one]) for one in pictures])
    np.testing.assert_allclose(together, alone, rtol=1e-5)


def test_the_facts_name_file_and_resize(inception: Inception, weights: Path) -> None:
    assert inception.facts["sha256"] == sha256_of_file(weights)
    assert "antialias=False" in inception.facts["resize"]


def test_a_file_that_is_absent_another_or_no_weights_is_one_line(weights: Path, tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(2)}, tmp_path / "foreign.pth")
    (tmp_path / "text.pth").write_text("no weights")
    torch.save(Planted(str(tmp_path / "ran")), tmp_path / "code.pth")
    for path, sha256, words in (
        (tmp_path / "absent.pth", None, "is not a file of Inception weights"),
        (weights, "0" * 64, f"{'0' * 64} is expected"),
        (tmp_path / "foreign.pth", None, "does not contain weights of this Inception"),
        (tmp_path / "text.pth", None, "does not contain weights of this Inception"),
        (tmp_path / "code.pth", None, "does not contain weights of this Inception"),
    ):
        with pytest.raises(InputError) as caught:
            load_inception(path, sha256)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()
