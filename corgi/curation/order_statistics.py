"""The k-th smallest of many numbers by passes of counts: exact, into however many parts the numbers are divided.

A pass counts, in each part, how many numbers have each value of one digit, among those that start with the digits found so far;
the sums over the parts determine the next digit of the result.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int, UInt64

DIGIT_BITS = 11
NUM_DIGITS = 1 << DIGIT_BITS
SCORE_BITS = 33
"""Number of bits of a float32 as an ordered integer, rounded up to whole digits."""

Counts = Int[np.ndarray, "groups digits"]


def digit_counts(
    keys: UInt64[np.ndarray, "n"],
    groups: Int[np.ndarray, "n"],
    prefixes: UInt64[np.ndarray, "groups"],
    shift: int,
) -> Counts:
    """Return how many keys of each group have each digit at bit `shift`, among those with the group's prefix above that digit."""
    inside = (keys >> np.uint64(shift + DIGIT_BITS)) == prefixes[groups]
    digit = ((keys[inside] >> np.uint64(shift)) & np.uint64(NUM_DIGITS - 1)).astype(np.int64)
    counts = np.bincount(groups[inside] * NUM_DIGITS + digit, minlength=len(prefixes) * NUM_DIGITS)
    return counts.reshape(len(prefixes), NUM_DIGITS)


def kth_smallest(
    place_of: Callable[[Int[np.ndarray, "groups"]], Int[np.ndarray, "groups"]],
    num_groups: int,
    num_bits: int,
    count: Callable[[UInt64[np.ndarray, "groups"], int], Counts],
) -> UInt64[np.ndarray, "groups"]:
    """Return one key per group, the one at a given position in ascending order.

    Args:
        place_of: returns the position, counted from 1, for the number of keys of each group. For a group without keys the result is arbitrary.
        num_groups: the number of groups, which `count` counts separately.
        num_bits: the number of bits of a key.
        count: returns the sums of `digit_counts` over all parts, for given prefixes and shift.

    """
    prefixes, places = np.zeros(num_groups, np.uint64), np.zeros(num_groups, np.int64)
    shifts = range(0, num_bits, DIGIT_BITS)
    for shift in reversed(shifts):
        counts = count(prefixes, shift)
        if shift == shifts[-1]:
            places = place_of(counts.sum(axis=1))
        up_to = counts.cumsum(axis=1)
        digit = (up_to >= places[:, None]).argmax(axis=1)
        rows = np.arange(num_groups)
        places = places - (up_to[rows, digit] - counts[rows, digit])
        prefixes = (prefixes << np.uint64(DIGIT_BITS)) | digit.astype(np.uint64)
    return prefixes


def ordered_keys(values: Float[np.ndarray, "n"]) -> UInt64[np.ndarray, "n"]:
    """Return integers that sort as the float32 values do; no value may be NaN, and both zeros give the same integer."""
    bits = (values.astype(np.float32) + np.float32(0)).view(np.uint32)
    negative = bits >> 31 == 1
    return np.where(negative, ~bits, bits | np.uint32(1 << 31)).astype(np.uint64)


def values_of_keys(keys: UInt64[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """Return the float32 values of `ordered_keys`."""
    bits = keys.astype(np.uint32)
    positive = bits >> 31 == 1
    return np.where(positive, bits ^ np.uint32(1 << 31), ~bits).astype(np.uint32).view(np.float32)
