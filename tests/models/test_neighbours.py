"""Neighbours of an embedding: the nearest of the train pictures that are neither itself nor near duplicates."""

import numpy as np
import pytest

from corgi.models.neighbours import Neighbours


def table(
    rows: int = 200, number: int = 3, max_cosine: float = 0.98, seed: int = 0
) -> tuple[np.ndarray, Neighbours]:
    random = np.random.default_rng(seed)
    embedding = random.normal(size=(rows, 6)).astype(np.float32)
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    latent = random.normal(size=(rows, 4)).astype(np.float16)
    return embedding, Neighbours([f"{n:03d}" for n in range(rows)], embedding, latent, number, max_cosine)


@pytest.mark.law
@pytest.mark.parametrize("max_cosine", [0.5, 0.98])
def test_law_neighbours_are_the_nearest_that_may_be_seen(max_cosine: float) -> None:
    """Against a sort of all cosines, for train pictures and for others."""
    embedding, found = table(max_cosine=max_cosine)
    asked = np.concatenate([embedding[:20], np.random.default_rng(1).normal(size=(20, 6))])
    cosine = (asked / np.linalg.norm(asked, axis=1, keepdims=True)) @ embedding.T
    for row, chosen in zip(cosine, found.nearest(asked), strict=True):
        expected = [n for n in np.argsort(-row) if row[n] < max_cosine][:3]
        assert chosen.tolist() == expected


def test_no_picture_is_its_own_neighbour_nor_is_its_copy() -> None:
    embedding, _ = table()
    twice = np.concatenate([embedding] * 40)  # more copies than the search looks at first
    found = Neighbours([str(n) for n in range(len(twice))], twice, np.zeros((len(twice), 4)), 3, 0.98)
    nearest = found.nearest(embedding)
    assert (nearest >= 0).all()
    assert (nearest % 200 != np.arange(200)[:, None]).all()


def test_where_all_are_duplicates_nobody_is_seen() -> None:
    one = np.ones((5, 3), np.float32)
    found = Neighbours(list("abcde"), one, np.ones((5, 2)), 2, 0.98)
    nearest = found.nearest(one[:1])
    assert nearest.tolist() == [[-1, -1]]
    assert not found.latents(nearest).any()
    assert found.names(nearest) == [[]]


def test_names_and_latents_are_of_the_same_pictures() -> None:
    embedding, found = table()
    nearest = found.nearest(embedding[:2])
    assert found.names(nearest) == [[f"{n:03d}" for n in row] for row in nearest]
    assert np.array_equal(found.latents(nearest), found.latent[nearest])


def test_more_neighbours_than_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="4 neighbours were requested, but there are 3"):
        table(rows=3, number=4)
