"""Baselines that may replace a run's prior: the caption's embedding itself, or train pictures of the run. `EMBEDDERS` names them."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float

from corgi.inference.generate import Generator
from corgi.models.embedder import Embedder
from corgi.models.language_free import NearestPictures, RawText, SoftmaxAverage
from corgi.names import EmbedderName
from corgi.settings.errors import InputError
from corgi.tables.embedded import first_rows, vectors_of
from corgi.tables.run import Run
from corgi.tables.schema import Split

NUM_NEIGHBOURS = 5
TEMPERATURE = 0.05
"""Temperature of the softmax average, equal to the default of `evaluate.softmax_temperature`."""


def with_embedder(generator: Generator, run: Run, name: EmbedderName) -> Generator:
    """Return a generator that embeds captions with another embedder and shares the networks.

    Raises:
        InputError: the embedder needs train pictures, or train pictures with a caption, and the run has none.

    """
    if name == "prior":
        return generator
    return replace(generator, prior=EMBEDDERS[name](run), embedder=name)


def train_pairs(run: Run) -> tuple[Float[np.ndarray, "rows dim"], Float[np.ndarray, "rows dim"]]:
    """Return text and image vectors of the train pictures whose captions may be used for training, by the first full caption of each.

    Raises:
        InputError: there are none.

    """
    texts, images = [], []
    for shard in run.embedded():
        table, captions = shard.captioned_images(Split.TRAIN), shard.captions()
        first = first_rows(zip(captions["uid"].to_pylist(), captions["kind"].to_pylist(), strict=True))
        rows = [first[uid, "full"] for uid in table["uid"].to_pylist()]
        texts.append(vectors_of(captions, "text")[rows])
        images.append(vectors_of(table, "image"))
    return _joined(texts, run, "train picture with a caption"), np.concatenate(images)


def train_images(run: Run) -> Float[np.ndarray, "rows dim"]:
    """Return the image vectors of the train pictures, captioned or not.

    Raises:
        InputError: there are none.

    """
    parts = [vectors_of(shard.images(Split.TRAIN), "image") for shard in run.embedded()]
    return _joined(parts, run, "train picture")


def _joined(parts: list[np.ndarray], run: Run, what: str) -> np.ndarray:
    rows = np.concatenate(parts) if parts else np.zeros((0, 1))
    if len(rows) == 0:
        raise InputError(f"run {run.name} has no {what}; nothing was painted; choose another embedder")
    return rows


def _softmax(run: Run) -> Embedder:
    text, image = (torch.from_numpy(rows.astype(np.float32)) for rows in train_pairs(run))
    return SoftmaxAverage(text, image, TEMPERATURE)


def _neighbours(run: Run) -> Embedder:
    return NearestPictures(torch.from_numpy(train_images(run).astype(np.float32)), NUM_NEIGHBOURS)


EMBEDDERS: Mapping[EmbedderName, Callable[[Run], Embedder]] = {
    "text": lambda run: RawText(),
    "softmax": _softmax,
    "neighbours": _neighbours,
}
"""The embedders that a request can name, other than the prior."""
