"""What a user can ask of a run: status, lineage, every byte, and what nothing refers to."""

import random
import re
import subprocess

import pytest

from corgi.flow import code, locks
from corgi.flow.dag import open_dag
from corgi.settings.recipe import load
from corgi.tables.stage_index import index_name
from tests.flow.conftest import ALL
from tests.support import toy_stages


def files(toy):
    store = toy.root / "store"
    return {str(path.relative_to(store)) for path in store.rglob("*") if path.is_file()}


@pytest.mark.parametrize("flag", ["--status", "--lineage", "--verify"])
def test_a_run_that_does_not_exist_is_one_line_and_exit_3(toy, one_line, flag):
    one_line(toy.run(flag, "name=nobody"), "InputError", "there is no run nobody at ")
    assert not (toy.root / "nobody").exists()


def test_verify_hashes_every_file_and_names_what_is_wrong(finished, one_line):
    assert finished.run("--verify") == 0
    assert [line.split()[:3] for line in finished.said.splitlines()] == [
        ["numbers", "5", "files"],
        ["squares", "5", "files"],
        ["total", "2", "files"],
    ]
    run, rng = finished.opened(), random.Random(0)
    shards = [run.shards(stage)[n] for stage, n in (("numbers", 1), ("squares", 2), ("total", 0))]
    paths = [run.store.path(shard, "rows") for shard in shards]
    for path in paths:
        data = bytearray(path.read_bytes())
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
    one_line(finished.run("--verify"), "StorageError", f"{paths[0]} does not match its sha256: expected ")
    assert "and 2 more" in finished.complained
    assert all(str(path) in finished.said for path in paths)
    paths[0].write_bytes(b"")
    one_line(finished.run("--verify"), "StorageError", f"{paths[0]} has 0 bytes, its manifest says ")


def test_verify_names_an_index_that_is_not_as_written(finished, one_line):
    run = finished.opened()
    index = run.store.root / (index_name(run.stages()["squares"]) or "")
    index.write_bytes(index.read_bytes()[:-1])
    one_line(finished.run("--verify"), "StorageError", f"{index} does not match its sha256 ")


def test_gc_shows_first_and_removes_only_what_no_run_refers_to(finished):
    before = files(finished)
    assert finished.run("--gc") == 0
    assert files(finished) == before
    assert finished.run("name=other", "download.image_size=64") == 0
    both = files(finished)
    assert finished.run("--gc") == 0
    assert files(finished) == both
    assert finished.run("name=other", "--only", "squares", "--force", "download.image_size=64") == 0
    private = finished.root / "store" / "squares" / "left" / "0123-rows.parquet"
    private.parent.mkdir()
    private.write_bytes(b"left by a kill")
    with_garbage = files(finished)
    assert finished.run("--plan", "--gc") == 0
    assert files(finished) == with_garbage
    shown = finished.said
    assert "left/0123-rows.parquet" in shown
    assert finished.run("--gc") == 0
    assert finished.said.splitlines()[:-1] == shown.splitlines()[:-1]
    assert len(files(finished)) == len(both)
    finished.made()
    for name, setting in (("toy", 256), ("other", 64)):
        assert finished.run(f"name={name}", f"download.image_size={setting}") == 0
        assert finished.run("--verify", f"name={name}") == 0
    assert finished.made() == []


def test_status_tells_the_bytes_of_each_stage_and_what_gc_would_free(finished):
    assert finished.run("download.image_size=64") == 0
    assert finished.run() == 0  # what the other setting made is nobody's now
    store, run = finished.root / "store", finished.opened()
    listed = {
        name: sum(
            run.store.path(shard, entry.table).stat().st_size for shard in shards for entry in shard.files
        )
        for name, shards in ((name, run.shards(name)) for name in run.stages())
    }
    assert finished.run("--status") == 0
    *stages, last = finished.said.splitlines()
    assert {line.split()[0]: int(re.findall(r"(\d+) bytes", line)[0]) for line in stages} == listed
    assert min(listed.values()) > 0
    told = [int(number) for number in re.findall(r"\d+", last)]
    before = sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
    assert finished.run("--gc") == 0
    freed = before - sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
    assert told == [freed, int(finished.said.split()[-4])]
    assert freed > 0
    assert finished.run("--status") == 0
    assert finished.said.splitlines()[-1].startswith("--gc would free 0 bytes in 0 files")


def test_gc_removes_links_to_what_is_gone_and_the_folders_that_held_them(finished):
    """Beside its offline runs W&B keeps a link to the newest."""
    wandb = finished.root / "store" / "squares" / "left" / "work" / "wandb"
    (wandb / "offline-run").mkdir(parents=True)
    (wandb / "offline-run" / "debug.log").write_bytes(b"left by a kill")
    (wandb / "latest-run").symlink_to("offline-run")
    assert finished.run("--gc") == 0
    assert not (finished.root / "store" / "squares" / "left").exists()
    assert finished.run("--verify") == 0


def test_gc_leaves_what_an_unfinished_run_will_take_up(toy):
    toy.steer(stop="squares 2")
    assert toy.run() == 130
    assert toy.run("--gc") == 0
    assert "removed 0 files" in toy.said
    toy.release("stop")
    toy.made()
    assert toy.run() == 0
    assert toy.made() == ALL[6:]


def test_gc_goes_nowhere_while_a_run_is_held(finished, one_line):
    before = files(finished)
    with locks.held(finished.root / "toy"):
        one_line(finished.run("--gc"), "ClusterError", "run toy is held by process")
    assert files(finished) == before


def test_lineage_of_one_thing_names_only_what_it_came_from(finished):
    run = finished.opened()
    assert finished.run("--lineage", "--of", "squares") == 0
    named = re.findall(r"^(\w+): ", finished.said, re.MULTILINE)
    assert named == ["numbers", "squares"]
    for shard in run.shards("squares"):
        assert shard.path in finished.said
    file = run.store.path(run.shards("total")[0], "rows")
    assert finished.run("--lineage", "--of", str(file)) == 0
    assert re.findall(r"^(\w+): ", finished.said, re.MULTILINE) == ["numbers", "squares", "total"]
    assert finished.run("--lineage", "--of", str(finished.root / "toy" / "report.html")) == 0


def test_lineage_of_what_is_not_there_is_one_line(finished, one_line):
    one_line(finished.run("--lineage", "--of", "cubes"), "InputError", "--of cubes")


def test_a_commit_is_found_by_the_digest_of_its_code(monkeypatch, tmp_path):
    monkeypatch.setattr(code, "HOME", tmp_path)
    author = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    digests, commits = [], []
    for text in ("x = 1\n", "x = 'é'\n", "x = 3\n"):
        for name in ("corgi/a/b.py", "corgi/a.py", "corgi/a/notes.txt", "pipelines/full.py"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        subprocess.run(["git", "add", "."], cwd=tmp_path, check=True)
        subprocess.run(["git", *author, "commit", "-qm", "one"], cwd=tmp_path, check=True)
        digests.append(code.code_digest.__wrapped__())
        commits.append(code.git_commit.__wrapped__())
    assert [code.commit_of.__wrapped__(digest) for digest in digests] == commits
    assert code.commit_of.__wrapped__("0" * 32) is None


def test_each_content_is_read_once_and_no_commit_is_searched_for_no_code(monkeypatch, tmp_path):
    monkeypatch.setattr(code, "HOME", tmp_path)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / "corgi").mkdir()
    (tmp_path / "corgi" / "still.py").write_text("x = 1\n")
    for number in range(3):
        (tmp_path / "corgi" / "changed.py").write_text(f"x = {number + 2}\n")
        subprocess.run(["git", "add", "."], cwd=tmp_path, check=True)
        author = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", *author, "commit", "-qm", "one"], cwd=tmp_path, check=True)
    asked: list[str] = []
    run = code.subprocess.run

    def noted(command, **options):
        asked.extend((options.get("input") or command[1].encode()).decode().split())
        return run(command, **options)

    monkeypatch.setattr(code.subprocess, "run", noted)
    assert code.commit_of.__wrapped__("") is None
    assert asked == []
    assert code.commit_of.__wrapped__("0" * 32) is None
    contents = [one for one in asked if len(one) == 40]
    assert len(contents) == len(set(contents)) == 4


def test_a_scratch_folder_is_held_by_the_run_that_works_in_it(toy):
    """Two runs of different names share a shard key, and with it the folder of its checkpoints."""
    from corgi.settings.errors import ClusterError

    recipes = [load(toy.recipe, [f"name={name}"]) for name in ("one", "two")]
    dags = [open_dag(toy_stages.stages(recipe), recipe) for recipe in recipes]
    contexts = [dag.context(dag.stages[0], {}) for dag in dags]
    tasks = [context.task("all") for context in contexts]
    folder = contexts[0].work_folder(tasks[0])
    with pytest.raises(
        ClusterError, match=r"numbers of run two is held by process \d+ on .*numbers of run one"
    ) as found:
        contexts[1].work_folder(tasks[1])
    assert "\n" not in str(found.value)
    assert found.value.exit_code == 5
    contexts[0].locks.close()
    assert contexts[1].work_folder(tasks[1]) == folder
    contexts[1].locks.close()
