"""A learned codebook (van den Oord et al. 2017, arXiv:1711.00937): each position of a plane is replaced by its nearest code.

Codes have no gradient. They start at k-means centres and follow a running mean of the latents assigned to them. A code that is
hardly used is moved to some latent.
"""

# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# torch's split has no types

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

COMPARED_AT_ONCE = 8192
"""Number of latents whose distances to all codes are in memory at once."""
_ROUNDS = 10


class LearnedCodebook(nn.Module):
    """Replaces the latent of each position by its nearest code."""

    codebook: Float[Tensor, "codes channels"]
    learner: "CodebookLearner | None"

    def __init__(self, num_codes: int, channels: int) -> None:
        """Draw random codes, which are replaced when a training starts or weights are loaded."""
        super().__init__()
        self.register_buffer("codebook", torch.randn(num_codes, channels))
        self.learner = None

    @property
    def num_codes(self) -> int:
        """Return the size of the codebook."""
        return len(self.codebook)

    def rounded(self, latents: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch channels h w"]:
        """Return the nearest codes; the gradient passes straight through to the latents."""
        return latents + (self.codebook[self.codes(latents)].movedim(-1, 1) - latents).detach()

    def codes(self, latents: Float[Tensor, "batch channels h w"]) -> Int[Tensor, "batch h w"]:
        """Return the index of each position's code."""
        batch, _, height, width = latents.shape
        return nearest(vectors_of(latents.detach()), self.codebook).view(batch, height, width)

    def distance(self, latents: Float[Tensor, "batch channels h w"]) -> Float[Tensor, ""]:
        """Return the mean squared distance of latents to their codes, which are constants: the commitment loss."""
        return (latents - self.rounded(latents).detach()).square().mean()

    def learn(self, num_candidates: int) -> None:
        """Prepare for training; in each step `num_candidates` latents are candidates to replace codes that are hardly used."""
        self.learner = CodebookLearner(self.num_codes, self.codebook.shape[1], num_candidates)


class CodebookLearner(nn.Module):
    """Running counts and sums of the latents assigned to each code, and those of the current step.

    A step's counts and sums are added when the next step begins, so that a checkpoint between them contains both.
    """

    count: Float[Tensor, "codes"]
    sums: Float[Tensor, "codes channels"]
    pending: Float[Tensor, "values"]

    def __init__(self, num_codes: int, channels: int, num_candidates: int) -> None:
        """Start without latents."""
        super().__init__()
        self.sizes = [num_codes, num_codes * channels, num_candidates * channels]
        self.register_buffer("count", torch.ones(num_codes))
        self.register_buffer("sums", torch.zeros(num_codes, channels))
        self.register_buffer("pending", torch.zeros(sum(self.sizes)))

    @torch.no_grad()
    def start(self, codes: LearnedCodebook, vectors: Float[Tensor, "number channels"]) -> None:
        """Set the codes to k-means centres of some latents."""
        codes.codebook.copy_(k_means(vectors, codes.num_codes))
        self.sums.copy_(codes.codebook)

    @torch.no_grad()
    def seen(
        self,
        code: Int[Tensor, "number"],
        vectors: Float[Tensor, "number channels"],
        slots: Int[Tensor, "rows"],
        candidates: Float[Tensor, "rows channels"],
    ) -> Float[Tensor, "values"]:
        """Return what some latents contribute to a step: count and sum per code, and each row's candidate in its slot.

        These values are summed over all workers. They are zeros if any of them is not finite.
        """
        count, sums = totals(code, vectors, len(self.count))
        slotted = vectors.new_zeros(self.sizes[2] // vectors.shape[1], vectors.shape[1])
        slotted = slotted.index_copy(0, slots, candidates)
        contribution = torch.cat([count, sums.flatten(), slotted.flatten()])
        return torch.where(contribution.isfinite().all(), contribution, torch.zeros_like(contribution))

    @torch.no_grad()
    def advance(self, codes: LearnedCodebook, decay: float, revive_below: float) -> None:
        """N = decay N + (1 - decay) n, S likewise, code = S / N; then codes with N below a share of the mean N are moved to candidates."""
        count, sums, candidates = self.pending.split(self.sizes)
        sums, candidates = sums.view_as(self.sums), candidates.view(-1, self.sums.shape[1])
        has_latents = count.sum() > 0
        count, sums = (
            decay * old + (1 - decay) * new for old, new in ((self.count, count), (self.sums, sums))
        )
        is_dead = count < revive_below * count.mean()
        slot = is_dead.cumsum(0) - 1
        is_moved = is_dead & (slot < len(candidates))
        moved = candidates[slot.clamp(0, len(candidates) - 1)]
        sums = torch.where(is_moved[:, None], moved * count.mean(), sums)
        count = torch.where(is_moved, count.mean(), count)
        self.count.copy_(torch.where(has_latents, count, self.count))
        self.sums.copy_(torch.where(has_latents, sums, self.sums))
        codes.codebook.copy_(self.sums / self.count.clamp(min=1e-8)[:, None])
        self.pending.zero_()


def vectors_of(latents: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "number channels"]:
    """Return the latent of every position, picture by picture, row by row."""
    return latents.movedim(1, -1).flatten(0, -2)


def nearest(
    vectors: Float[Tensor, "number channels"], codebook: Float[Tensor, "codes channels"]
) -> Int[Tensor, "number"]:
    """Return the index of each vector's nearest code, the first on ties."""
    parts = vectors.float().split(COMPARED_AT_ONCE)
    return torch.cat([torch.cdist(part, codebook.float()).argmin(1) for part in parts])


def totals(
    code: Int[Tensor, "number"], vectors: Float[Tensor, "number channels"], num_codes: int
) -> tuple[Float[Tensor, "codes"], Float[Tensor, "codes channels"]]:
    """Return how many vectors each code has, and their sum."""
    count = vectors.new_zeros(num_codes).index_add(0, code, torch.ones_like(vectors[:, 0]))
    return count, vectors.new_zeros(num_codes, vectors.shape[1]).index_add(0, code, vectors)


def k_means(vectors: Float[Tensor, "number channels"], num_codes: int) -> Float[Tensor, "codes channels"]:
    """Return centres after ten of Lloyd's iterations, which start from evenly spaced rows; an empty cluster keeps its centre."""
    centres = vectors[torch.arange(num_codes, device=vectors.device) * len(vectors) // num_codes]
    for _ in range(_ROUNDS):
        count, sums = totals(nearest(vectors, centres), vectors, num_codes)
        centres = torch.where(count[:, None] > 0, sums / count.clamp(min=1)[:, None], centres)
    return centres
