"""The curated set in DataComp's format: a sorted array of uids, each as two 64-bit halves."""

import io

import numpy as np

from corgi.settings.errors import InputError
from corgi.tables.run import Run
from corgi.tables.schema import Split

UID_TYPE = np.dtype("u8,u8")


def uid_set(run: Run) -> np.ndarray:
    """Return the kept train uids of a run, sorted, in the format that DataComp's resharder reads.

    Raises:
        InputError: a uid is not 32 hex digits.

    """
    uids: list[str] = [
        uid for shard in run.embedded() for uid in shard.images(Split.TRAIN, ["uid"])["uid"].to_pylist()
    ]
    try:
        halves = [(int(uid[:16], 16), int(uid[16:32], 16)) for uid in uids if len(uid) == 32]
    except ValueError:
        halves = []
    if len(halves) < len(uids):
        raise InputError(
            "the run has uids that are not 32 hex digits; nothing was written; DataComp's format cannot store them"
        )
    return np.sort(np.array(halves, UID_TYPE))


def npy_bytes(array: np.ndarray) -> bytes:
    """Return an array as a .npy file."""
    body = io.BytesIO()
    np.save(body, array, allow_pickle=False)
    return body.getvalue()
