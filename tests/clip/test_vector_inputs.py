"""What embed.input's vectors must be is checked before any stage runs, and without torch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from corgi.flow.dag import Selection
from corgi.settings.clip import TowerRef
from corgi.settings.errors import InputError
from corgi.settings.tower_width import width_of
from tests.clip.test_precomputed import VIT, clip_retrieval, opened

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("only", ["plan", "embed"])
@pytest.mark.parametrize(
    ("harm", "told"),
    [
        ("img_emb/img_emb_1.npy", "metadata_1.parquet has no img_emb_1.npy"),
        ("metadata/metadata_1.parquet", "img_emb_1.npy has no metadata_1.parquet"),
        ("", "have 6 dimensions, those of ViT-B-32 512"),
    ],
)
def test_a_misfit_is_found_before_the_plan(tmp_path: Path, only: str, harm: str, told: str) -> None:
    clip_retrieval(tmp_path / "laion")
    if harm:
        (tmp_path / "laion" / harm).unlink()
    built = opened(tmp_path / "runs", tmp_path / "laion", () if harm else [VIT])
    with pytest.raises(InputError, match=told):
        built.execute(Selection(only=only), lambda line: None)
    assert not built.run.stages()


def test_a_list_that_changes_after_the_plan_is_one_line(tmp_path: Path) -> None:
    from corgi.clip.precomputed import check_lists

    clip_retrieval(tmp_path / "laion")
    built = opened(tmp_path / "runs", tmp_path / "laion")
    built.execute(Selection(only="plan"), lambda line: None)
    with pytest.raises(InputError, match="changed since it was planned"):
        check_lists(built.run.listed("plan"), {})


def test_a_width_is_read_from_either_kind_of_config(tmp_path: Path) -> None:
    config = tmp_path / "open_clip_config.json"
    tower = TowerRef(name="a", model="own", pretrained="random", config=str(config))
    for text in ({"embed_dim": 24}, {"model_cfg": {"embed_dim": 24}}):
        config.write_text(json.dumps(text))
        assert width_of(tower) == 24
    config.write_text("{}")
    with pytest.raises(InputError, match="the width of tower 'a' cannot be read"):
        width_of(tower)
    assert width_of(TowerRef(name="b", model="ViT-B-32", pretrained="random")) == 512
    assert width_of(TowerRef(name="b", model="no-such-model", pretrained="random")) is None


def test_it_imports_neither_torch_nor_ray() -> None:
    code = "import sys, corgi.clip.vector_inputs; print([m for m in ('torch', 'ray') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
