"""The curated set as DataComp writes one: a sorted array of uids, two 64-bit halves each."""

import io

import numpy as np

from corgi.settings.errors import InputError
from corgi.tables.run import Run

UID_TYPE = np.dtype("u8,u8")


def uid_set(run: Run) -> np.ndarray:
    """Return the kept train uids of a run, sorted, as DataComp's resharder takes them.

    Raises:
        InputError: a uid is not 32 hex digits.

    """
    uids: list[str] = []
    for curated, embedded in zip(run.shards("curate"), run.shards("embed"), strict=True):
        selection = run.store.read(curated, "selection", ["uid", "keep"])
        split = run.store.read(embedded, "image_embeddings", ["split"])["split"].to_pylist()
        rows = zip(selection["uid"].to_pylist(), selection["keep"].to_pylist(), split, strict=True)
        uids += [uid for uid, keep, name in rows if keep and name == "train"]
    try:
        halves = [(int(uid[:16], 16), int(uid[16:32], 16)) for uid in uids if len(uid) == 32]
    except ValueError:
        halves = []
    if len(halves) < len(uids):
        raise InputError(
            "the run holds uids that are not 32 hex digits; nothing was written; DataComp's format holds no others"
        )
    return np.sort(np.array(halves, UID_TYPE))


def npy_bytes(array: np.ndarray) -> bytes:
    """Return an array as a .npy file."""
    body = io.BytesIO()
    np.save(body, array, allow_pickle=False)
    return body.getvalue()
