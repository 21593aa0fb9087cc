"""A command whose output is closed early, as by `| head`, ends quietly and keeps what it committed."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from corgi.flow.output import CLOSED, until_closed
from tests.support import toy_stages
from tests.support.forks import Forks, codes

pytestmark = pytest.mark.slow


TOY = str(toy_stages.__file__)


def closed_early(
    folder: Path, *commands: Sequence[str], closed: tuple[str, ...] = ("stdout",), unbuffered: str = ""
) -> tuple[list[int], str]:
    """Run commands with outputs that nobody reads; return their exit codes and what the other output holds."""
    read, write = os.pipe()
    os.close(read)
    out, err = (write if name in closed else subprocess.PIPE for name in ("stdout", "stderr"))
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    forks = Forks(folder, captured=False, stdout=out, stderr=err, env=environment)
    os.close(write)
    said = forks.end(commands)
    return codes(folder), "".join(said)


@pytest.mark.parametrize(
    ("closed", "unbuffered"), [(("stdout",), ""), (("stdout",), "1"), (("stdout", "stderr"), "")], ids=str
)
def test_whatever_is_asked_of_a_run_ends_quietly(finished, closed, unbuffered):
    """Where a line fails as it is printed, and where all fail at the end; standard error is never held back."""
    flags = ["--plan", "--status", "--lineage", "--verify", "--gc"]
    commands = [(TOY, *finished.argv, flag) for flag in flags]
    found = closed_early(finished.root, *commands, closed=closed, unbuffered=unbuffered)
    assert found == ([CLOSED] * len(flags), "")


def test_a_run_whose_lines_nobody_reads_is_quiet(toy):
    assert "Traceback" not in closed_early(toy.root, (TOY, *toy.argv))[1]
    assert toy.run() == 0


def test_an_error_nobody_reads_is_no_traceback(toy):
    for closed in (("stderr",), ("stdout", "stderr")):
        [code], said = closed_early(toy.root, (TOY, *toy.argv, "--only", "cubes"), closed=closed)
        assert "Traceback" not in said
        assert code != 0


def test_every_script_ends_quietly(tmp_path):
    scripts = ["full", "compare", "download", "generate", "export", "export_data", "track", "demo"]
    ended, said = closed_early(tmp_path, *((f"pipelines/{script}.py", "--help") for script in scripts))
    assert len(ended) == len(scripts)
    assert set(ended) <= {0, 2, CLOSED}  # argparse swallows it where output is not buffered
    assert "Traceback" not in said
    assert "BrokenPipe" not in said


def test_a_broken_pipe_of_the_work_itself_is_not_hidden():
    def work() -> int:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        until_closed(work)
