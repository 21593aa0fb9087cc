"""Laws of the prior transformer."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from corgi.diffusion.loss import loss_weight, squared_error, weighted_loss
from corgi.diffusion.schedule import Schedule
from corgi.diffusion.shifted import ShiftedDiffusion, ShiftTable
from corgi.models.prior import PRESETS, Prior, PriorConfig

SMALL: dict[str, Any] = {"dim": 8, "text_dim": 6, "width": 32, "depth": 2, "heads": 4, "standardise": False}
WORDS: dict[str, Any] = {**SMALL, "num_text_tokens": 3, "encoding_dim": 5, "cluster_token": True}
T, CLUSTER = torch.tensor([1, 400, 1000]), torch.tensor([0, 1, 2])


def awake(prior: Prior) -> Prior:
    """Give the zero last layer weights, so that the output shows what the network sees."""
    torch.manual_seed(5)
    nn.init.normal_(prior.get_parameter("head.2.weight"))
    return prior


def build(table: ShiftTable | None = None, **settings: Any) -> Prior:
    """A seeded small prior."""
    torch.manual_seed(0)
    return awake(Prior(PriorConfig(**settings), table))


def batch() -> dict[str, Tensor]:
    """Inputs for a prior with words."""
    generator = torch.Generator().manual_seed(1)
    shapes = {"z_t": (3, 8), "text": (3, 6), "encodings": (3, 3, 5)}
    drawn = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return {**drawn, "t": T, "cluster": CLUSTER}


def without_words(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same inputs for a prior without words."""
    return {name: value for name, value in inputs.items() if name != "encodings"}


def table(k: int = 3) -> ShiftTable:
    """A table far from the origin."""
    generator = torch.Generator().manual_seed(2)
    mean = torch.randn(k, 8, generator=generator) * 5
    return ShiftTable(mean, torch.rand(k, 8, generator=generator) + 0.1)


def other(value: Tensor) -> Tensor:
    """Another value, no mere shift or scale: a LayerNorm would undo those."""
    return value.flip(-1) if value.is_floating_point() else value + 1


def num_parameters(config: PriorConfig) -> int:
    """Count on the meta device, so that 1.4 B cost nothing; the formula must agree."""
    with torch.device("meta"):
        counted = sum(parameter.numel() for parameter in Prior(config).parameters())
    assert config.num_parameters() == counted
    return counted


@pytest.mark.parametrize(
    ("name", "depth", "billions"), [("1.1B", 8, 0.58), ("1.1B", 16, 1.12), ("1.4B", 20, 1.39)]
)
def test_released_sizes_have_the_parameters_of_the_released_models(
    name: str, depth: int, billions: float
) -> None:
    """0.58 / 1.12 / 1.39 B at depth 8 / 16 / 20."""
    config = PriorConfig.preset(name, depth=depth)
    assert PRESETS["1.1B"]["depth"] == 16
    assert PRESETS["1.4B"]["depth"] == 20
    assert round(num_parameters(config) / 1e9, 2) == billions


def test_a_block_has_the_parameters_its_shapes_say() -> None:
    """4 w^2 attention, 12 w^2 GEGLU weights, 9 w biases, 2 w norms."""
    width = 64
    counts = [num_parameters(PriorConfig(**{**SMALL, "width": width, "depth": depth})) for depth in (1, 2)]
    assert counts[1] - counts[0] == 16 * width**2 + 9 * width + 2 * width
    num_parameters(PriorConfig(**{**WORDS, "choice_clusters": 7}))


@pytest.mark.parametrize(("name", "millions"), [("tiny", 5.1), ("base", 117.8)])
def test_small_presets_are_small(name: str, millions: float) -> None:
    """CPU demo and one small GPU, at 512 dimensions, without words."""
    config = PriorConfig.preset(name, standardise=False)
    assert num_parameters(config) / 1e6 == pytest.approx(millions, rel=0.05)


def test_an_untrained_standardised_prior_answers_mu() -> None:
    """Output mu + L * 0: the cluster's own mean, whatever the input."""
    torch.manual_seed(0)
    shift = table()
    answer = Prior(PriorConfig(**{**SMALL, "standardise": True}), shift)(**without_words(batch()))
    assert torch.equal(answer, shift.mean)


@pytest.mark.parametrize("k", [1, 3])
def test_standardised_prior_eq_10_is_the_plain_network_on_whitened_data(k: int) -> None:
    """mu + L net(L^-1 (z_t - mu)), with the cluster's row, or the only row of a one-cluster table."""
    shift, inputs = table(k), without_words(batch())
    standardised, plain = build(shift, **{**SMALL, "standardise": True}), build(**SMALL)
    plain.load_state_dict({n: v for n, v in standardised.state_dict().items() if not n.startswith("table.")})
    row = CLUSTER if k > 1 else torch.zeros_like(CLUSTER)
    white = plain(**{**inputs, "z_t": shift.whiten(inputs["z_t"], row)})
    torch.testing.assert_close(standardised(**inputs), shift.unwhiten(white, row))


@torch.no_grad()
def test_half_precision_does_not_lose_z_t_near_mu() -> None:
    """With mu = 100 and scale 0.01 the bf16 network still follows its fp32 self; the raw one sees nothing."""
    shift, inputs = ShiftTable(torch.full((1, 8), 100.0), torch.full((1, 8), 0.01)), without_words(batch())
    inputs["z_t"] = 100 + 0.01 * inputs["z_t"]
    moved = {**inputs, "z_t": inputs["z_t"].flip(0)}
    prior = build(shift, **{**SMALL, "standardise": True})
    full = prior(**inputs) - 100
    prior.bfloat16()
    half = prior(**inputs) - 100
    assert half.dtype == torch.float32
    assert float((half - full).norm() / full.norm()) < 0.05
    raw = build(**SMALL).bfloat16()
    assert torch.equal(raw(**inputs), raw(**moved))


def test_there_is_no_positional_encoding() -> None:
    """Without the causal mask, the order of words does not matter."""
    prior, inputs = build(**{**WORDS, "causal": False}), batch()
    turned = prior(**{**inputs, "encodings": inputs["encodings"].flip(1)})
    torch.testing.assert_close(turned, prior(**inputs))


@pytest.mark.parametrize("name", ["z_t", "text", "encodings", "t", "cluster"])
def test_every_input_reaches_the_output(name: str) -> None:
    """Changing any one input changes every answer."""
    prior, inputs = build(**WORDS), batch()
    changed = prior(**{**inputs, name: other(inputs[name])})
    assert bool(((changed - prior(**inputs)).abs().amax(dim=1) > 1e-4).all())


def test_the_cluster_is_unseen_without_its_token() -> None:
    """The fair baseline: no cluster token, no cluster."""
    prior, inputs = build(**SMALL), without_words(batch())
    assert torch.equal(prior(**{**inputs, "cluster": CLUSTER.flip(0)}), prior(**inputs))


def test_dropped_captions_are_forgotten_and_kept_ones_are_not() -> None:
    """drop_mask replaces text and words by learned nulls, row by row."""
    prior, inputs, drop = build(**WORDS), batch(), torch.tensor([True, False, True])
    moved = {**inputs, "text": inputs["text"] + 1, "encodings": inputs["encodings"] - 1}
    first, second = prior(**inputs, drop_mask=drop), prior(**moved, drop_mask=drop)
    assert torch.equal(first[drop], second[drop])
    assert not torch.equal(first[~drop], second[~drop])
    torch.testing.assert_close(first[~drop], prior(**inputs)[~drop])
    assert bool((first[drop] != prior(**inputs)[drop]).any())


def test_padding_words_are_learned_nulls() -> None:
    """An all-zero word does not go through the projection: moving its LayerNorm bias changes nothing."""
    prior, inputs = build(**WORDS), batch()
    inputs["encodings"] = torch.zeros_like(inputs["encodings"])
    before = prior(**inputs)
    with torch.no_grad():
        prior.get_parameter("encodings.0.bias").add_(3)
    assert torch.equal(prior(**inputs), before)


def test_activation_checkpointing_changes_no_gradient() -> None:
    """Same output and same gradients with blocks recomputed."""
    gradients = []
    for flag in (False, True):
        prior = build(**{**WORDS, "activation_checkpointing": flag}).train()
        prior(**batch(), drop_mask=torch.tensor([True, False, False])).square().sum().backward()
        gradients.append([parameter.grad for parameter in prior.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        assert plain is not None
        assert plain.abs().sum() > 0
        torch.testing.assert_close(recomputed, plain)


def test_law_22_state_dict_restores_network_and_table() -> None:
    """Loaded into a prior with another table and other weights: bit-equal answers."""
    saved, settings = (
        build(table(), **{**WORDS, "standardise": True}),
        PriorConfig(**{**WORDS, "standardise": True}),
    )
    fresh = Prior(settings, ShiftTable(torch.zeros(3, 8), torch.ones(3, 8)))
    fresh.load_state_dict(saved.state_dict())
    assert torch.equal(fresh(**batch()), saved(**batch()))


def test_law_24_answers_do_not_depend_on_the_batch() -> None:
    """Each row alone gives what it gives among others, to 1e-6 relative in fp32."""
    prior, inputs = build(table(), **{**WORDS, "standardise": True}), batch()
    together = prior(**inputs)
    for i in range(3):
        alone = prior(**{name: value[i : i + 1] for name, value in inputs.items()})
        torch.testing.assert_close(alone, together[i : i + 1], rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.slow
def test_the_prior_learns_the_embedding_of_a_caption() -> None:
    """z_0 = isometry of the text: the weighted loss of eq. 14 falls below a tenth of its start in 200 steps."""
    torch.manual_seed(0)
    mix, shift = torch.linalg.qr(torch.randn(8, 6)).Q.mT, ShiftTable.ddpm(8)
    prior = Prior(PriorConfig(**{**SMALL, "standardise": True}), shift)
    process, optimizer = (
        ShiftedDiffusion(shift, Schedule.linear()),
        torch.optim.AdamW(prior.parameters(), 1e-2),
    )
    cluster, losses = torch.zeros(64, dtype=torch.int64), []
    for _ in range(200):
        text, t = torch.randn(64, 6), torch.randint(1, 1001, (64,))
        z_0 = text @ mix
        z_t = process.q_sample(z_0, t, torch.randn(64, 8), cluster)
        weight = loss_weight(process.schedule, t, "one_minus_abar")
        loss = weighted_loss(squared_error(z_0, prior(z_t, t, text, cluster)), weight)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.1 * sum(losses[:10])


def test_bad_configurations_and_inputs_are_refused() -> None:
    """ValueError with what is wrong."""
    with pytest.raises(ValueError, match="multiple of heads"):
        PriorConfig(width=30, heads=4)
    with pytest.raises(ValueError, match="positive"):
        PriorConfig(depth=0)
    with pytest.raises(ValueError, match="not one of"):
        PriorConfig.preset("7B")
    with pytest.raises(ValueError, match="needs a shift table"):
        Prior(PriorConfig(**{**SMALL, "standardise": True}))
    with pytest.raises(ValueError, match="dimension 8"):
        Prior(PriorConfig(**{**SMALL, "dim": 9, "standardise": True}), table())
    with pytest.raises(ValueError, match="3 word encodings"):
        build(**WORDS)(**without_words(batch()))


PACKED = [
    {},
    {"rotary": True},
    {"causal": False},
    {"standardise": True},
    {"prediction": "v"},
    {"activation_checkpointing": True},
]


def levels(num: int) -> dict[str, Tensor]:
    """Inputs with several noise levels a caption."""
    generator = torch.Generator().manual_seed(3)
    z_t = torch.randn(3, num, 8, generator=generator)
    return {**batch(), "z_t": z_t, "t": torch.randint(1, 1001, (3, num), generator=generator)}


@pytest.mark.parametrize("changes", PACKED, ids=str)
def test_packed_noise_levels_equal_separate_sequences(changes: dict[str, Any]) -> None:
    """Four levels over one caption: answers and gradients as from four sequences, within 1e-6 relative."""
    packed, inputs = build(table(), **{**WORDS, **changes}).train(), levels(4)
    drop = torch.tensor([True, False, False])
    separate = build(table(), **{**WORDS, **changes}).train()
    together = packed(**inputs, drop_mask=drop)
    apart = torch.stack(
        [
            separate(**{**inputs, "z_t": inputs["z_t"][:, j], "t": inputs["t"][:, j]}, drop_mask=drop)
            for j in range(4)
        ],
        dim=1,
    )
    close(together, apart, 1e-6)
    together.square().mean().backward()
    apart.square().mean().backward()
    pairs = zip(packed.parameters(), separate.parameters(), strict=True)
    assert sum(one.grad is not None for one in packed.parameters()) > 20
    for one, two in pairs:
        if one.grad is not None:
            assert two.grad is not None
            close(one.grad, two.grad, 1e-5)


@torch.no_grad()
@pytest.mark.parametrize("changes", PACKED, ids=str)
def test_a_caption_read_once_serves_every_step_and_candidate(changes: dict[str, Any]) -> None:
    """prefix and denoise answer what forward answers, to 1e-5, for one level and for five candidates."""
    prior, inputs = build(table(), **{**WORDS, **changes}).eval(), levels(5)
    drop = torch.tensor([False, True, False])
    prefix = prior.prefix(inputs["text"], inputs["encodings"], drop)
    assert len(prefix.memory) == (prior.config.depth if prior.config.causal else 0)
    for t in (1, 500, 1000):
        time = torch.full((3,), t)
        whole = prior(**{**inputs, "z_t": inputs["z_t"][:, 0], "t": time}, drop_mask=drop)
        close(prior.denoise(prefix, inputs["z_t"][:, 0], time, CLUSTER), whole, 1e-5)
    several = prior.denoise(prefix, inputs["z_t"], inputs["t"], CLUSTER)
    close(several, prior(**inputs, drop_mask=drop), 1e-5)


@torch.no_grad()
def test_the_null_caption_is_read_once_for_all() -> None:
    """One row expanded equals one dropped caption per row."""
    prior, inputs = build(**WORDS), batch()
    one = prior.prefix(inputs["text"][:1], inputs["encodings"][:1], torch.tensor([True])).expand(3)
    whole = prior(**inputs, drop_mask=torch.ones(3, dtype=torch.bool))
    close(prior.denoise(one, inputs["z_t"], T, CLUSTER), whole, 1e-5)


@torch.no_grad()
def test_candidates_may_have_clusters_of_their_own() -> None:
    """cluster [batch, levels] gives each level its own token and its own row of the table."""
    prior, inputs = build(table(), **{**WORDS, "standardise": True}), levels(2)
    prefix = prior.prefix(inputs["text"], inputs["encodings"])
    cluster = torch.tensor([[0, 1], [2, 0], [1, 1]])
    both = prior.denoise(prefix, inputs["z_t"], inputs["t"], cluster)
    for j in range(2):
        alone = prior.denoise(prefix, inputs["z_t"][:, j], inputs["t"][:, j], cluster[:, j])
        close(both[:, j], alone, 1e-5)


def test_the_last_block_computes_the_query_alone() -> None:
    """Its feed-forward sees one token a noise level; the others see all."""
    prior, seen = build(**WORDS), []
    for block in prior.blocks:
        block.get_submodule("feed_forward").register_forward_hook(
            lambda _, inputs, __: seen.append(inputs[0].shape[1])
        )
    prior(**batch())
    prior(**levels(4))
    assert seen == [8, 1, 4 + 4 * 4, 4]


@torch.no_grad()
def test_rotary_positions_make_the_order_of_words_matter() -> None:
    """Bidirectional with rotary: turning the words changes the answer; without, it does not."""
    prior, inputs = build(**{**WORDS, "causal": False, "rotary": True}), batch()
    turned = prior(**{**inputs, "encodings": inputs["encodings"].flip(1)})
    assert float((turned - prior(**inputs)).abs().max()) > 1e-4


@pytest.mark.usefixtures("unchecked")
@pytest.mark.slow
def test_the_prior_compiles_to_one_graph() -> None:
    """torch.compile finds no graph break, and the traced graph answers as the module."""
    prior, inputs = build(table(), **{**WORDS, "standardise": True}), levels(3)
    compiled = torch.compile(prior, fullgraph=True, backend="eager")
    close(compiled(**inputs), prior(**inputs), 1e-5)


def test_without_a_head_there_is_no_learned_choice() -> None:
    """ValueError; with one, a row of logits a caption."""
    with pytest.raises(ValueError, match="no text -> cluster head"):
        build(**SMALL).choice_logits(batch()["text"])
    assert build(**{**SMALL, "choice_clusters": 5}).choice_logits(batch()["text"]).shape == (3, 5)


def close(actual: Tensor, expected: Tensor, rel: float) -> None:
    """Assert max abs error / max(1, max abs) <= rel."""
    assert actual.shape == expected.shape
    assert bool(actual.isfinite().all())
    actual, expected = actual.detach(), expected.detach()
    assert float((actual - expected).abs().max()) <= rel * max(1.0, float(expected.abs().max()))
