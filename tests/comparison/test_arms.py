"""The arms: each is what its name says and differs from the others in that only."""

import numpy as np
import pytest
import torch

from corgi.baselines import ARMS, BASELINES, VARIANTS, Baseline
from corgi.comparison.arms import prior_settings, scale_of, table_of
from corgi.diffusion.baseline_tables import TABLES
from corgi.diffusion.shifted import ShiftTable
from corgi.settings.compare import CompareSettings
from corgi.settings.section import digest
from corgi.training import shift_table
from tests.support.compared import SETTINGS, rows_of


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
