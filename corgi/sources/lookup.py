"""Which shards of a closed stage contain given rows: computed from the hashes of their URLs, without reading a table."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int, UInt64

from corgi.settings.errors import StorageError
from corgi.sources.identity import ranges_of, uid_bytes
from corgi.tables.manifest import ShardManifest, StageManifest
from corgi.tables.store import Store


def leading_bits(urls: Sequence[str]) -> UInt64[np.ndarray, "urls"]:
    """Return the leading 64 bits of the hash of each canonical URL."""
    hashes = b"".join(uid_bytes([url.encode() for url in urls]))
    return np.frombuffer(hashes, ">u8").reshape(-1, 2)[:, 0].astype(np.uint64)


def shards_with(
    store: Store, stage: StageManifest, urls: Sequence[str]
) -> Iterator[tuple[ShardManifest, Int[np.ndarray, "rows"]]]:
    """Yield each shard of a stage that may contain some of these canonical URLs, and their indices in `urls`.

    The stage's shards must be those of its plan. A damaged or missing shard is left out: its rows are computed again.

    Raises:
        StorageError: the storage does not respond.

    """
    if not stage.shards or not urls:
        return
    numbers = ranges_of(leading_bits(urls), len(stage.shards))
    for number in np.unique(numbers):
        shard = readable(store, stage.shards[number].path)
        if shard is not None:
            yield shard, np.flatnonzero(numbers == number)


def readable(store: Store, path: str) -> ShardManifest | None:
    """Return a shard's manifest; None if it is damaged or missing.

    Raises:
        StorageError: the storage does not respond.

    """
    try:
        return store.read_shard(path)
    except StorageError as error:
        if error.may_pass:
            raise
        return None
