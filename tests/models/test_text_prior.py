"""A ready prior: one cluster a caption, each row its own, candidates chosen by the text."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from corgi.diffusion.choice import ClusterChoice
from corgi.diffusion.loss import from_x0
from corgi.diffusion.samplers import SAMPLERS
from corgi.diffusion.schedule import Schedule
from corgi.diffusion.shifted import ShiftedDiffusion, ShiftTable
from corgi.models.embedder import Sampling
from corgi.models.prior import Prior, PriorConfig
from corgi.models.text_prior import TextPrior
from corgi.names import ChoiceRule


def _prior(rule: ChoiceRule = "text", **changes: Any) -> TextPrior:
    torch.manual_seed(0)
    means = F.normalize(torch.randn(3, 8), dim=-1)
    table = ShiftTable.clusters(means, torch.full((3, 8), 0.2))
    config = PriorConfig(dim=8, text_dim=8, width=16, depth=2, heads=2, cluster_token=True, **changes)
    network = Prior(config, table)
    torch.nn.init.normal_(network.head[-1].weight, std=0.5)  # pyright: ignore[reportArgumentType]
    return TextPrior(
        network.eval(), ShiftedDiffusion(table, Schedule.linear(100)), ClusterChoice(rule, temperature=0.3)
    )


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


def test_the_last_seeds_may_be_asked_for():
    prior, text = _prior("soft"), F.normalize(torch.randn(3, 8), dim=-1)
    seeds = [2**63 - 1, 2**63 - 2, 0]
    drawn = prior.sample(text[:1].repeat(3, 1), seeds, Sampling(4, num_candidates=3))
    assert torch.isfinite(drawn).all()
    assert not torch.equal(drawn[0], drawn[1])


def _spied(prior: TextPrior) -> dict[str, list]:
    """Record the calls of the network: captions read, and clusters of every evaluation."""
    seen: dict[str, list] = {"read": [], "clusters": []}
    prefix, denoise = prior.network.prefix, prior.network.denoise

    def reading(text, *rest):
        seen["read"].append(len(text))
        return prefix(text, *rest)

    def denoising(read, z_t, t, cluster):
        seen["clusters"].append(cluster.flatten())
        return denoise(read, z_t, t, cluster)

    prior.network.prefix, prior.network.denoise = reading, denoising  # pyright: ignore[reportAttributeAccessIssue]
    return seen


def test_law_21_one_cluster_a_caption_through_the_whole_chain():
    prior, text = _prior(), F.normalize(torch.randn(4, 8), dim=-1)
    seen = _spied(prior)
    prior.sample(text, range(4), Sampling(5, guidance=2.0))
    assert len(seen["clusters"]) == 10
    assert all(torch.equal(cluster, prior.cluster(text)) for cluster in seen["clusters"])


def test_captions_are_read_once_whatever_the_steps_and_candidates():
    prior, text = _prior(), F.normalize(torch.randn(4, 8), dim=-1)
    seen = _spied(prior)
    prior.sample(text, range(4), Sampling(20, guidance=2.0, num_candidates=3))
    assert seen["read"] == [4, 1]  # the captions, and one null caption for all of them
    assert [len(cluster) for cluster in seen["clusters"]] == [12] * 40


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_reading_captions_once_changes_no_sample(sampler, guidance):
    prior, text = _prior(), F.normalize(torch.randn(3, 8), dim=-1)
    sampling = Sampling(6, sampler, guidance, num_candidates=2)
    kept = prior.sample(text, range(3), sampling)
    whole = prior.network.prefix

    def forgetful(captions, *rest):
        return whole(captions, *rest)._replace(memory=())

    prior.network.prefix = forgetful  # pyright: ignore[reportAttributeAccessIssue]
    torch.testing.assert_close(kept, prior.sample(text, range(3), sampling), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["eps", "v"])
def test_every_parameterisation_samples_what_it_says(kind):
    """A network that answers the eps or v of a known z_0 ends every sampler at that z_0."""
    prior = _prior(prediction=kind)
    text = truth = F.normalize(torch.randn(4, 8), dim=-1)

    def oracle(_, z_t, t, cluster):
        flat = from_x0(prior.process, truth, z_t.flatten(0, 1), t.flatten(), cluster.flatten(), kind)
        return flat.view_as(z_t)

    prior.network.denoise = oracle  # pyright: ignore[reportAttributeAccessIssue]
    for sampler in SAMPLERS:
        sampled = prior.sample(text, range(4), Sampling(4, sampler))
        torch.testing.assert_close(sampled, truth, atol=1e-4, rtol=0)


@pytest.mark.parametrize("rule", ["text", "monte_carlo", "soft", "learned", "learned_soft"])
def test_every_rule_chooses_by_caption_and_seed_alone(rule):
    prior = _prior(rule, choice_clusters=3 if rule.startswith("learned") else 0)
    text = F.normalize(torch.randn(40, 8), dim=-1)
    chosen = prior.cluster(text, range(40))
    assert set(chosen.tolist()) <= {0, 1, 2}
    assert torch.equal(prior.cluster(text[7:8], [7]), chosen[7:8])
    drawn = torch.stack([prior.cluster(text[:1], [seed]) for seed in range(60)]).flatten()
    assert (len(drawn.unique()) > 1) == rule.endswith("soft")
    sampled = prior.sample(text, range(40), Sampling(2))
    assert torch.equal(sampled, prior.sample(text, range(40), Sampling(2)))


def test_a_learned_shift_is_what_the_prior_samples_with():
    prior = _prior(learned_shift=True)
    shift = prior.network.shift
    assert shift is not None
    with torch.no_grad():
        shift.stored_log_scale.sub_(100)  # e^-1 of the scale
        shift.stored_mean.add_(100)  # mean + 1
    again = TextPrior(prior.network, prior.process)
    torch.testing.assert_close(again.process.table.mean, prior.process.table.mean + 1)
    torch.testing.assert_close(again.process.table.scale, prior.process.table.scale / torch.e)


@pytest.mark.parametrize("rule", ["text", "monte_carlo", "soft"])
def test_a_caption_that_is_not_finite_is_refused(rule: ChoiceRule) -> None:
    text = torch.ones(2, 8)
    text[1, 3] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        _prior(rule).sample(text, range(2), Sampling(2))
