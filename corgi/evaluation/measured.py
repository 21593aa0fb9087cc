"""The kept pictures of a run as evaluation sees them: vectors, captions, words, groups, by split."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float, Int

from corgi.tables.manifest import ShardManifest
from corgi.tables.schema import Split
from corgi.tables.store import Store
from corgi.tables.vectors import concatenated, tower_names


@dataclass(frozen=True)
class Pictures:
    """Kept pictures that have a full caption, sorted by uid within each shard.

    `text` embeds the first full caption; `word` is the first coarse caption, and `word_text` its embedding, where there is one.
    """

    uid: list[str]
    split: list[str]
    group: list[str]
    image: Float[np.ndarray, "rows dim"]
    caption: list[str]
    text: Float[np.ndarray, "rows dim"]
    word: list[str | None]
    word_text: Float[np.ndarray, "rows dim"]

    def one_a_group(self, split: Split, limit: int) -> Int[np.ndarray, "chosen"]:
        """Return the first row of each group of a split: a concept with many variants counts once."""
        first: dict[str, int] = {}
        for row, (group, own) in enumerate(zip(self.group, self.split, strict=True)):
            if own == split.value:
                first.setdefault(group, row)
        return np.array(sorted(first.values(), key=lambda row: self.uid[row])[:limit], dtype=np.int64)

    def by_word(self, least: int) -> dict[str, Int[np.ndarray, "rows"]]:
        """Return the rows of each word that at least `least` pictures share, sorted by word."""
        rows: dict[str, list[int]] = defaultdict(list)
        for row, word in enumerate(self.word):
            if word is not None:
                rows[word].append(row)
        return {word: np.array(found) for word, found in sorted(rows.items()) if len(found) >= least}


def load_pictures(store: Store, shards: dict[str, Sequence[ShardManifest]], limit: int) -> Pictures:
    """Read whole shards of download, embed and curate in order until `limit` pictures are there."""
    parts: list[Pictures] = []
    for images, embedded, selection in zip(
        shards["download"], shards["embed"], shards["curate"], strict=True
    ):
        parts.append(_shard(store, images, embedded, selection))
        if sum(len(part.uid) for part in parts) >= limit:
            break

    def every(name: str) -> list[Any]:
        return [value for part in parts for value in getattr(part, name)]

    def stacked(name: str) -> Float[np.ndarray, "rows dim"]:
        return np.concatenate([getattr(part, name) for part in parts])

    return Pictures(
        *(every("uid"), every("split"), every("group"), stacked("image"), every("caption"), stacked("text")),
        *(every("word"), stacked("word_text")),
    )


def encoded_pictures(store: Store, shards: Sequence[ShardManifest], uids: Sequence[str]) -> dict[str, bytes]:
    """Return the stored encodings of some pictures."""
    found: dict[str, bytes] = {}
    for manifest in shards:
        table = store.read(manifest, "images", ["uid", "image"])
        chosen = table.filter(pc.field("uid").isin(pa.array(list(uids), pa.string())))
        found.update(zip(chosen["uid"].to_pylist(), chosen["image"].to_pylist(), strict=True))
    return found


def _shard(
    store: Store, images: ShardManifest, embedded: ShardManifest, selection: ShardManifest
) -> Pictures:
    chosen = store.read(selection, "selection", ["uid", "keep"])
    keep = set(chosen.filter(chosen["keep"])["uid"].to_pylist())
    groups = store.read(images, "images", ["uid", "group"])
    group = dict(zip(groups["uid"].to_pylist(), groups["group"].to_pylist(), strict=True))
    vectors = store.read(embedded, "image_embeddings")
    towers = tower_names(vectors.schema)
    full, words, text = _captions(store, images, embedded, towers)
    rows = [row for row, uid in enumerate(vectors["uid"].to_pylist()) if uid in keep and uid in full]
    uids = vectors["uid"].take(pa.array(rows, pa.int64())).to_pylist()
    return Pictures(
        uid=uids,
        split=vectors["split"].take(pa.array(rows, pa.int64())).to_pylist(),
        group=[group[uid] for uid in uids],
        image=concatenated(vectors, "image", towers)[rows],
        caption=[full[uid][1] for uid in uids],
        text=text[[full[uid][0] for uid in uids]],
        word=[words[uid][1] if uid in words else None for uid in uids],
        word_text=text[[words.get(uid, full[uid])[0] for uid in uids]],
    )


def _captions(
    store: Store, images: ShardManifest, embedded: ShardManifest, towers: Sequence[str]
) -> tuple[dict[str, tuple[int, str]], dict[str, tuple[int, str]], Float[np.ndarray, "captions dim"]]:
    """Return by uid the row and words of the first full and the first coarse caption, and all caption vectors."""
    table = store.read(embedded, "caption_embeddings")
    captions = store.read(images, "captions", ["uid", "ordinal", "caption"])
    words = {(row["uid"], row["ordinal"]): row["caption"] for row in captions.to_pylist()}
    first: dict[str, dict[str, tuple[int, str]]] = {"full": {}, "coarse": {}}
    for row, entry in enumerate(table.select(["uid", "ordinal", "kind"]).to_pylist()):
        first[entry["kind"]].setdefault(entry["uid"], (row, words[entry["uid"], entry["ordinal"]]))
    return first["full"], first["coarse"], concatenated(table, "text", towers)
