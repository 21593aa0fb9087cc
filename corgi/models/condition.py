"""How an image embedding enters a spatial network: as a vector added to the time embedding, as tokens to attend to, as a predicted latent, or as the learned null."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from corgi.models.embedding import sinusoidal_embedding

LEVEL_POSITIONS = 1000.0
"""A share of noise in 0..1 is embedded as the sinusoid of a position in 0..1000."""


class ImageCondition(nn.Module):
    """Linear layers from a standardised image embedding to a vector and to tokens; learned nulls replace them if it is dropped.

    The null is learned because zeros would be the mean embedding, not the absence of one.
    """

    def __init__(
        self,
        embedding_dim: int,
        width: int,
        tokens: tuple[int, int] = (0, 0),
        knows_level: bool = False,
        knows_low: bool = False,
    ) -> None:
        """Build the layers; `tokens` is (number, width).

        `knows_level` adds an embedding of the noise level of the image embedding to the vector, `knows_low` one of the noise
        level of a smaller picture.
        """
        super().__init__()
        self.width, self.num_tokens = width, tokens[0]
        self.vector = nn.Linear(embedding_dim, width)
        self.null_vector = nn.Parameter(torch.zeros(width))
        self.level = nn.Linear(width, width) if knows_level else None
        self.low_level = nn.Linear(width, width) if knows_low else None
        if self.num_tokens:
            self.tokens = nn.Linear(embedding_dim, tokens[0] * tokens[1])
            self.null_tokens = nn.Parameter(torch.zeros(tokens))

    def forward(
        self,
        standardised: Float[Tensor, "batch embedding_dim"],
        drop_mask: Bool[Tensor, "batch"],
        level: Float[Tensor, "batch"] | None = None,
        low_level: Float[Tensor, "batch"] | None = None,
    ) -> tuple[Float[Tensor, "batch width"], Float[Tensor, "batch tokens token_width"] | None]:
        """Return the vector and the tokens; a level that is None means no noise."""
        image = standardised.to(self.vector.weight.dtype)
        vector = self.vector(image)
        if self.level is not None:
            vector = vector + self.level(level_embedding(level, vector))
        vector = torch.where(drop_mask[:, None], self.null_vector.to(vector.dtype), vector)
        if self.low_level is not None:
            vector = vector + self.low_level(level_embedding(low_level, vector))
        if not self.num_tokens:
            return vector, None
        tokens = self.tokens(image).unflatten(1, tuple(self.null_tokens.shape))
        return vector, torch.where(drop_mask[:, None, None], self.null_tokens.to(tokens.dtype), tokens)


class Regression(nn.Module):
    """The latent that a linear map predicts from a standardised image embedding; the map is fitted before training and then fixed.

    The vector added to the time embedding is the same at every position of the plane, so a small network learns late where in the
    picture things are. A regression provides that from the first step (`docs/decisions/0015-regression.md`). A dropped embedding
    gives zeros.
    """

    weight: Float[Tensor, "latent_dim embedding_dim"]
    bias: Float[Tensor, "latent_dim"]

    def __init__(self, embedding_dim: int, latent_dim: int) -> None:
        """Create the buffers that `load_state_dict` fills; they are NaN until then, so that a network without its fit is noticed at once."""
        super().__init__()
        self.register_buffer("weight", torch.full((latent_dim, embedding_dim), torch.nan))
        self.register_buffer("bias", torch.full((latent_dim,), torch.nan))

    def forward(
        self, standardised: Float[Tensor, "batch embedding_dim"], drop_mask: Bool[Tensor, "batch"]
    ) -> Float[Tensor, "batch latent_dim"]:
        """Return the predicted latents."""
        predicted = nn.functional.linear(standardised.to(self.weight.dtype), self.weight, self.bias)
        return predicted * ~drop_mask[:, None]


class CaptionTokens(nn.Module):
    """A linear layer from a caption's word encodings to tokens; padding and dropped captions give learned tokens, one per position.

    An all-zero word is padding, so a picture without a caption has learned tokens only.
    """

    def __init__(self, number: int, width_in: int, width: int) -> None:
        """Build the layer for `number` words per caption."""
        super().__init__()
        self.words = nn.Linear(width_in, width)
        self.null_words = nn.Parameter(torch.zeros(number, width))

    def forward(
        self,
        words: Float[Tensor, "batch number width_in"] | None,
        drop_mask: Bool[Tensor, "batch"],
    ) -> Float[Tensor, "batch number width"]:
        """Return the tokens; `words` is None if no row has a caption."""
        null = self.null_words.to(self.words.weight.dtype)
        if words is None:
            return null.expand(len(drop_mask), -1, -1)
        absent = (words == 0).all(dim=-1) | drop_mask[:, None]
        return torch.where(absent[..., None], null, self.words(words.to(self.words.weight.dtype)))


def level_embedding(
    level: Float[Tensor, "batch"] | None, like: Float[Tensor, "batch width"]
) -> Float[Tensor, "batch width"]:
    """Return the sinusoid of each row's share of noise, with the shape and dtype of `like`; None means no noise."""
    share = like.new_zeros(len(like)) if level is None else level
    return sinusoidal_embedding(LEVEL_POSITIONS * share, like.shape[1]).to(like.dtype)


def beside_neighbours(
    latent: Float[Tensor, "batch latent_dim"],
    neighbours: Float[Tensor, "batch number latent_dim"],
    drop_mask: Bool[Tensor, "batch"],
) -> Float[Tensor, "batch all"]:
    """Return the noisy latent followed by the latents of its neighbours, which are zeros where the embedding is dropped."""
    kept = neighbours.to(latent.dtype) * ~drop_mask[:, None, None]
    return torch.cat([latent, kept.flatten(1)], dim=1)
