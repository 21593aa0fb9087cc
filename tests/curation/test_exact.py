"""Equal bytes: the earliest row stays, and many of them are a placeholder."""

import numpy as np

from corgi.curation.exact import digests, exact_copies, placeholders
from tests.support import whole_set_curation


def test_the_lowest_rank_of_equal_digests_stays() -> None:
    digest = np.array([[1, 1], [2, 2], [1, 1], [1, 2], [1, 1]], np.uint64)
    assert exact_copies(digest, np.array([3, 0, 1, 2, 4])).tolist() == [True, False, False, False, True]
    assert len(exact_copies(digest[:0], np.zeros(0, np.int64))) == 0


def test_ranks_may_be_those_of_a_larger_set() -> None:
    """At 5de86c1 the last rows in order were taken for copies once an earlier rule had dropped rows."""
    digest = np.array([[1, 1], [2, 2], [1, 1]], np.uint64)
    assert exact_copies(digest, np.array([900, 901, 902])).tolist() == [False, False, True]


def test_law_copies_are_those_of_all_rows_in_memory() -> None:
    generator = np.random.default_rng(0)
    digest = generator.integers(0, 4, (200, 2)).astype(np.uint64)
    rank = generator.permutation(200)
    np.testing.assert_array_equal(exact_copies(digest, rank), whole_set_curation.exact_copies(digest, rank))


def test_a_digest_of_enough_rows_is_a_placeholder() -> None:
    digest = np.array([[1, 0], [1, 0], [2, 0], [1, 0], [2, 0]], np.uint64)
    assert placeholders(digest, 3).tolist() == [True, True, False, True, False]
    assert not placeholders(digest, 4).any()


def test_rows_without_a_text_are_not_known() -> None:
    digest, known = digests(["x", None, "x", ""])
    assert known.tolist() == [True, False, True, True]
    assert digest[0].tolist() == digest[2].tolist() != digest[3].tolist()
