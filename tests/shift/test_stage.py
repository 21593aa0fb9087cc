"""The shift stage's passes without Ray: what each shard says, and what is refused."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from corgi.clip.embed import EmbedShards
from corgi.flow.dag import Dag
from corgi.flow.executor import in_process
from corgi.settings.clip import ShiftSettings
from corgi.settings.errors import InputError
from corgi.shift import fit
from corgi.shift import maps as passes
from corgi.shift import stage as cluster
from corgi.shift.maps import (
    IndexedShard,
    assigned,
    captions,
    closest,
    conditioned,
    images,
    judged,
    moments_of,
    over_shards,
    sampled,
)
from corgi.shift.stage import shard_refs
from corgi.statistics.moments import Moments, merged, pooled
from corgi.tables.embedded import EmbeddedShard
from corgi.tables.schema import Split
from corgi.tables.store import Store
from tests.support.drawn import dag, run

TINY = {"name": "tiny", "model": "tiny", "pretrained": "random"}


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dag, list[IndexedShard]]:
    """Embed and curate the drawn pictures with an untrained tower, in this process."""
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "tiny.json").write_text(
        '{"embed_dim": 16, "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},'
        ' "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}}'
    )
    built = dag(folder / "runs", embed={"towers": [{**TINY, "config": str(folder / "tiny.json")}]})
    run(built, "download")
    context = built.context(built.stages[1], {"download": built.run.stages()["download"]})
    maker = EmbedShards([ref.model_dump() for ref in built.recipe.embed.towers])
    for task in context.partitioned():
        maker.make(task)
    with in_process():
        run(built, "curate")
    stages = built.run.stages()
    context = built.context(
        built.stages[-1], {name: stages[name] for name in ("download", "embed", "curate")}
    )
    return built, shard_refs(context)


pytestmark = pytest.mark.usefixtures("in_process")


@pytest.mark.law
def test_merged_shards_have_the_moments_of_all_rows(embedded: tuple[Dag, list[IndexedShard]]) -> None:
    _, refs = embedded
    rows = np.concatenate([images(ref, Split.TRAIN)[1] for ref in refs])
    centroids = rows[:5]
    parts = [moments_of(part, 5) for part in over_shards(assigned, refs, {"centroids": centroids})]
    whole = Moments.of(rows.astype(np.float64))
    found = pooled(merged(parts))
    assert found.count == whole.count == len(rows)
    np.testing.assert_allclose(found.mean, whole.mean, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found.second, whole.second, rtol=1e-6)
    np.testing.assert_allclose(merged(parts).second, merged(parts[::-1]).second, rtol=1e-12, atol=1e-15)


def test_samples_repeat_and_keep_to_their_share(embedded: tuple[Dag, list[IndexedShard]]) -> None:
    _, refs = embedded
    uids, vectors = images(refs[0], Split.TRAIN)
    half = sampled(refs[0], 0.5, 3)
    assert len(half["uids"]) == -(-len(uids) // 2)
    assert half["uids"].tolist() == sampled(refs[0], 0.5, 3)["uids"].tolist()
    assert half["uids"].tolist() != sampled(refs[0], 0.5, 4)["uids"].tolist()
    row = uids.index(str(half["uids"][0]))
    np.testing.assert_allclose(half["rows"][0], vectors[row], atol=1e-3)
    assert sampled(refs[0], 1.0, 3)["uids"].tolist() == uids


def test_captions_go_with_their_pictures(embedded: tuple[Dag, list[IndexedShard]]) -> None:
    _, refs = embedded
    uids, vectors = images(refs[0], Split.VAL)
    found = judged(refs[0], vectors[:3], 1000)
    rows, _ = captions(refs[0], uids)
    assert len(found["cluster"]) == len(rows) == sum(int(uid, 16) % 7 != 6 for uid in uids)
    np.testing.assert_allclose(found["picture_mean"][: int((rows < 3).sum())], 1, atol=1e-5)
    shared = conditioned(refs[0])
    pairs = sum(2 for uid in images(refs[0], Split.TRAIN)[0] if int(uid, 16) % 7 != 6)
    assert len(shared["rows"]) == len(shared["caption"]) == pairs


def test_closest_are_sorted_members_of_their_cluster(embedded: tuple[Dag, list[IndexedShard]]) -> None:
    _, refs = embedded
    mean = images(refs[0], Split.TRAIN)[1][:4]
    found = closest(refs[0], mean, [2, 0], 3)
    for k in (2, 0):
        cosine = found["cosine"][found["cluster"] == k]
        assert 1 <= len(cosine) <= 3
        assert (np.diff(cosine) <= 0).all()
        assert cosine[0] == pytest.approx(1, abs=1e-5)


def test_more_clusters_than_pictures_is_one_line(embedded: tuple[Dag, list[IndexedShard]]) -> None:
    _, refs = embedded
    with pytest.raises(
        InputError, match=r"shift.num_clusters=4000 is more than the \d+ train pictures"
    ) as caught:
        fit.find(refs, ShiftSettings(num_clusters=4000), None, lambda name, arrays: None)
    assert "\n" not in str(caught.value)


def test_pictures_that_are_all_the_same_are_one_line(
    embedded: tuple[Dag, list[IndexedShard]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, refs = embedded
    monkeypatch.setattr(
        passes, "vectors_of", lambda table, kind: np.full((table.num_rows, 16), 0.25, np.float32)
    )
    with pytest.raises(InputError, match="train pictures have one and the same embedding") as caught:
        fit.find(refs, ShiftSettings(num_clusters=2), None, lambda name, arrays: None)
    assert "\n" not in str(caught.value)


def test_vectors_that_are_not_finite_are_refused_by_shard(
    embedded: tuple[Dag, list[IndexedShard]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, refs = embedded
    monkeypatch.setattr(passes, "vectors_of", lambda table, kind: np.full((table.num_rows, 16), np.nan))
    with pytest.raises(InputError, match="shard 00001 has vectors that are not finite or are zero"):
        sampled(refs[1], 1.0, 0)


def test_towers_that_differ_between_shards_are_refused(
    embedded: tuple[Dag, list[IndexedShard]], monkeypatch: pytest.MonkeyPatch
) -> None:
    built, _ = embedded
    real = built.store.each_listed
    stages = built.run.stages()
    context = built.context(
        built.stages[-1], {name: stages[name] for name in ("download", "embed", "curate")}
    )
    first, second = built.store.listed(stages["embed"])
    for facts in ({"towers": {"tiny": {"dim": 32}}}, {"towers": {"other": {"dim": 16}}}):
        other = dataclasses.replace(second, told=json.dumps(facts))
        monkeypatch.setattr(
            built.store,
            "each_listed",
            lambda stage, other=other: [first, other] if stage.stage == "embed" else real(stage),
        )
        with pytest.raises(InputError, match="shards 00000 and 00001 have vectors of different towers"):
            shard_refs(context)


def test_law_the_driver_opens_no_shard_before_its_passes(
    embedded: tuple[Dag, list[IndexedShard]], monkeypatch: pytest.MonkeyPatch
) -> None:
    built, refs = embedded
    stages = built.run.stages()
    context = built.context(
        built.stages[-1], {name: stages[name] for name in ("download", "embed", "curate")}
    )
    monkeypatch.setattr(Store, "read_shard", lambda self, path: pytest.fail(f"{path} was opened"))
    assert shard_refs(context) == refs
    assert [ref.kept for ref in refs] == [35, 35]
    assert len({ref.identity for ref in refs}) == 2


@pytest.mark.law
@pytest.mark.parametrize(("number", "most"), [(1, 5), (5, 5), (12, 5), (40_000, 2_000)])
def test_samples_are_of_shards_at_equal_distances(number: int, most: int) -> None:
    shards = [IndexedShard("root", str(at), "", "") for at in range(number)]
    places = [int(shard.name) for shard in fit.spread(shards, most)]
    assert len(places) == min(number, most)
    assert places[0] == 0
    gaps = np.diff([*places, number])
    assert gaps.max() - gaps.min() <= 1


def found_with(refs, earlier=None, **settings):
    """Run every pass; return what was found and the sums that were saved."""
    saved = {}
    chosen = ShiftSettings(**{"num_clusters": 3, **settings})
    found = fit.find(refs, chosen, earlier, saved.__setitem__)
    return found, saved


def earlier_of(found, saved, refs) -> fit.Earlier:
    def arrays(name):
        return {key: value for key, value in saved[name].items() if key != "centroid"}

    return fit.Earlier(found.centroids, frozenset(ref.identity for ref in refs), arrays)


@pytest.mark.law
@pytest.mark.parametrize(
    "settings", [{}, {"covariance": "low_rank", "rank": 3}, {"covariance": "full", "num_clusters": 1}]
)
def test_an_update_with_new_shards_is_a_full_recompute(embedded, monkeypatch, settings) -> None:
    _, refs = embedded
    chosen = {"measured_clusters": (), **settings}
    first, saved = found_with(refs[:1], **chosen)
    earlier = earlier_of(first, saved, refs[:1])
    read: list[str] = []
    monkeypatch.setattr(
        passes, "assigned", lambda ref, centroids: (read.append(ref.name), assigned(ref, centroids))[1]
    )
    updated, _ = found_with(refs, earlier, **chosen)
    assert read == [refs[1].name]
    frozen = fit.Earlier(first.centroids, frozenset({"a shard that is gone"}), earlier.arrays)
    whole, _ = found_with(refs, frozen, **chosen)
    assert read[1:] == [ref.name for ref in refs]
    for name in ("mean", "scale", "count", "global_mean", "global_scale", "factor", "cholesky"):
        a, b = getattr(updated.parameters, name), getattr(whole.parameters, name)
        assert (a is None) == (b is None)
        if a is not None:
            tolerance = 1e-9 if a.dtype == np.float64 else 1e-6
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.law
@pytest.mark.parametrize("covariance", ["diagonal", "low_rank"])
def test_every_covariance_keeps_the_diagonal_and_repeats_its_bits(embedded, covariance) -> None:
    _, refs = embedded
    found, saved = found_with(refs, covariance=covariance, rank=4, measured_clusters=(1, 4))
    again, _ = found_with(refs, covariance=covariance, rank=4, measured_clusters=(1, 4))
    plain, _ = found_with(refs, measured_clusters=())
    np.testing.assert_array_equal(found.parameters.scale, again.parameters.scale)
    np.testing.assert_allclose(found.parameters.variance, plain.parameters.variance, rtol=1e-6)
    if covariance == "low_rank":
        assert found.parameters.factor is not None
        assert found.parameters.factor.shape == (3, 16, 4)
        assert set(saved) == {"clusters", "sketch_all", "sketch_0000"}
    assert set(found.by_clusters) == {"1", "4"}
    assert found.by_clusters["1"]["cosine"] == 1


def test_uncaptioned_pictures_count_in_moments_and_not_among_captions(embedded, monkeypatch) -> None:
    _, refs = embedded
    uids, _ = images(refs[0], Split.TRAIN)
    silent = uids[0]
    monkeypatch.setattr(EmbeddedShard, "withheld", lambda self: frozenset({silent}))
    row, _ = captions(refs[0], uids)
    assert 0 not in row
    assert silent in images(refs[0], Split.TRAIN)[0]


def test_no_caption_and_a_matched_scale_is_one_line(embedded) -> None:
    _, refs = embedded
    found, _ = found_with(refs, measured_clusters=())
    alone = np.arange(len(found.conditioned["caption"]))
    silent = dataclasses.replace(
        found,
        conditioned={**found.conditioned, "caption": alone},
        pairs={k: v[:2] for k, v in found.pairs.items()},
    )
    with pytest.raises(InputError, match=r"shift\.scale=matched needs captions"):
        cluster.summary(silent, ShiftSettings(num_clusters=3, scale="matched"), ["a"])
    told: dict[str, Any] = cluster.summary(found, ShiftSettings(num_clusters=3, scale="matched"), ["a"])
    assert told["scale"] == told["scale_matched_to_captions"] > 0
