"""The command line: flags, exit codes, one line for what a user can cause, and a run held by one process."""

import json
import os
import signal

import pytest

from corgi.flow import command
from corgi.settings.errors import ClusterError
from tests.flow.conftest import ALL
from tests.support.waiting import PATIENCE_S, wait_until


def tree(folder):
    return sorted(str(path) for path in folder.rglob("*"))


def test_plan_starts_nothing(toy):
    before = tree(toy.root)
    assert toy.run("--plan") == 0
    assert toy.said.splitlines() == [
        "numbers      would run",
        "squares      would run when its inputs are complete",
        "total        would run when its inputs are complete",
    ]
    assert tree(toy.root) == before


def test_plan_says_what_is_done(finished):
    assert finished.run("--plan", "shift.num_clusters=3") == 0
    assert finished.said.splitlines() == [
        "numbers      done      4 shards, 12 of 12 rows kept",
        "squares      done      4 shards, 12 of 12 rows kept",
        "total        would run",
        "               redone because: shift.num_clusters 16 -> 3",
    ]
    assert finished.run("--plan", "--force", "--only", "squares") == 0
    assert finished.said.startswith("squares      would run")
    assert finished.made() == []


def test_status_and_lineage_lead_back_to_every_manifest(finished):
    assert finished.run("--status") == 0
    assert [line.split()[:3] for line in finished.said.splitlines()[:-1]] == [
        ["numbers", "4", "shards"],
        ["squares", "4", "shards"],
        ["total", "1", "shards"],
    ]
    assert finished.run("--lineage") == 0
    for manifest in finished.opened().stages().values():
        assert manifest.path in finished.said
        assert manifest.digest in finished.said
        assert manifest.code in finished.said


def test_the_resolved_recipe_lies_beside_the_results(finished):
    facts = json.loads((finished.root / "toy" / "run.json").read_text())
    assert facts["recipe"]["shift"]["num_iterations"] == 25
    assert list(facts["stages"]) == ["numbers", "squares", "total"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--only", "cubes"], "no stage 'cubes'"),
        (["--from", "cubes"], "the stages are numbers, squares, total"),
        (["--from", "total", "--until", "numbers"], "--from total comes after --until numbers"),
        (["shift.clusters=3"], "shift.clusters: no such setting"),
        (["shift.num_clusters=0"], "shift.num_clusters=0"),
        (["a b"], "'a b' is not key.path=value"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_starts_nothing(toy, one_line, arguments, words):
    before = tree(toy.root)
    one_line(toy.run(*arguments), "SettingsError", words)
    assert tree(toy.root) == before


def test_a_body_may_refuse_its_input(toy, one_line):
    toy.steer(refuse="squares")
    one_line(toy.run(), "InputError", "the numbers are odd; nothing is lost; hand in even ones")
    assert toy.made() == ALL[:4]


def test_an_error_of_our_own_is_not_hidden(toy, monkeypatch):
    monkeypatch.setattr("tests.support.toy_stages.numbers", lambda context: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        toy.run()


def test_two_holders_are_refused_with_the_first_one_named(toy, one_line, promise):
    with command.held(toy.root / "toy"):
        one_line(toy.run(), "ClusterError", f"held by process {os.getpid()} on ")
        assert toy.run("--plan") == 0  # looking is free
        assert toy.run("name=other", "--until", "numbers") == 0  # another run is another matter
    assert toy.run() == 0
    promise(5, "second driver of a held run: exit 5, one line that names the first")


def test_a_hold_ends_with_its_process(toy, one_line):
    toy.steer(wait="numbers 1")
    process = toy.start()
    wait_for(toy.root / "waiting")
    one_line(toy.run(), "ClusterError", f"held by process {process.pid} on ")
    process.kill()
    process.communicate(timeout=PATIENCE_S)
    toy.release("wait")
    assert toy.run() == 0
    assert toy.made() == ALL
    with command.held(toy.root / "toy"), pytest.raises(ClusterError), command.held(toy.root / "toy"):
        pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_a_cancelled_job_keep_committed_work_and_say_so(toy, number):
    toy.steer(wait="squares 2")
    process = toy.start()
    wait_for(toy.root / "waiting")
    process.send_signal(number)
    complained = process.communicate(timeout=PATIENCE_S)[1]
    assert process.returncode == 130
    assert complained.splitlines() == ["stopped; committed work is kept; run the same command to continue"]
    toy.release("wait")
    assert toy.run() == 0
    assert toy.made() == ALL


def wait_for(path):
    wait_until(path.exists, f"{path} is there")


def test_a_submitted_job_needs_an_absolute_root(toy, one_line, monkeypatch):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    one_line(toy.run("root=runs"), "SettingsError", "root='runs' is relative")
    assert toy.run("--until", "numbers") == 0


def test_a_root_that_cannot_be_written_is_one_line(toy, one_line):
    (toy.root / "file").write_text("in the way")
    one_line(toy.run(f"root={toy.root / 'file'}"), "StorageError", str(toy.root / "file"))


def test_a_damaged_run_file_is_one_line(finished, one_line):
    path = finished.root / "toy" / "run.json"
    path.write_text('{"stages": ')
    one_line(finished.run(), "StorageError", f"{path} is damaged")
    path.unlink()
    assert finished.run() == 0
    assert finished.made() == []


def test_a_script_of_one_stage_runs_that_stage(toy):
    from tests.support import toy_stages

    assert command.main(toy_stages.stages, toy_stages.report, only="numbers", argv=toy.argv) == 0
    assert toy.made() == ALL[:4]


def test_a_plan_prints_the_cost_of_what_would_run(toy, capsys):
    from tests.support import toy_stages

    def stages(recipe):
        numbers = toy_stages.stages(recipe)[0]
        vars(numbers).update(cost=lambda recipe, num_rows: [f"{recipe.name} costs nothing"])
        return [numbers]

    assert command.main(stages, toy_stages.report, argv=[*toy.argv, "--plan"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said == ["numbers      would run", "               toy costs nothing"]


def test_run_json_tells_the_order_and_the_headings_of_its_stages(finished):
    facts = finished.opened().facts
    assert facts["order"] == ["numbers", "squares", "total"]
    assert facts["headings"]["squares"] == ["Squares", "Of numbers."]
    finished.opened().note(headings={**facts["headings"], "other": ["Of another pipeline", ""]})
    assert finished.run() == 0
    assert set(finished.opened().facts["headings"]) == {"numbers", "squares", "total", "other"}


def test_what_was_computed_of_lists_is_in_run_json_and_is_taken_over(finished, monkeypatch):
    """A command of a finished run hashes no list before it speaks."""
    told = {"sha256_of /lists/a.csv": [[1, 2, 3], "ab"]}
    monkeypatch.setattr(command.file_memory, "told", lambda: told)
    assert finished.run() == 0
    taken = []
    monkeypatch.setattr(command.file_memory, "take_over", taken.append)
    assert finished.run("--plan") == 0
    assert taken == [told]
