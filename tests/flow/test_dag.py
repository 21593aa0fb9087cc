"""Keys, order and resume: work is done once, redone exactly where its meaning changed, and never mixed."""

import json

import pytest

from corgi.flow.code import code_digest
from corgi.flow.context import Context
from corgi.flow.dag import Selection
from corgi.flow.stage import Stage
from corgi.settings.errors import SettingsError
from corgi.settings.recipe import load
from corgi.tables.run import Run
from corgi.tables.store import Store
from tests.flow.conftest import ALL, Toy
from tests.support import toy_stages
from tests.support.stages import stage
from tests.support.table_digest import table_digest
from tests.support.waiting import PATIENCE_S

NUMBERS, SQUARES, TOTAL = ALL[:4], ALL[4:8], ALL[8:]


def test_stages_run_in_order_and_once(finished):
    assert finished.total() == sum(n**2 for n in range(12))
    assert finished.run() == 0
    assert finished.made() == []
    assert "0 stages ran" in finished.said
    assert (finished.root / "toy" / "report.html").read_text() == "numbers squares total"


def test_a_finished_run_imports_neither_ray_nor_torch(finished):
    process = finished.start()
    said, complained = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, complained) == (0, "")
    assert said.splitlines()[-1] == "imported:"
    assert finished.made() == []


@pytest.mark.parametrize(
    ("override", "redone"),
    [
        ("plan.seed=5", NUMBERS + SQUARES),  # the squares come out as before: nothing after them is redone
        ("download.image_size=64", SQUARES + TOTAL),
        ("shift.num_clusters=3", TOTAL),
        ("prior.depth=3", []),
    ],
)
def test_a_changed_setting_redoes_its_stage_and_what_follows(finished, override, redone):
    assert finished.run(override) == 0
    assert finished.made() == redone
    assert finished.run() == 0
    assert finished.made() == []  # the first results are still there


def test_a_plan_names_the_shards_of_selected_stages_alone(toy, monkeypatch):
    toy.steer(stop="squares 0")
    assert toy.run() == 130
    named, real = [], Context.partitioned
    monkeypatch.setattr(Context, "partitioned", lambda self: (named.append(self.stage.name), real(self))[1])
    assert toy.run("--plan", "--only", "numbers") == 0
    assert named == []
    assert toy.run("--plan") == 0
    assert named == ["squares"]


def test_a_plan_of_a_finished_run_reads_no_manifest_of_a_stage(finished, monkeypatch):
    """They list every shard. A run of before, which noted less, and a newer closing are read."""
    read, real = [], Store.read_stage
    monkeypatch.setattr(Store, "read_stage", lambda self, path: (read.append(path), real(self, path))[1])
    assert finished.run("--plan") == 0
    assert finished.said.count("done ") == 3
    assert read == []
    told = finished.said
    path = finished.root / "toy" / "run.json"
    facts = json.loads(path.read_text())
    for entry in facts["stages"].values():
        del entry["shards"], entry["rows"]
    path.write_text(json.dumps(facts))
    assert finished.run("--plan") == 0
    assert finished.said == told
    assert len(set(read)) == 3
    assert finished.run() == 0
    finished.run("--only", "total", "--force")
    read.clear()
    facts["stages"]["total"]["path"] = facts["stages"]["total"]["path"].replace("manifest-1", "manifest-0")
    path.write_text(json.dumps(facts))
    assert finished.run("--plan") == 0
    assert any(name.startswith("total/closed/") for name in read)


@pytest.mark.parametrize(
    "override",
    ["download.connections=3", "download.num_actors=2", "plan.input=other.csv", "cluster.num_cpus=5"],
)
def test_a_changed_neutral_setting_redoes_nothing(finished, override):
    assert finished.run(override) == 0
    assert finished.made() == []


def test_what_lies_outside_the_store_is_part_of_the_key(finished):
    finished.steer(outside="another list")
    assert finished.run() == 0
    assert finished.made() == []  # the stage ran, found every shard committed, and closed
    assert "numbers: runs" in finished.said


def test_an_interrupted_stage_goes_on_by_shard(toy, promise):
    toy.steer(stop="squares 2")
    assert toy.run() == 130
    assert toy.made() == NUMBERS + SQUARES[:2]
    toy.release("stop")
    assert toy.run("--plan") == 0
    assert "squares      would run 2 of 4 shards" in toy.said
    assert toy.run() == 0
    assert toy.made() == SQUARES[2:] + TOTAL
    assert toy.total() == sum(n**2 for n in range(12))
    promise(4, "stopped at half a stage: 0 of 6 committed shards made again")


def test_an_interrupted_run_ends_with_the_digests_of_an_unbroken_one(finished, tmp_path, capsys):
    (tmp_path / "other").mkdir()
    broken = Toy(tmp_path / "other", capsys)
    for place in ("numbers 1", "numbers 1", "squares 3", "total 0"):
        broken.steer(stop=place)
        assert broken.run() == 130
    broken.release("stop")
    assert broken.run() == 0
    assert sorted(broken.made()) == sorted(ALL)
    assert digests(broken) == digests(finished)


def digests(toy: Toy) -> dict[str, str]:
    return {name: manifest.digest for name, manifest in toy.opened().stages().items()}


def test_two_runs_share_finished_work(finished):
    assert finished.run("name=second") == 0
    assert finished.made() == []


def test_a_new_name_over_finished_work_has_a_report_of_its_own(finished):
    assert finished.run("name=second") == 0
    assert "0 stages ran" in finished.said
    page = finished.root / "second" / "report.html"
    assert page.read_text() == "numbers squares total"
    page.write_text("as it was")
    assert finished.run("name=second") == 0
    assert page.read_text() == "as it was"  # nothing has changed since it was written
    assert finished.run("name=second", "download.image_size=64", "--until", "squares") == 0
    assert finished.run("name=second") == 0
    assert page.read_text() == "numbers squares total"


def test_a_report_that_was_not_written_is_written_by_the_next_run(toy, monkeypatch):
    def interrupted(run):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(toy_stages, "report", interrupted)
        assert toy.run("--until", "numbers") == 130
    assert not (toy.root / "toy" / "report.html").exists()
    assert toy.run("--until", "numbers") == 0
    assert (toy.root / "toy" / "report.html").read_text() == "numbers"


def test_a_closed_stage_says_how_long_it_took(finished):
    seconds = {name: manifest.seconds for name, manifest in finished.opened().stages().items()}
    assert all(value is not None and value >= 0 for value in seconds.values())
    finished.run("name=second")
    again = Run.open(finished.root / "second").stages()
    assert {name: manifest.seconds for name, manifest in again.items()} == seconds


def test_force_makes_new_generations_and_leaves_the_rest(finished):
    before = finished.opened().stages()
    assert finished.run("--force", "--only", "squares") == 0
    assert finished.made() == SQUARES
    after = finished.opened().stages()
    assert after["squares"].digest == before["squares"].digest
    assert after["squares"].path.endswith("manifest-1.json")
    assert after["total"] == before["total"]
    assert finished.run() == 0
    assert finished.made() == []


def test_downstream_redoes_only_touched_shards(finished):
    finished.steer(salt="00002")
    assert finished.run("--force", "--only", "numbers") == 0
    assert finished.made() == NUMBERS
    assert finished.run() == 0
    assert finished.made() == ["squares/00002", *TOTAL]
    assert finished.total() == sum(n**2 for n in range(12) if n // 3 != 2) + sum(
        n**2 for n in (106, 107, 108)
    )


def test_until_and_from_and_only_choose_stages(toy):
    assert toy.run("--until", "squares") == 0
    assert toy.made() == NUMBERS + SQUARES
    assert toy.run("--only", "numbers") == 0
    assert toy.made() == []
    assert toy.run("--from", "total") == 0
    assert toy.made() == TOTAL
    assert toy.run("--force", "--from", "squares", "--until", "squares") == 0
    assert toy.made() == SQUARES


def test_a_stage_whose_inputs_are_not_complete_is_refused(toy, one_line):
    toy.steer(stop="numbers 2")
    assert toy.run() == 130
    one_line(toy.run("--only", "squares"), "InputError", "squares needs numbers, which is not complete")
    one_line(toy.run("--from", "total"), "InputError", "total needs squares")
    assert toy.made() == NUMBERS[:2]


def test_a_body_that_commits_too_little_is_refused(toy, one_line):
    toy.steer(skip="numbers 3")
    one_line(toy.run(), "StorageError", "numbers ended without committing shard 00003")
    assert toy.opened().stages() == {}
    toy.release("skip")
    assert toy.run() == 0
    assert toy.made() == [*NUMBERS, *SQUARES, *TOTAL]


def test_a_damaged_table_is_one_line_and_mended_by_what_it_advises(finished, one_line):
    run = finished.opened()
    path = run.store.path(run.shards("numbers")[1], "rows")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    one_line(finished.run("download.image_size=64"), "StorageError", str(path))
    assert "--only numbers --force" in finished.complained
    assert finished.run("--only", "numbers", "--force") == 0
    assert finished.run("download.image_size=64") == 0
    assert finished.total() == sum(n**2 for n in range(12))


def test_a_run_never_points_at_results_of_two_recipes(finished):
    finished.steer(stop="squares 1")
    assert finished.run("download.image_size=64") == 130
    assert list(finished.opened().stages()) == ["numbers"]
    finished.release("stop")
    assert finished.run("download.image_size=64") == 0
    stages = finished.opened().stages()
    assert list(stages) == ["numbers", "squares", "total"]
    assert stages["total"].inputs == {"squares": stages["squares"].path}
    assert finished.opened().facts["recipe"]["download"]["image_size"] == 64


def test_manifests_say_what_made_them(finished):
    for manifest in finished.opened().stages().values():
        assert manifest.code == code_digest()
        assert manifest.settings
        for shard in finished.opened().store.shards(manifest):
            assert (shard.code, shard.stage, shard.version) == (code_digest(), manifest.stage, 1)
    squares = finished.opened().shards("squares")
    numbers = finished.opened().shards("numbers")
    assert [shard.inputs["numbers"] for shard in squares] == [(shard.path,) for shard in numbers]


def test_equal_inputs_give_equal_bytes(finished, toy, promise):
    first = {m.shard: m for m in finished.opened().shards("squares")}
    assert toy.run(f"root={toy.root}", "name=again", "--force", "--only", "squares") == 0
    for shard in finished.opened().store.shards(finished.opened().stages()["squares"]):
        store = finished.opened().store
        assert store.path(shard, "rows").read_bytes() == store.path(first[shard.shard], "rows").read_bytes()
        assert table_digest(store.read(shard, "rows")) == table_digest(store.read(first[shard.shard], "rows"))
    promise(33, "made twice: 4 of 4 files byte-equal")


@pytest.mark.parametrize(
    ("selection", "chosen"),
    [
        (Selection(), "abc"),
        (Selection(first="b"), "bc"),
        (Selection(last="b"), "ab"),
        (Selection(first="b", last="b"), "b"),
        (Selection(only="c"), "c"),
    ],
)
def test_selection(selection, chosen):
    assert "".join(stage.name for stage in selection.of([stage(name) for name in "abc"])) == chosen


@pytest.mark.parametrize(
    "selection",
    [Selection(first="x"), Selection(last="x"), Selection(only="x"), Selection(first="c", last="a")],
)
def test_a_selection_that_names_nothing_is_refused(selection):
    with pytest.raises(SettingsError, match="nothing was started"):
        selection.of([stage(name) for name in "abc"])


def with_halves(finished: Toy) -> list[Stage]:
    """Return the toy's stages with one more, which only the last one reads and which is in no key."""
    halves = stage("halves", toy_stages.numbers, ("numbers",), ("plan",))
    before = toy_stages.stages(load(finished.recipe))
    return [
        *before[:2],
        halves,
        stage("total", toy_stages.total, ("squares",), ("shift",), reads=("halves",)),
    ]


def test_a_stage_that_is_only_read_is_made_where_its_reader_is(finished, monkeypatch):
    """A run that was finished before the stage existed needs it only once its reader is made again."""
    stages = with_halves(finished)
    monkeypatch.setattr(toy_stages, "stages", lambda recipe: stages)
    assert finished.run() == 0
    assert finished.made() == []
    assert finished.run("--plan") == 0
    assert [line.split()[0] for line in finished.said.splitlines()] == ["numbers", "squares", "total"]
    halves = [name.replace("numbers", "halves") for name in NUMBERS]
    assert finished.run("--only", "total", "shift.num_clusters=3") == 0
    assert finished.made() == halves + TOTAL
    assert finished.run("--from", "total", "shift.num_clusters=5") == 0
    assert finished.made() == TOTAL  # what it reads is there
    assert finished.run("--plan", "shift.num_clusters=5") == 0
    assert [line.split()[:2] for line in finished.said.splitlines()] == [
        [name, "done"] for name in ("numbers", "squares", "halves", "total")
    ]


def test_run_json_keeps_the_command_that_made_the_run(toy):
    assert toy.run("--until", "squares") == 0
    (first,) = toy.opened().facts["commands"].values()
    assert first.endswith("recipe.yaml --until squares")
    assert toy.run("plan.seed=5") == 0
    assert toy.run("plan.seed=5", "--force", "--only", "total") == 0
    (made_by,) = toy.opened().facts["commands"].values()
    assert made_by.endswith("recipe.yaml plan.seed=5")
