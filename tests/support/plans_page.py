"""The section "Plans" of docs/scale.md: what `--plan` says of the recipes for GPUs and 400 million rows, and published runs held
against the same rates.

`python -m tests.support.plans_page` writes it; a test keeps it current. `--measure` also runs each plan as a command, and writes
down its seconds and its memory.
"""

import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from corgi.budget.plan import lines
from corgi.settings.recipe import load
from tests.support.published_runs import CHECKS, Check

HOME = Path(__file__).resolve().parents[2]
PAGE = HOME / "docs" / "scale.md"
NUM_ROWS = 400_000_000
GROUP_ROWS = 10_000_000
STAGES = (
    "plan",
    "download",
    "embed",
    "curate",
    "shift",
    "pack",
    "prior",
    "autoencoder",
    "decoder",
    "evaluate",
)
_BEGIN, _END = "<!-- plans: python -m tests.support.plans_page -->", "<!-- end of plans -->"
_MEASURED = re.compile(r"^Measured: .*\n\n", re.MULTILINE)


@dataclass(frozen=True)
class Planned:
    """A recipe on a cluster, with the settings that make it fit."""

    recipe: str
    cluster: str
    settings: tuple[str, ...] = ()

    @property
    def command(self) -> tuple[str, ...]:
        """Return what follows `corgi run`, without the list."""
        return (self.recipe, f"cluster.file=cluster/{self.cluster}.yaml", *self.settings, "--plan")

    def lines(self) -> Iterator[str]:
        """Yield the budget of all stages."""
        recipe = HOME / "pipelines" / "recipes" / f"{self.recipe}.yaml"
        file = HOME / "cluster" / f"{self.cluster}.yaml"
        asked = load(recipe, [f"cluster.file={file}", *self.settings])
        for line in lines(asked, list(STAGES), NUM_ROWS):
            yield line.replace(f"{HOME}/", "")


FEWER = tuple(f"{stage}.training.num_workers=48" for stage in ("prior", "autoencoder", "decoder"))
"""corgi.yaml asks for 64 GPUs; cluster/gcp.yaml allows 48."""
PLANNED = (Planned("laion-b32", "aws"), Planned("corgi", "gcp", FEWER))
_HEAD = """## Plans

What `--plan` says before anything is started, of a list of 400 million rows. Each figure is an interval, because each rate is one:
`corgi/budget/rates.yaml` holds them with unit, source and date. [Cost beforehand](budget.md) has what is counted, and how to put your own prices
and rates in their place. This section is written by `python -m tests.support.plans_page`.
"""
_CHECKS = """### Against published runs

| run | counted | published | middle of the interval | |
|---|---|---|---|---|
"""
_CAVEAT = """
No rate is one of the run that it is held against. The published figures were known when the rates were written down, from the same notes: this
checks the arithmetic, and predicts nothing. The network was not what held LAION-400M up.
"""


def section(measured: str = "") -> str:
    """Return the whole section; `measured` is the paragraph about seconds and memory."""
    plans = [
        f"### {planned.recipe}.yaml on cluster/{planned.cluster}.yaml\n\n```\ncorgi run {' '.join(planned.command)} plan.input=list.parquet\n\n"
        + "\n".join(planned.lines())
        + "\n```\n"
        for planned in PLANNED
    ]
    rows = [f"{row(check())}\n" for check in CHECKS]
    return "\n".join([_HEAD, measured + plans[0], *plans[1:], _CHECKS]) + "".join([*rows, _CAVEAT])


def row(check: Check) -> str:
    """Return one published run as a row of the table."""
    low, high = check.counted.low, check.counted.high
    return f"| {check.run} | {low:,.0f} to {high:,.0f} | {check.published:,.0f} | {check.error:+.0%} | {'held' if check.is_held else 'not held'} |"


def on_page() -> str:
    """Return the section as it is on the page, without what was measured."""
    inside = PAGE.read_text(encoding="utf-8").partition(_BEGIN)[2].partition(_END)[0]
    return _MEASURED.sub("", inside).strip()


def measured() -> str:
    """Run each plan as a command over a list of NUM_ROWS rows and return the paragraph about it."""
    with tempfile.TemporaryDirectory(prefix="plans-") as folder:
        urls = pa.table(
            {"url": pa.nulls(GROUP_ROWS, pa.string()), "caption": pa.nulls(GROUP_ROWS, pa.string())}
        )
        with pq.ParquetWriter(f"{folder}/list.parquet", urls.schema) as writer:
            for _ in range(NUM_ROWS // GROUP_ROWS):
                writer.write_table(urls)
        told = [_ran(planned, folder) for planned in PLANNED]
    return f"Measured: {'; '.join(told)}. The list is one Parquet file, of which the footer is read; on two cores, without Ray.\n\n"


def _ran(planned: Planned, folder: str) -> str:
    command = [
        sys.executable,
        "pipelines/full.py",
        *planned.command,
        f"plan.input={folder}/list.parquet",
        f"root={folder}/runs",
    ]
    begun = time.monotonic()
    with open(f"{folder}/said", "wb") as said:
        pid = os.posix_spawn(
            sys.executable, command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, said.fileno(), 1)]
        )
        _, status, usage = os.wait4(pid, 0)
    text = Path(f"{folder}/said").read_text()
    assert (os.waitstatus_to_exitcode(status), f"budget for {NUM_ROWS:,} rows" in text) == (0, True), text
    return f"the plan of {planned.recipe}.yaml took {time.monotonic() - begun:.1f} s ({usage.ru_utime + usage.ru_stime:.1f} s of CPU) and {usage.ru_maxrss / 1024:.0f} MiB"


def write(paragraph: str | None) -> None:
    """Put the section between its marks; a paragraph of None keeps the one that is there."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(_BEGIN)
    inside, _, after = rest.partition(_END)
    found = _MEASURED.search(inside)
    kept = paragraph if paragraph is not None else found[0] if found else ""
    PAGE.write_text(f"{before}{_BEGIN}\n{section(kept)}{_END}{after}", encoding="utf-8")


if __name__ == "__main__":
    write(measured() if "--measure" in sys.argv[1:] else None)
