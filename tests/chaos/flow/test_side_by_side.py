"""Prior and decoder trained at once by full.py on one cluster: both go on, and both are what they are one after the other."""

import subprocess
from pathlib import Path

import pytest

from tests.chaos.training.test_demo import HOME, committed, ended, fresh, made, start, wait_for
from tests.support.process_tree import kill_tree
from tests.support.smoke_run import Smoke

IN_TURN, AT_ONCE = "cluster.num_cpus=4", "cluster.num_cpus=6"
"""Two workers each and one CPU to spare: five are wanted."""
LONG = ("prior.variants=[shifted]", "prior.training.num_steps=500", "decoder.training.num_steps=500")
STAGES = ("prior", "decoder")


def said(root: Path) -> list[str]:
    """Return the lines of the log file that the command named on the screen: the screen itself shows no worker's lines."""
    screen = Path(f"{root}.log").read_text().splitlines()
    [name] = [line.removeprefix("log: ") for line in screen if line.startswith("log: ")]
    return (HOME / name).read_text().splitlines()


def first(lines: list[str], *words: str) -> int:
    return next(number for number, line in enumerate(lines) if all(word in line for word in words))


def both(smoke: Smoke, root: Path, room: str) -> subprocess.Popen:
    return start("full", smoke, root, "--until", "decoder", room, *LONG)


@pytest.fixture(scope="module")
def in_turn(smoke: Smoke, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a root in which the decoder was trained after the prior, as there was no room."""
    root = fresh(smoke, tmp_path_factory.mktemp("in-turn") / "runs", *STAGES)
    ended(both(smoke, root, IN_TURN), root)
    return root


def test_without_room_one_follows_the_other(in_turn: Path) -> None:
    lines = said(in_turn)
    assert (
        first(lines, "] prior: runs") < first(lines, "] prior: ", " in = ") < first(lines, "] decoder: runs")
    )


@pytest.mark.timeout(600)
def test_with_room_both_go_on_at_once_and_are_the_same_models(
    smoke: Smoke, in_turn: Path, tmp_path: Path
) -> None:
    root = fresh(smoke, tmp_path / "runs", *STAGES)
    ended(both(smoke, root, AT_ONCE), root)
    lines = said(root)
    assert first(lines, "] prior: runs at the same time as later stages") < first(lines, "] decoder: runs")
    begun = max(first(lines, "prior-shifted: step"), first(lines, ")", "decoder: step"))
    assert begun < min(first(lines, "prior-shifted: done"), first(lines, "decoder: done")), "one waited"
    assert [made(root, stage) == made(in_turn, stage) for stage in STAGES] == [True, True]


@pytest.mark.timeout(600)
def test_killed_while_both_train_both_go_on(smoke: Smoke, in_turn: Path, tmp_path: Path) -> None:
    root = fresh(smoke, tmp_path / "runs", *STAGES)
    process = both(smoke, root, AT_ONCE)
    wait_for(lambda: all(committed(root, stage) for stage in STAGES), process, root)
    kill_tree(process)
    assert not list(root.glob("store/*/*/work/*/final/weights.safetensors")), "one had ended already"
    ended(both(smoke, root, AT_ONCE), root)
    assert [made(root, stage) == made(in_turn, stage) for stage in STAGES] == [True, True]
