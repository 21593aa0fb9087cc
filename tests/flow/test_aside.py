"""Two stages that do not need each other: at once where there is room, one end of the command for both."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import aside_stages
from tests.support.toy_command import Toy, recorded
from tests.support.waiting import PATIENCE_S, wait_until

pytestmark = pytest.mark.slow

TOY = Toy(aside_stages)
ORDER = ["numbers", "left", "right", "total"]


@pytest.fixture(scope="module", autouse=True)
def _forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with TOY.forked(tmp_path_factory.mktemp("forks")):
        yield


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return TOY.root(tmp_path)


def made(root: Path) -> list[str]:
    return (root / "made.txt").read_text().split()


def await_file(path: Path) -> None:
    wait_until(path.exists, f"{path} is there")


def test_both_are_at_work_at_once_and_give_what_one_after_the_other_gives(
    root: Path, tmp_path_factory
) -> None:
    (root / "meet").touch()
    code, out, err = TOY.run(root)
    assert (code, err) == (0, "")
    assert "left: runs at the same time as later stages" in out
    assert sorted(made(root)) == sorted(ORDER)
    assert set(recorded(root)) == set(ORDER)
    other = TOY.root(tmp_path_factory.mktemp("in-turn"))
    (other / "full").touch()
    assert TOY.run(other)[0] == 0
    assert made(other) == ORDER
    assert recorded(other) == recorded(root)
    code, out, _ = TOY.run(root)
    assert code == 0
    assert "0 stages ran" in out


def test_the_line_and_the_exit_code_of_the_one_beside_are_the_commands(root: Path) -> None:
    (root / "refuse").write_text("left")
    code, _, err = TOY.run(root)
    assert code == 3
    own, whole = err.splitlines()
    assert own == "InputError: left is odd; nothing is lost; hand in an even one"
    assert whole.startswith(
        "InputError: left, which ran at the same time as other stages, ended with exit code 3"
    )
    assert made(root) == ["numbers", "right"]
    assert set(recorded(root)) == {"numbers", "right"}
    (root / "refuse").unlink()
    assert TOY.run(root)[0] == 0
    assert made(root) == ["numbers", "right", "left", "total"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_one_beside_ends_with_the_command(root: Path, number: signal.Signals) -> None:
    (root / "hang").write_text("left")
    (root / "meet").touch()
    process = TOY.start(root)
    await_file(root / "left.here")
    (beside,) = children(process.pid)
    if number == signal.SIGKILL:
        process.kill()
    else:
        time.sleep(0.2)
        process.send_signal(number)
    process.wait(PATIENCE_S)
    wait_until(lambda: not Path(f"/proc/{beside}").exists(), "the one beside has ended")
    assert "left" not in made(root)
    (root / "hang").unlink()
    assert TOY.run(root)[0] == 0


def test_an_error_of_the_others_ends_the_one_beside(root: Path) -> None:
    (root / "hang").write_text("left")
    (root / "refuse").write_text("right")
    code, _, err = TOY.run(root)
    assert code == 3
    assert "InputError: right is odd; nothing is lost; hand in an even one" in err.splitlines()


def test_it_runs_beside_nothing_when_nothing_is_left_to_run(root: Path) -> None:
    code, out, _ = TOY.run(root, "--until", "left")
    assert code == 0
    assert "runs at the same time as later stages" not in out


def children(pid: int) -> list[int]:
    return [
        int(word)
        for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if os.path.exists(f"/proc/{word}")
    ]
