"""shift.safetensors: the shift parameters and what they were computed from; equal contents give equal bytes."""

import json
from collections.abc import Mapping

import numpy as np
from safetensors.numpy import save

_LENGTH_BYTES = 8


def safetensors_bytes(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """Return a safetensors file whose header is sorted.

    The library writes metadata entries in an order that differs between runs, which would give equal statistics
    different digests.
    """
    written = save({name: np.ascontiguousarray(value) for name, value in tensors.items()}, dict(metadata))
    length = int.from_bytes(written[:_LENGTH_BYTES], "little")
    header = json.loads(written[_LENGTH_BYTES : _LENGTH_BYTES + length])
    text = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
    text += b" " * (-len(text) % _LENGTH_BYTES)
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text + written[_LENGTH_BYTES + length :]
