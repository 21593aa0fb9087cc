"""Everything that embed.input takes, through the real stages to the prior and the report, in this process."""

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corgi.flow.code import code_digest, git_commit
from corgi.flow.dag import Dag, Selection, open_dag
from corgi.report import results
from corgi.settings.errors import InputError
from corgi.settings.recipe import Recipe
from pipelines.full import stages
from tests.support.pictures import encoded, scene

DIM, ROWS = 8, 60
TRAINING = {"num_steps": 2, "global_batch": 8, "precision": "fp32", "checkpoint_every_steps": 2}

pytestmark = [pytest.mark.flow, pytest.mark.timeout(600)]


def vectors(seed: int, num_rows: int = ROWS) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(num_rows, DIM)).astype(np.float16)


def listed(num_rows: int = ROWS, **columns: Any) -> pa.Table:
    urls = [f"https://pictures.example/{row}.jpg" for row in range(num_rows)]
    return pa.table({"url": urls, **columns})


def clip_retrieval(folder: Path, image: np.ndarray, text: np.ndarray | None) -> Path:
    arrays = {"img_emb": image} if text is None else {"img_emb": image, "text_emb": text}
    for name in ("metadata", *arrays):
        (folder / name).mkdir(parents=True)
    captions = [f"caption {row}" for row in range(len(image))]
    pq.write_table(listed(len(image), caption=captions), folder / "metadata" / "metadata_0.parquet")
    for name, array in arrays.items():
        np.save(folder / name / f"{name}_0.npy", array)
    return folder


def datacomp(folder: Path) -> Path:
    folder.mkdir()
    np.savez(folder / "a.npz", b32_img=vectors(0), b32_txt=vectors(1))
    uids = [f"{row:032x}" for row in range(ROWS)]
    pq.write_table(listed(uid=uids, text=[f"caption {row}" for row in range(ROWS)]), folder / "a.parquet")
    return folder


def pictures(folder: Path) -> list[str]:
    """Write the same kind of pictures as a folder, a tar and a Parquet file; return the three."""
    plain = folder / "plain"
    plain.mkdir(parents=True)
    third = ROWS // 3
    for seed in range(2 * third):
        (plain / f"{seed:03d}.png").write_bytes(encoded(scene(seed), "PNG"))
        (plain / f"{seed:03d}.txt").write_text(f"caption {seed}")
    with tarfile.open(folder / "some.tar", "w") as archive:
        for path in sorted(plain.iterdir())[2 * third :]:
            archive.add(path, path.name)
            path.unlink()
    held = [encoded(scene(seed), "PNG") for seed in range(2 * third, ROWS)]
    captions = [f"caption {seed}" for seed in range(2 * third, ROWS)]
    pq.write_table(pa.table({"image": held, "caption": captions}), folder / "some.parquet")
    return [str(plain), str(folder / "some.tar"), str(folder / "some.parquet")]


def tiny_tower(folder: Path) -> dict[str, str]:
    config = {
        "embed_dim": DIM,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    }
    (folder / "tiny.json").write_text(json.dumps(config))
    return {
        "name": "tiny",
        "model": "tiny",
        "pretrained": "random",
        "config": str(folder / "tiny.json"),
    }


def opened(root: Path, place: Any, sections: dict[str, Any]) -> Dag:
    given = {
        "plan": {"number_sample_per_shard": 40, "test_share": 0.2},
        "embed": {"input": place},
        "shift": {"num_clusters": 2},
        "prior": {"variants": ["shifted"], "width": 32, "depth": 1, "heads": 2, "training": TRAINING},
    }
    merged = {name: {**given.get(name, {}), **sections.get(name, {})} for name in {*given, *sections}}
    recipe = Recipe.model_validate(
        {"name": "v", "root": str(root), "tracking": {"mode": "disabled"}, **merged}
    )
    return open_dag(stages(recipe), recipe)


def until_prior(built: Dag) -> None:
    """Run every stage up to the prior, with the report after each as the command line has it."""
    order = [stage.name for stage in built.stages]
    built.run.note(name="v", recipe={}, order=order, code=code_digest(), commit=git_commit())
    for stage in built.stages:
        built.execute(Selection(only=stage.name), lambda line: None)
        results.publish(built.run)
        if stage.name == "prior":
            return


@pytest.mark.parametrize("kind", ["clip-retrieval", "datacomp", "pictures"])
def test_every_kind_of_input_goes_through_to_the_prior_and_the_report(
    in_process: None, tmp_path: Path, kind: str
) -> None:
    sections: dict[str, Any] = {}
    if kind == "clip-retrieval":
        place: Any = str(clip_retrieval(tmp_path / "in", vectors(0), vectors(1)))
    elif kind == "datacomp":
        place = str(datacomp(tmp_path / "in"))
        sections["plan"] = {"uid_col": "uid", "caption_col": "text"}
    else:
        place = pictures(tmp_path / "in")
        sections["embed"] = {"towers": [tiny_tower(tmp_path)]}
    built = opened(tmp_path / "runs", place, sections)
    until_prior(built)
    assert built.run.stages()["embed"].rows.kept == ROWS
    prior = built.run.shards("prior")[0]
    assert 0 < prior.facts["train_pictures"] < ROWS
    page = (built.run.folder / "report.html").read_text()
    assert "Prior" in page
    assert ("Longer side of the original" in page) == (kind == "pictures")
    assert (
        sum(built.execute(Selection(only=stage.name), lambda line: None) for stage in built.stages[:7]) == 0
    )


@pytest.mark.parametrize(
    ("image", "text", "told"),
    [
        (vectors(0), None, "train pictures has a full caption with a vector"),
        (vectors(0, 1), vectors(1, 1), "have one and the same embedding"),
        (np.repeat(vectors(0, 1), ROWS, 0), vectors(1), "have one and the same embedding"),
    ],
    ids=["no-captions", "one-row", "all-equal"],
)
def test_nothing_to_learn_from_is_one_line_at_once(
    in_process: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    image: np.ndarray,
    text: np.ndarray | None,
    told: str,
) -> None:
    monkeypatch.setattr("corgi.training.prior.train", lambda *_: pytest.fail("a training was started for it"))
    place = str(clip_retrieval(tmp_path / "in", image, text))
    no_val = {"test_share": 0.0, "val_share": 0.0}
    built = opened(tmp_path / "runs", place, {"plan": no_val, "shift": {"num_clusters": 1}})
    with pytest.raises(InputError, match=told) as caught:
        until_prior(built)
    assert "\n" not in str(caught.value)
    results.publish(built.run)
