"""Counter-based random numbers: Philox4x32-10 (Salmon et al. 2011) in integer tensor operations, the same numbers on every device.

A value is a function of (seed, position, draw, kind) and its index in the draw: it depends neither on its batch nor on earlier
draws. The integers are equal everywhere. Normals are computed from them by Box-Muller, whose logarithm and sine may differ in the
last bits between kinds of devices; on one kind of device they are bit-equal.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# torch has functions without types

import math
import sys
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt32
from torch import Tensor

MASK = 0xFFFFFFFF
NORMAL, UNIFORM, INTEGERS, CHAIN = range(4)
"""Kinds of draw, separated by the top bits of the counter; CHAIN is for samplers, whose position is 0."""
MAX_DRAWS = 2**30
"""Number of draws of one kind; a draw is an index below it."""
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
CPU_BLOCKS = 32768
"""Blocks processed at once on a CPU, so that every operation finds its operands in the cache."""

_HALF, _LOW = np.uint64(32), np.uint64(MASK)
_MULTIPLIER = np.array(_MULTIPLIERS, np.uint64)[:, None, None]
_KEY_STEP = np.array(_KEY_STEPS, np.uint32)[:, None, None]
_HIGH_HALF = 1 if sys.byteorder == "little" else 0
"""Index of the high 32 bits among the halves of a 64-bit number in memory."""

Word = Tensor | int
"""32 bits: an int64 tensor or a number."""
Words = tuple[Int[Tensor, "*shape"], Int[Tensor, "*shape"], Int[Tensor, "*shape"], Int[Tensor, "*shape"]]
"""The four words of a counter's block."""


class Stream(NamedTuple):
    """Identifies random numbers: the seed and position of each row, the kind and the draw."""

    seed: Int[Tensor, "rows"]
    position: Int[Tensor, "rows"]
    kind: int
    draw: int


def philox4x32(counter: tuple[Word, Word, Word, Word], key: tuple[Word, Word]) -> Words:
    """Return the four words of each counter after ten rounds; words may have any shapes that broadcast.

    The low 64 bits of an int64 product are those of the unsigned one, and the mask removes the sign of a shift.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        first, second = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            ((second >> 32) & MASK) ^ (c1 ^ k0),
            second & MASK,
            ((first >> 32) & MASK) ^ (c3 ^ k1),
            first & MASK,
        )
        k0, k1 = (k0 + _KEY_STEPS[0]) & MASK, (k1 + _KEY_STEPS[1]) & MASK
    words = torch.broadcast_tensors(*(torch.as_tensor(word) for word in (c0, c1, c2, c3)))
    return words[0], words[1], words[2], words[3]


def seeds_of(seeds: Sequence[int], device: torch.device | str = "cpu") -> Int[Tensor, "rows"]:
    """Return seeds of 0..2^64 - 1 as the int64 of the same bits."""
    signed = [(seed + 2**63) % 2**64 - 2**63 for seed in seeds]
    return torch.tensor(signed, dtype=torch.int64, device=device)


def normals(stream: Stream, count: int) -> Float[Tensor, "rows count"]:
    """Return standard normal values, fp32: r cos(a), r sin(a) with r = sqrt(-2 ln u), a = 2 pi v of two words each (Box and Muller 1958)."""
    blocks = -(-count // 4)
    if stream.seed.device.type != "cpu":
        bits = torch.stack(_words(stream, 0, blocks)) >> 8
        return _box_muller(bits[0::2], bits[1::2]).flatten(1)[:, :count]
    values = torch.empty(len(stream.seed), blocks, 4)
    rows = max(1, CPU_BLOCKS // max(1, blocks))
    for row, block in product(range(0, len(values), rows), range(0, blocks, CPU_BLOCKS)):
        part = _rows(stream, slice(row, row + rows))
        last = min(block + CPU_BLOCKS, blocks)
        values[row : row + rows, block:last] = _box_muller(*map(_top_bits, _halves(part, block, last)))
    return values.flatten(1)[:, :count]


def uniforms(stream: Stream) -> Float[Tensor, "rows"]:
    """Return values in [0, 1), fp32, from the first word's top 24 bits."""
    return (_words(stream, 0, 1)[0][:, 0] >> 8).float() * 2.0**-24


def integers(stream: Stream, low: int, high: int) -> Int[Tensor, "rows"]:
    """Return whole numbers in [low, high), int64, by multiply and shift of the first word: probabilities are equal to 2^-32."""
    return ((_words(stream, 0, 1)[0][:, 0] * (high - low)) >> 32) + low


def _rows(stream: Stream, rows: slice) -> Stream:
    return stream._replace(seed=stream.seed[rows], position=stream.position[rows])


def _number(stream: Stream) -> int:
    """Return the counter's last word: the kind in its top bits, the draw below."""
    if not 0 <= stream.draw < MAX_DRAWS:
        raise ValueError(f"draw {stream.draw} must be in 0..{MAX_DRAWS - 1}")
    return stream.kind * MAX_DRAWS + stream.draw


def _words(stream: Stream, first: int, last: int) -> Words:
    """Return the words of blocks first..last - 1 of each row, each [rows, blocks]."""
    if stream.seed.device.type == "cpu":
        return cpu_words(stream, first, last)
    seed, position = stream.seed[:, None], stream.position[:, None]
    block = torch.arange(first, last, device=seed.device)[None]
    counter = (block, position & MASK, (position >> 32) & MASK, _number(stream))
    return philox4x32(counter, (seed & MASK, (seed >> 32) & MASK))


def cpu_words(stream: Stream, first: int, last: int) -> Words:
    """Return the same words by numpy, which takes less time than torch on a CPU."""
    even, odd = (torch.from_numpy(words.astype(np.int64)) for words in _halves(stream, first, last))
    return even[0], odd[0], even[1], odd[1]


def _halves(
    stream: Stream, first: int, last: int
) -> tuple[UInt32[np.ndarray, "2 rows blocks"], UInt32[np.ndarray, "2 rows blocks"]]:
    """Return words 0 and 2, and words 1 and 3, of blocks first..last - 1 of each row.

    Both halves of a product are read through views of its memory, which saves the passes that would shift and mask. Two arrays of
    products alternate, since one round's low halves are still read in the next round.
    """
    seed, position = (value.numpy().view(np.uint64)[:, None] for value in (stream.seed, stream.position))
    shape = (2, len(seed), last - first)
    even, odd = (np.empty(shape, np.uint32) for _ in range(2))
    even[0], even[1] = np.arange(first, last, dtype=np.uint32), position >> _HALF
    odd[0], odd[1] = position & _LOW, np.uint32(_number(stream))
    key = np.stack([seed & _LOW, seed >> _HALF]).astype(np.uint32)
    products = [np.empty(shape, np.uint64) for _ in range(2)]
    halves = [product.view(np.uint32).reshape(*shape, 2)[::-1] for product in products]
    for number in range(_ROUNDS):
        product, half = products[number % 2], halves[number % 2]
        np.multiply(even, _MULTIPLIER, out=product)
        np.bitwise_xor(half[..., _HIGH_HALF], odd, out=even)
        np.bitwise_xor(even, key, out=even)
        odd = half[..., 1 - _HIGH_HALF]
        key = key + _KEY_STEP
    return even, odd


def _top_bits(words: UInt32[np.ndarray, "..."]) -> Int[Tensor, "..."]:
    """Return the top 24 of each word's 32 bits, int32."""
    return torch.from_numpy((words >> np.uint32(8)).view(np.int32))


def _box_muller(
    even: Int[Tensor, "2 rows blocks"], odd: Int[Tensor, "2 rows blocks"]
) -> Float[Tensor, "rows blocks 4"]:
    """Return r cos(a), r sin(a) of words 0 and 1, and of words 2 and 3, given the top 24 bits of each."""
    u, v = (bits.float().add_(0.5).mul_(2.0**-24) for bits in (even, odd))
    radius = u.log_().mul_(-2).sqrt_()
    angle = v.mul_(2 * math.pi)
    values = torch.stack([angle.cos(), angle.sin()], dim=1).mul_(radius[:, None])
    return values.flatten(0, 1).movedim(0, -1)
