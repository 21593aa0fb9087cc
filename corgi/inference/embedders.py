"""What may stand for a run's prior: the caption's embedding itself, or the run's own pictures. `EMBEDDERS` names them."""

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
"""Of the softmax average, as `evaluate.softmax_temperature` has it by default."""


def with_embedder(generator: Generator, run: Run, name: EmbedderName) -> Generator:
    """Return a generator that embeds captions in another way; its networks are shared.

    Raises:
        InputError: the run has no train pictures, or none with a caption, where the embedder reads them.

    """
    if name == "prior":
        return generator
    return replace(generator, prior=EMBEDDERS[name](run), embedder=name)


def train_pairs(run: Run) -> tuple[Float[np.ndarray, "rows dim"], Float[np.ndarray, "rows dim"]]:
    """Return text and image vectors of the train pictures whose captions may be learned from, the first full caption of each.

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
        raise InputError(f"run {run.name} has no {what}; nothing was painted; take another embedder")
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
"""Every embedder that a request can name beside the prior."""
