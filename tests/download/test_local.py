"""Pictures that are already there: from a tar, a table or a folder to the stage's tables, and never from a URL."""

import hashlib
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corgi.download.local import LocalReader, locations_of
from corgi.download.stage import DownloadShards
from corgi.flow.dag import Dag, Selection, open_dag
from corgi.imaging.decode import decode
from corgi.imaging.pool import DecoderPool
from corgi.planning.stages import Plan
from corgi.settings.data import DownloadSettings
from corgi.settings.errors import InputError
from corgi.settings.recipe import Recipe
from corgi.sources.identity import content_url
from corgi.sources.sources import sources
from corgi.tables.places import uid
from corgi.tables.rejection import Rejection
from corgi.tables.schema import Reason
from tests.support.pictures import encoded, scene
from tests.support.results import body_of, reason_of
from tests.support.stages import stage
from tests.support.tars import picture, samples, write_tar

TOWER = {"name": "rn", "model": "RN50", "pretrained": "random"}


def recipe_of(root: Path, *inputs: Path | str, download: dict[str, Any] | None = None, **plan: Any) -> Recipe:
    chosen = {"input": [str(path) for path in inputs], "number_sample_per_shard": 4, **plan}
    values = {"name": "local", "root": str(root), "plan": chosen, "download": download or {}}
    return Recipe.model_validate({**values, "embed": {"towers": [TOWER]}})


def downloaded(recipe: Recipe) -> tuple[Dag, dict[str, list[dict[str, Any]]]]:
    """Plan, then make every download shard in this process; return the tables as rows."""
    stages = [
        Plan(),
        stage("download", make_here, ("plan",), ("download",), partition="plan"),
    ]
    dag = open_dag(stages, recipe)
    dag.execute(Selection(), lambda line: None)
    shards = dag.run.shards("download")
    names = ("images", "captions", "ledger")
    return dag, {
        name: [row for one in shards for row in dag.store.read(one, name).to_pylist()] for name in names
    }


def make_here(context: Any) -> list[Any]:
    """Stand in for the stage's body: the same maker without Ray."""
    tasks = context.partitioned()
    maker = DownloadShards(
        locations=locations_of(context.recipe.plan), first_plan_shard=context.entries("plan")[0].path
    )
    try:
        for task in context.pending(tasks):
            maker.make(task)
    finally:
        maker.close()
    return tasks


def parquet_of(path: Path, rows: list[dict[str, Any]], image: Any = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows) if image is None else image, path, row_group_size=2)
    return path


def folder_of(path: Path, num: int) -> Path:
    path.mkdir(parents=True)
    for number in range(num):
        (path / f"{number}.jpg").write_bytes(picture(number))
        (path / f"{number}.txt").write_text(f"picture {number}\n")
    return path


def digest_of(folder: Path) -> str:
    (source,) = sources(recipe_of(folder.parent, folder).plan)
    return source.sha256


def source_of(kind: str, folder: Path) -> Path:
    """Return five pictures without URLs, in one kind of source."""
    if kind == "tar":
        return write_tar(folder / "00000.tar", samples(5))
    if kind == "folder":
        return folder_of(folder / "pictures", 5)
    rows = [{"caption": f"picture {n}", "jpg": picture(n)} for n in range(5)]
    if kind == "hugging face":
        rows = [{"caption": f"picture {n}", "image": {"bytes": picture(n), "path": "x"}} for n in range(5)]
    return parquet_of(folder / "a.parquet", rows)


@pytest.mark.parametrize("kind", ["tar", "folder", "parquet", "hugging face"])
def test_five_pictures_of_any_kind_give_the_same_tables(tmp_path, kind):
    recipe = recipe_of(tmp_path / "runs", source_of(kind, tmp_path), download={"image_size": 32})
    _, tables = downloaded(recipe)
    wanted = {}
    for number in range(5):
        sha256 = hashlib.sha256(picture(number)).hexdigest()
        wanted[uid(content_url(sha256))] = (sha256, number)
    assert {row["uid"]: row["sha256"] for row in tables["images"]} == {u: s for u, (s, _) in wanted.items()}
    for row in tables["images"]:
        expected = decode(picture(wanted[row["uid"]][1]), recipe.download)
        assert row["image"] == getattr(expected, "image", None)
    assert {(row["uid"], row["caption"]) for row in tables["captions"]} == {
        (u, f"picture {number}") for u, (_, number) in wanted.items()
    }
    assert sorted(row["row"] for row in tables["ledger"]) == list(range(5))
    assert {row["status"] for row in tables["ledger"]} == {"kept"}


@pytest.mark.parametrize("form", ["parquet", "webdataset"])
def test_an_img2dataset_folder_keeps_its_urls_and_accounts_for_its_failures(tmp_path, form):
    folder = tmp_path / "out"
    facts = [{"url": f"http://a.example/{n}", "caption": f"words {n}", "key": f"{n:05d}"} for n in range(4)]
    if form == "parquet":
        rows = [{**one, "jpg": None if n == 2 else picture(n)} for n, one in enumerate(facts)]
        parquet_of(folder / "00000.parquet", rows)
    else:
        write_tar(
            folder / "00000.tar", samples(4, url=lambda n: facts[n]["url"], caption=lambda n: f"words {n}")
        )
        parquet_of(folder / "00000.parquet", facts)
    (folder / "00000_stats.json").write_text("{}")
    _, tables = downloaded(recipe_of(tmp_path / "runs", folder, save_additional_columns=["url"]))
    assert {row["url"] for row in tables["images"]} == {
        one["url"] for n, one in enumerate(facts) if n != 2 or form == "webdataset"
    }
    assert {row["uid"] for row in tables["ledger"]} == {uid(one["url"]) for one in facts}
    lost = [row["reason"] for row in tables["ledger"] if row["status"] == "rejected"]
    assert lost == (["no_picture"] if form == "parquet" else [])
    assert all(dict(row["additional"])["url"] == row["url"] for row in tables["images"])


@pytest.mark.parametrize("url", ["file:///etc/passwd", "{sha}/0:10", "../../etc/passwd", "{sha}/x.jpg"])
def test_a_url_is_never_a_location(tmp_path, url):
    folder = folder_of(tmp_path / "pictures", 1)
    bad = url.format(sha=digest_of(folder))
    (tmp_path / "a.jsonl").write_text(json.dumps({"url": bad, "location": bad, "caption": "x"}))
    _, tables = downloaded(recipe_of(tmp_path / "runs", tmp_path / "a.jsonl", folder))
    by_uid = {row["uid"]: row for row in tables["ledger"]}
    assert by_uid[uid(bad)]["reason"] == "bad_url"
    assert [row["status"] for row in tables["ledger"]].count("kept") == 1


def test_bodies_of_hostile_sources_cost_one_row_each(tmp_path):
    members = samples(3)
    members += [("x.jpg", b"<html>"), ("y.png", b""), ("z.jpg", picture(9) + bytes(2**20))]
    path = write_tar(tmp_path / "a.tar", members)
    _, tables = downloaded(recipe_of(tmp_path / "runs", path, download={"max_bytes": 2**19}))
    reasons = sorted(row["reason"] for row in tables["ledger"] if row["reason"])
    assert reasons == ["not_an_image", "not_an_image", "too_large"]
    assert len(tables["images"]) == 3


AWKWARD = {
    "shot.2024.0.jpg": picture(1),
    "shot.2024.0.txt": b"dots",
    "shot.2024.1.jpg": picture(2),
    "._shot.2024.1.jpg": b"\x00\x05\x16\x07",
    "0.left.JPG": picture(3),
    "0.right.jpg": picture(4),
    "0.TXT": b"both",
    "deep.er/a.bmp": encoded(scene(5), "BMP"),
    "deep.er/b.avif": encoded(scene(6), "AVIF"),
    "deep.er/c.tiff": encoded(scene(7), "TIFF"),
    "deep.er/d.jp2": encoded(scene(8), "JPEG2000"),
    "deep.er/e.ppm": encoded(scene(9), "PPM"),
    "deep.er/f.jxl": b"\xff\x0a" + bytes(64),
    "deep.er/g.heic": b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(64),
    "h.jpg": b"<html>",
    ".DS_Store": b"x",
}


@pytest.mark.parametrize("kind", ["tar", "folder"])
@pytest.mark.parametrize("formats", [["JPEG"], ["JPEG", "BMP", "TIFF", "AVIF"]])
def test_every_picture_of_a_tar_or_folder_is_kept_or_rejected_with_a_reason(tmp_path, kind, formats):
    source = tmp_path / "a.tar"
    if kind == "tar":
        write_tar(source, list(AWKWARD.items()))
    else:
        source = tmp_path / "a"
        for name, data in AWKWARD.items():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(data)
    dag, tables = downloaded(recipe_of(tmp_path / "runs", source, download={"formats": formats}))
    reasons = Counter(row["reason"] or row["status"] for row in tables["ledger"])
    assert reasons == {"kept": 3 + len(formats), "format_not_allowed": 8 - len(formats), "not_an_image": 1}
    assert Counter(row["caption"] for row in tables["captions"]) == {"dots": 1, "both": 2}
    (facts,) = dag.run.shards("plan")[0].facts["sources"]
    assert facts["left_out"] == {"strangers": 2 if kind == "tar" else 1}


def test_rules_on_the_size_hold_for_formats_that_only_pillow_reads(tmp_path):
    pictures = [
        (f"{n}.{one}", encoded(scene(n, 96, 64), one)) for n, one in enumerate(("BMP", "TIFF", "AVIF"))
    ]
    chosen = recipe_of(
        tmp_path / "runs",
        write_tar(tmp_path / "a.tar", pictures),
        download={"formats": ["BMP", "TIFF", "AVIF"], "filter": {"min_side": 65}},
    )
    _, tables = downloaded(chosen)
    assert {row["reason"] for row in tables["ledger"]} == {"too_small"}


def test_the_same_url_in_a_list_and_a_tar_is_not_fetched(tmp_path):
    path = write_tar(tmp_path / "a.tar", samples(1, url=lambda n: "http://HOST.example:80/a"))
    (tmp_path / "a.csv").write_text("url,caption\nhttp://host.example/a,from the list\n")
    _, tables = downloaded(recipe_of(tmp_path / "runs", path, tmp_path / "a.csv"))
    assert [row["url"] for row in tables["images"]] == ["http://host.example/a"]
    assert {row["caption"] for row in tables["captions"]} == {"picture 0", "from the list"}
    assert [row["status"] for row in tables["ledger"]] == ["kept", "kept"]


def test_blocked_rows_are_never_asked_for_and_all_in_the_ledger(tmp_path, monkeypatch):
    asked: list[str] = []

    def no_fetch(self: object, urls: Any, *rest: Any) -> list[Any]:
        asked.extend(urls)
        return [Rejection(Reason.DNS) for _ in urls]

    class Engine:
        outcomes = no_fetch

        def close(self) -> None: ...

    monkeypatch.setattr("corgi.download.stage.new_engine", lambda *rest: Engine())
    lines = [
        "http://bad.example/1",
        "http://sub.bad.example/2",
        "http://ok.example/3",
        "http://ok.example/4#x",
    ]
    (tmp_path / "a.txt").write_text("\n".join(lines))
    tar = write_tar(tmp_path / "a.tar", samples(3))
    known = hashlib.sha256(picture(1)).hexdigest()
    phash = getattr(decode(picture(2), DownloadSettings()), "phash", "")
    (tmp_path / "urls.txt").write_text("HTTP://OK.example:80/4\n")
    (tmp_path / "domains.txt").write_text("Bad.Example\n")
    pq.write_table(pa.table({"h": [known.upper(), f"phash:{phash}"]}), tmp_path / "hashes.parquet")
    blocked: dict[str, Any] = {f"block_{name}": str(tmp_path / file) for name, file in BLOCKS.items()}
    dag, tables = downloaded(recipe_of(tmp_path / "runs", tmp_path / "a.txt", tar, **blocked))
    assert asked == ["http://ok.example/3"]
    assert sorted(row["reason"] for row in tables["ledger"] if row["reason"]) == [
        "blocked_domain",
        "blocked_domain",
        "blocked_hash",
        "blocked_hash",
        "blocked_url",
        "dns",
    ]
    assert len(tables["ledger"]) == 7
    assert dag.run.stages()["plan"].rows.rejected == {
        Reason.BLOCKED_DOMAIN: 2,
        Reason.BLOCKED_HASH: 1,
        Reason.BLOCKED_URL: 1,
    }


BLOCKS = {"urls": "urls.txt", "domains": "domains.txt", "hashes": "hashes.parquet"}


def test_a_finished_plan_is_read_from_where_its_sources_lie_now(tmp_path):
    first = write_tar(tmp_path / "a.tar", samples(2))
    dag = open_dag([Plan()], recipe_of(tmp_path / "runs", first))
    dag.execute(Selection(), lambda line: None)
    second = first.rename(tmp_path / "elsewhere.tar")
    _, tables = downloaded(recipe_of(tmp_path / "runs", second))
    assert len(tables["images"]) == 2


def test_a_location_outside_its_source_gives_no_bytes(tmp_path):
    path = write_tar(tmp_path / "a.tar", samples(1))
    locations = locations_of(recipe_of(tmp_path, path).plan)
    (sha256,) = locations
    reader = LocalReader(DownloadSettings(), locations)
    size = path.stat().st_size
    for inside in (f"{size}:10", f"0:{size + 1}", "-5:10", "x:y", "5", "", "1:-1"):
        assert reason_of(reader.read(f"{sha256}/{inside}")) == Reason.NO_PICTURE, inside
    assert reason_of(reader.read("0" * 64 + "/0:10")) == Reason.NO_PICTURE
    outside = LocalReader(DownloadSettings(), {"5e": (str(tmp_path / "folder"), "files")})
    for inside in ("../a.tar", f"/{path}", str(path), "x/../../a.tar"):
        assert reason_of(outside.read(f"5e/{inside}")) == Reason.NO_PICTURE


def test_a_folder_is_named_by_what_it_holds(tmp_path):
    first, second = folder_of(tmp_path / "a", 3), folder_of(tmp_path / "b", 3)
    assert digest_of(first) == digest_of(second)
    before = digest_of(second)
    (second / "1.txt").write_text("other words")
    assert digest_of(second) != before
    (second / "1.txt").write_text("picture 1\n")
    assert digest_of(second) == before
    (second / "1.jpg").rename(second / "7.jpg")
    assert digest_of(second) != before


def test_pipes_hidden_files_and_other_kinds_are_no_pictures(tmp_path):
    import os

    folder = folder_of(tmp_path / "a", 1)
    os.mkfifo(folder / "pipe.jpg")
    (folder / ".hidden.jpg").write_bytes(picture(2))
    (folder / "b").mkdir()
    (folder / "b" / "deep.PNG").write_bytes(picture(3))
    (folder / "b" / "deep.json").write_text('{"url": "http://a.example/deep", "caption": "from JSON"}')
    (folder / "notes.pdf").write_bytes(b"%PDF")
    _, tables = downloaded(recipe_of(tmp_path / "runs", folder))
    assert {row["url"].partition(":")[0] for row in tables["images"]} == {"urn", "http"}
    assert {row["caption"] for row in tables["captions"]} == {"picture 0", "from JSON"}


def test_a_folder_with_nothing_to_read_is_one_line(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(InputError, match="has no list, tar or picture") as found:
        sources(recipe_of(tmp_path, tmp_path / "a").plan)
    assert "\n" not in str(found.value)


def test_no_child_is_started_for_rows_that_are_settled(tmp_path, monkeypatch):
    monkeypatch.setattr(DecoderPool, "_started", lambda self: pytest.fail("a decoder was started"))
    path = write_tar(tmp_path / "a.tar", [("a.txt", b"words")])
    _, tables = downloaded(recipe_of(tmp_path / "runs", path))
    assert [row["reason"] for row in tables["ledger"]] == ["no_picture"]


def test_pictures_of_a_table_are_read_one_row_group_at_a_time(tmp_path, monkeypatch):
    path = source_of("parquet", tmp_path)
    locations = locations_of(recipe_of(tmp_path, path).plan)
    (sha256,) = locations
    reader, groups = LocalReader(DownloadSettings(), locations), []
    read = pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile,
        "read_row_group",
        lambda self, at, **rest: (groups.append(at), read(self, at, **rest))[1],
    )
    found = [body_of(reader.read(f"{sha256}/{n // 2}:{n % 2}:jpg")) for n in range(5)]
    assert found == [picture(n) for n in range(5)]
    assert groups == [0, 1, 2]
    assert io.BytesIO(found[0] or b"").read(2) == b"\xff\xd8"
