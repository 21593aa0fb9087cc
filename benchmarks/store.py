"""How fast finished and half-finished work is recognised: `python -m benchmarks.store [--shards N] [--folder F]`.

Manifests of a finished run are made up under the keys the real pipeline asks for, then pipelines/full.py runs as a user runs it.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.figures import Figures
from corgi.flow.context import Context
from corgi.flow.dag import Dag, open_dag
from corgi.settings.recipe import load
from corgi.tables.manifest import FileEntry, RowCounts, ShardEntry, ShardManifest, StageManifest, sealed
from corgi.tables.store import ShardTask

HOME = Path(__file__).resolve().parents[1]
SHARDED = ("plan", "download", "embed", "curate")
ROUNDS = 3
RECIPE = """name: bench
root: {folder}/runs
plan: {{input: {folder}/list.csv}}
embed: {{towers: [{{name: b32, model: ViT-B-32, pretrained: openai}}]}}
"""


class Used(NamedTuple):
    """What a command used: seconds, CPU-seconds, and its peak of resident memory, MiB."""

    seconds: float
    cpu_s: float
    mib: float


def main(arguments: list[str]) -> int:
    """Measure reruns over few and many shards; print and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=80_000)
    parser.add_argument("--folder", type=Path, default=None, help="folder of the made-up store")
    options = parser.parse_args(arguments)
    figures = Figures("store", "pyarrow", "ray")
    for shards in sorted({8, options.shards}):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            measure(Path(folder), shards, figures)
    figures.write()
    return 0


def measure(folder: Path, shards: int, figures: Figures) -> None:
    """Make up a finished run of so many shards a stage and run it again: closed, then with download's last shard missing."""
    (folder / "list.csv").write_text("url,caption\nhttp://site.test/1.png,one\n")
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.format(folder=folder))
    dag, tasks = finished(recipe, shards)
    few = shards < 1000
    name = "store_rerun" if few else f"store_rerun_{shards}_shards"
    told(
        figures, name, [run(recipe, "0 stages ran") for _ in range(ROUNDS)], "<=3" if few else "<=20", not few
    )
    if few:
        return
    shutil.rmtree(dag.store.root / "download" / "closed")
    shutil.rmtree(dag.store.shard_folder("download", tasks[-1].key))
    wanted = f"would run 1 of {shards} shards"
    resumed = [run(recipe, wanted, "--plan") for _ in range(ROUNDS)]
    told(figures, f"store_resume_{shards}_shards", resumed, "<=20", True)


def told(figures: Figures, name: str, runs: Sequence[Used], seconds_goal: str, is_bounded: bool) -> None:
    """Add what runs used: seconds, CPU-seconds, and peak memory, which has a goal where many shards are listed."""
    figures.add_rounds(f"{name}_seconds", [used.seconds for used in runs], "s", seconds_goal)
    figures.add_rounds(f"{name}_cpu", [used.cpu_s for used in runs], "CPU-s")
    figures.add_rounds(f"{name}_memory", [used.mib for used in runs], "MiB", "<=500" if is_bounded else "")


def run(recipe: Path, wanted: str, *arguments: str) -> Used:
    """Run pipelines/full.py, which must say what is wanted of it; return what it used."""
    command = [sys.executable, str(HOME / "pipelines" / "full.py"), str(recipe), *arguments]
    with tempfile.TemporaryFile() as said:
        started = time.monotonic()
        pid = os.posix_spawn(
            sys.executable, command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, said.fileno(), 1)]
        )
        _, status, usage = os.wait4(pid, 0)
        seconds = time.monotonic() - started
        said.seek(0)
        text = said.read().decode()
    _check(os.waitstatus_to_exitcode(status) == 0, text)
    _check(wanted in text, text)
    return Used(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def _check(is_right: bool, said: str) -> None:
    if not is_right:
        raise SystemExit(f"the run did not do what is measured:\n{said}")


def finished(recipe: Path, shards: int) -> tuple[Dag, list[ShardTask]]:
    """Make up every stage of a recipe's run as complete; return download's tasks."""
    dag = open_dag(_stages()(load(recipe)), load(recipe))
    closed: dict[str, StageManifest] = {}
    downloads: list[ShardTask] = []
    for stage in dag.stages:
        context = dag.context(stage, closed)
        names = [f"{n:05d}" for n in range(shards)] if stage.name in SHARDED else ["all"]
        tasks = context.partitioned() if stage.name == "download" else []
        entries = tuple(_entries(context, names, tasks))
        downloads = tasks or downloads
        closed[stage.name] = dag.store.close(
            StageManifest(
                stage=stage.name,
                key=context.key,
                version=stage.version,
                code="c",
                commit=None,
                settings=context.settings,
                inputs={name: found.path for name, found in context.inputs.items()},
                shards=entries,
                rows=RowCounts(rows_in=0, kept=0),
            )
        )
    return dag, downloads


def _stages() -> Callable[[Any], Any]:
    sys.path.insert(0, str(HOME / "pipelines"))
    import full  # pyright: ignore[reportMissingImports]

    return full.stages


def _entries(context: Context, names: list[str], tasks: list[ShardTask]) -> list[ShardEntry]:
    """Return a stage's shards; those of download are on the disk, as a resume looks for them."""
    if not tasks:
        stage = context.stage.name
        return [
            ShardEntry(shard=n, path=f"{stage}/{n:0>32}/manifest-0.json", digest=f"{n:0>32}") for n in names
        ]
    found = []
    for task in tasks:
        file = FileEntry(table="images", name="0-images.parquet", size=1, sha256="0" * 64, rows=1)
        manifest = ShardManifest(
            stage=task.stage,
            shard=task.shard,
            key=task.key,
            version=1,
            code="c",
            settings=task.settings,
            inputs=task.inputs,
            files=(file,),
            rows=RowCounts(rows_in=0, kept=0),
        )
        folder = Path(context.store.root, task.folder)
        folder.mkdir(parents=True)
        (folder / "manifest-0.json").write_text(sealed(manifest))
        path = f"{task.folder}/manifest-0.json"
        found.append(ShardEntry(shard=task.shard, path=path, digest=manifest.digest))
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
