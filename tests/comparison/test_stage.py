"""The comparison's parts: arms, spaces, one-pass losses, and the arithmetic of its verdicts."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.numpy import save as save_tensors

from corgi.baselines import ARMS, BASELINES, VARIANTS, Baseline
from corgi.comparison.arms import info_nce, prior_settings, scale_of, table_of
from corgi.comparison.contest import ArmObjective, OnePassObjective
from corgi.comparison.scores import samplings
from corgi.comparison.spaces import Space, SpaceRows, statistics
from corgi.comparison.stage import Way, against_baseline, against_control, difference, gathered
from corgi.diffusion.baseline_tables import TABLES
from corgi.diffusion.shifted import ShiftTable
from corgi.evaluation.metrics import squared_mmd, student_interval
from corgi.feeding.noise import Noise
from corgi.feeding.rows import PriorRows, embedded_shards
from corgi.settings.compare import CompareSettings, ScoreSettings
from corgi.settings.section import digest
from corgi.tables.manifest import RowCounts
from corgi.tables.schema import Split
from corgi.training import shift_table
from tests.support.tables import Output, commit_stage, tiny_run

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


@pytest.fixture(scope="module")
def found() -> dict[str, torch.Tensor]:
    arrays, _ = statistics(rows_of(300, 16, 0), rows_of(30, 16, 1), CompareSettings(rank=4, arms=ARMS))
    return {name: torch.from_numpy(np.asarray(value)) for name, value in arrays.items()}


def test_no_two_baselines_are_the_same_and_every_table_is_known() -> None:
    assert len(set(BASELINES.values())) == len(BASELINES)
    assert {baseline.table for baseline in BASELINES.values()} == set(TABLES)


def test_the_arms_compared_by_default_are_those_of_finished_comparisons() -> None:
    """Another arm here would be part of their keys: a later one has `by_default=False`."""
    assert digest(CompareSettings().meaning(["arms"])) == "418bea58140d3c4f584873bd26b9c0d0"


@pytest.mark.parametrize("name", sorted(set(ARMS) & set(VARIANTS)))
def test_prior_and_comparison_make_one_table_of_a_baseline(name: str, found) -> None:
    shift = {"global_mean": found["k1.mean"][0], "global_scale": found["k1.scale"][0]}
    clusters = {part: found[f"k16.{part}"] for part in ("mean", "scale", "count")}
    ours, theirs = table_of(BASELINES[name], found), shift_table.table_of(name, {**shift, **clusters}, 3.0)
    assert torch.equal(ours.mean, theirs.mean)
    assert torch.equal(ours.scale, theirs.scale)


@pytest.mark.parametrize("name", ARMS)
def test_an_arm_differs_from_the_others_in_what_it_names_only(name: str, found) -> None:
    arm = BASELINES[name]
    table = table_of(arm, found)
    assert table.num_clusters == (arm.k if arm.table in ("clusters", "low_rank") else 1)
    settings, base = prior_settings(arm, SETTINGS), prior_settings(Baseline("global"), SETTINGS)
    named = {"cluster_token", "standardise", "cluster_choice", "sample_steps"}
    differing = {key for key, value in settings if value != getattr(base, key)}
    assert differing <= named


def test_the_control_is_shifted_diffusion_with_one_cluster(found) -> None:
    control = table_of(BASELINES["standardised"], found)
    rows = rows_of(300, 16, 0)["image"].astype(np.float64)
    expected = ShiftTable.standardised(
        torch.tensor(rows.mean(0)).float(), torch.tensor(rows.std(0, ddof=1)).float()
    )
    assert torch.allclose(control.mean, expected.mean, atol=1e-6)
    assert torch.allclose(control.scale, expected.scale, rtol=5e-3)


def test_c_multiplies_the_cluster_scale_and_matched_c_is_the_spread_given_the_caption(found) -> None:
    plain, double = table_of(BASELINES["k16"], found), table_of(BASELINES["k16-c2"], found)
    assert torch.allclose(2 * plain.scale, double.scale)
    rows = rows_of(300, 16, 0)
    within = sum(
        ((part := rows["image"][np.arange(300) % 3 == word]) - part.mean(0)).__pow__(2).sum()
        for word in range(3)
    )
    total = ((rows["image"] - rows["image"].mean(0)) ** 2).sum()
    matched = scale_of(Baseline("global", c="matched"), found)
    assert matched == pytest.approx(np.sqrt((within / 297) / (total / 299)), rel=2e-2)


def test_own_is_the_space_as_it_is_and_off_centre_moves_everything_one_way() -> None:
    rows = unit(np.random.default_rng(0).normal(size=(500, 64)))
    own, moved = Space("own", 0.8), Space("off_centre", 0.8)
    assert own.image(rows) is rows
    image, text = moved.image(rows), moved.text(rows)
    assert np.allclose(np.linalg.norm(image, axis=1), 1, atol=1e-6)
    assert np.linalg.norm(image.mean(0)) == pytest.approx(0.8, abs=0.03)
    assert abs(image.mean(0) @ text.mean(0)) < 0.3
    assert np.array_equal(image, Space("off_centre", 0.8).image(rows))


@pytest.fixture
def objective_of(tmp_path):
    run = tiny_run(tmp_path)
    inputs = {stage: [shard.path for shard in run.shards(stage)] for stage in ("embed", "curate")}
    shards = embedded_shards(str(run.store.root.parent), inputs)
    space = Space("off_centre", SETTINGS.offset)
    rows = SpaceRows(PriorRows(shards, Split.TRAIN), space)
    train = {
        name: np.concatenate([rows.load(n)[name] for n in range(len(rows.counts)) if rows.counts[n]])
        for name in rows.load(0)
    }
    arrays, _ = statistics(train, train, SETTINGS)
    files = {"statistics": (".safetensors", save_tensors(arrays))}
    commit_stage(run, "spaces", {"off_centre": Output(RowCounts(rows_in=1, kept=1), files=files)}, ["embed"])
    inputs["spaces"] = [run.shards("spaces")[0].path]

    def make(arm: str) -> ArmObjective:
        kind = OnePassObjective if BASELINES[arm].one_pass else ArmObjective
        contestant = {"space": "off_centre", "arm": arm, "seed": 0}
        return kind(str(run.store.root.parent), inputs, contestant, SETTINGS.model_dump(mode="json"))

    return make


@pytest.mark.parametrize("arm", ["dalle2", "standardised", "eclipse"])
def test_an_arm_trains_and_is_evaluated_in_its_space(arm: str, objective_of) -> None:
    objective = objective_of(arm)
    model = objective.model()
    batch = {name: torch.from_numpy(value) for name, value in objective.rows().load(0).items()}
    loss, _ = objective.loss(model, batch, Noise(0, torch.arange(len(batch["image"]))))
    loss.backward()
    assert any(p.grad is not None and p.grad.any() for p in model.parameters())
    assert all(np.isfinite(value) for value in objective.evaluate(model).values())


def test_a_one_pass_arm_is_trained_where_the_noisy_embedding_says_nothing(objective_of) -> None:
    objective = objective_of("regression")
    batch = {name: torch.from_numpy(value) for name, value in objective.rows().load(0).items()}
    seen: dict[str, torch.Tensor] = {}

    def spy(z_t, t, text, cluster):
        seen.update(z_t=z_t, t=t)
        return torch.zeros_like(z_t)

    noise = Noise(0, torch.arange(len(batch["image"])))
    loss, _ = objective.loss(spy, batch, noise)
    other = {**batch, "image": batch["image"].roll(1, 0)}
    first = seen["z_t"]
    objective.loss(spy, other, noise)
    assert torch.equal(first, seen["z_t"])
    assert (seen["t"] == objective.process.schedule.num_steps).all()
    assert float(loss) == pytest.approx(1.0, rel=1e-5)


def test_eclipse_adds_the_weighted_contrastive_term(objective_of) -> None:
    eclipse, plain = objective_of("eclipse"), objective_of("regression")
    batch = {name: torch.from_numpy(value) for name, value in plain.rows().load(0).items()}
    noise = Noise(0, torch.arange(len(batch["image"])))
    answer = F.normalize(
        torch.randn(batch["image"].shape, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    first, _ = plain.loss(lambda *_: answer, batch, noise)
    second, told = eclipse.loss(lambda *_: answer, batch, noise)
    assert float(second - first) == pytest.approx(
        SETTINGS.contrastive_weight * float(told["contrastive"]), rel=1e-4
    )
    text = torch.eye(4)
    assert float(info_nce(text, text, 0.01)) < 1e-6 < float(info_nce(text.roll(1, 0), text, 0.01))


def test_a_one_pass_arm_is_sampled_in_one_step_and_a_diffusion_arm_in_every_way(objective_of) -> None:
    score = ScoreSettings(samplers=("ancestral", "ddim"), steps=(2, 8))
    assert [s.steps for s in samplings(objective_of("regression"), score)] == [1]
    ways = samplings(objective_of("dalle2"), score)
    assert len(ways) == 2 * 2 * 2
    assert {s.num_candidates for s in ways} == {1, 2}


def test_squared_mmd_is_zero_in_the_mean_for_equal_laws_and_sees_a_lost_spread() -> None:
    rng = np.random.default_rng(0)
    same = [squared_mmd(rng.normal(size=(60, 4)), rng.normal(size=(60, 4))) for _ in range(200)]
    assert abs(np.mean(same)) < 3 * np.std(same) / np.sqrt(len(same))
    assert squared_mmd(0.3 * rng.normal(size=(60, 4)), rng.normal(size=(60, 4))) > max(same)


def test_student_interval_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    intervals = [student_interval(rng.normal(size=3)) for _ in range(4000)]
    assert np.mean([low < 0 < high for low, high in intervals]) == pytest.approx(0.95, abs=0.012)
    assert student_interval(np.array([1.0])) == (-np.inf, np.inf)


def scores(arm: str, steps: int, frechet: float, spread: float, retrieved: float) -> list[dict]:
    shared = {
        "space": "own",
        "arm": arm,
        "candidates": 1,
        "sampler": "ddim",
        "steps": steps,
        "cosine": 0,
        "R@1": 0,
        "mmd": 0,
    }
    return [
        {
            **shared,
            "seed": s,
            "frechet": frechet + 0.001 * s,
            "two_sample_cosine": spread - 0.001 * s,
            "R@10": retrieved,
        }
        for s in range(3)
    ]


def test_differences_are_paired_by_seed_whatever_the_order_of_the_rows() -> None:
    rows = scores("dalle2", 64, 0.2, 0.9, 0.5) + scores("k16", 4, 0.1, 0.9, 0.5)
    found = gathered(reversed(rows))
    a, b = (
        found[Way("own", arm, 1, "ddim", steps)]["frechet"] for arm, steps in (("k16", 4), ("dalle2", 64))
    )
    mean, low, high = difference(a, b)
    assert mean == pytest.approx(-0.1)
    assert high - low < 1e-9


@pytest.mark.parametrize(
    ("frechet", "spread", "retrieved", "wins"),
    [
        (0.1, 0.85, 0.5, "yes"),
        (0.1, 0.85, 0.4, "no"),
        (0.3, 0.85, 0.5, "no"),
        (0.1, 0.95, 0.5, "no"),
        (0.1, 0.5, 0.5, "no"),
    ],
)
def test_an_arm_wins_only_on_distance_spread_and_retrieval_together(frechet, spread, retrieved, wins) -> None:
    rows = scores("dalle2", 64, 0.2, 0.9, 0.5) + scores("k16", 4, frechet, spread, retrieved)
    assert against_baseline(gathered(rows), "own", true_spread=0.8)["k16"]["wins"] == wins


def test_worse_than_the_control_is_counted() -> None:
    rows = (
        scores("standardised", 4, 0.2, 0.9, 0.5)
        + scores("k16", 4, 0.3, 0.9, 0.5)
        + scores("k64", 4, 0.1, 0.9, 0.5)
    )
    table = against_control(gathered(rows), "own")
    assert (table["k16"]["worse at"], table["k16"]["better at"]) == (1, 0)
    assert (table["k64"]["worse at"], table["k64"]["better at"]) == (0, 1)
