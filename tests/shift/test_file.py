"""shift.safetensors reads back with the library, and equal content has equal bytes."""

from pathlib import Path

import numpy as np
from safetensors import safe_open

from corgi.shift.file import safetensors_bytes


def test_equal_content_has_equal_bytes_in_any_order(tmp_path: Path) -> None:
    tensors = {"mean": np.ones((2, 3), np.float32), "count": np.arange(2), "scale": np.full((2, 3), 0.5)}
    metadata = {name: name * 3 for name in "zyxwvutsrq"}
    written = {
        safetensors_bytes(dict(sorted(tensors.items(), reverse=turn % 2 == 1)), metadata) for turn in range(8)
    }
    assert len(written) == 1
    path = tmp_path / "shift.safetensors"
    path.write_bytes(written.pop())
    with safe_open(path, "numpy") as opened:
        assert opened.metadata() == metadata
        for name, value in tensors.items():
            np.testing.assert_array_equal(opened.get_tensor(name), value)
            assert opened.get_tensor(name).dtype == value.dtype
