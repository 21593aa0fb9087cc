"""What the decoder networks with a plane have in common: latents come and go flat, and the embedding is standardised first."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from corgi.diffusion.shifted import ShiftTable
from corgi.models.condition import CaptionTokens, ImageCondition, Regression, beside_neighbours


class SpatialDenoiser(nn.Module, ABC):
    """Denoise a latent of shape (channels, side, side), given an image embedding.

    The embedding is standardised by a one-cluster table, which travels with the state dict. A network of this kind sets
    `condition`, `captions` where it also reads words and `regression` where it reads the latent predicted from the embedding, and answers
    on the plane.
    """

    condition: ImageCondition
    captions: CaptionTokens | None
    regression: Regression | None

    def __init__(self, latent_shape: tuple[int, ...], embedding_table: ShiftTable) -> None:
        """Keep the shape and a copy of the table."""
        super().__init__()
        self.latent_shape = latent_shape
        self.embedding_table = ShiftTable.from_state(embedding_table.state_dict())
        self.captions = None
        self.regression = None

    @abstractmethod
    def on_plane(
        self,
        planes: Float[Tensor, "batch planes side side"],
        t: Int[Tensor, "batch"],
        vector: Float[Tensor, "batch width"],
        tokens: Float[Tensor, "batch tokens token_width"] | None,
    ) -> Float[Tensor, "batch channels side side"]:
        """Return the prediction; `planes` are the noisy latent, then the planes of whatever else is seen."""

    def forward(
        self,
        latent: Float[Tensor, "batch latent_dim"],
        t: Int[Tensor, "batch"],
        embedding: Float[Tensor, "batch embedding_dim"],
        drop_mask: Bool[Tensor, "batch"],
        level: Float[Tensor, "batch"] | None = None,
        neighbours: Float[Tensor, "batch number latent_dim"] | None = None,
        words: Float[Tensor, "batch words encoding_dim"] | None = None,
        drop_words: Bool[Tensor, "batch"] | None = None,
        low: Float[Tensor, "batch low_dim"] | None = None,
        low_level: Float[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, "batch latent_dim"]:
        """Predict what the objective asks for, in float32 at least.

        Args:
            latent: noisy standardised latent.
            t: timestep 1..T of the full schedule.
            embedding: image embedding, standardised inside.
            drop_mask: True where the embedding is replaced by the learned null.
            level: share of noise on the embedding; None: none.
            neighbours: standardised latents of train pictures, unseen where the embedding is dropped.
            words: word encodings of a caption, zeros after its end; None: no captions.
            drop_words: True where the caption is replaced by the learned null; None: nowhere.
            low: a smaller picture, brought to the plane of the latent, always seen.
            low_level: share of noise on it; None: none.

        """
        standardised = self.embedding_table.whiten(embedding, torch.zeros_like(t))
        vector, tokens = self.condition(standardised, drop_mask, level, low_level)
        if self.captions is not None:
            told = self.captions(words, torch.zeros_like(drop_mask) if drop_words is None else drop_words)
            tokens = told if tokens is None else torch.cat([tokens, told], dim=1)
        seen = latent if neighbours is None else beside_neighbours(latent, neighbours, drop_mask)
        if self.regression is not None:
            seen = torch.cat([seen, self.regression(standardised, drop_mask).to(seen.dtype)], dim=1)
        if low is not None:
            seen = torch.cat([seen, low.to(seen.dtype)], dim=1)
        planes = seen.to(self.condition.vector.weight.dtype).view(len(seen), -1, *self.latent_shape[1:])
        answer = self.on_plane(planes, t, vector, tokens)
        return answer.flatten(1).to(torch.promote_types(latent.dtype, torch.float32))
