"""No row is kept: the real stages up to the shift end with tables or one line, and every page can be looked at after each."""

from pathlib import Path
from typing import Any

import pytest

from corgi.clip.embed import EmbedShards
from corgi.curation.stages import Curate, Features
from corgi.download.local import locations_of
from corgi.download.stage import DownloadShards
from corgi.flow import inspect
from corgi.flow.context import Context
from corgi.flow.dag import Dag, Selection, open_dag
from corgi.planning.stages import Plan
from corgi.report import report
from corgi.settings.errors import InputError
from corgi.settings.recipe import Recipe
from corgi.shift import fit
from corgi.shift import maps as passes
from corgi.shift.stages import Shift
from corgi.tables.store import ShardTask
from tests.support.stages import stage

CONFIG = (
    '{"embed_dim": 16, "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},'
    ' "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}}'
)


def download(context: Context) -> list[ShardTask]:
    """Stand in for the stage's body: the same maker without Ray."""
    maker = DownloadShards(
        locations=locations_of(context.recipe.plan), first_plan_shard=context.entries("plan")[0].path
    )
    try:
        return _made(context, maker)
    finally:
        maker.close()


def embed(context: Context) -> list[ShardTask]:
    """Stand in for the stage's body: the same maker without Ray."""
    return _made(context, EmbedShards([ref.model_dump() for ref in context.recipe.embed.towers]))


def _made(context: Context, maker: Any) -> list[ShardTask]:
    tasks = context.partitioned()
    for task in tasks:
        maker.make(task)
    return tasks


def flow(folder: Path, source: Path) -> Dag:
    (folder / "tiny.json").write_text(CONFIG)
    tower = {"name": "t", "model": "tiny", "pretrained": "random", "config": str(folder / "tiny.json")}
    recipe = Recipe.model_validate(
        {
            "name": "none",
            "root": str(folder / "runs"),
            "plan": {"input": str(source), "number_sample_per_shard": 2},
            "embed": {"towers": [tower]},
            "shift": {"num_clusters": 2},
        }
    )
    stages = [
        Plan(),
        stage("download", download, ("plan",), ("download",), partition="plan"),
        stage("embed", embed, ("download",), ("embed",), partition="download"),
        Features(),
        Curate(),
        Shift(),
    ]
    built = open_dag(stages, recipe)
    built.run.note(name="none", recipe={}, order=[one.name for one in stages], code="", commit="")
    return built


@pytest.mark.usefixtures("in_process")
def test_every_page_can_be_looked_at_where_no_row_is_kept(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    for number in range(5):
        (tmp_path / "in" / f"{number}.jpg").write_bytes(b"<html>%d" % number)
    built = flow(tmp_path, tmp_path / "in")
    monkeypatch.setattr(
        fit,
        "over_shards",
        lambda function, refs, arguments: (
            passes.unpack(passes.pack(function(ref, **arguments))) for ref in refs
        ),
    )
    for done, one in enumerate(built.stages, start=1):
        if one.name == "shift":
            with pytest.raises(InputError, match="train pictures") as caught:
                built.execute(Selection(only=one.name), lambda line: None)
            assert "\n" not in str(caught.value)
            done -= 1
        else:
            built.execute(Selection(only=one.name), lambda line: None)
        assert [line.split()[0] for line in inspect.status(built.run)][:done] == [
            stage.name for stage in built.stages[:done]
        ]
        assert any(line.startswith(f"{built.stages[done - 1].name}: ") for line in inspect.lineage(built.run))
        assert "<html" in report.render(built.run)
    assert built.run.stages()["download"].rows.rejected == {"not_an_image": 5}
    assert built.run.stages()["embed"].rows.rows_in == 0
