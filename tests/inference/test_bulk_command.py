"""The command line of a bulk generation: what was painted is told, what is wrong is one line, and a log has the rest."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from corgi.inference.bulk import INDEX, PAINTED
from corgi.inference.bulk_command import RESULT, main
from corgi.tables.run import Run
from tests.support.painting_run import painting_run

pytestmark = pytest.mark.usefixtures("in_process")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return painting_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    (tmp_path / "p.csv").write_text("text\na fox\n \nred heart\n")
    return tmp_path / "p.csv"


def test_a_file_is_painted_and_painted_again_at_once(
    run: Run, prompts: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "out"
    words = [
        str(run.folder),
        str(prompts),
        "--column",
        "text",
        "--out",
        str(root),
        "--n",
        "2",
        "--steps",
        "3",
    ]
    assert main(words) == 0
    told = capfd.readouterr().out
    assert "2 of 3 rows painted" in told
    assert "1 rows were not painted: no caption worth keeping" in told
    out = Run.open(root / RESULT)
    [shard] = out.shards(PAINTED)
    table = pq.read_table(out.store.path(shard, PAINTED))
    assert table["caption"].to_pylist() == ["a fox"] * 2 + ["red heart"] * 2
    assert (root / RESULT / INDEX).exists()
    assert list((root / RESULT / "logs").iterdir())
    assert main(words) == 0
    assert [one.digest for one in out.shards(PAINTED)] == [shard.digest]


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        (["--rows-per-shard", "0"], 2, "--rows-per-shard=0"),
        (["--steps", "0"], 2, "steps=0"),
        (["--steps", "101"], 2, "has only 100 timesteps"),
        (["--column", "caption"], 3, "has no column 'caption'"),
    ],
)
def test_what_is_wrong_is_one_line(
    run: Run,
    prompts: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    changes: list[str],
    code: int,
    words: str,
) -> None:
    asked = [str(run.folder), str(prompts), "--column", "text", "--out", str(tmp_path / "out"), *changes]
    assert main(asked) == code
    said = capfd.readouterr()
    assert said.out == "" or "log" in said.out
    assert [words in line for line in said.err.splitlines()] == [True]
