"""Memory of the shift stage: what the issue asks for fits, what does not is refused with the figure, before anything starts."""

import tracemalloc

import numpy as np
import pytest

from corgi.settings.clip import ShiftSettings
from corgi.settings.errors import SettingsError
from corgi.settings.recipe import Recipe
from corgi.shift import fit, memory
from corgi.shift.memory import check_memory, embedding_dim, needed_bytes, plan_lines
from corgi.statistics.low_rank import Sketches, sketch_width
from corgi.statistics.moments import cluster_moments

RN50 = {"name": "rn", "model": "RN50", "pretrained": "random"}
VIT = {"name": "b", "model": "ViT-B-32", "pretrained": "openai"}


def recipe(**sections) -> Recipe:
    return Recipe.model_validate({"name": "m", "embed": {"towers": [RN50, VIT]}, **sections})


@pytest.mark.parametrize("covariance", ["diagonal", "low_rank"])
def test_a_thousand_clusters_of_the_papers_width_fit_in_four_gib(covariance) -> None:
    settings = ShiftSettings(num_clusters=1024, covariance=covariance, rank=64)
    assert check_memory(settings, 1536) <= 4 * 2**30
    assert all(size >= 0 for size in needed_bytes(settings, 1536).values())


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"num_clusters": 4096}, "shift.max_fit_rows"),
        ({"num_clusters": 4096, "covariance": "low_rank", "rank": 256, "max_fit_rows": 5000}, "shift.rank"),
        (
            {"num_clusters": 1, "covariance": "full", "max_memory": "64 MiB", "max_fit_rows": 10},
            "covariance",
        ),
    ],
)
def test_what_does_not_fit_is_one_line_with_the_figure(settings, named) -> None:
    with pytest.raises(SettingsError, match="GiB") as caught:
        check_memory(ShiftSettings(**settings), 1536)
    assert "\n" not in str(caught.value)
    assert named in str(caught.value)
    assert "nothing was started" in str(caught.value)


def test_the_plan_knows_the_width_from_configs_alone(tmp_path) -> None:
    assert embedding_dim(recipe()) == 1024 + 512
    config = tmp_path / "c.json"
    config.write_text('{"embed_dim": 24}')
    own = {"name": "o", "model": "o", "pretrained": "random", "config": str(config)}
    assert embedding_dim(recipe(embed={"towers": [own]})) == 24
    trained = {"name": "own", "model": "own", "pretrained": "trained"}
    assert embedding_dim(recipe(embed={"towers": [own, trained]}, tower={"embed_dim": 40})) == 64
    odd = {"name": "x", "model": "hf-hub:someone/something", "pretrained": "x"}
    assert embedding_dim(recipe(embed={"towers": [odd]})) is None
    assert "known once" in plan_lines(recipe(embed={"towers": [odd]}))[0]
    assert "1536 dimensions" in plan_lines(recipe())[0]
    with pytest.raises(SettingsError, match="needs"):
        plan_lines(recipe(shift={"num_clusters": 4096}))


def test_sums_stay_within_the_estimate_whatever_the_number_of_shards() -> None:
    """Measure what merging holds at a smaller size of the same shape: it may not grow with the shards."""
    k, dim = 64, 96
    settings = ShiftSettings(num_clusters=k)
    peaks = []
    for shards in (3, 12):
        generator = np.random.default_rng(0)
        rows = generator.normal(size=(400, dim)).astype(np.float32)
        cluster = generator.integers(0, k, 400)
        tracemalloc.start()
        total = cluster_moments(rows, cluster, k)
        for _ in range(shards):
            total = total.merge(cluster_moments(rows, cluster, k))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]
    assert peaks[0] < 3 * needed_bytes(settings, dim)["moments"]


def test_sketches_are_made_in_blocks_of_bounded_size() -> None:
    width = sketch_width(1536, 64)
    ranges = fit.blocks(1024, 1536 * width)
    assert [last for _, last in ranges[:-1]] == [first for first, _ in ranges[1:]]
    assert (ranges[0][0], ranges[-1][1]) == (0, 1024)
    first, last = ranges[0]
    held = Sketches.empty(last - first, 1536, width)
    assert held.sketch.nbytes <= memory.BLOCK_BYTES
    assert fit.blocks(3, 10**9) == [(0, 1), (1, 2), (2, 3)]
