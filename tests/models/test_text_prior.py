"""A ready prior: one cluster a caption, each row its own, candidates chosen by the text."""

import torch
import torch.nn.functional as F

from corgi.diffusion.schedule import Schedule
from corgi.diffusion.shifted import ShiftedDiffusion, ShiftTable
from corgi.models.prior import Prior, PriorConfig
from corgi.models.text_prior import Sampling, TextPrior


def _prior() -> TextPrior:
    torch.manual_seed(0)
    means = F.normalize(torch.randn(3, 8), dim=-1)
    table = ShiftTable.clusters(means, torch.full((3, 8), 0.2))
    network = Prior(PriorConfig(dim=8, text_dim=8, width=16, depth=1, heads=2, cluster_token=True), table)
    torch.nn.init.normal_(network.head[-1].weight, std=0.5)  # pyright: ignore[reportArgumentType]
    return TextPrior(network.eval(), ShiftedDiffusion(table, Schedule.linear(100)))


def test_samples_are_unit_vectors_and_repeat_bit_for_bit():
    prior, text = _prior(), F.normalize(torch.randn(5, 8), dim=-1)
    first, again = (prior.sample(text, range(5), Sampling(4)) for _ in range(2))
    torch.testing.assert_close(first.norm(dim=-1), torch.ones(5))
    assert torch.equal(first, again)


def test_a_row_depends_on_its_own_text_and_seed_alone():
    prior, text = _prior(), F.normalize(torch.randn(5, 8), dim=-1)
    batch = prior.sample(text, [3, 1, 4, 1, 5], Sampling(4, num_candidates=2))
    alone = prior.sample(text[2:3], [4], Sampling(4, num_candidates=2))
    torch.testing.assert_close(batch[2:3], alone, atol=1e-6, rtol=0)


def test_more_candidates_are_never_further_from_the_text():
    prior, text = _prior(), F.normalize(torch.randn(16, 8), dim=-1)
    one, four = (prior.sample(text, range(16), Sampling(4, num_candidates=n)) for n in (1, 4))
    assert ((four * text).sum(-1) >= (one * text).sum(-1) - 1e-6).all()


def test_law_21_one_cluster_a_caption_through_the_whole_chain():
    prior, text = _prior(), F.normalize(torch.randn(4, 8), dim=-1)
    seen: list[torch.Tensor] = []
    prior.network.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[3]))
    prior.sample(text, range(4), Sampling(5, guidance=2.0))
    assert len(seen) == 10
    assert all(torch.equal(cluster, prior.cluster(text)) for cluster in seen)
