"""The shift stage's passes without Ray: what each shard says, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from corgi.clip import cluster, passes
from corgi.clip.cluster import shard_refs
from corgi.clip.embed import EmbedShards
from corgi.clip.passes import ShardRef, assigned, closest, conditioned, judged, moments_of, sampled
from corgi.flow.dag import Dag
from corgi.settings.clip import ShiftSettings
from corgi.settings.errors import InputError
from corgi.statistics.moments import Moments, merged, pooled
from corgi.tables.schema import Split
from tests.support.drawn import dag, run

TINY = {"name": "tiny", "model": "tiny", "pretrained": "random"}


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dag, list[ShardRef]]:
    """Embed and curate the drawn pictures with an untrained tower, in this process."""
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "tiny.json").write_text(
        '{"embed_dim": 16, "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},'
        ' "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}}'
    )
    built = dag(folder / "runs", embed={"towers": [{**TINY, "config": str(folder / "tiny.json")}]})
    run(built, "download")
    context = built._context(built.stages[1], {"download": built.run.stages()["download"]})
    maker = EmbedShards([ref.model_dump() for ref in built.recipe.embed.towers])
    for task in context.partitioned():
        maker.make(task)
    run(built, "curate")
    stages = built.run.stages()
    context = built._context(
        built.stages[3], {name: stages[name] for name in ("download", "embed", "curate")}
    )
    return built, shard_refs(built.store, context.task("all"))


def in_process(function, refs, arguments):
    return (passes.unpack(passes.pack(function(ref, **arguments))) for ref in refs)


@pytest.mark.law
def test_merged_shards_have_the_moments_of_all_rows(embedded: tuple[Dag, list[ShardRef]]) -> None:
    _, refs = embedded
    rows = np.concatenate([ref.images(Split.TRAIN)[1] for ref in refs])
    centroids = rows[:5]
    parts = [moments_of(part, 5) for part in in_process(assigned, refs, {"centroids": centroids})]
    whole = Moments.of(rows.astype(np.float64))
    found = pooled(merged(parts))
    assert found.count == whole.count == len(rows)
    np.testing.assert_allclose(found.mean, whole.mean, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found.second, whole.second, rtol=1e-6)
    np.testing.assert_allclose(merged(parts).second, merged(parts[::-1]).second, rtol=1e-12, atol=1e-15)


def test_samples_repeat_and_keep_to_their_share(embedded: tuple[Dag, list[ShardRef]]) -> None:
    _, refs = embedded
    uids, vectors = refs[0].images(Split.TRAIN)
    half = sampled(refs[0], 0.5, 3)
    assert len(half["uids"]) == -(-len(uids) // 2)
    assert half["uids"].tolist() == sampled(refs[0], 0.5, 3)["uids"].tolist()
    assert half["uids"].tolist() != sampled(refs[0], 0.5, 4)["uids"].tolist()
    row = uids.index(str(half["uids"][0]))
    np.testing.assert_allclose(half["rows"][0], vectors[row], atol=1e-3)
    assert sampled(refs[0], 1.0, 3)["uids"].tolist() == uids


def test_captions_go_with_their_pictures(embedded: tuple[Dag, list[ShardRef]]) -> None:
    _, refs = embedded
    uids, vectors = refs[0].images(Split.VAL)
    found = judged(refs[0], vectors[:3])
    rows, _ = refs[0].captions(uids)
    assert len(found["cluster"]) == len(rows) == sum(int(uid, 16) % 7 != 6 for uid in uids)
    np.testing.assert_allclose(found["picture_mean"][: int((rows < 3).sum())], 1, atol=1e-5)
    shared = conditioned(refs[0])
    pairs = sum(2 for uid in refs[0].images(Split.TRAIN)[0] if int(uid, 16) % 7 != 6)
    assert len(shared["rows"]) == len(shared["caption"]) == pairs


def test_closest_are_sorted_members_of_their_cluster(embedded: tuple[Dag, list[ShardRef]]) -> None:
    _, refs = embedded
    mean = refs[0].images(Split.TRAIN)[1][:4]
    found = closest(refs[0], mean, [2, 0], 3)
    for k in (2, 0):
        cosine = found["cosine"][found["cluster"] == k]
        assert 1 <= len(cosine) <= 3
        assert (np.diff(cosine) <= 0).all()
        assert cosine[0] == pytest.approx(1, abs=1e-5)


def test_more_clusters_than_pictures_is_one_line(
    embedded: tuple[Dag, list[ShardRef]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, refs = embedded
    monkeypatch.setattr(
        cluster, "over_shards", lambda function, shards, arguments: in_process(function, shards, arguments)
    )
    with pytest.raises(
        InputError, match=r"shift.num_clusters=4000 is more than the \d+ train pictures"
    ) as caught:
        cluster.find(refs, ShiftSettings(num_clusters=4000))
    assert "\n" not in str(caught.value)


def test_vectors_that_are_not_finite_are_refused_by_shard(
    embedded: tuple[Dag, list[ShardRef]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, refs = embedded
    monkeypatch.setattr(
        passes, "concatenated", lambda table, kind, towers: np.full((table.num_rows, 16), np.nan)
    )
    with pytest.raises(InputError, match="shard 00001 holds vectors that are not finite"):
        sampled(refs[1], 1.0, 0)


def test_towers_that_differ_between_shards_are_refused(
    embedded: tuple[Dag, list[ShardRef]], monkeypatch: pytest.MonkeyPatch
) -> None:
    built, _ = embedded
    seen: list[Path] = []

    def schema(path: Path):
        seen.append(path)
        return real(path) if len(seen) == 1 else real(path).remove(3)

    real = cluster.pq.read_schema
    monkeypatch.setattr(cluster.pq, "read_schema", schema)
    stages = built.run.stages()
    context = built._context(
        built.stages[3], {name: stages[name] for name in ("download", "embed", "curate")}
    )
    with pytest.raises(InputError, match="different towers"):
        shard_refs(built.store, context.task("all"))
