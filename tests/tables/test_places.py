"""Where a row is: equal ranges of the hash of its URL, in every stage that follows the plan's partition."""

import pytest

from corgi.tables.manifest import RowCounts, ShardEntry, StageManifest
from corgi.tables.places import Places, has_own_uids, shard_of, uid

HASHES = [uid(f"http://site.test/{number}") for number in range(200)]


def stage(name: str, shards: list[str], settings: dict[str, object] | None = None) -> StageManifest:
    return StageManifest(
        stage=name,
        key="key",
        version=1,
        code="",
        commit=None,
        settings=settings or {},
        inputs={},
        shards=tuple(ShardEntry(shard, f"{name}/{shard}-key/manifest-0.json", "") for shard in shards),
        rows=RowCounts(rows_in=0, kept=0),
    )


@pytest.mark.parametrize("count", [1, 2, 7, 100])
def test_law_the_candidates_are_the_shards_of_the_rows_and_all_whose_place_is_not_known(count: int) -> None:
    tower = stage("tower", [*(f"features-{number:05d}" for number in range(count)), "model"])
    places = Places.of([stage("download", [f"{number:05d}" for number in range(count)]), tower])
    paths = [
        f"download/{number:05d}-key/manifest-{version}.json" for number in range(count) for version in (0, 1)
    ]
    paths += [f"tower/features-{number:05d}-key/manifest-0.json" for number in range(count)]
    strange = ["tower/model-key/manifest-0.json", "embed/elsewhere/manifest-0.json"]
    for hashes in (HASHES, HASHES[:1], []):
        numbers = {shard_of(name, count) for name in hashes}
        expected = [
            path for path in paths if int(path.split("-")[0 if "tower" not in path else 1][-5:]) in numbers
        ]
        assert places.candidates([*paths, *strange], hashes) == [*expected, *strange]


def test_law_ranges_are_equal_and_in_order() -> None:
    assert [shard_of(f"{number:016x}{0:016x}", 4) for number in (0, 2**62 - 1, 2**62, 2**64 - 1)] == [
        0,
        0,
        1,
        3,
    ]
    for name in HASHES:
        assert shard_of(name, 6) // 2 == shard_of(name, 3)


def test_a_list_with_identities_of_its_own_is_told_from_its_settings() -> None:
    assert has_own_uids(stage("plan", [], {"plan": {"uid_col": "id"}}))
    assert not has_own_uids(stage("plan", [], {"plan": {"uid_col": None}}))
    assert not has_own_uids(stage("download", []))
