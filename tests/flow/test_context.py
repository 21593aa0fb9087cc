"""The version of a stage enters its keys whole; that of a part only where the recipe touches the part."""

from typing import Literal, get_args, get_origin

import pytest

from corgi.clip import stages as clip
from corgi.clip.stages import Embed
from corgi.download import stages as download
from corgi.download.stages import Download
from corgi.flow.context import stage_key, version_of
from corgi.planning.stages import FORMAT_VERSIONS, Plan
from corgi.settings.data import DownloadSettings
from corgi.settings.recipe import Recipe
from corgi.sources.sources import FORMATS, HOLD_PICTURES
from tests.support.stages import stage

TOWER = {"name": "a", "model": "RN50", "pretrained": "random"}


@pytest.mark.parametrize("version", [1, 2, 7])
def test_parts_at_zero_leave_the_keys_of_0_1_as_they_were(version):
    made = stage("s", version=version)
    assert version_of(made, {}) == version_of(made, {"csv": 0, "tsv": 0}) == version


def test_a_raised_part_enters_the_keys_of_those_that_touch_it():
    made = stage("s", version=2)
    keys = {
        stage_key(made, RECIPE, {}, None, parts)
        for parts in ({"csv": 0}, {"csv": 1}, {"csv": 2}, {"tsv": 1}, {"csv": 1, "tsv": 1})
    }
    assert len(keys) == 5
    one = stage_key(made, RECIPE, {}, None, {"csv": 1, "tsv": 0})
    assert one == stage_key(made, RECIPE, {}, None, {"csv": 1})


def recipe(tmp_path, name, **sections):
    (tmp_path / name).write_text("url\nhttp://a.test/1.png\n")
    embed = {"towers": [TOWER], **sections.pop("embed", {})}
    return Recipe.model_validate(
        {"name": "a", "plan": {"input": str(tmp_path / name)}, "embed": embed, **sections}
    )


RECIPE = Recipe.model_validate({"name": "a", "embed": {"towers": [TOWER]}})


@pytest.mark.parametrize("name", ["list.csv", "list.tsv", "list.txt", "list.jsonl"])
def test_a_plan_touches_the_formats_of_its_sources(tmp_path, name, monkeypatch):
    asked = recipe(tmp_path, name)
    before = version_of(Plan(), Plan().parts(asked))
    kind = name.partition(".")[2]
    for other in FORMAT_VERSIONS:
        monkeypatch.setitem(FORMAT_VERSIONS, other, 1)
        assert (version_of(Plan(), Plan().parts(asked)) != before) == (other == kind), other
        monkeypatch.setitem(FORMAT_VERSIONS, other, 0)


@pytest.mark.parametrize(
    ("stage", "versions", "part", "touching", "sparing"),
    [
        (Download(), download, "decode AVIF", {"formats": ["AVIF"]}, {"formats": ["PNG"]}),
        (Download(), download, "resize border", {"resize_mode": "border"}, {}),
        (Download(), download, "encode png", {"encode_format": "png"}, {}),
        (
            Download(),
            download,
            "fetch img2dataset",
            {"engine": "img2dataset", "trust_list": True},
            {"trust_list": True},
        ),
        (Download(), download, "caption languages", {"filter": {"caption_languages": ["en"]}}, {}),
        (Embed(), clip, "tokens", {"tokens": [{"name": "w", "model": "tower:a"}]}, {}),
        (Embed(), clip, "heads", {"heads": [{"name": "h", "tower": "a", "file": "f"}]}, {}),
    ],
)
def test_a_raised_part_spares_recipes_that_do_not_touch_it(
    tmp_path, monkeypatch, stage, versions, part, touching, sparing
):
    monkeypatch.setitem(versions.PART_VERSIONS, part, 3)
    found = stage.parts(recipe(tmp_path, "list.csv", **{stage.name: touching}))
    assert version_of(stage, found) == [stage.version, {part: 3}]
    spared = stage.parts(recipe(tmp_path, "list.csv", **{stage.name: sparing}))
    assert version_of(stage, spared) == stage.version


def choices(name):
    annotation = DownloadSettings.model_fields[name].annotation
    kinds = [annotation, *get_args(annotation)]
    return get_args(next(kind for kind in kinds if get_origin(kind) is Literal))


def test_every_choice_of_a_setting_has_a_number():
    assert set(FORMAT_VERSIONS) == {*FORMATS.values(), *HOLD_PICTURES}
    names = {"engine": "fetch", "formats": "decode", "resize_mode": "resize", "encode_format": "encode"}
    wanted = {f"{word} {choice}" for setting, word in names.items() for choice in choices(setting)}
    assert wanted | {"pictures there", "caption languages"} == set(download.PART_VERSIONS)
