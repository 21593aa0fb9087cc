"""The plan: every input row exactly once, one row per URL, groups whole, the same tables from the same list."""

import json
import random
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corgi.flow.dag import Selection
from corgi.planning import partition
from corgi.planning import stage as plan_module
from corgi.planning.blocklist import Blocklist
from corgi.planning.bucket import Pass, rows_by_shard, shards_of
from corgi.settings.errors import InputError, StorageError
from corgi.sources.identity import canonical_url, split_of
from corgi.sources.sources import sources
from corgi.tables.attempt import Attempt
from corgi.tables.places import shard_of, uid
from corgi.tables.schema import PLAN, REQUEST_URL
from corgi.tables.store import Store
from tests.support.lists import FORMATS, Row, plan_dag, recipe, write_list
from tests.support.table_digest import table_digest
from tests.support.tars import picture, write_tar


def rows_of(num_rows: int, seed: int = 0) -> list[Row]:
    """Return rows with repeated URLs, spellings, captions, groups and holes."""
    rng = random.Random(seed)
    rows: list[Row] = []
    for _ in range(num_rows):
        number = rng.randrange(num_rows // 2)
        url = rng.choice(
            [f"http://A{number % 5}.example/{number}", f"HTTP://a{number % 5}.example:80/{number}#x"]
        )
        rows.append(
            (
                url,
                rng.choice([f"word {rng.randrange(9)}", "", "  "]),
                rng.choice(["full", "coarse", ""]),
                f"g{number % 7}",
            )
        )
    return rows


def plan(root, *lists, **settings):
    """Run the stage; return its manifest and its table."""
    dag = plan_dag(recipe(root, *lists, **settings))
    dag.execute(Selection(), lambda line: None)
    manifest = dag.run.stages()["plan"]
    shards = dag.store.shards(manifest)
    return manifest, [dag.store.read(shard, "plan") for shard in shards], dag


def joined(tables) -> list[dict]:
    return pa.concat_tables(tables).to_pylist()


def test_every_format_gives_the_same_plan(tmp_path):
    tables = {}
    for ending in FORMATS:
        source = write_list(tmp_path / ending / f"list.{ending}", rows_of(60))
        table = pa.concat_tables(plan(tmp_path / ending / "runs", source)[1])
        tables[ending] = table_digest(table.drop_columns(["sources"]))
        assert table.schema == PLAN
    assert len(set(tables.values())) == 1, tables


def test_a_url_is_asked_for_as_its_first_row_writes_it(tmp_path):
    listed = ["http://a.test/x|y", "http://a.test/x%7Cy", "http://a.test/p%7Cq", "HTTP://A.test/p|q#f"]
    source = write_list(tmp_path / "list.csv", [(url, "", "full", "") for url in listed])
    (table,) = plan(tmp_path / "runs", source)[1]
    assert table.schema == PLAN.append(REQUEST_URL)
    asked = dict(zip(table["url"].to_pylist(), table["request_url"].to_pylist(), strict=True))
    assert asked == {"http://a.test/x%7Cy": "http://a.test/x|y", "http://a.test/p%7Cq": None}
    other = write_list(tmp_path / "other.csv", [(url, "", "full", "") for url in listed[1:3]])
    (plain,) = plan(tmp_path / "others", other)[1]
    assert plain.schema == PLAN
    assert table["uid"].equals(plain["uid"])


def test_every_input_row_is_there_exactly_once(tmp_path):
    lists = [
        write_list(tmp_path / "a.csv", rows_of(90)),
        write_list(tmp_path / "b.parquet", rows_of(50, seed=1)),
    ]
    manifest, tables, dag = plan(tmp_path / "runs", *lists)
    named = Counter(
        (source, row)
        for record in joined(tables)
        for source, row in zip(record["sources"], record["rows"], strict=True)
    )
    sources = {
        fact["sha256"] for shard in dag.store.shards(manifest) for fact in shard.facts.get("sources", [])
    }
    assert set(named.values()) == {1}
    assert len(named) == 140 == manifest.rows.rows_in == manifest.rows.kept
    assert sorted(Counter(source for source, _ in named).values()) == [50, 90]
    assert sources == {source for source, _ in named}
    for source in sources:
        numbers = sorted(row for name, row in named if name == source)
        assert numbers == list(range(len(numbers)))


def test_a_row_leads_back_to_its_line_of_the_list(tmp_path):
    rows = rows_of(40)
    _, tables, _ = plan(tmp_path / "runs", write_list(tmp_path / "a.csv", rows))
    for record in joined(tables):
        assert {canonical_url(rows[number][0] or "") for number in record["rows"]} == {record["url"]}
        wanted = {(rows[n][1], rows[n][2] or "full") for n in record["rows"] if (rows[n][1] or "").strip()}
        assert {(caption["caption"], caption["kind"]) for caption in record["captions"]} == wanted
        assert len(record["captions"]) == len(wanted)


@pytest.mark.parametrize("source", ["a.parquet", "a.jsonl", "a.tar", "pictures"])
def test_a_list_of_captions_is_several_captions_of_one_row(tmp_path, source):
    captions = [["one", "two", "one", " "], None, ["three"]]
    urls = [f"http://a.example/{number}" for number in range(3)]
    cells = [{"url": url, "caption": texts} for url, texts in zip(urls, captions, strict=True)]
    path = tmp_path / source
    if source == "a.parquet":
        pq.write_table(pa.table({"url": urls, "caption": captions}), path)
    elif source == "a.jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in cells))
    else:
        members = [(f"{n}.json", json.dumps(row).encode()) for n, row in enumerate(cells)]
        members += [(f"{n}.jpg", picture(n)) for n in range(3)]
        if source == "a.tar":
            write_tar(path, sorted(members))
        else:
            path.mkdir()
            for name, data in members:
                (path / name).write_bytes(data)
    manifest, tables, _ = plan(tmp_path / "runs", path, caption_kind_col=None, group_col=None)
    found = {row["url"]: [one["caption"] for one in row["captions"]] for row in joined(tables)}
    assert found == dict(zip(urls, [["one", "two"], [], ["three"]], strict=True))
    assert manifest.rows.rows_in == 3


def test_what_of_a_mixture_is_no_row_is_told_on_the_screen(tmp_path, capsys):
    folder = tmp_path / "mixed"
    folder.mkdir()
    write_tar(
        folder / "0.tar", [("0.jpg", picture(1)), ("._0.jpg", b"x"), ("0.txt", b"x"), ("0.b.txt", b"y")]
    )
    write_list(folder / "urls.csv", rows_of(4))
    (folder / "below").mkdir()
    (folder / "below" / "1.jpg").write_bytes(picture(1))
    bare = {"caption_kind_col": None, "group_col": None}
    plan(tmp_path / "runs", folder, **bare)
    first, second = capsys.readouterr().out.splitlines()[1:3]
    assert f"plan.input: {folder}: lists (1), pictures (1) are not read, such as {folder}/" in first
    assert second.endswith(
        "in addition to the rows: captions or JSON without a picture, left out (1), files of macOS and hidden pictures, left out (1)"
    )
    plan(tmp_path / "again", folder / "0.tar", folder / "urls.csv", **bare)
    assert "not read" not in capsys.readouterr().out


def test_one_row_a_url_sorted_and_in_its_shard(tmp_path):
    rows = rows_of(200)
    _, tables, _ = plan(tmp_path / "runs", write_list(tmp_path / "a.csv", rows))
    uids = [record["uid"] for record in joined(tables)]
    assert sorted(uids) == uids == sorted({uid(canonical_url(row[0] or "")) for row in rows})
    assert len(tables) == 25
    for number, table in enumerate(tables):
        assert {shard_of(identity, 25) for identity in table["uid"].to_pylist()} <= {number}


def test_a_row_without_a_url_is_kept_for_the_ledger(tmp_path):
    rows: list[Row] = [
        (None, "a", "full", None),
        ("", "b", "full", None),
        ("http://a.example/", "c", "full", "g"),
    ]
    _, tables, _ = plan(tmp_path / "runs", write_list(tmp_path / "a.parquet", rows))
    records = {record["url"]: record for record in joined(tables)}
    assert sorted(records) == ["", "http://a.example/"]
    assert records[""]["rows"] == [0, 1]


def test_groups_never_straddle_splits(tmp_path):
    _, tables, _ = plan(
        tmp_path / "runs", write_list(tmp_path / "a.csv", rows_of(300)), val_share=0.3, test_share=0.3
    )
    splits: dict[str, set[str]] = {}
    for record in joined(tables):
        splits.setdefault(record["group"], set()).add(record["split"])
        assert record["split"] == split_of(record["group"], 0, 0.3, 0.3)
    assert len(splits) == 7
    assert {len(found) for found in splits.values()} == {1}
    assert len(set.union(*splits.values())) > 1


def test_a_group_defaults_to_the_url(tmp_path):
    _, tables, _ = plan(tmp_path / "runs", write_list(tmp_path / "a.csv", rows_of(40)), group_col=None)
    assert all(record["group"] == record["url"] for record in joined(tables))


def test_facts_count_what_was_planned(tmp_path):
    manifest, tables, dag = plan(tmp_path / "runs", write_list(tmp_path / "a.csv", rows_of(100)))
    for shard, table in zip(dag.store.shards(manifest), tables, strict=True):
        splits = Counter(table["split"].to_pylist())
        assert shard.facts["urls"] == table.num_rows
        assert {name: shard.facts[name] for name in ("train", "val", "test")} == {
            name: splits[name] for name in ("train", "val", "test")
        }


def test_two_runs_give_equal_tables_wherever_the_list_lies(tmp_path):
    first, tables, _ = plan(tmp_path / "one", write_list(tmp_path / "a.csv", rows_of(100)))
    second, again, _ = plan(tmp_path / "two", write_list(tmp_path / "elsewhere" / "b.csv", rows_of(100)))
    assert first.digest == second.digest
    assert [table_digest(table) for table in tables] == [table_digest(table) for table in again]


@pytest.mark.parametrize("changed", ["row", "seed", "shards"])
def test_another_list_or_setting_is_another_plan(tmp_path, changed):
    rows = rows_of(100)
    first, _, _ = plan(tmp_path / "runs", write_list(tmp_path / "a.csv", rows))
    if changed == "row":
        rows[50] = ("http://new.example/", None, None, None)
    other = {"seed": {"seed": 1}, "shards": {"number_sample_per_shard": 50}}.get(changed, {})
    second, _, _ = plan(tmp_path / "runs", write_list(tmp_path / "b.csv", rows), **other)
    assert first.key != second.key
    assert first.digest != second.digest


def test_an_interrupted_plan_goes_on_by_shard_and_leaves_no_spill(tmp_path, monkeypatch):
    source = write_list(tmp_path / "a.csv", rows_of(100))
    unbroken, _, _ = plan(tmp_path / "unbroken", source)
    commit, committed = Attempt.commit, []

    def stop_at_five(attempt, *counts, **facts):
        if len(committed) == 5:
            raise KeyboardInterrupt
        committed.append(commit(attempt, *counts, **facts))
        return committed[-1]

    with monkeypatch.context() as patched:
        patched.setattr(Attempt, "commit", stop_at_five)
        with pytest.raises(KeyboardInterrupt):
            plan(tmp_path / "runs", source)
    assert not (tmp_path / "runs" / "lists" / "spill").exists()
    manifest, _, dag = plan(tmp_path / "runs", source)
    assert manifest.digest == unbroken.digest
    assert all(shard.path.endswith("manifest-0.json") for shard in dag.store.shards(manifest))


def test_many_shards_share_a_bucket(tmp_path, monkeypatch):
    source = write_list(tmp_path / "a.csv", rows_of(100))
    first, _, _ = plan(tmp_path / "one", source, number_sample_per_shard=4)
    for buckets in (3, 64):
        monkeypatch.setattr(plan_module, "num_buckets", lambda lists, chosen=buckets: chosen)
        second, tables, _ = plan(tmp_path / str(buckets), source, number_sample_per_shard=4)
        assert len(tables) == 25
        assert first.digest == second.digest


@given(
    st.lists(
        st.tuples(
            st.text(max_size=6), st.text(max_size=6), st.sampled_from(["full", "coarse"]), st.text(max_size=3)
        ),
        min_size=1,
        max_size=30,
    )
)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_rows_are_conserved_whatever_the_list_holds(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("any")
    manifest, tables, _ = plan(folder / "runs", write_list(folder / "a.parquet", rows))
    assert manifest.rows.rows_in == len(rows) == sum(len(record["rows"]) for record in joined(tables))
    assert {record["uid"] for record in joined(tables)} == {uid(canonical_url(row[0])) for row in rows}


@pytest.mark.parametrize("ending", FORMATS)
def test_an_empty_list_is_one_line(tmp_path, ending):
    with pytest.raises(InputError) as found:
        plan(tmp_path / "runs", write_list(tmp_path / f"a.{ending}", []))
    assert "\n" not in str(found.value)
    assert "nothing was started" in str(found.value)


def test_a_list_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch):
    source, spill = write_list(tmp_path / "a.csv", rows_of(20)), plan_module.spill

    def change(*arguments):
        num_rows = spill(*arguments)
        write_list(source, rows_of(21))
        return num_rows

    monkeypatch.setattr(plan_module, "spill", change)
    with pytest.raises(InputError, match="changed while it was read"):
        plan(tmp_path / "runs", source)


def test_a_spill_that_finds_no_room_is_one_line(tmp_path):
    source = write_list(tmp_path / "a.csv", rows_of(20))
    (tmp_path / "runs" / "lists").mkdir(parents=True)
    (tmp_path / "runs" / "lists" / "spill").write_text("in the way")
    with pytest.raises(StorageError) as found:
        plan(tmp_path / "runs", source)
    assert "\n" not in str(found.value)


def test_a_given_uid_is_kept_and_shards_stay_those_of_the_url(tmp_path):
    urls = [f"http://a.example/{n}" for n in range(40)]
    given = [None if n % 3 == 0 else f"{n * 7919:032x}" for n in range(40)]
    pq.write_table(pa.table({"url": urls, "id": given}), tmp_path / "a.parquet")
    bare = {"caption_col": None, "caption_kind_col": None, "group_col": None, "uid_col": "id"}
    _, tables, _ = plan(tmp_path / "runs", tmp_path / "a.parquet", **bare)
    wanted = {url: one or uid(url) for url, one in zip(urls, given, strict=True)}
    assert {row["url"]: row["uid"] for row in joined(tables)} == wanted
    for shard, table in enumerate(tables):
        assert table["uid"].to_pylist() == sorted(table["uid"].to_pylist())
        assert {shard_of(uid(url), len(tables)) for url in table["url"].to_pylist()} <= {shard}


@pytest.mark.parametrize(
    ("given", "line"), [(["x", None], "not 32 lower hex digits"), (["0" * 32, "0" * 32], "names two URLs")]
)
def test_a_uid_that_is_none_or_names_two_is_one_line(tmp_path, given, line):
    pq.write_table(pa.table({"url": ["http://a/1", "http://a/2"], "id": given}), tmp_path / "a.parquet")
    bare = {"caption_col": None, "caption_kind_col": None, "group_col": None, "uid_col": "id"}
    with pytest.raises(InputError, match=line) as found:
        plan(tmp_path / "runs", tmp_path / "a.parquet", **bare)
    assert "\n" not in str(found.value)


def test_a_row_whose_hash_is_none_is_rejected_unless_another_row_has_one(tmp_path):
    rows = {"url": ["http://a/1", "http://a/2", "http://a/2"], "sha": ["bad", "worse", "A" * 64]}
    pq.write_table(pa.table(rows), tmp_path / "a.parquet")
    bare = {"caption_col": None, "caption_kind_col": None, "group_col": None}
    manifest, tables, _ = plan(
        tmp_path / "runs", tmp_path / "a.parquet", verify_hash=["sha", "sha256"], **bare
    )
    found = {row["url"]: (row["reason"], row["expected_hash"]) for row in joined(tables)}
    assert found == {"http://a/1": ("bad_hash", None), "http://a/2": (None, f"sha256:{'a' * 64}")}
    assert (manifest.rows.rows_in, manifest.rows.kept) == (3, 2)


def test_rows_cut_into_other_batches_give_the_same_plan(tmp_path, monkeypatch):
    source = write_list(tmp_path / "a.parquet", rows_of(150))
    first, _, _ = plan(tmp_path / "one", source)
    monkeypatch.setattr("corgi.sources.url_lists.BATCH_ROWS", 7)
    monkeypatch.setattr("corgi.planning.partition.BUFFER_BYTES", 1000)
    monkeypatch.setattr(plan_module, "num_buckets", lambda lists: 5)
    second, _, _ = plan(tmp_path / "two", source)
    assert first.digest == second.digest


@pytest.mark.parametrize("setting", ["block_urls", "block_domains", "block_hashes"])
def test_another_blocklist_is_another_plan(tmp_path, setting):
    source, listed = write_list(tmp_path / "a.csv", rows_of(10)), tmp_path / "blocked.txt"
    keys = set()
    for text in ("0" * 64, "1" * 64):
        listed.write_text(text)
        keys.add(plan(tmp_path / "runs", source, **{setting: str(listed)})[0].key)
    assert len(keys) == 2


def test_law_a_plan_by_tasks_is_the_plan_of_this_process(tmp_path, monkeypatch, ray_local):
    sources = [write_list(tmp_path / f"{at}.csv", rows_of(60, at)) for at in range(3)]
    monkeypatch.setattr(plan_module, "num_buckets", lambda lists: 5)
    first, _, _ = plan(tmp_path / "one", *sources)
    monkeypatch.setattr(plan_module, "TASKS_FROM_BYTES", 0)
    second, _, dag = plan(tmp_path / "two", *sources)
    assert first.digest == second.digest
    assert first.rows == second.rows
    facts = [
        store.shards(manifest)[0].facts
        for store, manifest in ((Store(tmp_path / "one"), first), (dag.store, second))
    ]
    assert facts[0] == facts[1]
    assert not (tmp_path / "two" / "lists" / "spill").exists()


@pytest.mark.law
@pytest.mark.parametrize(("num_buckets", "num_shards"), [(1, 1), (3, 7), (7, 3), (16, 16), (5, 64), (64, 5)])
def test_law_tasks_over_buckets_make_each_shard_once_with_all_its_rows(tmp_path, num_buckets, num_shards):
    lists = sources(recipe(tmp_path, write_list(tmp_path / "a.csv", rows_of(200))).plan)
    settings = recipe(tmp_path, tmp_path / "a.csv").plan
    partition.spill(list(enumerate(lists)), settings, tmp_path / "spill" / "000", num_buckets)
    found = Pass(lists, [], tmp_path / "spill", num_buckets, num_shards, settings, Blocklist.of(settings))
    by_tasks = [item for shards in shards_of(found) for item in rows_by_shard(found, shards)]
    assert [shard for shard, _ in by_tasks] == list(range(num_shards))
    at_once = list(rows_by_shard(found, range(num_shards)))
    for (shard, rows), (_, others) in zip(by_tasks, at_once, strict=True):
        order = [("source", "ascending"), ("row", "ascending")]
        assert rows.sort_by(order).equals(others.sort_by(order))
        assert {shard_of(name.hex(), num_shards) for name in rows["digest"].to_pylist()} <= {shard}
    assert sum(rows.num_rows for _, rows in by_tasks) == 200


def test_no_table_of_a_bucket_is_large(tmp_path, monkeypatch):
    lists = sources(recipe(tmp_path, write_list(tmp_path / "a.csv", rows_of(200))).plan)
    monkeypatch.setattr("corgi.sources.url_lists.BATCH_ROWS", 7)
    monkeypatch.setattr("corgi.sources.separated.BATCH_ROWS", 7)
    monkeypatch.setattr("corgi.sources.rows.BATCH_ROWS", 7)
    monkeypatch.setattr(partition, "BUFFER_BYTES", 1000)
    monkeypatch.setattr(partition, "TABLE_BYTES", 4000)
    partition.spill(
        list(enumerate(lists)), recipe(tmp_path, tmp_path / "a.csv").plan, tmp_path / "spill" / "000", 2
    )
    tables = list(partition.spilled(tmp_path / "spill", 0))
    assert len(tables) >= 3
    assert max(table.nbytes for table in tables) < 40_000


def test_sources_are_parted_by_bytes_and_shards_named_by_their_number(tmp_path):
    paths = [write_list(tmp_path / f"{at}.csv", rows_of(20 * at, at)) for at in range(1, 8)]
    lists = sources(recipe(tmp_path, *paths).plan)
    parts = partition.parts_of(lists, 3)
    assert sorted(at for part in parts for at, _ in part) == list(range(7))
    sizes = [sum(partition.num_bytes([source]) for _, source in part) for part in parts]
    assert max(sizes) < 1.5 * min(sizes)
    assert plan_module.names_of(3) == ["00000", "00001", "00002"]
    assert plan_module.names_of(100_001)[99_999:] == ["099999", "100000"]
    assert plan_module.names_of(100_000)[-1] == "99999"
