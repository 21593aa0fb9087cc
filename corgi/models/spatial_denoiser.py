"""What the decoder networks on a plane have in common: latents are flat at input and output, and the embedding is standardised first."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from corgi.diffusion.shifted import ShiftTable
from corgi.models.condition import CaptionTokens, ImageCondition, Regression, beside_neighbours


class SpatialDenoiser(nn.Module, ABC):
    """Denoise a latent of shape (channels, side, side), conditioned on an image embedding.

    The embedding is standardised by a one-cluster table, which is saved in the state dict. A subclass sets `condition`, sets
    `captions` if it also reads words and `regression` if it reads the latent predicted from the embedding, and implements
    `on_plane`.
    """

    condition: ImageCondition
    captions: CaptionTokens | None
    regression: Regression | None

    def __init__(self, latent_shape: tuple[int, ...], embedding_table: ShiftTable) -> None:
        """Store the shape and a copy of the table."""
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
        """Return the prediction; `planes` are those of the noisy latent, followed by those of all further inputs."""

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
        """Predict the parameterisation it is trained for, in float32 at least.

        Args:
            latent: noisy standardised latent.
            t: timestep 1..T of the full schedule.
            embedding: image embedding, standardised inside.
            drop_mask: True where the embedding is replaced by the learned null.
            level: share of noise in the embedding; None for no noise.
            neighbours: standardised latents of train pictures; zeros replace them where the embedding is dropped.
            words: word encodings of a caption, zeros after its end; None if no row has a caption.
            drop_words: True where the caption is replaced by the learned null; None for no row.
            low: a smaller picture, enlarged to the plane of the latent; never dropped.
            low_level: share of noise in it; None for no noise.

        """
        standardised = self.embedding_table.whiten(embedding, torch.zeros_like(t))
        vector, tokens = self.condition(standardised, drop_mask, level, low_level)
        if self.captions is not None:
            caption_tokens = self.captions(
                words, torch.zeros_like(drop_mask) if drop_words is None else drop_words
            )
            tokens = caption_tokens if tokens is None else torch.cat([tokens, caption_tokens], dim=1)
        inputs = latent if neighbours is None else beside_neighbours(latent, neighbours, drop_mask)
        if self.regression is not None:
            inputs = torch.cat([inputs, self.regression(standardised, drop_mask).to(inputs.dtype)], dim=1)
        if low is not None:
            inputs = torch.cat([inputs, low.to(inputs.dtype)], dim=1)
        planes = inputs.to(self.condition.vector.weight.dtype).view(len(inputs), -1, *self.latent_shape[1:])
        output = self.on_plane(planes, t, vector, tokens)
        return output.flatten(1).to(torch.promote_types(latent.dtype, torch.float32))
