"""The comparison's recipe for a real CLIP, on random weights of the same model: every stage runs, its figures mean nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from corgi.tables.run import Run
from tests.support.ports import free_port

HOME = Path(__file__).resolve().parents[3]
SMALL = [
    "embed.towers=[{name: b32, model: ViT-B-32, pretrained: random}]",
    "embed.gpus_per_actor=0",
    "embed.num_actors=1",
    "embed.batch_size=16",
    "download.num_actors=1",
    "download.cpus_per_actor=1",
    "download.connections=8",
    "download.decode_processes=1",
    "plan.group_col=group",
    "plan.test_share=0.3",
    "compare.arms=[dalle2,standardised,k16,k16-soft,regression]",
    "compare.num_seeds=1",
    "compare.depth=1",
    "compare.training={num_steps: 4, global_batch: 16, warmup_steps: 1, num_workers: 1, use_gpu: false}",
    "score.num_actors=1",
    "score.steps=[4,64]",
    "score.samplers=[dpm++]",
    "score.min_word_pictures=2",
    "score.samples_per_caption=2",
]


@pytest.mark.timeout(600)
def test_the_recipe_of_a_real_clip_runs_whole_on_random_weights(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "pipelines/demo.py", "--pipeline", "compare", "--pictures", "90"),
            *("--port", str(free_port()), "--work", str(tmp_path / "site")),
            *("--recipe", "pipelines/recipes/compare-laion-b32.yaml", f"root={tmp_path / 'runs'}", *SMALL),
        ],
        cwd=HOME,
        capture_output=True,
        text=True,
        timeout=550,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]
    run = Run.open(tmp_path / "runs" / "compare-laion-b32")
    made = run.shards("comparison")[0]
    metrics = json.loads(run.store.path(made, "metrics").read_text())
    rows = json.loads(run.store.path(made, "scores").read_text())
    assert (
        run.store.schema(run.shards("embed")[0], "image_embeddings").field("b32/image").type.list_size == 512
    )
    assert {row["arm"] for row in rows} == {"dalle2", "standardised", "k16", "k16-soft", "regression"}
    assert metrics["truth"]["own"]["words"] >= 2
    assert (run.folder / "report.html").stat().st_size > 20_000
