"""Small sets of rows for the comparison's tests, and settings that fit them."""

import numpy as np

from corgi.settings.compare import CompareSettings

SETTINGS = CompareSettings(
    arms=("dalle2", "standardised", "regression", "eclipse"), width=32, depth=1, heads=2
)


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def rows_of(num: int, dim: int, seed: int) -> dict[str, np.ndarray]:
    """Return `num` pictures around three words, each with its word as coarse and itself as full caption."""
    rng = np.random.default_rng(seed)
    word = np.arange(num) % 3
    centres = unit(np.random.default_rng(9).normal(size=(3, dim)))
    image = unit(centres[word] + 0.3 * rng.normal(size=(num, dim)))
    full, coarse = np.zeros((2, num, 8, dim), np.float32)
    full[:, 0], coarse[:, 0] = image, centres[word]
    ones = np.ones(num, np.int64)
    return {"image": image, "full": full, "coarse": coarse, "num_full": ones, "num_coarse": ones}
