"""The real flow, every stage and engine, on a few pictures over HTTP; then what a user does with the run."""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image

from corgi.flow import inspect
from corgi.report import report
from corgi.tables.run import Run
from tests.support.ports import free_port

HOME = Path(__file__).resolve().parents[2]
STAGES = [
    "plan",
    "download",
    "tower",
    "embed",
    "curate",
    "shift",
    "prior",
    "autoencoder",
    "decoder",
    "evaluate",
]
SMALL = [
    "plan.number_sample_per_shard=64",
    "plan.test_share=0.3",
    "tower.training.num_steps=10",
    "tower.training.global_batch=32",
    "prior.training.num_steps=12",
    "prior.training.global_batch=32",
    "decoder.training.num_steps=12",
    "decoder.training.global_batch=32",
    "shift.num_clusters=3",
    "evaluate.grid_rows=2",
    "evaluate.min_word_pictures=2",
    "tracking.mode=offline",
]

pytestmark = [pytest.mark.flow, pytest.mark.timeout(420)]


def _script(name: str, *arguments: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(HOME / "pipelines" / name), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        cwd=HOME,
        check=False,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Run the whole flow once; return the run's folder and the arguments that made it."""
    work = tmp_path_factory.mktemp("flow")
    arguments = [
        *("--pictures", "90", "--port", str(free_port()), "--work", str(work / "site")),
        *("--recipe", "pipelines/recipes/smoke.yaml", f"root={work / 'runs'}", *SMALL),
    ]
    done = _script("demo.py", *arguments, timeout_s=400)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
    return work / "runs" / "smoke", arguments


def test_every_stage_is_committed_in_order_and_conserves_rows(finished):
    stages = Run.open(finished[0]).stages()
    assert list(stages) == STAGES
    for manifest in stages.values():
        assert manifest.rows.rows_in == manifest.rows.kept + sum(manifest.rows.rejected.values())


def test_the_ledger_accounts_for_every_row_of_the_list_with_a_reason(finished):
    run = Run.open(finished[0])
    ledger = pa.concat_tables(
        [run.store.read(shard, "ledger") for shard in run.shards("download")]
    ).to_pylist()
    assert (
        len({(row["source"], row["row"]) for row in ledger})
        == len(ledger)
        == run.stages()["plan"].rows.rows_in
    )
    counted = Counter(row["reason"] for row in ledger if row["status"] == "rejected")
    assert None not in counted
    assert counted == run.stages()["download"].rows.rejected
    assert {"http_status", "not_an_image", "opted_out"} <= set(counted)


def test_no_uid_is_doubled_and_every_kept_picture_is_embedded(finished):
    run = Run.open(finished[0])
    images = pa.concat_tables([run.store.read(shard, "images", ["uid"]) for shard in run.shards("download")])[
        "uid"
    ].to_pylist()
    embedded = pa.concat_tables([run.store.read(shard, "image_embeddings") for shard in run.shards("embed")])
    assert len(set(images)) == len(images)
    assert embedded["uid"].to_pylist() == images
    assert embedded.schema.field("own/image").type == pa.list_(pa.float16(), 256)


def test_every_prefix_of_the_flow_has_its_report_status_and_lineage(finished, tmp_path):
    """As the run is after each of its stages: the same tables, and a run.json that names the first of them only."""
    facts = json.loads((finished[0] / "run.json").read_text())
    names = list(facts["stages"])
    (tmp_path / "store").symlink_to(finished[0].parent / "store")
    for length in range(len(names) + 1):
        folder = tmp_path / f"first-{length}"
        folder.mkdir()
        first = {name: facts["stages"][name] for name in names[:length]}
        (folder / "run.json").write_text(json.dumps({**facts, "stages": first}))
        run = Run.open(folder)
        shown = re.findall(r'<section id="([^"]+)"', report.render(run))
        assert [name for name in shown if name in names] == [
            name for name in names[:length] if name not in ("plan", "download")
        ]
        assert ("funnel" in shown, "pictures" in shown, "lineage" in shown) == (
            length > 0,
            length > 1,
            length > 0,
        )
        assert [line.split()[0] for line in inspect.status(run)] == names[:length]
        assert [
            line.split(":")[0] for line in inspect.lineage(run) if not line.startswith((" ", "run "))
        ] == names[:length]


def test_nothing_held_out_is_learned_from(finished):
    run = Run.open(finished[0])
    groups: dict[str, set[str]] = {}
    for shard in run.shards("download"):
        for row in run.store.read(shard, "images", ["group", "split"]).to_pylist():
            groups.setdefault(row["group"], set()).add(row["split"])
    assert all(len(splits) == 1 for splits in groups.values())
    kept_train = 0
    for images, selection in zip(run.shards("download"), run.shards("curate"), strict=True):
        keep = {row["uid"] for row in run.store.read(selection, "selection").to_pylist() if row["keep"]}
        kept_train += sum(
            row["split"] == "train" and row["uid"] in keep
            for row in run.store.read(images, "images", ["uid", "split"]).to_pylist()
        )
    assert run.stages()["decoder"].rows.rows_in == kept_train


def test_report_metrics_and_grid_are_there(finished):
    folder = finished[0]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert set(metrics["prior"]) == {"shifted", "dalle2"}
    assert set(metrics["prior"]["shifted"]) == {"2", "8"}
    assert set(metrics["decoder"]) == {"TRAIN", "HELD-OUT"}
    assert (folder / "report.html").stat().st_size > 20_000
    with Image.open(folder / "samples" / "grid.png") as grid:
        assert grid.size[1] > 4 * 128


def test_each_training_left_metric_lines_without_gap_or_double_and_an_offline_wandb_run(finished):
    run = Run.open(finished[0])
    for stage, table in (("prior", "metrics_shifted"), ("prior", "metrics_dalle2"), ("decoder", "metrics")):
        shard = run.shards(stage)[0]
        lines = [json.loads(line) for line in run.store.path(shard, table).read_text().splitlines()]
        steps = [line["step"] for line in lines if "loss" in line]
        assert steps == sorted(set(steps))
        assert steps[-1] == 12
    assert list((finished[0].parent / "store").rglob("offline-run-*/*.wandb"))


def test_a_second_run_starts_nothing(finished):
    again = _script("demo.py", *finished[1])
    assert again.returncode == 0
    assert "0 stages ran" in again.stdout


def test_generate_paints_the_same_picture_for_the_same_seed(finished, tmp_path):
    for folder in ("a", "b"):
        done = _script(
            "generate.py",
            str(finished[0]),
            "red heart",
            "赤い心 " * 100,
            "red heart",
            "--n",
            "2",
            "--seed",
            "3",
            "--out",
            str(tmp_path / folder),
            timeout_s=120,
        )
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == 4  # a caption that is named twice is painted once
    painted = [sorted((tmp_path / folder).glob("red-heart-*")) for folder in ("a", "b")]
    assert [path.name.rpartition("-")[2] for path in painted[0]] == ["3.png", "4.png"]
    assert [path.name for path in painted[0]] == [path.name for path in painted[1]]
    first, second = ([path.read_bytes() for path in paths] for paths in painted)
    assert first == second
    assert first[0] != first[1]


def test_lineage_leads_back_to_the_list(finished):
    run = finished[0]
    done = _script("full.py", "pipelines/recipes/smoke.yaml", f"root={run.parent}", "--lineage")
    assert done.returncode == 0
    [source] = [line for line in done.stdout.splitlines() if "from list: sha256" in line]
    assert str(run.parents[1] / "site") in source
    assert all(f"{stage}: " in done.stdout for stage in STAGES)


def test_a_flipped_bit_in_the_weights_is_one_line_and_exit_4(finished, tmp_path):
    run = Run.open(finished[0])
    path = run.store.path(run.shards("decoder")[0], "decoder")
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
        done = _script("generate.py", str(finished[0]), "red heart", "--out", str(tmp_path))
    finally:
        path.write_bytes(whole)
    assert done.returncode == 4
    assert len(done.stderr.strip().splitlines()[-1:]) == 1
    assert path.name in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


COMPARED = [
    "name=compared",
    "compare.arms=[dalle2,standardised,k16-soft,eclipse]",
    "compare.num_seeds=1",
    "compare.width=32",
    "compare.depth=1",
    "compare.heads=2",
    "compare.training.num_steps=4",
    "compare.training.warmup_steps=1",
    "score.steps=[1,4,64]",
    "score.samplers=[dpm++]",
    "score.min_word_pictures=2",
    "score.samples_per_caption=2",
]


def test_the_comparison_takes_the_flows_tables_over_and_accounts_for_every_arm(finished):
    folder, arguments = finished
    done = _script("demo.py", "--pipeline", "compare", *arguments, *COMPARED, timeout_s=240)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
    assert "4 stages ran" in done.stdout
    run = Run.open(folder.parent / "compared")
    assert run.stages()["embed"].path == Run.open(folder).stages()["embed"].path
    made = run.shards("comparison")[0]
    rows = json.loads(run.store.path(made, "scores").read_text())
    ways = Counter((row["space"], row["arm"], row["candidates"]) for row in rows)
    diffusion = {("dalle2", 1), ("dalle2", 2), ("standardised", 1), ("k16-soft", 1)}
    expected = {(space, *arm): 3 for space in ("own", "off_centre") for arm in diffusion}
    expected |= {(space, "eclipse", 1): 1 for space in ("own", "off_centre")}
    assert ways == expected
    metrics = json.loads(run.store.path(made, "metrics").read_text())
    judged = metrics["own, 4 steps against dalle2 at 64"]
    assert set(judged) == {"dalle2", "dalle2, best of 2", "standardised", "k16-soft"}
    assert "Comparison" in (folder.parent / "compared" / "report.html").read_text()
    again = _script("demo.py", "--pipeline", "compare", *arguments, *COMPARED)
    assert "0 stages ran" in again.stdout
