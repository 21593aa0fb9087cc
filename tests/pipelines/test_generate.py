"""generate.py: what is wrong with a request is one line before any model is loaded."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

HOME = Path(__file__).resolve().parents[2]


def generate(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the script over a run that is not there: whoever loads before checking speaks of that."""
    script = str(HOME / "pipelines" / "generate.py")
    command = [sys.executable, script, "no-such-run", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=HOME, check=False)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a fox", ""], "caption 2 has no words"),
        (["a fox", "--n", "0"], "n=0 asks for no picture"),
        (["a fox", "--seed", "-1"], "seed=-1"),
        (["a fox", "--seed", "9223372036854775808"], "seed=9223372036854775808"),
        (["a fox", "--out", HOME / "README.md"], "File exists"),
        (["a fox", "--out", HOME / "README.md" / "pictures"], "Not a directory"),
    ],
)
def test_a_wrong_request_is_one_line(tmp_path: Path, arguments: list[str | Path], words: str) -> None:
    done = generate("--out", tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (3, "")
    assert [words in line for line in done.stderr.splitlines()] == [True]
    assert list(tmp_path.iterdir()) == []
