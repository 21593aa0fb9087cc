"""cluster/README.md on hosts, line by line: submit, watch, a second job that is refused, stop, resume, fetch the results."""

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.cluster_readme import commands
from tests.support.ray_hosts import CLONE, RECIPE, SUBMIT, RayHosts
from tests.support.run_digests import digests
from tests.support.upload import MAX_UPLOAD_BYTES, packed

PRIOR_RUNS = r'ray_corgi_stage_state\{(?=[^}]*run="smoke")[^}]*stage="prior"[^}]*\} 1'
BEFORE_PRIOR = {"plan", "download", "tower", "embed", "features", "curate", "shift", "pack"}


class Reader:
    """A user at the desk who follows the section, with a recipe and settings of their own."""

    def __init__(self, cluster: RayHosts, settings: list[str]) -> None:
        """Read the section."""
        self._cluster, self._settings = cluster, settings
        self.exports, *self.lines = commands(SUBMIT)

    def line(self, start: str) -> str:
        """Return the only line that starts like this."""
        [found] = [line for line in self.lines if line.startswith(start)]
        return found

    def do(self, line: str) -> tuple[int, str]:
        """Type a line, with the recipe's name and the run's in it; return its exit code and its output."""
        more = "".join(f" '{setting}'" for setting in self._settings) if " -- " in line else ""
        told = line.replace("RECIPE", RECIPE).replace("NAME", "smoke") + more
        done = self._cluster.desk.run("bash", "-c", f"{self.exports}\n{told}", folder=CLONE, timeout_s=900)
        return done.returncode, done.stdout


def until(holds: Callable[[], object], what: str, seconds: float = 600) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.2)


@pytest.mark.flow
@pytest.mark.timeout(1100)
def test_a_job_is_submitted_watched_stopped_resumed_and_its_results_fetched(
    cluster: RayHosts, settings: list[str], quiet: Path, tmp_path: Path, promise: Callable[[int, str], None]
) -> None:
    packed(cluster.clone, tmp_path / "clone.zip")
    assert (tmp_path / "clone.zip").stat().st_size < MAX_UPLOAD_BYTES, "what --working-dir . uploads"
    reader = Reader(cluster, settings)
    store = cluster.shared / "runs" / "store"
    code, said = reader.do(reader.line("ray job submit --no-wait"))
    assert code == 0, said
    until(
        lambda: list(store.glob("prior/*/work/*/checkpoints/*/COMMITTED.json")), "a checkpoint of the prior"
    )
    cluster.freeze("RayTrainWorker")  # the prior is not done before the lines below have been typed
    until(lambda: re.search(PRIOR_RUNS, cluster.scraped()), "the state of the prior among the metrics", 60)
    assert re.search(r'ray_corgi_work_done\{[^}]*unit="step"[^}]*\} [1-9]', cluster.scraped())
    assert "RUNNING" in reader.do(reader.line("ray job status"))[1]
    assert re.search(r"download: \d+ in = \d+ kept", reader.do(reader.line("ray job logs corgi-1"))[1])
    code, said = reader.do(reader.line("ray job submit --submission-id").replace("corgi-2", "corgi-refused"))
    assert code != 0
    assert re.search(
        r"ClusterError: run smoke is held by process \d+ on head; that process was not affected", said
    ), said
    assert reader.do(reader.line("ray job stop"))[0] == 0
    assert "] prior: runs" in reader.do(reader.line("ray job logs --follow"))[1]
    assert "was stopped" in reader.do(reader.line("ray job status"))[1]
    assert not list(store.glob("prior/closed/*/manifest-0.json")), (
        "the job had done the prior before it was stopped"
    )
    steps = {path.parent.name for path in store.glob("prior/*/work/*/checkpoints/*/COMMITTED.json")}
    code, said = reader.do(reader.line("ray job submit --submission-id"))
    assert code == 0, said
    assert set(re.findall(r"\] (\w+): done before", said)) == BEFORE_PRIOR
    assert reader.do(reader.line("cp -r"))[0] == 0
    assert (cluster.desk.home / "corgi" / "smoke" / "report.html").stat().st_size > 0
    assert digests(cluster.shared / "runs" / "smoke") == digests(quiet)
    promise(
        39,
        f"cluster/README.md followed: stopped in the prior at {max(steps)}, resumed, equal to the quiet run",
    )


def test_every_line_of_the_section_was_followed() -> None:
    """A line added to the section must be added to the test above."""
    starts = (
        "export",
        "ray job submit --no-wait",
        "ray job logs corgi-1",
        "ray job status",
        "ray job logs --follow",
    )
    starts += ("ray job stop", "ray job submit --submission-id", "cp -r")
    assert [start for start in starts if sum(line.startswith(start) for line in commands(SUBMIT)) != 1] == []
    assert len(commands(SUBMIT)) == len(starts)
