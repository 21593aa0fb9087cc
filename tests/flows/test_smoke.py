"""The real flow, every stage and engine, as `make smoke` left it; then what a user does with the run. `make test-smoke`"""

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

import corgi
from corgi.flow import inspect
from corgi.flow.code import code_digest
from corgi.inference.prompts import NEIGHBOURS
from corgi.report import report
from corgi.tables.run import Run
from tests.support.ports import free_port

HOME = Path(__file__).resolve().parents[2]
STAGES = [
    "plan",
    "download",
    "tower",
    "embed",
    "features",
    "curate",
    "shift",
    "pack",
    "prior",
    "autoencoder",
    "decoder",
    "evaluate",
]
AGAIN = ["--pictures", "300", "--work", "runs/smoke/site", "--recipe", "pipelines/recipes/smoke.yaml"]
"""`make smoke`'s own arguments; its port and root come after."""

pytestmark = [pytest.mark.flow, pytest.mark.timeout(600)]


def _script(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(HOME / "pipelines" / name), *arguments],
        capture_output=True,
        text=True,
        cwd=HOME,
        check=False,
    )


@pytest.fixture(scope="module")
def run() -> Run:
    """The run that `make smoke` left, made by the code that is tested."""
    found = Run.open(HOME / "runs" / "smoke")
    assert found.facts.get("code") == code_digest(), "runs/smoke was made by other code; run make smoke"
    return found


@pytest.fixture
def root(run: Run, tmp_path: Path) -> Path:
    """A root of its own over the same committed tables: what is made there leaves `make smoke`'s root as it was."""
    (tmp_path / "store").mkdir()
    for stage in STAGES:
        (tmp_path / "store" / stage).symlink_to(run.folder.parent / "store" / stage)
    (tmp_path / "smoke").mkdir()
    shutil.copy(run.folder / "run.json", tmp_path / "smoke")
    return tmp_path


def test_every_stage_is_committed_in_order_and_conserves_rows(run):
    stages = run.stages()
    assert list(stages) == STAGES
    for manifest in stages.values():
        assert manifest.rows.rows_in == manifest.rows.kept + sum(manifest.rows.rejected.values())


def test_the_ledger_accounts_for_every_row_of_the_list_with_a_reason(run):
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


def test_no_uid_is_doubled_and_every_kept_picture_is_embedded(run):
    images = pa.concat_tables([run.store.read(shard, "images", ["uid"]) for shard in run.shards("download")])[
        "uid"
    ].to_pylist()
    embedded = pa.concat_tables([run.store.read(shard, "image_embeddings") for shard in run.shards("embed")])
    assert len(set(images)) == len(images)
    assert embedded["uid"].to_pylist() == images
    assert embedded.schema.field("own/image").type == pa.list_(pa.float16(), 256)


def test_every_prefix_of_the_flow_has_its_report_status_and_lineage(run, tmp_path):
    """As the run is after each of its stages: the same tables, and a run.json that names the first of them only."""
    facts = json.loads((run.folder / "run.json").read_text())
    names = list(facts["stages"])
    (tmp_path / "store").symlink_to(run.folder.parent / "store")
    for length in range(len(names) + 1):
        folder = tmp_path / f"first-{length}"
        folder.mkdir()
        first = {name: facts["stages"][name] for name in names[:length]}
        (folder / "run.json").write_text(json.dumps({**facts, "stages": first}))
        first_part = Run.open(folder)
        shown = re.findall(r'<section id="([^"]+)"', report.render(first_part))
        assert [name for name in shown if name in names] == [
            name for name in names[:length] if name not in ("plan", "download")
        ]
        assert ("funnel" in shown, "pictures" in shown, "lineage" in shown) == (
            length > 0,
            length > 1,
            length > 0,
        )
        told = [line.split()[0] for line in inspect.status(first_part)]
        assert [name for name in told if name != "--gc"] == names[:length]
        assert [
            line.split(":")[0] for line in inspect.lineage(first_part) if not line.startswith((" ", "run "))
        ] == names[:length]


def test_nothing_held_out_is_learned_from(run):
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


def test_report_metrics_and_grid_are_there(run):
    folder = run.folder
    metrics = json.loads((folder / "metrics.json").read_text())
    assert set(metrics["prior"]) == {"shifted", "dalle2"}
    assert set(metrics["prior"]["shifted"]) == {"2", "8"}
    assert set(metrics["decoder"]) == set(metrics["pictures"]) == {"TRAIN", "HELD-OUT"}
    assert set(metrics["pictures"]["HELD-OUT"]) == {"run's own CLIP", "independent"}
    assert set(metrics["copying"]["HELD-OUT"]) == {"independent", "pixels"}
    assert any("EfficientNet-lite1" in note for note in metrics["notes"])
    assert (folder / "report.html").stat().st_size > 20_000
    with Image.open(folder / "samples" / "grid.png") as grid:
        assert grid.size[1] > 4 * 128


def test_each_training_left_metric_lines_without_gap_or_double_and_an_offline_wandb_run(run):
    for stage, table in (("prior", "metrics_shifted"), ("prior", "metrics_dalle2"), ("decoder", "metrics")):
        shard = run.shards(stage)[0]
        lines = [json.loads(line) for line in run.store.path(shard, table).read_text().splitlines()]
        steps = [line["step"] for line in lines if "loss" in line]
        assert steps == sorted(set(steps))
        assert steps[-1] == 60
    store = run.folder.parent / "store"
    assert list(store.rglob("offline-run-*/*.wandb"))
    assert list(store.rglob("ray")) == [], "a worker group that ended as it should left its files"


def test_a_second_run_starts_nothing(run):
    again = _script("demo.py", *AGAIN, "--port", str(free_port()))
    assert again.returncode == 0, again.stderr
    assert "0 stages ran" in again.stdout


def test_the_script_and_the_library_paint_the_same_picture_for_the_same_seed(run, tmp_path):
    asked = ["red heart", "赤い心 " * 100, "red heart", "--n", "2", "--seed", "3", "--out", str(tmp_path)]
    done = _script("generate.py", str(run.folder), *asked)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 4  # a caption that is named twice is painted once
    painted = corgi.load(run.folder).generate("red heart", n=2, seed=3)
    paths = sorted(tmp_path.glob("red-heart-*"))
    assert [path.name.rpartition("-")[2] for path in paths] == ["3.png", "4.png"]
    for path, picture in zip(paths, painted, strict=True):
        with Image.open(
            path
        ) as stored:  # painted among other captions: docs/generate.md states the tolerance
            assert np.abs(np.asarray(stored, np.int16) - np.asarray(picture, np.int16)).max() <= 1
    assert painted[0].tobytes() != painted[1].tobytes()


def test_lineage_leads_back_to_the_list(run):
    done = _script("full.py", "pipelines/recipes/smoke.yaml", "--lineage")
    assert done.returncode == 0, done.stderr
    [source] = [line for line in done.stdout.splitlines() if "from list: sha256" in line]
    assert "runs/smoke/site" in source
    assert all(f"{stage}: " in done.stdout for stage in STAGES)


def test_a_flipped_bit_in_the_weights_is_one_line_and_exit_4(run, root, tmp_path):
    decoder = root / "store" / "decoder"
    decoder.unlink()
    shutil.copytree(run.folder.parent / "store" / "decoder", decoder)
    copied = Run.open(root / "smoke")
    path = copied.store.path(copied.shards("decoder")[0], "decoder")
    whole = path.read_bytes()
    path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    done = _script("generate.py", str(root / "smoke"), "red heart", "--out", str(tmp_path / "pictures"))
    assert done.returncode == 4
    assert path.name in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


SPATIAL = [
    "name=spatial",
    "autoencoder.kind=kl",
    "autoencoder.training.num_steps=4",
    "autoencoder.training.precision=fp32",
    "decoder.network=unet",
    "decoder.unet.widths=[16,32]",
    "decoder.unet.attention=[]",
    "decoder.neighbours=2",
    "decoder.training.num_steps=4",
    "decoder.training.zero_stage=0",
    "upsampler.low_side=32",
    "upsampler.side=64",
    "upsampler.crop=32",
    "upsampler.unet.widths=[16,32]",
    "upsampler.sample_steps=2",
    "upsampler.training.num_steps=4",
    "upsampler.training.global_batch=16",
    "upsampler.training.precision=fp32",
    "evaluate.steps=[2]",
]


def test_a_convolutional_space_and_decoder_go_through_the_flow_and_paint(run, root):
    """Over the flow's own tables, with one step of a cascade; each picture names the train pictures that its decoder looked at."""
    arguments = [*AGAIN, "--port", str(free_port()), f"root={root}", *SPATIAL]
    done = _script("demo.py", *arguments)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
    assert "4 stages ran" in done.stdout
    spatial = Run.open(root / "spatial")
    assert spatial.stages()["embed"].path == run.stages()["embed"].path
    first, second = (corgi.load(spatial.folder).generate("red heart", n=1, seed=3)[0] for _ in range(2))
    assert first.size == (64, 64)
    assert "Upsampler" in (spatial.folder / "report.html").read_text()
    assert first.tobytes() == second.tobytes()
    assert len(str(first.info[NEIGHBOURS]).split()) == 2


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
    "score.samples_per_caption=2",
]


def test_the_comparison_takes_the_flows_tables_over_and_accounts_for_every_arm(run, root):
    arguments = [*AGAIN, "--pipeline", "compare", "--port", str(free_port()), f"root={root}", *COMPARED]
    done = _script("demo.py", *arguments)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
    assert "4 stages ran" in done.stdout
    compared = Run.open(root / "compared")
    assert compared.stages()["embed"].path == run.stages()["embed"].path
    made = compared.shards("comparison")[0]
    rows = json.loads(compared.store.path(made, "scores").read_text())
    ways = Counter((row["space"], row["arm"], row["candidates"]) for row in rows)
    diffusion = {("dalle2", 1), ("dalle2", 2), ("standardised", 1), ("k16-soft", 1)}
    expected = {(space, *arm): 3 for space in ("own", "off_centre") for arm in diffusion}
    expected |= {(space, "eclipse", 1): 1 for space in ("own", "off_centre")}
    assert ways == expected
    metrics = json.loads(compared.store.path(made, "metrics").read_text())
    judged = metrics["own, 4 steps against dalle2 at 64"]
    assert set(judged) == {"dalle2", "dalle2, best of 2", "standardised", "k16-soft"}
    assert "Comparison" in (compared.folder / "report.html").read_text()
    again = _script("demo.py", *arguments)
    assert "0 stages ran" in again.stdout
