"""The pictures a decoder was trained on, with the vectors and pixels by which painted pictures are compared with them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from corgi.evaluation.judges import Judge
from corgi.feeding.pictures import at_side
from corgi.imaging.decode import decode_stored
from corgi.tables.embedded import EmbeddedShard, ListedSet, embedded_set, stored_pictures, vectors_of
from corgi.tables.schema import Split
from corgi.tables.store import Store
from corgi.unit_vectors import unit_rows

Vectors = Float[np.ndarray, "rows dim"]
Pixels = UInt8[np.ndarray, "rows values"]
LARGEST_SIDE_PX = 64
"""Pixels are compared at the decoder's side, but at most at this one."""

DECODED_AT_ONCE = 256
"""Number of training pictures in memory at their stored size."""


@dataclass(frozen=True)
class TrainingPictures:
    """Selected train pictures, with or without captions: the run's own vectors, the judge's features, and pixels at a small side."""

    store: Store
    shards: ListedSet
    uid: list[str]
    own: Vectors
    judged: Vectors
    pixels: Pixels
    centre: Float[np.ndarray, "dim"]
    """Mean of the judge's features; `judged` are the unit vectors of the features minus it."""

    def pictures(self, rows: Sequence[int] | Int[np.ndarray, "n"]) -> list[Image.Image]:
        """Return the stored pictures of some rows."""
        uids = [self.uid[row] for row in rows]
        encoded = stored_pictures(embedded_set(self.store, self.shards), set(uids))
        return [decode_stored(encoded[uid]) for uid in uids]


def load_training_pictures(
    store: Store, shards: ListedSet, judge: Judge, side: int, limit: int
) -> TrainingPictures:
    """Read whole shards in order until there are at least `limit` train pictures; `side` is that at which pixels are compared."""
    uids: list[str] = []
    own, features, pixels = [], [], []
    for shard_uids, vectors, pictures in decoded_pictures(store, shards, limit):
        uids += shard_uids
        own.append(vectors)
        features.append(judge.features(pictures))
        pixels.append(pixels_of(pictures, side))
    centre = np.concatenate(features).mean(0)
    judged = centred(np.concatenate(features), centre)
    return TrainingPictures(store, shards, uids, np.concatenate(own), judged, np.concatenate(pixels), centre)


def decoded_pictures(
    store: Store, shards: ListedSet, limit: int
) -> Iterator[tuple[list[str], Vectors, list[Image.Image]]]:
    """Yield uids, the run's own vectors and the decoded pictures of train, DECODED_AT_ONCE of a shard at a time.

    Whole shards are read in order until there are at least `limit` pictures.
    """
    for shard, uids, vectors in train_shards(store, shards, limit):
        encoded = shard.encodings(uids)
        for first in range(0, len(uids), DECODED_AT_ONCE):
            part = slice(first, first + DECODED_AT_ONCE)
            yield uids[part], vectors[part], [decode_stored(encoded[uid]) for uid in uids[part]]


def train_shards(
    store: Store, shards: ListedSet, limit: int
) -> Iterator[tuple[EmbeddedShard, list[str], Vectors]]:
    """Yield the shards that have train pictures, with the uids and the run's own vectors of these.

    Whole shards are read in order until there are at least `limit` pictures.
    """
    number = 0
    for shard in embedded_set(store, shards):
        images = shard.images(Split.TRAIN)
        if images.num_rows == 0:
            continue
        yield shard, images["uid"].to_pylist(), vectors_of(images, "image")
        number += images.num_rows
        if number >= limit:
            break


def pixels_of(pictures: Sequence[Image.Image], side: int) -> Pixels:
    """Return pictures at a side as rows of bytes."""
    small = np.stack([np.asarray(at_side(picture.convert("RGB"), side)) for picture in pictures])
    return small.transpose(0, 3, 1, 2).reshape(len(pictures), -1)


def centred(features: Vectors, centre: Float[np.ndarray, "dim"]) -> Vectors:
    """Return the unit vectors of features minus their centre: unrelated pictures then have a cosine of about 0."""
    return unit_rows(features - centre)
