"""The search for copies of training pictures among what a run painted: by CLIP, perceptual hash and the autoencoder's latents."""

# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyarrow has no types

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from corgi.evaluation.copying import Closeness, Rows, cosine, square_closeness
from corgi.evaluation.grid import GridRow, paint_grid
from corgi.evaluation.memorisation import Copies, Space, find_copies, hash_closeness, hash_rows
from corgi.evaluation.painting import CEILING, FROM_PRIOR, own_pictures
from corgi.evaluation.training_pictures import Vectors, decoded_pictures
from corgi.feeding.packed_rows import LATENTS_TABLE
from corgi.feeding.pictures import square
from corgi.models.autoencoder import Autoencoder
from corgi.models.device import images_at_once
from corgi.tables.arrow import is_in
from corgi.tables.embedded import ListedSet, rows_of
from corgi.tables.manifest import ShardManifest
from corgi.tables.stage_index import ListedShard
from corgi.tables.store import Store
from corgi.tables.vectors import matrix

CLIP, HASH, LATENT = "run's own CLIP", "perceptual hash", "autoencoder"
SPACES: Mapping[str, Closeness] = {CLIP: cosine, HASH: hash_closeness, LATENT: square_closeness}
"""Where pictures are compared: by the cosine of the run's embeddings, the bits of a 64-bit hash, and the distance of latents."""
COLUMNS = ("painted", *(f"nearest training picture\n{name}" for name in SPACES))
SHOWN = 4
"""Pictures of each set on the plate: those that are near in the most spaces."""
COPY_NOTES = [
    "Memorisation: a space's threshold is the closeness to training pictures that 1 % of the held-out pictures exceed. A picture is "
    "called a copy where it exceeds the threshold in two of the three spaces.",
    f'The rows "{CEILING}" of memorisation are controls that nothing generated: that share of training pictures is found, and that '
    "share of held-out pictures is called copies by mistake. Where the first is low, few copies mean little.",
]


@dataclass(frozen=True)
class PaintedSet:
    """Pictures painted for some captions, by way of painting, with the run's own unit vectors of each."""

    captions: Sequence[str]
    ways: Mapping[str, Sequence[Image.Image]]
    own: Mapping[str, Vectors]


@dataclass(frozen=True)
class Latents:
    """Pictures as the run's autoencoder sees them; `stored` are the shards of latents that its stage made of all kept pictures."""

    autoencoder: Autoencoder
    device: torch.device
    stored: Sequence[ListedShard] | Sequence[ShardManifest] = ()

    def of(self, pictures: Sequence[Image.Image]) -> Rows:
        """Return one flat latent per picture."""
        return np.concatenate(list(self._parts(pictures)))

    def of_stored(self, store: Store, uids: Sequence[str]) -> Rows:
        """Return one flat latent per stored picture, by uid, as the autoencoder stage committed them."""
        found = np.zeros((len(uids), self.autoencoder.latent_dim), np.float16)
        missing = set(uids)
        for shard in self.stored:
            if not missing:
                break
            table = store.read(store.read_shard(shard.path), LATENTS_TABLE, ["uid", "latent"])
            table = table.filter(is_in(table["uid"], missing))
            here = table["uid"].to_pylist()
            found[rows_of(here, uids)] = matrix(table["latent"])
            missing -= set(here)
        assert not missing, f"{len(missing)} kept pictures have no latent"
        return found

    @torch.no_grad()
    def _parts(self, pictures: Sequence[Image.Image]) -> Iterator[Rows]:
        side, size = self.autoencoder.image_size, images_at_once(self.device)
        for first in range(0, len(pictures), size):
            part = pictures[first : first + size]
            squares = torch.stack([square(picture.convert("RGB"), side) for picture in part])
            yield self.autoencoder.encode(squares.to(self.device)).float().cpu().numpy()


@dataclass(frozen=True)
class CopySearch:
    """Training pictures in every space, and held-out ones that set the thresholds."""

    store: Store
    shards: ListedSet
    latents: Latents
    uid: list[str]
    """Of the training pictures, in the order of their rows."""
    training: Mapping[str, Rows]
    held_out: Mapping[str, Rows]

    @classmethod
    def of_run(
        cls,
        store: Store,
        shards: ListedSet,
        latents: Latents,
        held_out: Sequence[Image.Image],
        embed: Callable[[Sequence[Image.Image]], Vectors],
        limit: int,
    ) -> "CopySearch":
        """Read whole shards in order until `limit` training pictures are there.

        The held-out pictures set the thresholds at the decoder's side, where painted ones are seen: a copy of a small side is further
        from the stored picture than the stored picture is. `embed` returns the run's own unit vectors of pictures.
        """
        uids: list[str] = []
        own, hashes = list[Rows](), list[Rows]()
        for found, vectors, pictures in decoded_pictures(store, shards, limit):
            uids += found
            own.append(vectors)
            hashes.append(hash_rows(pictures))
        views = (np.concatenate(own), np.concatenate(hashes), latents.of_stored(store, uids))
        training = dict(zip(SPACES, views, strict=True))
        seen = at_side(held_out, latents.autoencoder.image_size)
        return cls(store, shards, latents, uids, training, _views(latents, embed(seen), seen))

    def copies(self, painted: Sequence[PaintedSet]) -> list[dict[str, Copies]]:
        """Return the copies among the pictures of each set, by way of painting."""
        each = [(of.own[way], pictures) for of in painted for way, pictures in of.ways.items()]
        seen = [_views(self.latents, *one) for one in each]
        spaces = {
            name: Space(
                np.concatenate([rows[name] for rows in seen]),
                self.training[name],
                self.held_out[name],
                closeness,
            )
            for name, closeness in SPACES.items()
        }
        whole = find_copies(spaces)
        ends = np.cumsum([len(pictures) for _, pictures in each]).tolist()
        parts = iter([whole.part(slice(first, end)) for first, end in zip([0, *ends], ends, strict=False)])
        return [{way: next(parts) for way in of.ways} for of in painted]

    def report(self, painted: Mapping[str, PaintedSet]) -> tuple[dict[str, object], Image.Image]:
        """Return the shares of copies by set and way as JSON, and a plate of the pictures that are nearest to training pictures."""
        found = dict(zip(painted, self.copies(list(painted.values())), strict=True))
        rows = [
            row
            for label, of in painted.items()
            for row in self._plate_rows(label, of, found[label][FROM_PRIOR])
        ]
        return facts(found), paint_grid(rows, COLUMNS)

    def _plate_rows(self, label: str, of: PaintedSet, found: Copies) -> list[GridRow]:
        votes = np.sum(list(found.is_near.values()), axis=0)
        rows: list[int] = np.argsort(-votes, kind="stable")[:SHOWN].tolist()
        nearest = [self.pictures([int(found.nearest[name][row]) for row in rows]) for name in SPACES]
        columns = [[of.ways[FROM_PRIOR][row] for row in rows], *nearest]
        return [
            GridRow(
                f"{label}: {'copy' if found.is_copy[row] else 'no copy'}",
                of.captions[row],
                [column[place] for column in columns],
            )
            for place, row in enumerate(rows)
        ]

    def pictures(self, rows: Sequence[int]) -> list[Image.Image]:
        """Return some of the training pictures as they are stored."""
        return own_pictures(self.store, self.shards, [self.uid[row] for row in rows])


def at_side(pictures: Sequence[Image.Image], side: int) -> list[Image.Image]:
    """Return pictures as a decoder is shown them: their middle square, at a side."""
    squares = [(square(picture.convert("RGB"), side) * 255).round().byte() for picture in pictures]
    return [Image.fromarray(one.permute(1, 2, 0).numpy()) for one in squares]


def _views(latents: Latents, vectors: Vectors, pictures: Sequence[Image.Image]) -> dict[str, Rows]:
    """Return rows of pictures in every space; `vectors` are the run's own unit vectors of them."""
    return {CLIP: vectors, HASH: hash_rows(pictures), LATENT: latents.of(pictures)}


def facts(by_set: Mapping[str, Mapping[str, Copies]]) -> dict[str, object]:
    """Return the shares of copies by set and way, and what each space's threshold means among real pictures, as JSON."""
    shares = {
        label: {
            way: {"images": len(found.is_copy), **found.share, **_near(found)} for way, found in ways.items()
        }
        for label, ways in by_set.items()
    }
    some = next(iter(next(iter(by_set.values())).values()))
    return {**shares, "calibration": {name: threshold.facts for name, threshold in some.thresholds.items()}}


def _near(found: Copies) -> dict[str, float]:
    return {f"near by {name}": float(near.mean()) for name, near in found.is_near.items()}
