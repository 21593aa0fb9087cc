"""Vectors that earlier commits have for the same content: after a list has grown, the embed stage computes only the vectors of new rows."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from corgi.clip.vectors import Vectors, matrix
from corgi.flow.context import Context
from corgi.flow.earlier import is_made_by
from corgi.settings.errors import StorageError
from corgi.sources.lookup import readable, shards_with
from corgi.tables.arrow import is_in
from corgi.tables.embedded import rows_of
from corgi.tables.manifest import CARRIED, ShardManifest, StageManifest
from corgi.tables.store import Store

TOKENS = "caption_tokens"


def stages_of(context: Context) -> list[StageManifest]:
    """Return the closed embed stages whose vectors are valid here too: same towers, and images stored under the same settings."""
    now = context.inputs["download"]

    def stores_the_same(stage: StageManifest) -> bool:
        try:
            was = context.store.read_stage(stage.inputs["download"])
        except (KeyError, StorageError):  # if it cannot be read, it is not known to be the same
            return False
        kind = type(context.recipe)
        same = kind.recorded_meaning(was.settings) == kind.recorded_meaning(now.settings)
        return same and is_made_by(was, now.version, now.parts or {})

    return [stage for stage in context.taken_over() if stores_the_same(stage)]


@dataclass(frozen=True)
class KnownVectors:
    """Rows of embeddings tables: images have a column `uid`, captions and their token states a column `caption`. Each key occurs once."""

    images: pa.Table | None = None
    captions: pa.Table | None = None
    tokens: pa.Table | None = None

    @property
    def facts(self) -> dict[str, int]:
        """Return a shard's facts about what was taken over; empty if nothing was."""
        if self.images is None or not self.images.num_rows:
            return {}
        return {CARRIED: self.images.num_rows}


class EarlierVectors:
    """Closed embed stages whose vectors are reused wherever the same image or caption occurs."""

    def __init__(self, store: Store, paths: Sequence[str], encoders: Sequence[str] = ()) -> None:
        """Open the stages; `encoders` names the token states to reuse too."""
        self._store, self._encoders = store, list(encoders)
        self._stages = [store.read_stage(path) for path in paths]

    def of(self, images: pa.Table, captions: pa.Table) -> KnownVectors:
        """Return the known vectors of some images (uid, url, sha256) and captions (caption).

        An image is the same if uid and sha256 are: the stages stored it under the same settings.
        Captions are looked up in the shards that may contain the images.
        """
        known, texts = KnownVectors(), set(_texts(captions["caption"]))
        images = images.select(["uid", "url", "sha256"])
        for stage in self._stages:
            left = images
            if known.images is not None:
                left = images.filter(
                    pa.array(rows_of(_texts(images["uid"]), _texts(known.images["uid"])) < 0)
                )
            for shard, _ in shards_with(self._store, stage, left["url"].to_pylist()):
                known = self._with_shard(known, shard, left, texts)
        return known

    def _with_shard(
        self, known: KnownVectors, shard: ShardManifest, images: pa.Table, texts: set[str]
    ) -> KnownVectors:
        """Add a shard's vectors to the known ones; a shard whose tables are damaged or missing adds nothing."""
        download = readable(self._store, shard.inputs["download"][0])
        if download is None:
            return known
        try:
            found = self._images(shard, download, images)
            wanted = texts - set(_texts(known.captions["caption"])) if known.captions is not None else texts
            captions, tokens = self._captions(shard, download, wanted)
        except StorageError as error:
            if error.may_pass:
                raise
            return known
        return KnownVectors(
            _joined(known.images, found), _joined(known.captions, captions), _joined(known.tokens, tokens)
        )

    def _images(self, shard: ShardManifest, download: ShardManifest, images: pa.Table) -> pa.Table:
        """Return the vectors that a shard has of some images."""
        hashes = self._store.read(download, "images", ["uid", "sha256"])
        was = dict(zip(*(hashes[name].to_pylist() for name in ("uid", "sha256")), strict=True))
        now = zip(*(images[name].to_pylist() for name in ("uid", "sha256")), strict=True)
        same = {uid for uid, sha256 in now if sha256 is not None and was.get(uid) == sha256}
        vectors = self._store.read(shard, "image_embeddings")
        return vectors.filter(is_in(vectors["uid"], same))

    def _captions(
        self, shard: ShardManifest, download: ShardManifest, wanted: Collection[str]
    ) -> tuple[pa.Table, pa.Table | None]:
        """Return the vectors and token states that a shard has of some captions, from the first row of each caption."""
        vectors = self._store.read(shard, "caption_embeddings")
        texts = self._store.read(download, "captions", ["uid", "ordinal", "caption"])
        row_of = {key: row for row, key in enumerate(_keys(vectors))}
        first: dict[str, int] = {}
        for key, text in zip(_keys(texts), _texts(texts["caption"]), strict=True):
            if text in wanted and key in row_of:
                first.setdefault(text, row_of[key])
        rows, caption = pa.array([*first.values()], pa.int64()), pa.array([*first], pa.string())
        tokens = None
        if self._encoders:
            states = self._store.read(shard, TOKENS, [f"{name}/tokens" for name in self._encoders])
            tokens = states.take(rows).append_column("caption", caption)
        return vectors.take(rows).append_column("caption", caption), tokens


def completed(
    keys: Sequence[str],
    tables: Sequence[pa.Table | None],
    names: tuple[str, str],
    compute: Callable[[list[int]], Vectors],
) -> Vectors:
    """Return the vectors of all rows: the known ones by key, and computed ones for the other rows.

    Args:
        keys: one per row.
        tables: rows of embeddings tables; for each key the first table that has it is used.
        names: the column of keys in the tables, and `image` or `text`.
        compute: returns the vectors of the rows at the given indices.

    """
    key, kind = names
    known, *others = tables or [None]
    if known is None:
        return completed(keys, others, names, compute) if others else compute(list(range(len(keys))))
    indices = rows_of(keys, known[key].to_pylist())
    is_known = indices >= 0
    missing: list[int] = np.flatnonzero(~is_known).tolist()
    new = completed(
        [keys[row] for row in missing], others, names, lambda rows: compute([missing[row] for row in rows])
    )
    unit, norm = {}, {}
    for tower, vectors in new.unit.items():
        unit[tower] = np.empty((len(keys), vectors.shape[1]), np.float32)
        norm[tower] = np.empty(len(keys), np.float32)
        unit[tower][~is_known], norm[tower][~is_known] = vectors, new.norm[tower]
        unit[tower][is_known] = matrix(known[f"{tower}/{kind}"])[indices[is_known]]
        norm[tower][is_known] = known[f"{tower}/{kind}_norm"].to_numpy()[indices[is_known]]
    return Vectors(unit, norm)


def with_known_tokens(
    texts: Sequence[str],
    known: pa.Table | None,
    name: str,
    compute: Callable[[list[str]], tuple[pa.ListArray, int]],
) -> tuple[pa.ListArray, int]:
    """Return the token states of all texts and their width: the known states, and computed ones for the other texts.

    Args:
        texts: in any order; repeats are allowed.
        known: has a column `caption` and a column called `name`.
        name: the encoder's column.
        compute: returns the states of some texts and their width.

    """
    known_texts = [] if known is None else _texts(known["caption"])
    row_of = {text: row for row, text in enumerate(known_texts)}
    missing = [text for text in dict.fromkeys(texts) if text not in row_of]
    row_of |= {text: len(known_texts) + row for row, text in enumerate(missing)}
    states, width = compute(missing)
    if known is not None:
        states = pa.concat_arrays([_whole(known[name]).cast(states.type), states])
    return states.take(pa.array([row_of[text] for text in texts], pa.int64())), width


def _joined(before: pa.Table | None, more: pa.Table | None) -> pa.Table | None:
    return more if before is None else before if more is None else pa.concat_tables([before, more])


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def _texts(column: pa.ChunkedArray) -> list[str]:
    return column.to_pylist()


def _keys(table: pa.Table) -> list[tuple[str, int]]:
    return list(zip(table["uid"].to_pylist(), table["ordinal"].to_pylist(), strict=True))
