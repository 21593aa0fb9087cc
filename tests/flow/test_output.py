"""A command whose output is closed early, as by `| head`, ends quietly and keeps what it committed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from corgi.flow.output import CLOSED, until_closed

pytestmark = pytest.mark.slow

HOME = Path(__file__).resolve().parents[2]


def closed_early(
    *command: str, closed: tuple[str, ...] = ("stdout",), unbuffered: str = ""
) -> tuple[int, str]:
    """Run a command with outputs that nobody reads; return its exit code and what the other output holds."""
    read, write = os.pipe()
    os.close(read)
    out, err = (write if name in closed else subprocess.PIPE for name in ("stdout", "stderr"))
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    process = subprocess.Popen(
        [sys.executable, *command], stdout=out, stderr=err, text=True, cwd=HOME, env=environment
    )
    os.close(write)
    said = process.communicate(timeout=120)
    return process.returncode, (said[0] or "") + (said[1] or "")


@pytest.mark.parametrize("flag", ["--plan", "--status", "--lineage", "--verify", "--gc"])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_whatever_is_asked_of_a_run_ends_quietly(finished, flag, unbuffered):
    script = "import sys; from corgi.flow import command; from tests.support import toy_stages as toy; sys.exit(command.main(toy.stages, toy.report))"
    asked = ("-c", script, *finished.argv, flag)
    assert closed_early(*asked, unbuffered=unbuffered) == (CLOSED, "")
    assert closed_early(*asked, closed=("stdout", "stderr")) == (CLOSED, "")


def test_a_run_whose_lines_nobody_reads_is_quiet(toy):
    said = closed_early("-m", "tests.support.toy_stages", *toy.argv)[1]
    assert "Traceback" not in said
    assert toy.run() == 0


def test_an_error_nobody_reads_is_no_traceback(toy):
    for closed in (("stderr",), ("stdout", "stderr")):
        code, said = closed_early(
            "-m", "tests.support.toy_stages", *toy.argv, "--only", "cubes", closed=closed
        )
        assert "Traceback" not in said
        assert code != 0


@pytest.mark.parametrize(
    "script", ["full", "compare", "download", "generate", "export", "export_data", "track", "demo"]
)
def test_every_script_ends_quietly(script):
    code, said = closed_early(f"pipelines/{script}.py", "--help")
    assert code in (0, 2, CLOSED)  # argparse swallows it where output is not buffered
    assert "Traceback" not in said
    assert "BrokenPipe" not in said


def test_a_broken_pipe_of_the_work_itself_is_not_hidden():
    def work() -> int:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        until_closed(work)
