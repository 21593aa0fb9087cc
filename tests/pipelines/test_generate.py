"""generate.py: what is wrong with a request is one line before any model is loaded."""

from pathlib import Path

import pytest

from tests.support.forks import HOME, run_forks

pytestmark = pytest.mark.slow

REFUSED = [
    (["a fox", ""], "caption 2 has no words"),
    (["a fox", "--n", "0"], "n=0 is not a number of pictures"),
    (["a fox", "--seed", "-1"], "seed=-1"),
    (["a fox", "--seed", "9223372036854775808"], "seed=9223372036854775808"),
    (["a fox", "--out", HOME / "README.md"], "File exists"),
    (["a fox", "--out", HOME / "README.md" / "pictures"], "Not a directory"),
]


def test_a_wrong_request_is_one_line(tmp_path: Path) -> None:
    """Over a run that is not there: a script that loads before it checks would speak of that."""
    out = tmp_path / "out"
    out.mkdir()
    asked = [("pipelines/generate.py", "no-such-run", "--out", out, *arguments) for arguments, _ in REFUSED]
    for done, (_, words) in zip(run_forks(asked, tmp_path / "said"), REFUSED, strict=True):
        assert (done.returncode, done.stdout) == (3, ""), done.args
        assert [words in line for line in done.stderr.splitlines()] == [True]
    assert list(out.iterdir()) == []
