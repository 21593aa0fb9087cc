"""Decides, in one call and in order of precedence, the pairs that many calls found."""

from collections.abc import Sequence
from functools import partial

import numpy as np
from jaxtyping import Int

from corgi.curation.precedence import Pairs, Piece, cuts_of, decided
from corgi.curation.whole_set import WholeSet
from corgi.flow.tasks import Ref, value_of

Note = tuple[int, Int[np.ndarray, "cuts"]]
"""The number of pairs in a result, and evenly spaced ranks of their later rows."""


def noted(pairs: Pairs) -> Note:
    """Return the note for some pairs."""
    return len(pairs), cuts_of(pairs)


def decided_rows(whole: WholeSet, found: Sequence[Sequence[Ref]]) -> Ref:
    """Return the numbers of the rows that are a copy of an earlier row that stays; `found` has references to pairs and to their note."""
    pairs, notes = [pair for pair, _ in found], [note for _, note in found]
    return whole.calls.start(decide, pairs, notes, whole.num_rows)


def decide(pairs: Sequence[Ref], notes: Sequence[Ref], num_rows: int) -> Int[np.ndarray, "gone"]:
    """Return the numbers of the rows that are dropped; results are read one at a time."""
    told: list[Note] = [value_of(note) for note in notes]
    pieces = [
        Piece(size, cuts, partial(value_of, ref))
        for ref, (size, cuts) in zip(pairs, told, strict=True)
        if size
    ]
    return decided(pieces, num_rows)
