"""The search for copies of training pictures among a run's painted pictures, in the latents of the run's autoencoder."""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyarrow has no types

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from corgi.evaluation.copying import Rows, cosine, nearest
from corgi.evaluation.grid import GridRow, paint_grid
from corgi.evaluation.memorisation import Copies, Space, find_copies
from corgi.evaluation.painting import CEILING, FROM_PRIOR, own_pictures
from corgi.evaluation.training_pictures import Vectors, train_shards
from corgi.feeding.packed_rows import LATENTS_TABLE
from corgi.feeding.packed_set import GroupedFile
from corgi.feeding.pictures import square
from corgi.models.autoencoder import Autoencoder
from corgi.models.device import images_at_once
from corgi.tables.embedded import ListedSet, rows_of
from corgi.tables.stage_index import ListedShard
from corgi.tables.store import Store
from corgi.tables.vectors import matrix

COLUMNS = ("painted", "nearest training\npicture: latents", "nearest training\npicture: own CLIP")
SHOWN = 4
"""Number of pictures of each set on the plate: those with the smallest relative distance."""
COPY_NOTES = [
    "Memorisation: latents of the run's autoencoder are compared. A picture is called a copy where its distance to the nearest training "
    "picture, divided by that one's distance to its tenth nearest other one, is less than that of all but 2 % of the held-out pictures.",
    f'The rows "{CEILING}" of memorisation are controls that nothing generated: that share of training pictures is found, and that '
    "share of held-out pictures is called copies by mistake. Where the first is low, few copies mean little.",
]


@dataclass(frozen=True)
class PaintedSet:
    """Pictures painted for some captions, by way of painting, with each picture's unit vector in the run's own CLIP."""

    captions: Sequence[str]
    ways: Mapping[str, Sequence[Image.Image]]
    own: Mapping[str, Vectors]


@dataclass(frozen=True)
class Latents:
    """Encodes pictures with the run's autoencoder; `stored` are the shards with the latents of all kept pictures."""

    autoencoder: Autoencoder
    device: torch.device
    stored: Sequence[ListedShard] = ()

    def of(self, pictures: Sequence[Image.Image]) -> Rows:
        """Return one flat latent per picture."""
        return np.concatenate(list(self._parts(pictures)))

    def of_stored(self, store: Store, uids: Mapping[str, Sequence[str]]) -> Rows:
        """Return one flat latent per stored picture, as the autoencoder stage committed them; `uids` are the uids to read, by name of their shard."""
        by_name = {shard.shard: shard for shard in self.stored}
        tables = store.each_of([by_name[name] for name in uids], partial(_latents_of, store))
        parts = [np.zeros((0, self.autoencoder.latent_dim), np.float16)]
        for table, shard_uids in zip(tables, uids.values(), strict=True):
            rows = rows_of(shard_uids, table["uid"].to_pylist())
            assert (rows >= 0).all(), f"{(rows < 0).sum()} kept pictures have no latent"
            parts.append(matrix(table["latent"])[rows])
        return np.concatenate(parts)

    @torch.no_grad()
    def _parts(self, pictures: Sequence[Image.Image]) -> Iterator[Rows]:
        side, size = self.autoencoder.image_size, images_at_once(self.device)
        for first in range(0, len(pictures), size):
            part = pictures[first : first + size]
            squares = torch.stack([square(picture.convert("RGB"), side) for picture in part])
            yield self.autoencoder.encode(squares.to(self.device)).float().cpu().numpy()


@dataclass(frozen=True)
class CopySearch:
    """Training pictures as latents and as vectors of the run's own CLIP, and the latents of held-out pictures, which set the threshold."""

    store: Store
    shards: ListedSet
    latents: Latents
    uid: list[str]
    """The uids of the training pictures, in the order of the rows."""
    training: Rows
    own: Vectors
    held_out: Rows

    @classmethod
    def of_run(
        cls, store: Store, shards: ListedSet, latents: Latents, held_out: Sequence[Image.Image], limit: int
    ) -> "CopySearch":
        """Read the committed latents of whole shards in order until there are at least `limit` training pictures.

        The held-out pictures are encoded as the training pictures were: at the decoder's side, which is also that of painted ones.
        """
        uids, own = dict[str, list[str]](), list[Vectors]()
        for shard, shard_uids, vectors in train_shards(store, shards, limit):
            uids[shard.name] = shard_uids
            own.append(vectors)
        training = latents.of_stored(store, uids)
        uid = [one for shard_uids in uids.values() for one in shard_uids]
        return cls(store, shards, latents, uid, training, np.concatenate(own), latents.of(held_out))

    def copies(self, painted: Sequence[PaintedSet]) -> list[dict[str, Copies]]:
        """Return for each set, by way of painting, the nearest training pictures and which pictures are copies."""
        each = [pictures for of in painted for pictures in of.ways.values()]
        latents = np.concatenate([self.latents.of(pictures) for pictures in each])
        whole = find_copies(Space(latents, self.training, self.held_out))
        ends = np.cumsum([len(pictures) for pictures in each]).tolist()
        parts = iter([whole.part(slice(first, end)) for first, end in zip([0, *ends], ends, strict=False)])
        return [{way: next(parts) for way in of.ways} for of in painted]

    def report(self, painted: Mapping[str, PaintedSet]) -> tuple[dict[str, object], Image.Image]:
        """Return the shares of copies by set and way as JSON, and a plate (an image) of the painted pictures that are nearest to training pictures."""
        copies = dict(zip(painted, self.copies(list(painted.values())), strict=True))
        return facts(copies), paint_grid(self._plate_rows(painted, copies), COLUMNS)

    def _plate_rows(
        self, painted: Mapping[str, PaintedSet], copies_of: Mapping[str, Mapping[str, Copies]]
    ) -> list[GridRow]:
        """Return the rows of the plate; the training pictures for all rows are read at once."""
        shown, training_rows = list[tuple[str, str, Image.Image]](), list[int]()
        for label, of in painted.items():
            copies = copies_of[label][FROM_PRIOR]
            rows: list[int] = np.argsort(copies.distance, kind="stable")[:SHOWN].tolist()
            by_clip = nearest(of.own[FROM_PRIOR][rows], self.own, cosine)[0]
            training_rows += np.stack([copies.nearest[rows], by_clip], axis=1).flatten().tolist()
            for row in rows:
                verdict = "copy" if copies.is_copy[row] else "no copy"
                shown.append((f"{label}: {verdict}", of.captions[row], of.ways[FROM_PRIOR][row]))
        pictures = self.pictures(training_rows)
        return [
            GridRow(label, caption, [picture, *pictures[2 * n : 2 * n + 2]])
            for n, (label, caption, picture) in enumerate(shown)
        ]

    def pictures(self, rows: Sequence[int]) -> list[Image.Image]:
        """Return the stored training pictures of some rows."""
        return own_pictures(self.store, self.shards, [self.uid[row] for row in rows])


def facts(by_set: Mapping[str, Mapping[str, Copies]]) -> dict[str, object]:
    """Return the shares of copies by set and way, and what the threshold means among real pictures, as JSON."""
    shares = {
        label: {way: {"images": len(copies.is_copy), **copies.share} for way, copies in ways.items()}
        for label, ways in by_set.items()
    }
    some = next(iter(next(iter(by_set.values())).values()))
    return {**shares, "calibration": some.threshold.facts}


def _latents_of(store: Store, shard: ListedShard) -> pa.Table:
    """Return uid and latent of a shard's pictures, read by row group; a shard of version 0.1, whose facts list no row groups, is read whole."""
    columns, file = ["uid", "latent"], GroupedFile.of(shard, LATENTS_TABLE)
    if file is None:
        return store.read(shard, LATENTS_TABLE, columns)
    groups = range(len(file.groups.rows))
    return pa.concat_tables(
        [store.read_row_group(file, LATENTS_TABLE, file.groups, number, columns) for number in groups]
    )
