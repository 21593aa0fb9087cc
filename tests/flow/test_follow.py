"""A stage that follows another shard by shard: at once where there is room, the same tables, nothing lost whatever ends."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import follow_stages
from tests.support.process_tree import descendants
from tests.support.toy_command import Toy, recorded
from tests.support.waiting import PATIENCE_S, wait_until

pytestmark = pytest.mark.slow

TOY = Toy(follow_stages)
SHARDS = [f"{n:05d}" for n in range(follow_stages.NUM_SHARDS)]


@pytest.fixture(scope="module", autouse=True)
def _forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with TOY.forked(tmp_path_factory.mktemp("forks")):
        yield


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return TOY.root(tmp_path)


def made(root: Path) -> list[tuple[str, ...]]:
    return [tuple(line.split()) for line in (root / "made.txt").read_text().splitlines()]


def test_shards_are_made_as_their_inputs_come_and_are_those_of_one_stage_after_the_other(
    root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (root / "meet").touch()
    code, out, err = TOY.run(root)
    assert (code, err) == (0, "")
    assert "fine: follows raw, shard by shard" in out
    lines = made(root)
    assert [line for line in lines if line[0] == "fine"] == [("fine", shard, "follower") for shard in SHARDS]
    assert lines.index(("fine", SHARDS[0], "follower")) < lines.index(("raw", SHARDS[-1], "command"))
    other = TOY.root(tmp_path_factory.mktemp("in-turn"))
    (other / "full").touch()
    assert TOY.run(other)[0] == 0
    assert all(line[2] == "command" for line in made(other))
    assert recorded(other) == recorded(root)
    assert "0 stages ran" in TOY.run(root)[1]


def test_what_the_follower_could_not_do_its_stage_does(root: Path) -> None:
    (root / "refuse").touch()
    code, _, err = TOY.run(root)
    assert code == 0
    assert "InputError: fine is odd; nothing is lost; hand in an even one" in err
    assert [line for line in made(root) if line[0] == "fine"] == [
        ("fine", shard, "command") for shard in SHARDS
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_follower_ends_with_the_command_and_what_it_made_stays(
    root: Path, number: signal.Signals
) -> None:
    (root / "hang").touch()
    process = TOY.start(root)
    wait_until((root / "hanging").exists, "the stage hangs")
    wait_until(lambda: ("fine", SHARDS[1], "follower") in made(root), "the follower is at work")
    (follower,) = descendants(process.pid)
    process.send_signal(number)
    process.wait(PATIENCE_S)
    wait_until(lambda: not Path(f"/proc/{follower}").exists(), "the follower has ended")
    (root / "hang").unlink()
    assert TOY.run(root)[0] == 0
    assert sorted(line[:2] for line in made(root)) == sorted(
        (s, n) for s in ("seeds", "raw", "fine") for n in SHARDS
    )


@pytest.mark.parametrize("arguments", [("--until", "raw"), ("--force",)])
def test_nothing_follows_where_it_was_not_asked_for_or_all_is_made_again(root: Path, arguments) -> None:
    assert "fine: follows" not in TOY.run(root, *arguments)[1]
