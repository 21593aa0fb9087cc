"""Only what failed is fetched again, only touched shards are redone, and what was taken down is gone for good."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from corgi.download.planned import Outcome
from corgi.download.stages import Download
from corgi.feeding.stages import Pack
from corgi.flow import command
from corgi.flow.context import Context
from corgi.flow.stage import Stage
from corgi.imaging.decode import StoredImage
from corgi.planning.stages import Plan
from corgi.sources.identity import canonical_url
from corgi.tables import schema
from corgi.tables.manifest import RowCounts, ShardManifest
from corgi.tables.places import uid
from corgi.tables.rejection import Rejection
from corgi.tables.run import Run
from corgi.tables.schema import Reason
from corgi.tables.store import ShardTask, Store
from corgi.tables.taken_down import read_taken_down
from tests.support.stages import stage
from tests.support.table_digest import table_digest
from tests.support.tables import png

NUM_ROWS, PER_SHARD = 60, 10
FAILING = {7: Reason.TIMEOUT, 23: Reason.TIMEOUT, 31: Reason.DNS, 44: Reason.HTTP_STATUS}


def url(number: int) -> str:
    return f"http://site.test/{number}.png"


class Site:
    """The web as an engine sees it: which pictures fail, and which were asked for."""

    def __init__(self) -> None:
        self.failing = dict(FAILING)
        self.asked: list[str] = []

    def outcomes(self, urls: Sequence[str], *more: Any) -> list[Outcome]:
        self.asked += urls
        return [self._outcome(int(u.rpartition("/")[2].removesuffix(".png"))) for u in urls]

    def close(self) -> None:
        """Nothing is open."""

    def _outcome(self, number: int) -> Outcome:
        if number in self.failing:
            return Rejection(self.failing[number], "as told")
        data = png(16, 16 + number % 3)
        sha256 = content(number)
        return StoredImage(data, 16, 16, 16, 16, sha256, "0" * 16, "image/png", "PNG", False, 200, len(data))


def content(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def doubled(context: Context) -> list[ShardTask]:
    """Stand in for embed: one row per picture, shard by shard."""
    tasks = context.partitioned()
    for task in context.pending(tasks):
        images = context.store.read(context.store.read_shard(task.inputs["download"][0]), "images", ["uid"])
        with context.store.attempt(task) as attempt:
            attempt.write_table("image_embeddings", images)
            attempt.commit(RowCounts(rows_in=images.num_rows, kept=images.num_rows))
        MADE.append(task.shard)
    return tasks


def model(context: Context) -> list[ShardTask]:
    """Stand in for a training: it has seen everything and holds no rows."""
    task = context.task("all")
    if context.pending([task]):
        with context.store.attempt(task) as attempt:
            attempt.write_bytes("prior_shifted", ".safetensors", str(task.inputs).encode())
            attempt.commit(RowCounts(rows_in=0, kept=0))
        MADE.append("all")
    return [task]


MADE: list[str] = []


def stages(recipe: Any) -> list[Stage]:
    return [
        Plan(),
        Download(),
        stage("embed", doubled, ("download",), ("embed",), partition="download"),
        stage("prior", model, ("embed",), ("prior",)),
    ]


def vectors(context: Context) -> list[ShardTask]:
    """Stand in for embed with what the training table is gathered from: a vector per picture and per caption."""
    vector, tasks = [np.float16(0.6), np.float16(0.8)], context.partitioned()
    for task in context.pending(tasks):
        store = context.store
        download = store.read_shard(task.inputs["download"][0])
        images = store.read(download, "images", ["uid"]).to_pylist()
        captions = store.read(download, "captions", ["uid", "ordinal", "kind"]).to_pylist()
        image = {"split": "train", "rn/image": vector, "rn/image_norm": 1.0, "similarity": 0.5}
        text = {"rn/text": vector, "rn/text_norm": 1.0, "similarity": 0.5}
        tables = {
            "image_embeddings": ([row | image for row in images], schema.image_embeddings({"rn": 2})),
            "caption_embeddings": ([row | text for row in captions], schema.caption_embeddings({"rn": 2})),
        }
        with store.attempt(task) as attempt:
            for name, (rows, layout) in tables.items():
                attempt.write_table(name, pa.Table.from_pylist(rows, schema=layout))
            attempt.commit(RowCounts(rows_in=len(images), kept=len(images)))
    return tasks


def all_chosen(context: Context) -> list[ShardTask]:
    """Stand in for curate: every picture is kept."""
    tasks = context.partitioned()
    for task in context.pending(tasks):
        embed = context.store.read_shard(task.inputs["embed"][0])
        uids = context.store.read(embed, "image_embeddings", ["uid"])["uid"].to_pylist()
        rows = [{"uid": uid, "keep": True} for uid in uids]
        with context.store.attempt(task) as attempt:
            attempt.write_table("selection", pa.Table.from_pylist(rows, schema=schema.SELECTION))
            attempt.commit(RowCounts(rows_in=len(rows), kept=len(rows)))
    return tasks


def stages_to_pack(recipe: Any) -> list[Stage]:
    return [
        Plan(),
        Download(),
        stage("embed", vectors, ("download",), ("embed",), partition="download"),
        stage("curate", all_chosen, ("embed",), (), partition="embed"),
        Pack(),
    ]


class Flow:
    """A run over a list of sixty pictures in six shards, in this process."""

    def __init__(self, folder: Path, site: Site, capture: pytest.CaptureFixture[str]) -> None:
        self.stages = stages
        self.site, self._capture, self.folder = site, capture, folder
        lines = [f"{url(n)},caption {n}" for n in range(NUM_ROWS)]
        (folder / "list.csv").write_text("url,caption\n" + "\n".join(lines) + "\n")
        self.recipe = folder / "recipe.yaml"
        self.recipe.write_text(
            f"name: run\nroot: {folder}/runs\n"
            f"plan: {{input: {folder}/list.csv, number_sample_per_shard: {PER_SHARD}}}\n"
            "embed: {towers: [{name: rn, model: RN50, pretrained: random}]}\n"
        )
        self.said = ""

    def run(self, *arguments: str, code: int = 0) -> list[str]:
        """Run the command; return the shards that the stages after download made."""
        MADE.clear()
        self.site.asked.clear()
        self._capture.readouterr()
        found = command.main(
            self.stages,
            lambda run: None,
            argv=[str(self.recipe), *arguments],
            canonical=canonical_url,
        )
        out, self.complained = self._capture.readouterr()
        self.said = out
        assert found == code, out + self.complained
        return list(MADE)

    def opened(self) -> Run:
        return Run.open(self.folder / "runs" / "run")

    def rows(self, stage: str, table: str) -> pa.Table:
        run = self.opened()
        return pa.concat_tables([run.store.read(shard, table) for shard in run.shards(stage)])


@pytest.fixture
def flow(
    in_process: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], Flow]:
    from corgi.download import stage as download

    def build(name: str) -> Flow:
        (tmp_path / name).mkdir()
        made = Flow(tmp_path / name, Site(), capsys)
        monkeypatch.setattr(download, "new_engine", lambda *_: made.site)
        return made

    monkeypatch.setattr(command.cluster, "shutdown", lambda: None)
    monkeypatch.setattr(command.signal, "signal", lambda *_: None)
    return build


@pytest.fixture
def finished(flow: Callable[[str], Flow]) -> Flow:
    made = flow("one")
    made.run()
    return made


def shard(number: int) -> str:
    return f"{int(uid(canonical_url(url(number)))[:16], 16) * 6 >> 64:05d}"


def test_a_retry_asks_only_for_what_failed_and_redoes_only_touched_shards(finished: Flow, flow: Any):
    finished.site.failing = {44: Reason.HTTP_STATUS}
    made = finished.run("--retry-failed", "reason=timeout,dns")
    assert sorted(finished.site.asked) == sorted(url(n) for n in (7, 23, 31))
    assert sorted(made) == sorted({shard(n) for n in (7, 23, 31)} | {"all"})
    rows = finished.opened().stages()["download"].rows
    assert rows.rejected == {Reason.HTTP_STATUS: 1}
    assert finished.opened().stages()["download"].path.endswith("manifest-1.json")
    fresh = flow("two")
    fresh.site.failing = {44: Reason.HTTP_STATUS}
    fresh.run()
    for name, table in (("download", "images"), ("download", "captions"), ("embed", "image_embeddings")):
        assert table_digest(finished.rows(name, table)) == table_digest(fresh.rows(name, table))
    assert ledger(finished) == ledger(fresh)
    facts = [[s.facts for s in one.opened().shards("download")] for one in (finished, fresh)]
    assert facts[0] == facts[1]


def ledger(flow: Flow) -> str:
    """Return the ledger's digest; the list's own digest is part of its key, and both lists are the same."""
    return table_digest(flow.rows("download", "ledger"))


def test_a_second_run_after_a_retry_does_nothing(finished: Flow):
    finished.site.failing = {}
    finished.run("--retry-failed", "reason=timeout")
    assert finished.run() == []
    assert finished.site.asked == []
    finished.run("--retry-failed", "reason=timeout")
    assert finished.site.asked == []


def test_an_interrupted_retry_goes_on_by_shard(finished: Flow, monkeypatch: pytest.MonkeyPatch):
    finished.site.failing = {}
    attempt, made = Store.attempt, []

    def once(self: Store, task: ShardTask) -> Any:
        if made:
            raise KeyboardInterrupt
        made.append(task)
        return attempt(self, task)

    monkeypatch.setattr(Store, "attempt", once)
    finished.run("--retry-failed", "reason=timeout,dns,http_status", code=130)
    first = set(finished.site.asked)
    monkeypatch.setattr(Store, "attempt", attempt)
    finished.run("--retry-failed", "reason=timeout,dns,http_status")
    done = [url(n) for n in FAILING if shard(n) == made[0].shard]
    assert set(finished.site.asked) == {url(n) for n in FAILING} - set(done)
    assert set(done) <= first
    assert finished.opened().stages()["download"].rows.rejected == {}


@pytest.mark.parametrize("text", ["timeout", "reason=", "reason=late", "why=timeout"])
def test_a_wrong_reason_is_one_line(finished: Flow, text: str):
    finished.run("--retry-failed", text, code=2)
    assert len(finished.complained.splitlines()) == 1
    assert "--retry-failed" in finished.complained


def test_what_is_taken_down_is_in_no_file_and_stays_out(finished: Flow):
    names = [uid(canonical_url(url(3))), "HTTP://site.test:80/11.png", content(19)]
    gone = {uid(canonical_url(url(n))) for n in (3, 11, 19)}
    (finished.folder / "names.txt").write_text("# by request\n" + "\n".join(names) + "\n")
    finished.run("--take-down", str(finished.folder / "names.txt"))
    assert finished.site.asked == []
    assert "had seen them: prior" in finished.said
    store = finished.opened().store
    held = [path for path in store.root.rglob("*.parquet") if mentions(path, gone)]
    assert held == []
    assert read_taken_down(store.storage).uids >= gone
    touched = {shard(n) for n in (3, 11, 19)}
    assert sorted(finished.run()) == sorted({*touched, "all"})
    assert finished.site.asked == []
    plan, download = finished.opened().stages()["plan"].rows, finished.opened().stages()["download"].rows
    assert plan.rejected == {Reason.TAKEN_DOWN: 3}
    assert download.rows_in == plan.kept == NUM_ROWS - 3
    finished.run("--force", "--until", "download")
    assert url(3) not in finished.site.asked
    assert [path for path in store.root.rglob("*.parquet") if mentions(path, gone)] == []


def test_a_row_taken_down_leaves_the_training_table_and_lineage_names_its_shards(
    flow: Callable[[str], Flow],
) -> None:
    made = flow("packed")
    made.stages = stages_to_pack
    made.run()
    before = {entry.shard: entry.path for entry in made.opened().stages()["pack"].shards}
    kept, gone, of = made.rows("pack", "rows")["uid"].to_pylist(), uid(canonical_url(url(3))), shard(3)
    assert gone in kept
    (made.folder / "names.txt").write_text(url(3) + "\n")
    made.run("--take-down", str(made.folder / "names.txt"))
    store = made.opened().store
    assert not (store.root / before[of]).exists()
    assert [path for path in (store.root / "pack").rglob("*.parquet") if mentions(path, {gone})] == []
    made.run()
    assert sorted(made.rows("pack", "rows")["uid"].to_pylist()) == sorted({*kept} - {gone})
    after = {entry.shard: entry for entry in made.opened().stages()["pack"].shards}
    assert {name for name, entry in after.items() if entry.path != before[name]} == {of}
    made.run("--lineage", "--of", "pack")
    told = [line.strip() for line in made.said.splitlines()]
    for name, entry in after.items():
        assert f"shard {name}: {entry.path} {entry.digest}" in told


@pytest.mark.law
def test_only_shards_that_may_hold_a_row_are_read(finished: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a table nor a manifest of any other: of the versions that stay, a closing knows what it says by the stage's index."""
    names = [url(3), url(11)]
    (finished.folder / "names.txt").write_text("\n".join(names) + "\n")
    read, opened = set[str](), set[str]()
    real, real_shard = Store.read, Store.read_shard

    def counted(self: Store, manifest: Any, *more: Any) -> pa.Table:
        read.add(manifest.shard)
        return real(self, manifest, *more)

    def counted_shard(self: Store, path: str) -> ShardManifest:
        found = real_shard(self, path)
        opened.add(found.shard)
        return found

    monkeypatch.setattr(Store, "read", counted)
    monkeypatch.setattr(Store, "read_shard", counted_shard)
    finished.run("--take-down", str(finished.folder / "names.txt"))
    assert read == opened - {"all"} == {shard(3), shard(11)}  # "all": of stages that have one shard
    assert len(read) < 6


def test_identities_that_a_list_brought_are_found_through_the_plan(flow: Callable[[str], Flow]) -> None:
    made = flow("own-uids")
    lines = [f"{url(n)},caption {n},{n * 7919 % 100_003:032x}" for n in range(NUM_ROWS)]
    (made.folder / "list.csv").write_text("url,caption,id\n" + "\n".join(lines) + "\n")
    made.run("plan.uid_col=id")
    gone = {f"{n * 7919 % 100_003:032x}" for n in (3, 11, 19)}
    names = [f"{3 * 7919 % 100_003:032x}", url(11), content(19)]
    (made.folder / "names.txt").write_text("\n".join(names) + "\n")
    made.run("plan.uid_col=id", "--take-down", str(made.folder / "names.txt"))
    store = made.opened().store
    assert [path for path in store.root.rglob("*.parquet") if mentions(path, gone)] == []
    assert read_taken_down(store.storage).uids >= gone
    assert made.opened().stages()["plan"].rows.rejected == {Reason.TAKEN_DOWN: 3}


def test_a_row_that_was_blocked_and_then_taken_down_counts_once(flow: Callable[[str], Flow]) -> None:
    made = flow("blocked")
    (made.folder / "blocked.txt").write_text(f"{url(3)}\n{url(5)}\n")
    blocked = f"plan.block_urls=[{made.folder}/blocked.txt]"
    made.run(blocked)
    assert made.opened().stages()["plan"].rows.rejected == {Reason.BLOCKED_URL: 2}
    (made.folder / "names.txt").write_text(f"{url(3)}\n{url(11)}\n")
    made.run(blocked, "--take-down", str(made.folder / "names.txt"))
    rows = made.opened().stages()["plan"].rows
    assert rows.rejected == {Reason.BLOCKED_URL: 1, Reason.TAKEN_DOWN: 2}
    assert rows.kept == NUM_ROWS - 3
    made.run(blocked, "--force", "--until", "plan")
    assert made.opened().stages()["plan"].rows == rows


def mentions(path: Path, uids: set[str]) -> bool:
    import pyarrow.parquet as pq

    table = pq.ParquetFile(path).read()
    if "uid" not in table.column_names:  # an index of a stage's shards
        return any(uid in str(table.to_pylist()) for uid in uids)
    return bool(uids & set(table["uid"].to_pylist()))


def test_bytes_taken_down_are_not_taken_in_again_under_another_url(finished: Flow):
    (finished.folder / "names.txt").write_text(content(7) + "\n")
    finished.run("--take-down", str(finished.folder / "names.txt"))
    finished.site.failing = {}
    finished.run("--retry-failed", "reason=timeout")
    rejected = finished.opened().stages()["download"].rows.rejected
    assert rejected == {Reason.DNS: 1, Reason.HTTP_STATUS: 1, Reason.TAKEN_DOWN: 1}


def test_a_take_down_stopped_anywhere_goes_on(finished: Flow, monkeypatch: pytest.MonkeyPatch):
    (finished.folder / "names.txt").write_text("\n".join(url(n) for n in (3, 11, 19)) + "\n")
    gone = {uid(canonical_url(url(n))) for n in (3, 11, 19)}
    close = Store.close
    for point in range(3):
        calls = []

        def stop(self: Store, manifest: Any, point: int = point, calls: list[int] = calls) -> Any:
            calls.append(1)
            if len(calls) > point:
                raise KeyboardInterrupt
            return close(self, manifest)

        monkeypatch.setattr(Store, "close", stop)
        finished.run("--take-down", str(finished.folder / "names.txt"), code=130 if point < 2 else 0)
    monkeypatch.setattr(Store, "close", close)
    finished.run("--take-down", str(finished.folder / "names.txt"))
    finished.run()
    store = finished.opened().store
    assert [path for path in store.root.rglob("*.parquet") if mentions(path, gone)] == []
    assert finished.opened().stages()["download"].rows.rows_in == NUM_ROWS - 3


@pytest.mark.parametrize("text", ["", "not a name\n", "# only words\n"])
def test_a_file_that_names_nothing_is_one_line(finished: Flow, text: str):
    (finished.folder / "names.txt").write_text(text)
    finished.run("--take-down", str(finished.folder / "names.txt"), code=3)
    assert len(finished.complained.splitlines()) == 1
