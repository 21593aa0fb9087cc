"""Passes over shards: what crosses a process is what was sent, and Ray Data gives what this process gives, in order."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from corgi.flow.executor import in_process
from corgi.shift.maps import over_shards, pack, unpack
from corgi.tables.embedded import EmbeddedShard

NAMES = st.text("abcdefgh_", min_size=1, max_size=8)
ARRAYS = arrays_of.arrays(
    st.sampled_from([np.float16, np.float32, np.float64, np.int64]),
    arrays_of.array_shapes(min_dims=0, max_dims=3, min_side=0),
)


@given(st.dictionaries(NAMES, ARRAYS, max_size=4))
def test_law_unpacked_arrays_are_those_packed_bit_for_bit(arrays: dict[str, np.ndarray]) -> None:
    found = unpack(pack(arrays))
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()
    assert pack(found) == pack(arrays)


def described(ref: EmbeddedShard, scale: float) -> dict[str, np.ndarray]:
    return {"name": np.array(ref.name), "row": np.arange(3) * scale}


@pytest.fixture
def refs() -> list[EmbeddedShard]:
    return [EmbeddedShard("root", f"{number:05d}", "e", "c") for number in range(5)]


def test_ray_data_and_this_process_give_the_same_in_the_order_of_the_shards(
    ray_local: None, refs: list[EmbeddedShard]
) -> None:
    def found() -> list[dict[str, Any]]:
        return [
            {name: array.tolist() for name, array in one.items()}
            for one in over_shards(described, refs, {"scale": 0.5})
        ]

    with in_process():
        here = found()
    assert found() == here
    assert [one["name"] for one in here] == [ref.name for ref in refs]
