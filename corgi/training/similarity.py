"""Cosines of sampled embeddings, under the names DALLE2-pytorch's prior training gives them."""

from jaxtyping import Float
from torch import Tensor


def similarities(
    sampled: Float[Tensor, "n dim"], image: Float[Tensor, "n dim"], text: Float[Tensor, "n dim"]
) -> dict[str, float]:
    """Return what DALLE2-pytorch's prior training reports, for unit vectors.

    "difference from baseline similarity" is the sampled embedding's cosine to the caption minus the true embedding's; the
    unrelated caption is that of the row before.
    """
    baseline, own = (image * text).sum(-1), (sampled * text).sum(-1)
    return {
        "baseline similarity": float(baseline.mean()),
        "similarity with text": float(own.mean()),
        "similarity with original image": float((sampled * image).sum(-1).mean()),
        "similarity with unrelated caption": float((sampled * text.roll(1, 0)).sum(-1).mean()),
        "difference from baseline similarity": float((own - baseline).mean()),
    }
