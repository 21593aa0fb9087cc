"""The token states of captions, computed as the embed stage stores them for the prior."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from corgi.clip.tokens import TokenEncoder
from corgi.settings.clip import TokenRef
from corgi.training.words import cut_or_pad


@dataclass(frozen=True)
class Words:
    """The embed stage's text encoder, with its states cut or padded to the number of tokens that a network reads."""

    encoder: TokenEncoder
    ref: TokenRef
    number: int

    def encode(self, captions: Sequence[str]) -> Float[Tensor, "batch words width"]:
        """Return token states rounded to half floats, as the embed stage stores them; zero after a caption's end."""
        states, lengths = self.encoder.text_states(captions)
        states = states[:, : self.ref.max_tokens].half().float()
        beyond = torch.arange(states.shape[1]) >= lengths[:, None]
        return cut_or_pad(states.masked_fill(beyond[..., None], 0.0)[:, None], self.number)[:, 0]
