"""The promises, their mechanisms, and the figures that tests measured: renders docs/promises.md.

`python -m tests.support.promises` takes in what the last test runs recorded; `--check` fails when a promise has no test.
"""

import ast
import json
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

HOME = Path(__file__).resolve().parents[2]
RECORDED = HOME / ".promises"
"""What test runs leave here, one file per test; git ignores it."""
KEPT = HOME / "docs" / "promises.json"
PAGE = HOME / "docs" / "promises.md"

PROMISES: dict[int, tuple[str, str]] = {
    1: (
        "Killed anywhere and rerun, the output equals an unbroken run",
        "private files first, one manifest last; shards by key (`tables/store.py`)",
    ),
    2: ("No reader ever sees a half table", "the manifest is the only door; unlisted files are invisible"),
    3: (
        "A commit is durable, not only atomic",
        "fsync of files and folders before the manifest is linked, of its folder after",
    ),
    4: (
        "Resume is cheap",
        "committed shards are recognised by key; nothing to do imports neither Ray nor torch",
    ),
    5: (
        "Two drivers cannot both commit",
        "put-if-absent of the next number: `link` on disks, conditional put on object stores; one holder a run and a scratch folder",
    ),
    6: (
        "Disk full is an error, never damage",
        "ENOSPC ends the attempt, whose private files go; committed work stays",
    ),
    7: (
        "Any flipped bit is found before use",
        "size and sha256 of every file in the manifest, a digest inside the manifest, Parquet page checksums",
    ),
    8: ("Any truncation is found and named", "the same; the line holds file, bytes found and expected"),
    9: (
        "Results of different settings never mix",
        "settings are part of the key but for those declared neutral",
    ),
    10: ("Rows are conserved", "`RowCounts` refuses a commit unless in = kept + rejected by reason"),
    11: (
        "Worker death changes nothing",
        "a task is one shard; Ray runs it again, the attempt before left no manifest",
    ),
    12: ("Node death changes nothing", "the same, plus Ray's lineage"),
    13: ("A poison image costs one row", "decode in a bounded child; a crash is a reason"),
    14: ("Memory stays bounded", "one shard at a time, caps on bytes, pixels do not cross operators"),
    15: ("The latest checkpoint is always whole", "every rank's shards, then hashes, then `COMMITTED.json`"),
    16: ("Resume is exact", "model, optimiser, EMA and position in one commit; noise by position"),
    17: (
        "No sample is skipped or repeated by a resume",
        "order = f(seed, epoch, lanes); the step alone is kept",
    ),
    18: ("Pruning never removes the last good one", "only committed ones count; at least two are kept"),
    19: (
        "A bad checkpoint is passed over, loudly",
        "hashes are verified; the one before is taken, with one warning",
    ),
    20: ("Divergence stops", "non-finite steps are skipped, counted, and end the run at K"),
    21: (
        "The fetcher reaches no private address",
        "resolve, judge, connect to the judged address; redirects re-judged",
    ),
    22: (
        "One URL costs bounded time and bytes",
        "one deadline for the whole exchange; caps on raw and decoded bytes, streamed",
    ),
    23: (
        "We are polite and obey refusals",
        "per-host slots and delay, Retry-After, robots.txt, X-Robots-Tag, Content-Usage",
    ),
    24: ("Bombs are refused unread", "size and format by the header before any decode; bounded children"),
    25: ("No input crashes the parent", "one decode: bytes in, a picture or a reason out"),
    26: ("What we store carries no stowaways", "every picture is encoded anew, without metadata"),
    27: ("Content is what was curated", "hash given by the list, or that of the first fetch, is compared"),
    28: ("No one host owns the set", "cap per registered domain; exact, perceptual and semantic duplicates"),
    29: (
        "Loading data never runs code",
        "plain Arrow, JSON and safetensors only; DeepSpeed shards after their hash",
    ),
    30: ("The cluster is closed", "token login; dashboard and client on loopback"),
    31: (
        "Secrets stay secret",
        "from the node's environment or a file; masked; never in a recipe, argv, runtime_env or manifest",
    ),
    32: ("The clock decides nothing", "order by number, monotonic deadlines, no file times"),
    33: ("Same inputs, same bytes", "sorted plans, fixed writer settings, no times in data files"),
    34: ("wandb down is no outage", "bounded queue; `metrics.jsonl` always written"),
    35: ("Failure speaks", "one line: what is wrong, what is safe, what to do next; exit code by class"),
    36: (
        "A spot notice becomes a checkpoint before the machine goes",
        "a watcher per machine drains its Ray node; Ray Train tells the workers; they save at one step",
    ),
    37: (
        "A host that was cut off and comes back changes nothing",
        "Ray gives it up and starts its work elsewhere; what it still commits has the same key and the same bytes",
    ),
    38: (
        "A lost head costs no committed work",
        "nothing is kept on the head; the job is submitted again to a new one",
    ),
    39: (
        "A job that is stopped and submitted again goes on",
        "committed shards by key, trainings by their newest checkpoint; one holder per run",
    ),
    40: (
        "Nodes follow the flow, and idle ones are given back",
        "fixed pools, asked for at once; label selectors keep CPU work off GPU nodes; nothing refers to a pool's objects after it",
    ),
}

_HEADER = """# Promises

Each promise, the mechanism that keeps it, the tests that would fail without it, and the figure last measured.

This page is written by a command: `python -m tests.support.promises`. A test records its figure with the fixture `promise`,
called after its last assertion:

    def test_every_flip_is_found(promise):
        ...
        promise(7, f"{found} of {trials} flips found")

and the next run of the command takes the figures of all tests that passed since into docs/promises.json and this table.
A test that names a promise but has not been run here since stands without a figure; `make test` holds small samples of what
`make chaos-store`, `chaos-training` and `chaos-flow` do in full.

| # | promise | mechanism | test: last figure |
|---|---|---|---|
"""


def recorder(test: str) -> Callable[[int, str], None]:
    """Return what the fixture `promise` hands to a test: a function that notes a promise's figure."""

    def record(number: int, figure: str) -> None:
        assert number in PROMISES, f"there is no promise {number}"
        RECORDED.mkdir(exist_ok=True)
        name = sha256(f"{number} {test}".encode()).hexdigest()[:16]
        facts = {"promise": number, "test": test, "figure": " ".join(figure.split())}
        (RECORDED / f"{name}.json").write_text(json.dumps(facts))

    return record


def figures() -> dict[str, dict[str, str]]:
    """Return promise -> test -> figure: what was kept, with what was recorded since laid over."""
    found: dict[str, dict[str, str]] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    for path in sorted(RECORDED.glob("*.json")):
        facts = json.loads(path.read_text())
        found.setdefault(str(facts["promise"]), {})[facts["test"]] = facts["figure"]
    return found


def named() -> dict[int, list[str]]:
    """Return the tests whose source calls `promise(NUMBER, ...)`, by promise."""
    found: dict[int, list[str]] = {}
    for path in sorted((HOME / "tests").rglob("test_*.py")):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef) and function.name.startswith("test_"):
                for number in sorted(_numbers(function)):
                    found.setdefault(number, []).append(f"{path.relative_to(HOME)}::{function.name}")
    return found


def _numbers(function: ast.FunctionDef) -> set[int]:
    calls = (node for node in ast.walk(function) if isinstance(node, ast.Call))
    return {
        first.value
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id == "promise" and call.args
        for first in call.args[:1]
        if isinstance(first, ast.Constant) and isinstance(first.value, int)
    }


def page(tests: dict[int, list[str]], measured: dict[str, dict[str, str]]) -> str:
    """Return docs/promises.md; figures of tests that are no more are left out."""
    return _HEADER + "".join(
        f"| {number} | {promise} | {mechanism} | {_cell(tests.get(number, []), measured.get(str(number), {}))} |\n"
        for number, (promise, mechanism) in PROMISES.items()
    )


def _cell(tests: list[str], figures: dict[str, str]) -> str:
    lines = []
    for test in tests:
        told = [figure for name, figure in figures.items() if name.split("[")[0] == test]
        lines.append(f"`{test.removeprefix('tests/')}`: {'; '.join(dict.fromkeys(told)) or 'not run yet'}")
    return "<br>".join(lines).replace("|", "\\|") or "no test yet"


def main(arguments: list[str]) -> int:
    """Write the page, or check that every promise has a test."""
    tests = named()
    if "--check" in arguments:
        bare = [number for number in PROMISES if number not in tests]
        print(f"promises without a test: {bare}" if bare else "every promise has a test")
        return 1 if bare else 0
    measured = figures()
    known = {name for names in tests.values() for name in names}
    kept: dict[str, Any] = {
        number: {test: figure for test, figure in sorted(told.items()) if test.split("[")[0] in known}
        for number, told in sorted(measured.items(), key=lambda item: int(item[0]))
    }
    KEPT.write_text(json.dumps({number: told for number, told in kept.items() if told}, indent=1) + "\n")
    PAGE.write_text(page(tests, kept))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
