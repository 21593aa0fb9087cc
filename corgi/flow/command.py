"""The command line that all pipeline scripts share: flags, one-line errors, exit codes, resuming after Ctrl-C."""

# pyright: reportPrivateUsage=false
# argparse has no public name for the class of its groups

import argparse
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from corgi.flow import amend, cluster, inspect, metrics, screen, waiting
from corgi.flow.aside import end_with
from corgi.flow.code import code_digest, git_commit
from corgi.flow.dag import Dag, open_dag
from corgi.flow.follow import follow
from corgi.flow.locks import held
from corgi.flow.output import program, until_closed
from corgi.flow.screen import Screen
from corgi.flow.selection import Selection
from corgi.flow.stage import Stage
from corgi.flow.take_down import read_names, take_down_rows
from corgi.settings.errors import SettingsError
from corgi.settings.recipe import Recipe, load
from corgi.storage import file_memory
from corgi.storage.roots import is_object_store
from corgi.tables.run import Run
from corgi.tables.taken_down import TakenDown

_INTERRUPTED = 130
_OF_A_PART = ("--from", "--until", "--only", "--force", "--retry-failed", "--take-down")
"""Flags of commands that only make a part of a run again."""
Budget = Callable[[Recipe, list[str], int | None], Iterable[str]]
"""Returns a plan's lines about hours and dollars, for a recipe, its unfinished stages, and the planned rows if the plan stage is done."""


def main(
    stages: Callable[[Recipe], Sequence[Stage]],
    after_stage: Callable[[Run], None],
    only: str | None = None,
    argv: list[str] | None = None,
    canonical: Callable[[str], str] = str,
    budget: Budget | None = None,
) -> int:
    """Run a pipeline script; return its exit code.

    `stages` returns the stages of a recipe; `only` fixes the stage of a script that runs one stage; `canonical` returns
    the canonical form of a URL; `budget` returns the lines of a plan about hours and dollars.
    """
    return until_closed(lambda: _main(stages, after_stage, _parse(argv, only), canonical, budget))


def _main(
    stages: Callable[[Recipe], Sequence[Stage]],
    after_stage: Callable[[Run], None],
    arguments: argparse.Namespace,
    canonical: Callable[[str], str],
    budget: Budget | None,
) -> int:
    try:
        recipe = load(arguments.recipe, arguments.overrides)
        _check_root(recipe)
        dag = open_dag(stages(recipe), recipe, after_stage)
        file_memory.take_over(dag.run.facts.get("files", {}))
        dag.aside_command = lambda stage, force: _aside_command(arguments, stage, force)
        dag.ahead_command = lambda stage: [*_aside_command(arguments, stage, False), "--ahead"]
        selection = Selection(arguments.start, arguments.until, arguments.only, arguments.force)
        selection.of(dag.stages)  # a wrong name raises before anything is written
        if arguments.aside:
            return _make_aside(dag, arguments)
        if arguments.plan and not arguments.gc:
            return _print_plan(dag, selection, budget)
        return _act(dag, selection, arguments, canonical)
    except KeyboardInterrupt:
        print("stopped; committed work is kept; run the same command to continue", file=sys.stderr)
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
    name = program()
    parser = argparse.ArgumentParser(
        prog=name,
        description="Run a recipe: finished stages are skipped, unfinished work resumes.",
        epilog="exit codes: 0 done, 2 wrong settings or options, 3 input that cannot be used, 4 storage, 5 cluster, 130 stopped by Ctrl-C",
    )
    parser.add_argument(
        "recipe",
        help="YAML file, name of a recipe that comes with Corgi such as laion-b32, or a run's folder",
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key.path=value", help="settings that differ from the recipe"
    )
    _add_stages(parser.add_argument_group("which stages"), only)
    _add_questions(parser.add_argument_group("questions; nothing is run"))
    _add_changes(parser.add_argument_group("changes of committed work"))
    parser.add_argument("--aside", metavar="PID", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--ahead", action="store_true", help=argparse.SUPPRESS)
    words = sys.argv[1:] if argv is None else argv
    parser.set_defaults(command=(name or f"python {os.path.relpath(sys.argv[0])}", *words))
    return parser.parse_intermixed_args(argv)


def _add_stages(group: argparse._ArgumentGroup, only: str | None) -> None:
    group.add_argument("--from", dest="start", metavar="STAGE", help="first stage to run")
    group.add_argument("--until", metavar="STAGE", help="last stage to run")
    group.add_argument("--only", metavar="STAGE", default=only, help="the one stage to run")
    group.add_argument("--force", action="store_true", help="run the selected stages again even when done")


def _add_questions(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--plan", action="store_true", help="show what would run and what is done; start nothing"
    )
    group.add_argument("--status", action="store_true", help="show the stages of this run")
    group.add_argument(
        "--lineage", action="store_true", help="show what made this run: lists, code, recipe, every manifest"
    )
    group.add_argument(
        "--of", metavar="WHAT", help="with --lineage: of one stage, committed file or report.html only"
    )
    group.add_argument("--verify", action="store_true", help="hash every committed file of this run")


def _add_changes(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--retry-failed", metavar="reason=R,R", help="fetch again the rows rejected for these reasons"
    )
    group.add_argument(
        "--take-down",
        metavar="FILE",
        help="permanently remove the images listed in FILE (one uid, URL or sha256 per line)",
    )
    group.add_argument(
        "--gc", action="store_true", help="remove what no run under this root refers to; --plan --gc shows it"
    )


def _aside_command(arguments: argparse.Namespace, stage: str, force: bool) -> list[str]:
    """Return the command line of a separate process that makes one stage."""
    asked = [arguments.recipe, *arguments.overrides, "--only", stage, "--aside", str(os.getpid())]
    return [sys.executable, sys.argv[0], *asked, *(["--force"] if force else [])]


def _make_aside(dag: Dag, arguments: argparse.Namespace) -> int:
    _stop_on_sigterm()
    end_with(arguments.aside)
    with screen.beside(), _cluster_left(), metrics.published(dag.run.name):
        if arguments.ahead:
            follow(dag, arguments.only)
        else:
            dag.make_alone(arguments.only, arguments.force)
    return 0


@contextmanager
def _cluster_left() -> Generator[None]:
    """Leave the cluster before the screen is restored, so that what Ray prints goes to the log."""
    try:
        yield
    finally:
        cluster.shutdown()


def _stop_on_sigterm() -> None:
    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.raise_signal(signal.SIGINT)

    signal.signal(signal.SIGTERM, interrupt)


def _log_of(run: Run) -> Path:
    return run.folder / "logs" / f"{time.strftime('%Y-%m-%dT%H-%M-%S')}-{os.getpid()}.log"


def _check_root(recipe: Recipe) -> None:
    name, folder = ("scratch", recipe.scratch) if is_object_store(recipe.root) else ("root", recipe.root)
    if cluster.is_submitted() and not os.path.isabs(folder):
        raise SettingsError(
            f"{name}={folder!r} is relative, and a job's folder is deleted afterwards; nothing was started; set {name} to an absolute path that every node can read"
        )


def _act(
    dag: Dag, selection: Selection, arguments: argparse.Namespace, canonical: Callable[[str], str]
) -> int:
    if arguments.gc:
        return _print(inspect.collect(dag, arguments.plan))
    if arguments.status:
        return _print(inspect.status(dag.run))
    if arguments.lineage:
        return _print(inspect.lineage(dag.run, arguments.of))
    if arguments.verify:
        with _cluster_left():
            return _print(inspect.verify(dag))
    _stop_on_sigterm()
    asked = _asked(arguments, canonical)  # a wrong file or reason raises before the run is locked
    if not isinstance(asked, TakenDown):
        dag.recipe.require(selection.with_inputs(dag.stages))
    log = _log_of(dag.run)
    with (
        held(dag.run.folder),
        screen.opened(log) as shown,
        _cluster_left(),
        waiting.noted(dag.run.folder),
        metrics.published(dag.run.name),
    ):
        shown.line(f"log: {_shortest(log)}")
        _run(dag, selection, asked, shown, arguments.command)
    return 0


def _run(
    dag: Dag,
    selection: Selection,
    asked: TakenDown | tuple[str, ...],
    shown: Screen,
    command: Sequence[str],
) -> None:
    started = time.monotonic()
    if asked:
        inspect.require(dag.run)
    dag.run.note(
        name=dag.recipe.name,
        recipe=dag.recipe.model_dump(mode="json"),
        order=[stage.name for stage in dag.stages],
        headings=dag.run.facts.get("headings", {}) | {s.name: [s.title, s.intro] for s in dag.stages},
        code=code_digest(),
        commit=git_commit(),
        commands=_commands(dag.run, command),
    )
    if isinstance(asked, TakenDown):
        take_down_rows(dag, asked, shown.say)
        dag.report()
        return
    if asked:
        amend.retry_failed(dag, asked, shown.say)
    ran = dag.execute(selection, shown.say)
    dag.run.note(files=file_memory.told())
    for line in _results(dag.run, ran, time.monotonic() - started):
        shown.line(line)


def _commands(run: Run, command: Sequence[str]) -> dict[str, str]:
    """Return the commands that made a run, including this one unless it only makes a part again."""
    known = run.facts.get("commands", {})
    program, *words = command
    is_part = any(word.startswith(_OF_A_PART) for word in words)
    return known if known and is_part else {**known, program: shlex.join(words)}


def _asked(arguments: argparse.Namespace, canonical: Callable[[str], str]) -> TakenDown | tuple[str, ...]:
    if arguments.take_down:
        return read_names(Path(arguments.take_down), canonical)
    return amend.reasons_of(arguments.retry_failed) if arguments.retry_failed else ()


def _print(lines: Iterable[str]) -> int:
    for line in lines:
        print(line)
    return 0


def _print_plan(dag: Dag, selection: Selection, budget: Budget | None) -> int:
    dag.recipe.require(selection.with_inputs(dag.stages))
    steps = dag.plan(selection)
    planned = next((step.done.rows.kept for step in steps if step.done and step.stage.name == "plan"), None)
    for step in steps:
        if step.done is not None:
            state = f"done      {step.done.num_shards} shards, {step.done.rows.kept} of {step.done.rows.rows_in} rows kept"
        elif step.key is None:
            state = "would run when its inputs are complete"
        else:
            state = "would run" + (
                f" {step.shards_all - step.shards_done} of {step.shards_all} shards"
                if step.shards_all
                else ""
            )
        print(f"{step.stage.name:<12} {state}")
        if step.reasons:
            print(f"{'':<12}   redone because: {'; '.join(step.reasons)}")
        for line in step.stage.cost(dag.recipe, planned) if step.done is None else ():
            print(f"{'':<12}   {line}")
    unfinished = [step.stage.name for step in steps if step.done is None]
    cluster.check_memory(dag.recipe, unfinished)
    if budget is None:
        return 0
    return _print(budget(dag.recipe, unfinished, planned))


def _results(run: Run, ran: int, seconds: float) -> Iterator[str]:
    yield f"{run.name}: {ran} stages ran, the rest was done before, {seconds:.1f} s"
    for name in ("report.html", "samples/grid.png", "metrics.json"):
        location = run.published(name)
        if location is not None:
            yield f"  {location if is_object_store(location) else _shortest(location)}"


def _shortest(path: str | Path) -> str:
    return min(os.path.relpath(path), os.path.abspath(path), key=len)
