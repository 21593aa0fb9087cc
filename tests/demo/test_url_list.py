from collections import defaultdict
from dataclasses import asdict
from urllib.parse import urlsplit

import pyarrow.parquet as pq
import pytest

from corgi.demo.packaged_styles import packaged
from corgi.demo.pictures import Picture, subset
from corgi.demo.raster import file_name
from corgi.demo.url_list import (
    COLUMNS,
    FAULT_SHARE,
    FURTHER_URL_FAULTS,
    group,
    rows,
    struck_pictures,
    url,
    write_url_list,
)
from corgi.settings.errors import StorageError


def kind(address: str) -> str:
    return urlsplit(address).path.split("/")[1]


def catalogue() -> tuple[Picture, ...]:
    return packaged().pictures


@pytest.fixture(scope="module")
def listed():
    return rows(catalogue())


def test_every_picture_is_listed_under_one_own_url(listed):
    own = {urlsplit(row.url).path.split("/")[2] for row in listed if kind(row.url) in {"pictures", "busy"}}
    assert own == {file_name(picture.id) for picture in catalogue()}
    num_own = len({row.url for row in listed if kind(row.url) in {"pictures", "busy"}})
    assert num_own == len(catalogue())


def test_captions_of_a_picture(listed):
    captions = defaultdict(list)
    for row in listed:
        captions[row.url].append((row.caption, row.caption_kind))
    uncaptioned = struck_pictures(catalogue(), "uncaptioned")
    busy = struck_pictures(catalogue(), "busy")
    for picture in catalogue():
        found = captions[url("busy" if picture.id in busy else "pictures", picture)]
        names = (picture.caption, *picture.aliases)
        expected = [(f"{name}, {picture.style.name} style", "full") for name in names]
        coarse = dict.fromkeys(word for word in (picture.coarse, picture.caption) if word)
        expected += [(word, "coarse") for word in coarse]
        assert found == (expected if picture.id not in uncaptioned else [(None, "full")])


def test_urls_name_a_fixed_host_without_port(listed):
    assert {urlsplit(row.url).netloc for row in listed} == {"emoji.test"}
    assert {urlsplit(row.url).scheme for row in listed} == {"http"}


def test_pairs_and_whole_concepts_are_groups_side_by_side(listed):
    """Of some concepts each style can be held out alone, of others only all styles together; both are many."""
    groups = defaultdict(set)
    for picture in catalogue():
        groups[picture.concept].add(group(picture))
    apart = [concept for concept, found in groups.items() if len(found) == 2]
    whole = [concept for concept, found in groups.items() if found == {concept}]
    assert len(apart) + len(whole) == len(groups)
    assert 0.25 < len(whole) / len(groups) < 0.42
    by_group = defaultdict(set)
    for row in listed:
        by_group[row.group].add((row.concept, row.style))
    assert all(len({concept for concept, _ in found}) == 1 for found in by_group.values())
    assert {row.credit for row in listed} == {picture.style.credit for picture in catalogue()}


def test_a_file_has_one_group_whichever_url_it_is_under(listed):
    groups = defaultdict(set)
    for row in listed:
        groups[row.url.rsplit("/", 1)[1]].add(row.group)
    assert all(len(found) == 1 for found in groups.values())


@pytest.mark.parametrize("fault", FAULT_SHARE)
@pytest.mark.parametrize("limit", [30, 300, 10_000])
def test_every_fault_strikes_its_share(fault, limit):
    pictures = subset(catalogue(), limit)
    struck = struck_pictures(pictures, fault)
    assert len(struck) == max(1, round(FAULT_SHARE[fault] * len(pictures)))
    assert struck <= {picture.id for picture in pictures}


def test_faults_cost_no_picture(listed):
    assert sum(FAULT_SHARE.values()) < 0.05
    for row in listed:
        if kind(row.url) in FURTHER_URL_FAULTS:
            assert row.caption is not None
    num_further = len({row.url for row in listed}) - len(catalogue())
    assert num_further == sum(len(struck_pictures(catalogue(), fault)) for fault in FURTHER_URL_FAULTS)


def test_rows_are_mixed_rather_than_sorted_by_concept(listed):
    first = {row.concept for row in listed[:200]}
    assert len(first) > 60


def test_written_list_is_the_same_file_again_and_holds_the_rows(tmp_path, few_pictures):
    first, second = tmp_path / "new folder" / "a.parquet", tmp_path / "b.parquet"
    num_rows = write_url_list(first, few_pictures, "all the credit")
    write_url_list(second, tuple(reversed(few_pictures)), "all the credit")
    table = pq.read_table(first)
    assert tuple(table.column_names) == COLUMNS
    assert table.num_rows == num_rows
    assert table.to_pylist() == [asdict(row) for row in rows(few_pictures)]
    assert table.schema.metadata[b"credit"].decode() == "all the credit"
    assert sorted(pq.read_table(second)["url"].to_pylist()) == sorted(table["url"].to_pylist())
    before = first.read_bytes()
    write_url_list(first, few_pictures, "all the credit")
    assert first.read_bytes() == before
    assert [path.name for path in first.parent.iterdir()] == ["a.parquet"]


def test_unwritable_place_is_one_line(tmp_path, few_pictures):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write the URL list") as caught:
        write_url_list(tmp_path / "file" / "urls.parquet", few_pictures, "")
    assert "\n" not in str(caught.value)
