"""What a commit says: rows that add up, digests that name content alone, and seals that break."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corgi.tables.manifest import FileEntry, RowCounts, ShardEntry, ShardManifest, sealed, unsealed
from corgi.tables.schema import Reason


@st.composite
def counts(draw: st.DrawFn) -> RowCounts:
    kept = draw(st.integers(0, 1000))
    rejected = draw(st.dictionaries(st.sampled_from(list(Reason)), st.integers(0, 100), max_size=4))
    return RowCounts(rows_in=kept + sum(rejected.values()), kept=kept, rejected=rejected)


def without_zeros(found: RowCounts) -> dict[str, int]:
    return {reason: count for reason, count in found.rejected.items() if count}


@given(counts(), counts(), counts())
def test_law_counts_are_added_in_any_order_and_stay_conserved(
    a: RowCounts, b: RowCounts, c: RowCounts
) -> None:
    left, right = (a + b) + c, c + (b + a)
    assert (left.rows_in, left.kept, without_zeros(left)) == (
        right.rows_in,
        right.kept,
        without_zeros(right),
    )
    assert left.rows_in == a.rows_in + b.rows_in + c.rows_in
    assert left.rows_in == left.kept + sum(left.rejected.values())


@given(counts(), st.integers(1, 5))
def test_law_a_row_too_many_or_too_few_is_refused(found: RowCounts, num: int) -> None:
    for rows_in in (found.rows_in + num, found.rows_in - num):
        with pytest.raises(ValueError, match="rows"):
            RowCounts(rows_in=rows_in, kept=found.kept, rejected=found.rejected)


def manifest(**changes: Any) -> ShardManifest:
    files = (
        FileEntry(table="a", name="x-a.parquet", size=3, sha256="aa"),
        FileEntry(table="b", name="x-b.parquet", size=4, sha256="bb"),
    )
    fields: dict[str, Any] = {
        "stage": "embed",
        "shard": "00000",
        "key": "k",
        "version": 1,
        "code": "c",
        "settings": {"x": 1},
        "inputs": {"plan": ("p",)},
        "files": files,
        "rows": RowCounts(rows_in=3, kept=3),
    }
    return ShardManifest(**{**fields, **changes})


def test_a_digest_names_the_content_and_not_the_attempt() -> None:
    renamed = tuple(entry.model_copy(update={"name": f"y-{entry.table}"}) for entry in manifest().files)
    same = [
        manifest(path="embed/k/manifest-3.json"),
        manifest(files=renamed[::-1]),
        manifest(code="other"),
        manifest(facts={"seconds": 3}),
    ]
    assert {one.digest for one in same} == {manifest().digest}
    other = [
        manifest(shard="00001"),
        manifest(key="l"),
        manifest(rows=RowCounts(rows_in=4, kept=4)),
        manifest(files=manifest().files[:1]),
    ]
    assert len({one.digest for one in (*other, manifest())}) == 5


def test_equal_content_under_another_key_takes_the_name_of_the_first_that_has_it() -> None:
    first, later = manifest(), manifest(key="later")
    assert first.digest != later.digest
    named = later.named_by([("other", "no digest"), (first.key, first.digest)])
    assert (named.named, named.digest, named.key) == (first.key, first.digest, "later")
    assert ShardEntry.of(named.at("embed/later/manifest-0.json")).named == first.key
    changed = manifest(key="later", rows=RowCounts(rows_in=2, kept=2))
    assert changed.named_by([(first.key, first.digest)]) == changed
    assert named.named_by([("later", later.digest)]).origin == ""


@given(st.data())
def test_law_a_sealed_manifest_with_any_other_value_is_refused(data: st.DataObject) -> None:
    text = sealed(manifest(path="somewhere"))
    assert unsealed(text, ShardManifest) == manifest()
    values = json.loads(text)
    name = data.draw(st.sampled_from(sorted(values)))
    values[name] = data.draw(
        st.none() | st.integers() | st.text(max_size=5).filter(lambda v: v != values[name])
    )
    if values == json.loads(text):
        return
    with pytest.raises(ValueError, match="digest"):
        unsealed(json.dumps(values), ShardManifest)


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '{"content_digest": "x"}', '{"a": 1'])
def test_what_was_never_sealed_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"digest|Expecting|delimiter"):
        unsealed(text, ShardManifest)
