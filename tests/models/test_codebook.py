"""A learned codebook: nearest codes, k-means as its start, codes that follow their latents and move where they are of no use."""

import pytest
import torch
from torch import Tensor

from corgi.models.codebook import LearnedCodebook, k_means, nearest, vectors_of

CHANNELS, CODES, SLOTS = 2, 4, 6


def clusters(number: int = 60) -> Tensor:
    """Return vectors around (1, 1), (1, -1), (-1, 1) and (-1, -1), in turn."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    return corners.repeat(number, 1) + 0.05 * torch.randn(4 * number, 2, generator=generator)


def learning() -> LearnedCodebook:
    torch.manual_seed(0)
    made = LearnedCodebook(CODES, CHANNELS)
    made.learn(SLOTS)
    return made


def told(made: LearnedCodebook, vectors: Tensor, candidates: Tensor | None = None) -> Tensor:
    learner = made.learner
    assert learner is not None
    given = vectors[:SLOTS] if candidates is None else candidates
    return learner.seen(nearest(vectors, made.codebook), vectors, torch.arange(len(given)), given)


def advanced(made: LearnedCodebook, found: Tensor, decay: float = 0.9, revive_below: float = 0.0) -> None:
    learner = made.learner
    assert learner is not None
    learner.pending.add_(found)
    learner.advance(made, decay, revive_below)


@pytest.mark.law
def test_law_every_position_takes_the_nearest_code(monkeypatch: pytest.MonkeyPatch) -> None:
    made = LearnedCodebook(7, 3)
    latents = torch.randn(2, 3, 4, 5)
    distances = (latents[:, None] - made.codebook[None, :, :, None, None]).square().sum(2)
    assert torch.equal(made.codes(latents), distances.argmin(1))
    rounded = made.rounded(latents)
    torch.testing.assert_close(vectors_of(rounded), made.codebook[made.codes(latents).flatten()])
    torch.testing.assert_close(made.rounded(rounded), rounded)
    torch.testing.assert_close(made.distance(latents), distances.amin(1).mean() / 3)
    monkeypatch.setattr("corgi.models.codebook.COMPARED_AT_ONCE", 3)
    assert torch.equal(made.codes(latents), distances.argmin(1))


def test_the_gradient_passes_through_and_codes_have_none() -> None:
    made = LearnedCodebook(5, 2)
    latents = torch.randn(3, 2, 2, 2, requires_grad=True)
    made.rounded(latents).sum().backward()
    assert latents.grad is not None
    assert torch.equal(latents.grad, torch.ones_like(latents))
    assert list(made.parameters()) == []
    latents.grad = None
    made.distance(latents).backward()
    torch.testing.assert_close(latents.grad, 2 * (latents - made.rounded(latents)).detach() / latents.numel())


def test_k_means_finds_the_clusters_and_bears_fewer_vectors_than_codes() -> None:
    vectors = clusters()
    order = torch.randperm(len(vectors), generator=torch.Generator().manual_seed(1))
    centres = k_means(vectors[order.sort().indices], 4)
    assert centres.shape == (4, 2)
    assert bool(k_means(vectors[:3], 9).isfinite().all())
    error = (vectors - centres[nearest(vectors, centres)]).square().sum(1).mean()
    first = vectors[torch.arange(4) * len(vectors) // 4]
    assert error <= (vectors - first[nearest(vectors, first)]).square().sum(1).mean()


@pytest.mark.law
def test_law_codes_are_the_running_mean_of_their_latents() -> None:
    made = learning()
    learner, vectors = made.learner, clusters()
    assert learner is not None
    learner.start(made, vectors[:4])
    assert torch.equal(made.codebook, vectors[:4])
    count, sums = torch.ones(4).double(), vectors[:4].double()
    for step in range(3):
        given = vectors[4 * step : 4 * step + 20]
        code = nearest(given, made.codebook)
        own = torch.nn.functional.one_hot(code, 4).double()
        count = 0.9 * count + 0.1 * own.sum(0)
        sums = 0.9 * sums + 0.1 * own.T @ given.double()
        advanced(made, told(made, given))
        torch.testing.assert_close(made.codebook.double(), sums / count[:, None], rtol=1e-5, atol=1e-6)
        assert not learner.pending.any()


@pytest.mark.law
def test_law_the_parts_of_a_step_add_up_to_it() -> None:
    """Workers and micro-batches: each row's candidate has a slot of its own."""
    made, vectors = learning(), clusters()[:12]
    learner, slots = made.learner, torch.tensor([3, 1, 5, 0, 2, 4])
    assert learner is not None
    code, candidates = nearest(vectors, made.codebook), vectors[::2]
    whole = learner.seen(code, vectors, slots, candidates)
    parts = [
        learner.seen(code[a:b], vectors[a:b], slots[a // 2 : b // 2], candidates[a // 2 : b // 2])
        for a, b in ((0, 4), (4, 12))
    ]
    torch.testing.assert_close(sum(parts), whole)


def test_a_code_of_no_use_is_moved_to_a_candidate_and_is_not_dead_at_once() -> None:
    made, vectors = learning(), clusters()
    learner = made.learner
    assert learner is not None
    far = torch.tensor([[1.0, 1.0], [1.0, -1.0], [50.0, 50.0], [-50.0, 50.0]])
    learner.start(made, far)
    for _ in range(60):
        advanced(made, told(made, vectors, vectors[2:8]), decay=0.9, revive_below=0.0)
    assert len(nearest(vectors, made.codebook).unique()) == 2
    advanced(made, told(made, vectors, vectors[2:8]), decay=0.9, revive_below=0.02)
    torch.testing.assert_close(made.codebook[2:], vectors[2:4])
    for _ in range(40):
        advanced(made, told(made, vectors, vectors[2:8]), decay=0.9, revive_below=0.02)
    assert len(nearest(vectors, made.codebook).unique()) == 4
    assert float((vectors - made.codebook[nearest(vectors, made.codebook)]).square().mean()) < 0.05


def test_more_codes_of_no_use_than_candidates_are_moved_later() -> None:
    made = learning()
    learner = made.learner
    assert learner is not None
    learner.start(made, torch.tensor([[0.0, 0.0], [9.0, 9.0], [8.0, 8.0], [7.0, 7.0]]))
    learner.count.copy_(torch.tensor([100.0, 0.0, 0.0, 0.0]))
    learner.sums.zero_()
    found = learner.seen(
        torch.zeros(1, dtype=torch.int64), torch.ones(1, 2), torch.tensor([0]), torch.ones(1, 2)
    )
    learner.pending.add_(found)
    learner.sizes[2] = CHANNELS  # one slot
    learner.pending = learner.pending[: sum(learner.sizes)]
    learner.advance(made, 0.9, 0.02)
    assert torch.equal(made.codebook[1], torch.ones(2))
    assert not torch.equal(made.codebook[2], torch.ones(2))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_latents_that_are_not_finite_move_nothing(value: float) -> None:
    made, vectors = learning(), clusters()
    learner = made.learner
    assert learner is not None
    learner.start(made, vectors[:4])
    before = {name: held.clone() for name, held in made.state_dict().items()}
    harmed = vectors.clone()
    harmed[5] = value
    advanced(made, told(made, harmed), revive_below=0.02)
    assert all(torch.equal(held, before[name]) for name, held in made.state_dict().items())
