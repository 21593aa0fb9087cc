"""The command line every pipeline script shares: flags, one-line errors, exit codes, resume on Ctrl-C."""

import argparse
import fcntl
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from corgi.flow import cluster
from corgi.flow.code import code_digest, git_commit
from corgi.flow.dag import Dag, Selection, Stage, open_dag
from corgi.settings.errors import ClusterError, SettingsError
from corgi.settings.recipe import load
from corgi.tables.run import Run
from corgi.tables.store import storage_full

_INTERRUPTED = 130


def main(
    stages: Callable[[Any], Sequence[Stage]],
    after_stage: Callable[[Run], None],
    only: str | None = None,
    argv: list[str] | None = None,
) -> int:
    """Run a pipeline script; return its exit code.

    `stages` gives the DAG of a recipe; `only` fixes the stage of a script that runs one.
    """
    arguments = _parse(argv, only)
    try:
        recipe = load(arguments.recipe, arguments.overrides)
        _check_root(recipe)
        dag = open_dag(stages(recipe), recipe, after_stage)
        selection = Selection(arguments.start, arguments.until, arguments.only, arguments.force)
        selection.of(dag.stages)  # a wrong name is refused before anything is written
        return _act(dag, selection, arguments)
    except KeyboardInterrupt:
        print("stopped; committed work is kept; run the same command to go on", file=sys.stderr)
        return _INTERRUPTED
    except Exception as error:
        known = cluster.cause(error)
        if known is None:
            raise
        print(f"{type(known).__name__}: {known}", file=sys.stderr)
        return known.exit_code
    finally:
        cluster.shutdown()


def _parse(argv: list[str] | None, only: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Run a recipe: finished stages are skipped, unfinished work resumes."
    )
    parser.add_argument("recipe", help="YAML recipe, see pipelines/recipes")
    parser.add_argument(
        "overrides", nargs="*", metavar="key.path=value", help="settings that differ from the recipe"
    )
    parser.add_argument(
        "--plan", action="store_true", help="show what would run and what is done; start nothing"
    )
    parser.add_argument("--status", action="store_true", help="show what this run consists of")
    parser.add_argument(
        "--lineage", action="store_true", help="show what made this run: lists, code, settings, manifests"
    )
    parser.add_argument("--force", action="store_true", help="run the selected stages again even when done")
    parser.add_argument("--from", dest="start", metavar="STAGE", help="first stage to run")
    parser.add_argument("--until", metavar="STAGE", help="last stage to run")
    parser.add_argument("--only", metavar="STAGE", default=only, help="the one stage to run")
    return parser.parse_intermixed_args(argv)


def _check_root(recipe: Any) -> None:
    if cluster.is_submitted() and not os.path.isabs(recipe.root):
        raise SettingsError(
            f"root={recipe.root!r} is relative, and a job's folder is thrown away; nothing was started; set root to an absolute path every node can reach"
        )


def _act(dag: Dag, selection: Selection, arguments: argparse.Namespace) -> int:
    if arguments.plan:
        return _print_plan(dag, selection)
    if arguments.status:
        return _print_status(dag.run)
    if arguments.lineage:
        return _print_lineage(dag.run)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    started = time.monotonic()
    with held(dag.run.folder):
        dag.run.note(
            name=dag.recipe.name,
            recipe=dag.recipe.model_dump(mode="json"),
            code=code_digest(),
            commit=git_commit(),
        )
        ran = dag.execute(
            selection, lambda line: print(f"[{time.monotonic() - started:6.1f} s] {line}", flush=True)
        )
    _print_results(dag.run, ran, time.monotonic() - started)
    return 0


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a run alone; the kernel lets go when the process ends, however it ends.

    Raises:
        ClusterError: another process holds it; the line names it.

    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("a+")
    except OSError as error:
        storage_full(error, folder)
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ClusterError(
                f"run {folder.name} is held by {_holder(lock)}; it goes on undisturbed; wait for it or stop it"
            ) from None
        lock.truncate(0)
        lock.write(json.dumps({"host": socket.gethostname(), "pid": os.getpid()}))
        lock.flush()
        yield


def _holder(lock: TextIO) -> str:
    lock.seek(0)
    try:
        facts = json.loads(lock.read())
    except ValueError:
        return "another process"
    return f"process {facts['pid']} on {facts['host']}"


def _print_plan(dag: Dag, selection: Selection) -> int:
    for step in dag.plan(selection):
        if step.done is not None:
            state = f"done      {len(step.done.shards)} shards, {step.done.rows.kept} of {step.done.rows.rows_in} rows kept"
        elif step.key is None:
            state = "would run when its inputs are there"
        else:
            state = "would run" + (
                f" {step.shards_all - step.shards_done} of {step.shards_all} shards"
                if step.shards_all
                else ""
            )
        print(f"{step.stage.name:<12} {state}")
        for line in step.stage.costs(dag.recipe) if step.done is None else ():
            print(f"{'':<12} {line}")
    return 0


def _print_status(run: Run) -> int:
    for name, manifest in run.stages().items():
        rows = manifest.rows
        print(
            f"{name:<12} {len(manifest.shards):>5} shards  {rows.rows_in:>9} in  {rows.kept:>9} kept  {sum(rows.rejected.values()):>9} rejected  {manifest.key}"
        )
    return 0


def _print_lineage(run: Run) -> int:
    facts = run.facts
    print(f"run {run.folder.name}: code {facts.get('code')}, commit {facts.get('commit')}")
    for name, manifest in run.stages().items():
        print(
            f"{name}: {manifest.digest}\n  manifest {manifest.path}, code {manifest.code}, commit {manifest.commit}"
        )
        for stage, path in manifest.inputs.items():
            print(f"  from {stage}: {path}")
        for shard in run.store.shards(manifest)[:1]:
            for source in shard.facts.get("sources", []):
                print(f"  from list: sha256 {source['sha256']} {source['path']}")
    return 0


def _print_results(run: Run, ran: int, seconds: float) -> None:
    print(f"{run.folder.name}: {ran} stages ran, the rest was done before, {seconds:.1f} s")
    for name in ("report.html", "samples/grid.png", "metrics.json"):
        if (run.folder / name).exists():
            print(f"  {os.path.relpath(run.folder / name)}")
