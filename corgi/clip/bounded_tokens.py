"""open_clip's tokenizer with the same ids, in time n log n.

The original merging takes time quadratic in the length of a word, and caches every word it has ever seen.
"""

import heapq
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import cast

import torch
from open_clip.tokenizer import SimpleTokenizer

Pair = tuple[str, ...]
WORD_END = "</w>"
_CACHED_WORDS = 2**16
_CACHED_LETTERS = 64


class BoundedTokenizer(SimpleTokenizer):
    """The same ids as open_clip's SimpleTokenizer; merging stops after the last token that is kept."""

    def __init__(self, whole: SimpleTokenizer) -> None:
        """Copy the vocabulary and the settings of a tokenizer."""
        vars(self).update(vars(whole))
        self._special = {self.decoder[token] for token in self.all_special_ids}
        self._known: dict[str, list[str]] = {}
        entries = [entry.removesuffix(WORD_END) for entry in self.encoder]
        self._neighbours = {entry[index : index + 2] for entry in entries for index in range(len(entry) - 1)}

    def __call__(self, texts: str | Sequence[str], context_length: int | None = None) -> torch.LongTensor:
        """Return token ids [n, length], zero after the end-of-text token; texts that are too long are truncated."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        if self.reduction_fn is not None:  # it chooses among all tokens
            return super().__call__(texts, context_length)
        length = context_length or self.context_length
        assert length, "a context length is needed"
        ids = torch.zeros(len(texts), length, dtype=torch.long)
        for row, text in enumerate(texts):
            tokens = [self.sot_token_id, *islice(self._tokens(text), length - 1)]
            tokens = [*tokens[: length - 1], self.eot_token_id]
            ids[row, : len(tokens)] = torch.tensor(tokens)
        return cast("torch.LongTensor", ids)

    def encode(self, text: str) -> list[int]:
        """Return all tokens of a text, without the start-of-text and end-of-text tokens."""
        return list(self._tokens(text))

    def _tokens(self, text: str) -> Iterator[int]:
        for match in self.pat.finditer(self.clean_fn(text)):
            word = "".join(self.byte_encoder[byte] for byte in match[0].encode("utf-8"))
            for token in self._short(word) if len(word) <= _CACHED_LETTERS else self._long(word):
                yield self.encoder[token]

    def _short(self, word: str) -> list[str]:
        if word not in self._known:
            if len(self._known) >= _CACHED_WORDS:
                self._known.clear()
            is_special = word in self._special
            self._known[word] = [word] if is_special else merged(_symbols(word), self.bpe_ranks)
        return self._known[word]

    def _long(self, word: str) -> Iterator[str]:
        """Yield a word's tokens; two letters that are adjacent in no vocabulary entry are never merged, so the word is split there."""
        symbols, start = _symbols(word), 0
        for index in range(1, len(word)):
            if word[index - 1 : index + 1] not in self._neighbours:
                yield from merged(symbols[start:index], self.bpe_ranks)
                start = index
        yield from merged(symbols[start:], self.bpe_ranks)


def _symbols(word: str) -> list[str]:
    return [*word[:-1], word[-1] + WORD_END]


def merged(symbols: Sequence[str], ranks: Mapping[Pair, int]) -> list[str]:
    """Return a word's symbols after byte-pair merging: all pairs of the lowest rank are merged, left to right, until no pair has a rank.

    A heap holds the indices of pairs by rank, and the symbols form a linked list, so that each merge looks only at its neighbours.
    """
    found, end = list(symbols), len(symbols)
    after, before = list(range(1, end + 1)), list(range(-1, end - 1))

    def rank_at(index: int) -> int | None:
        return ranks.get((found[index], found[after[index]])) if after[index] < end else None

    indices = [(rank, index) for index in range(end) if (rank := rank_at(index)) is not None]
    heapq.heapify(indices)
    while indices:
        lowest = indices[0][0]
        same = []
        while indices and indices[0][0] == lowest:
            same.append(heapq.heappop(indices)[1])
        for index in same:
            if not found[index] or rank_at(index) != lowest:
                continue  # one of the two was already merged with a neighbour
            right = after[index]
            found[index], found[right], after[index] = found[index] + found[right], "", after[right]
            if after[index] < end:
                before[after[index]] = index
            for changed in (before[index], index):
                rank = rank_at(changed) if changed >= 0 else None
                if rank is not None:
                    heapq.heappush(indices, (rank, changed))
    return [symbol for symbol in found if symbol]
