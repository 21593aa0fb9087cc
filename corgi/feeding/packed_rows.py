"""Training rows from the training table: a unit is a row group, vectors stay half floats, and captions are not padded."""

# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyarrow has no types

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from corgi.feeding.packed_set import GroupedFile, PackedSet, Unit, Units
from corgi.feeding.word_states import WordStates, side_by_side
from corgi.settings.errors import StorageError
from corgi.tables.arrow import pc
from corgi.tables.embedded import rows_of
from corgi.tables.schema import Split
from corgi.tables.stage_index import ListedShard

LATENTS_TABLE = "latents"


class CaptionedRows:
    """Kept pictures of a split that have a full caption for training: image vector, caption vectors, words."""

    def __init__(self, packed: PackedSet, split: Split, words: WordStates | None = None) -> None:
        """Take the row groups that have such rows; they, and the words of their captions, are read when a unit is loaded.

        If words can only be read shard by shard, a unit is all row groups of a shard.
        """
        self._packed, self._words = packed, words
        whole = words is not None and not words.are_grouped
        groups = packed.units(split)
        self._chosen = Units(*(values[groups.captioned > 0] for values in groups))
        shard, captioned = self._chosen.shard, self._chosen.captioned
        begins = np.flatnonzero(np.diff(shard, prepend=-1)) if whole else np.arange(len(shard))
        self._cuts: list[int] = [*begins.tolist(), len(shard)]
        self.counts: list[int] = np.add.reduceat(captioned, begins).tolist() if len(begins) else []

    def load(self, unit: int) -> dict[str, np.ndarray]:
        """Return `image` [n, d], `full` and `coarse` [n] of arrays [captions, d], and their counts; half floats.

        With words also `full_words` and `coarse_words`, [n, MAX_CAPTIONS] of token states [tokens, width].
        """
        names = ["image", "full", "coarse"]
        names += ["uid", "full_row", "coarse_row"] if self._words else []
        parts = [self._packed.read(self._chosen.at(part), names) for part in self._parts(unit)]
        table = pa.concat_tables(parts)
        table = table.filter(pc.greater(pc.list_value_length(table["full"]), 0))
        loaded = {"image": half_matrix(table["image"])}
        for kind in ("full", "coarse"):
            loaded[kind] = ragged(table[kind])
            loaded[f"num_{kind}"] = np.array([len(rows) for rows in loaded[kind]], np.int64)
        if self._words is None:
            return loaded
        shard = int(self._chosen.shard[self._cuts[unit]])
        return {**loaded, **words_of(self._words, shard, table, ("full", "coarse"))}

    def _parts(self, unit: int) -> range:
        """Return the row groups of a unit, as indices into `_chosen`."""
        return range(self._cuts[unit], self._cuts[unit + 1])


class LatentRows:
    """Kept pictures of a split: image vector and latent, and the words of full captions; no caption is needed."""

    def __init__(
        self,
        packed: PackedSet,
        latents: Iterable[ListedShard],
        split: Split,
        words: WordStates | None = None,
    ) -> None:
        """Take the row groups of a split, and the shards of latents, which are matched to the table's shards by name."""
        self._words = words
        by_name = {shard.shard: shard for shard in latents}
        self._latents = [by_name[name] for name in packed.names]
        self._packed, self._units = packed, packed.units(split)
        self.counts: Sequence[int] = self._units.rows.tolist()

    def load(self, unit: int) -> dict[str, np.ndarray]:
        """Return `image` [n, d] and `latent` [n, l], half floats.

        With words also `full_words`, [n, MAX_CAPTIONS] of token states [tokens, width], and their counts `num_full`.

        Raises:
            StorageError: the latents are not those of the same pictures.

        """
        names = ["uid", "image", *(["full_row"] if self._words else [])]
        rows = self._packed.read(self._units.at(unit), names)
        latents = self._read(self._units.at(unit), rows["uid"])
        if not latents["uid"].equals(rows["uid"]):
            shard = self._latents[self._units.at(unit).shard]
            raise StorageError(
                f"{shard.path}: the latents are not those of the pictures in the training table; both are safe; rerun with --only autoencoder --force"
            )
        loaded = {"image": half_matrix(rows["image"]), "latent": half_matrix(latents["latent"])}
        if self._words is None:
            return loaded
        loaded["num_full"] = np.asarray(pc.list_value_length(rows["full_row"])).astype(np.int64)
        return {**loaded, **words_of(self._words, self._units.at(unit).shard, rows, ("full",))}

    def uids(self, unit: int) -> list[str]:
        """Return the uids of a unit's rows."""
        return self._packed.read(self._units.at(unit), ["uid"])["uid"].to_pylist()

    def _read(self, unit: Unit, uids: pa.ChunkedArray) -> pa.Table:
        """Return the latents of a row group. A shard written by version 0.1 has other row groups and is read whole."""
        file = GroupedFile.of(self._latents[unit.shard], LATENTS_TABLE)
        if file is not None:
            return self._packed.store.read_row_group(file, LATENTS_TABLE, file.groups, unit.group)
        whole = self._packed.store.read(self._latents[unit.shard], LATENTS_TABLE)
        rows = rows_of(uids.to_pylist(), whole["uid"].to_pylist())
        return whole.take(pa.array(rows[rows >= 0]))


def words_of(words: WordStates, shard: int, table: pa.Table, kinds: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the token states of the captions of a table's rows as columns `<kind>_words`; all kinds are read from the shard at once."""
    counts = {kind: np.asarray(pc.list_value_length(table[f"{kind}_row"])).astype(np.int64) for kind in kinds}
    rows = [np.asarray(table[f"{kind}_row"].combine_chunks().flatten()) for kind in kinds]
    uid = np.array(table["uid"].to_pylist(), dtype=object)
    uids = np.concatenate([np.repeat(uid, count) for count in counts.values()]).tolist()
    states = words.of(shard, np.concatenate(rows).astype(np.int64), uids)
    columns, first = dict[str, np.ndarray](), 0
    for kind, count in counts.items():
        end = first + int(count.sum())
        columns[f"{kind}_words"] = side_by_side(states[first:end], count, words.width)
        first = end
    return columns


def half_matrix(column: pa.ChunkedArray) -> Float[np.ndarray, "rows dim"]:
    """Return a column of vectors as half floats, copied."""
    return np.array(column.combine_chunks().flatten()).reshape(len(column), column.type.list_size)


def ragged(column: pa.ChunkedArray) -> np.ndarray:
    """Return a column of lists of vectors, [rows] of arrays [vectors, dim], half floats that share memory."""
    lists = column.combine_chunks()
    dim = lists.type.value_type.list_size
    values = np.asarray(lists.flatten().flatten()).reshape(-1, dim)
    arrays = np.empty(len(lists), dtype=object)
    for row, (first, last) in enumerate(pairwise(_offsets(lists))):
        arrays[row] = values[first:last]
    return arrays


def _offsets(lists: pa.ListArray) -> Int[np.ndarray, "rows_and_one"]:
    return np.concatenate([[0], np.cumsum(lists.value_lengths().to_numpy(zero_copy_only=False))]).astype(
        np.int64
    )
