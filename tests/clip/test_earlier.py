"""Known vectors are taken as they are, and only the others are computed."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from corgi.clip.earlier import completed, with_known_tokens
from corgi.clip.vectors import Vectors, column
from corgi.tables.schema import vector

DIM = 4


class Asked:
    """A function, and the rows it was called with."""

    def __init__(self, function: Callable[[list[Any]], Any]) -> None:
        self.function = function
        self.rows: list[Any] = []

    def __call__(self, rows: list[Any]) -> Any:
        self.rows += rows
        return self.function(rows)


def vectors(seeds: list[int]) -> Vectors:
    """Return a vector per seed, by which it is known."""
    unit = np.array([np.random.default_rng(seed).integers(-8, 8, DIM) / 8 for seed in seeds], np.float32)
    return Vectors({"own": unit.reshape(-1, DIM)}, {"own": np.array(seeds, np.float32) + 1})


def table(keys: list[str], found: Vectors) -> pa.Table:
    return pa.table(
        {"uid": keys, "own/image": column(found.unit["own"]), "own/image_norm": pa.array(found.norm["own"])}
    )


def test_law_known_and_computed_rows_together_are_all_rows_computed():
    keys, whole = [str(number) for number in range(10)], vectors(list(range(10)))
    for chosen in ([], [0], [9, 3, 4], list(range(10))):
        known = table([keys[row] for row in chosen], vectors(chosen))
        asked = Asked(vectors)
        found = completed(keys, [known], ("uid", "image"), asked)
        assert asked.rows == [row for row in range(10) if row not in chosen]
        np.testing.assert_array_equal(found.unit["own"], whole.unit["own"])
        np.testing.assert_array_equal(found.norm["own"], whole.norm["own"])
    tables = [None, table(["3", "5"], vectors([3, 5])), None, table(["5", "7", "1"], vectors([0, 7, 1]))]
    asked = Asked(vectors)
    found = completed(keys, tables, ("uid", "image"), asked)
    assert asked.rows == [0, 2, 4, 6, 8, 9]
    np.testing.assert_array_equal(found.unit["own"], whole.unit["own"])
    found = completed(keys, [None], ("uid", "image"), vectors)
    np.testing.assert_array_equal(found.unit["own"], whole.unit["own"])


def states(texts: list[str]) -> tuple[pa.ListArray, int]:
    """Return a state per letter, by which it is known."""
    kind = pa.list_(vector(2))
    return pa.array([[[np.float16(ord(c)), np.float16(1)] for c in text] for text in texts], kind), 2


def test_law_known_token_states_and_computed_ones_together_are_all_computed():
    texts = ["one", "two", "one", "three", "", "two"]
    whole, width = states(texts)
    for chosen in ([], ["two"], ["three", "one", "elsewhere"], ["one", "two", "three", ""]):
        known = pa.table({"caption": pa.array(chosen, pa.string()), "words/tokens": states(chosen)[0]})
        asked = Asked(states)
        found = with_known_tokens(texts, known, "words/tokens", asked)
        assert asked.rows == [text for text in ("one", "two", "three", "") if text not in chosen]
        assert found[0].equals(whole)
        assert found[1] == width
    assert with_known_tokens(texts, None, "words/tokens", states)[0].equals(whole)
