"""Pictures painted for evaluation: from true image embeddings, from the prior's, and through the autoencoder alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image

from corgi.evaluation.measured import Pictures
from corgi.feeding.pictures import square
from corgi.imaging.decode import decode_stored
from corgi.inference.generate import Generator
from corgi.models.picture_decoder import PAINTED_AT_ONCE, to_bytes
from corgi.tables.embedded import ListedSet, embedded_set, stored_pictures
from corgi.tables.store import Store

FROM_TRUE, FROM_PRIOR, CEILING = "from true embedding", "from prior", "autoencoder alone (ceiling)"


@dataclass(frozen=True)
class Painted:
    """The pictures of some rows, every list in the order of the rows; the keys of `ways` are FROM_TRUE, FROM_PRIOR and CEILING."""

    true: list[Image.Image]
    ways: dict[str, list[Image.Image]]
    true_z: Float[torch.Tensor, "rows dim"]
    prior_z: Float[torch.Tensor, "rows dim"]


def paint(
    generator: Generator,
    pictures: Pictures,
    chosen: Int[np.ndarray, "chosen"],
    stored: Sequence[Image.Image],
    seed: int,
) -> Painted:
    """Paint the chosen rows; the i-th has seed + i. `stored` are their true pictures."""
    seeds = [seed + n for n in range(len(chosen))]
    true_z, text = tensor(pictures.image[chosen]), tensor(pictures.text[chosen])
    captions = [pictures.caption[row] for row in chosen]
    encodings = generator.word_encodings(captions)
    prior_z = generator.prior.sample(text, seeds, generator.prior_sampling, encodings)
    ways = {
        FROM_TRUE: generator.paint(true_z, seeds, captions),
        FROM_PRIOR: generator.paint(prior_z, seeds, captions),
        CEILING: round_trip(generator, stored),
    }
    return Painted(list(stored), ways, true_z, prior_z.cpu())


def own_pictures(store: Store, shards: ListedSet, uids: Sequence[str]) -> list[Image.Image]:
    """Return the stored pictures of `uids`, in the same order."""
    encoded = stored_pictures(embedded_set(store, shards), set(uids))
    return [decode_stored(encoded[uid]) for uid in uids]


def round_trip(generator: Generator, pictures: Sequence[Image.Image]) -> list[Image.Image]:
    """Return pictures as reconstructed by the autoencoder: a ceiling for every decoder in its latent space."""
    autoencoder = generator.decoder.autoencoder
    returned: list[Image.Image] = []
    for first in range(0, len(pictures), PAINTED_AT_ONCE):
        part = pictures[first : first + PAINTED_AT_ONCE]
        squares = torch.stack([square(picture, autoencoder.image_size) for picture in part])
        decoded = autoencoder.decode(autoencoder.encode(squares.to(generator.decoder.device)))
        returned += [Image.fromarray(np.asarray(pixels)) for pixels in to_bytes(decoded).cpu()]
    return returned


def tensor(array: np.ndarray) -> torch.Tensor:
    """Return an array as fp32."""
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
