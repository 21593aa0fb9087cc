"""Word encodings of captions as the prior was trained on them: half floats, zero after a caption's end."""

from collections.abc import Sequence

import torch
from torch import Tensor

from corgi.inference.words import Words
from corgi.settings.clip import TokenRef


class Counting:
    """States that count up; caption c has as many tokens as words."""

    def text_states(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        lengths = torch.tensor([len(caption.split()) for caption in captions])
        states = torch.arange(1.0, len(captions) * 6 * 2 + 1).view(len(captions), 6, 2) + 1e-4
        return states, lengths


def test_law_states_are_halves_cut_or_padded_and_zero_after_the_end() -> None:
    words = Words(Counting(), TokenRef(name="some", model="none", max_tokens=4), 5)
    found = words.encode(["one two", "one two three four five six"])
    assert found.shape == (2, 5, 2)
    assert torch.equal(found, found.half().float())
    assert (found[0, :2] > 0).all()
    assert not found[0, 2:].any()
    assert (found[1, :4] > 0).all()  # max_tokens
    assert not found[1, 4:].any()
