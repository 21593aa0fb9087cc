"""The word encodings of captions as the embed stage stored them for the prior."""

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
    """A text encoder as the embed stage used it, with its states cut or padded to what the prior reads."""

    encoder: TokenEncoder
    ref: TokenRef
    number: int

    def encode(self, captions: Sequence[str]) -> Float[Tensor, "batch words width"]:
        """Return token states rounded to half floats, as they are stored; zero after a caption's end."""
        states, lengths = self.encoder.text_states(captions)
        states = states[:, : self.ref.max_tokens].half().float()
        beyond = torch.arange(states.shape[1]) >= lengths[:, None]
        return cut_or_pad(states.masked_fill(beyond[..., None], 0.0)[:, None], self.number)[:, 0]
