"""Judges, the network of FID and the latents of the search for copies stay on their device, on fake CUDA tensors."""

from collections.abc import Callable
from copy import deepcopy

import numpy as np
import pytest
import torch
from PIL import Image

from corgi.evaluation.copy_search import Latents
from corgi.evaluation.inception import BATCH, Inception, load_inception
from corgi.evaluation.judges import JUDGES, Judge
from corgi.models.device import ON_GPU
from corgi.models.latent_spaces import CODECS
from corgi.models.spatial_autoencoder import SpatialAutoencoder
from corgi.names import JudgeName
from tests.models.test_latent_spaces import CONFIGS
from tests.support.fake_cuda import CUDA, Watch, fake_cuda, to_cuda
from tests.support.inception_weights import write_weights

pytestmark = pytest.mark.slow
SIDE = 16


@pytest.fixture(autouse=True)
def arrays(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """Let fake tensors become arrays of zeros, and return the devices they were on: a GPU's have to come to the host first."""
    devices: list[torch.device] = []

    def numpy(value: torch.Tensor) -> np.ndarray:
        devices.append(value.device)
        return np.zeros(value.shape, np.float32)

    monkeypatch.setattr(torch.Tensor, "numpy", numpy)
    return devices


def seen(
    features: Callable[[list[Image.Image]], np.ndarray],
    number: int,
    watch: Watch,
    sides: tuple[int, ...] = (24,),
) -> np.ndarray:
    """Return the features of some pictures, whose sides repeat; the counts start at zero."""
    each = [sides[n % len(sides)] for n in range(number)]
    pictures = [Image.new("RGB", (side, side)) for side in each]
    watch.syncs.clear()
    watch.copies.clear()
    return features(pictures)


@pytest.mark.parametrize("name", JUDGES)
def test_a_judge_moves_its_pictures_in_and_its_features_out(
    name: JudgeName, arrays: list[torch.device]
) -> None:
    made = JUDGES[name]()
    with fake_cuda() as watch:
        judge = Judge(name, made.architecture, to_cuda(made.network), SIDE, made.facts)
        found = seen(judge.features, ON_GPU + 3, watch)
    assert len(found) == ON_GPU + 3
    assert watch.copies.total() == 3, watch.copies  # two batches to the device, all features to the host
    assert watch.syncs.total() == 0, watch.syncs
    assert {device.type for device in arrays} == {"cpu"}


@pytest.fixture(scope="module")
def inception(tmp_path_factory: pytest.TempPathFactory) -> Inception:
    return load_inception(write_weights(tmp_path_factory.mktemp("inception") / "weights.pth"))


@pytest.mark.parametrize(("sides", "number", "batches"), [((24,), BATCH + 3, 2), ((24, 30), 3, 3)])
def test_the_network_of_fid_moves_its_pictures_in_and_its_features_out(
    inception: Inception, arrays: list[torch.device], sides: tuple[int, ...], number: int, batches: int
) -> None:
    network = deepcopy(inception.network)
    with fake_cuda() as watch:
        found = seen(Inception(to_cuda(network), inception.facts).features, number, watch, sides)
    assert found.shape == (number, 2048)
    assert watch.copies.total() == batches + 1, watch.copies
    assert watch.syncs.total() == 0, watch.syncs
    assert {device.type for device in arrays} == {"cpu"}


def test_latents_of_pictures_that_are_searched_for_copies_are_made_on_the_device(
    arrays: list[torch.device],
) -> None:
    with fake_cuda() as watch:
        autoencoder = to_cuda(SpatialAutoencoder(CODECS["kl"](CONFIGS["kl"]), SIDE))
        found = seen(Latents(autoencoder, CUDA).of, ON_GPU + 3, watch)
    assert found.shape == (ON_GPU + 3, autoencoder.latent_dim)
    assert watch.copies.total() == 4, watch.copies  # two batches to the device, and their latents to the host
    assert watch.syncs.total() == 0, watch.syncs
    assert {device.type for device in arrays} == {"cpu"}
