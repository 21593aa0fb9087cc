"""Sections are frozen, and every field changes the digest, or is neutral, or was added later and asks for nothing new."""

import re
from typing import Any, Literal, Union, get_args, get_origin

import pytest
from annotated_types import Ge, Gt, Le, Lt
from pydantic import ByteSize, ValidationError

from corgi.settings.clip import (
    CurateSettings,
    EmbedSettings,
    HeadRef,
    ScoreRule,
    ShiftSettings,
    TokenRef,
    TowerRef,
    TowerSettings,
)
from corgi.settings.cluster import ClusterSettings
from corgi.settings.compare import CompareSettings, ScoreSettings
from corgi.settings.data import DownloadSettings, FilterSettings, PackSettings, PlanSettings
from corgi.settings.decoder import (
    DecoderSettings,
    DiTSettings,
    FineTuneSettings,
    UNetSettings,
    UpsamplerSettings,
    WeakSettings,
)
from corgi.settings.models import (
    AdversarialSettings,
    AutoencoderSettings,
    ConvSettings,
    EvaluateSettings,
    PretrainedSettings,
    PriorSettings,
    QuantiserSettings,
)
from corgi.settings.recipe import Recipe
from corgi.settings.section import Section, added, digest, neutral
from corgi.settings.training import TrackingSettings, TrainingSettings

TOWER = TowerRef(name="a", model="RN50", pretrained="random")
SECTIONS: list[Section] = [
    *(
        kind()
        for kind in (
            CurateSettings,
            EmbedSettings,
            ShiftSettings,
            TowerSettings,
            DownloadSettings,
            PackSettings,
            PlanSettings,
        )
    ),
    *(kind() for kind in (AutoencoderSettings, DecoderSettings, EvaluateSettings, TrainingSettings)),
    UNetSettings(),
    DiTSettings(),
    FineTuneSettings(),
    WeakSettings(),
    UpsamplerSettings(),
    *(kind() for kind in (AdversarialSettings, ConvSettings, QuantiserSettings, PretrainedSettings)),
    PriorSettings(training=TrainingSettings(zero_stage=0)),  # a learned shift needs it
    CompareSettings(),
    ScoreSettings(),
    ClusterSettings(),
    TrackingSettings(),
    FilterSettings(),
    TOWER,
    HeadRef(name="a", tower="own", file="f"),
    TokenRef(name="a", model="tower:own"),
    ScoreRule(min=0.5),
]
FIELDS = [(section, name) for section in SECTIONS for name in type(section).model_fields]
HAND_MADE: dict[tuple[str, str], Any] = {
    ("EmbedSettings", "towers"): (TOWER,),
    ("TrackingSettings", "tags"): ("tag",),
    ("PlanSettings", "input"): ("other.csv",),
    ("EmbedSettings", "input"): ("pictures",),
    ("DownloadSettings", "resolve"): ("a:80=127.0.0.1:81",),
    ("DownloadSettings", "allow_private"): ("127.0.0.1:81",),
    ("DownloadSettings", "formats"): ("PNG",),
    ("DownloadSettings", "disallowed_header_directives"): (),
    ("DownloadSettings", "disallowed_content_usage"): (),
    ("PriorSettings", "variants"): ("dalle2",),
    ("PriorSettings", "heads"): 16,
    ("PriorSettings", "width"): 1024,
    ("DecoderSettings", "guidance_interval"): (0.2, 0.8),
    ("DecoderSettings", "weak"): {},
    ("UpsamplerSettings", "guidance_interval"): (0.2, 0.8),
    ("UpsamplerSettings", "network"): "dit",
    ("UNetSettings", "widths"): (96,) * 2,
    ("UNetSettings", "attention"): (0,),
    ("UNetSettings", "heads"): 8,
    ("TrainingSettings", "betas"): (0.5, 0.5),
    ("EvaluateSettings", "steps"): (3,),
    ("DownloadSettings", "engine"): "img2dataset",
    ("TowerRef", "name"): "b",
    ("EmbedSettings", "heads"): ({"name": "a", "tower": "own", "file": "f"},),
    ("EmbedSettings", "tokens"): ({"name": "a", "model": "tower:own"},),
    ("CurateSettings", "scores"): ({"min": 0.5},),
    ("CurateSettings", "placeholder_min_urls"): 3,
    ("DownloadSettings", "filter"): {"min_side": 7},
    ("PlanSettings", "verify_hash"): ("md5", "md5"),
    ("PlanSettings", "save_additional_columns"): ("licence",),
    ("PlanSettings", "block_urls"): ("urls.txt",),
    ("PlanSettings", "block_domains"): ("domains.txt",),
    ("PlanSettings", "block_hashes"): ("hashes.txt",),
    ("ShiftSettings", "measured_clusters"): (3,),
    ("ConvSettings", "widths"): (8,),
    ("AdversarialSettings", "widths"): (8,),
    ("QuantiserSettings", "levels"): (4,),
    ("CompareSettings", "heads"): 8,
    ("CompareSettings", "width"): 256,
    ("CompareSettings", "spaces"): ("own",),
    ("CompareSettings", "arms"): ("ddpm",),
    ("ScoreSettings", "samplers"): ("ddim",),
    ("ScoreSettings", "steps"): (3,),
    ("TokenRef", "name"): "b",
    ("HeadRef", "name"): "b",
    ("FilterSettings", "caption_languages"): ("en",),
}


def marks(kind: type[Section], name: str) -> dict[str, Any]:
    extra = kind.model_fields[name].json_schema_extra
    return extra if isinstance(extra, dict) else {}


def marked_neutral(section: Section, name: str) -> bool:
    return bool(marks(type(section), name).get("neutral"))


def marked_added(section: Section, name: str) -> bool:
    return "added" in marks(type(section), name)


def within(field: Any, value: float) -> bool:
    bounds = [
        (Ge, lambda m: value >= m.ge),
        (Gt, lambda m: value > m.gt),
        (Le, lambda m: value <= m.le),
        (Lt, lambda m: value < m.lt),
    ]
    return all(allowed(m) for m in field.metadata for kind, allowed in bounds if isinstance(m, kind))


def another(section: Section, name: str) -> Any:
    """Return an allowed value that differs from the one a section has."""
    known = HAND_MADE.get((type(section).__name__, name))
    if known is not None:
        return known
    field, value = type(section).model_fields[name], getattr(section, name)
    kinds = (
        get_args(field.annotation)
        if get_origin(field.annotation) in (Union, type(int | None))
        else (field.annotation,)
    )
    kind: Any = next(k for k in kinds if k is not type(None))
    if isinstance(value, Section):
        inner = next(inner for inner in type(value).model_fields if not marked_neutral(value, inner))
        return changed(value, inner)
    if get_origin(kind) is Literal:
        choices = [choice for choice in get_args(kind) if choice != value]
        return choices[0] if choices else value
    if kind is bool:
        return not value
    if kind is str:
        return f"{value}x"
    start = value or 0
    steps = (1, -1) if kind in (int, ByteSize) else (0.001, -0.001)
    return next(kind(start + step) for step in steps if within(field, start + step))


def changed(section: Section, name: str) -> Section:
    needs = {
        (DownloadSettings, "engine"): {"trust_list": True},
        (TrainingSettings, "keep_best"): {"eval_every_steps": 1},
        (DecoderSettings, "noise_level_known"): {"conditioning_noise": 0.5},
        (UpsamplerSettings, "noise_level_known"): {"conditioning_noise": 0.5},
        (UpsamplerSettings, "network"): {"crop": 0},
        (DecoderSettings, "finetune"): {"init_from": "pretrain", "network": "unet"},
        (DecoderSettings, "num_text_tokens"): {"network": "unet"},
        (DecoderSettings, "regression"): {"network": "unet"},
    }
    extra = needs.get((type(section), name), {})
    return type(section).model_validate({**section.model_dump(), **extra, name: another(section, name)})


@pytest.mark.parametrize(
    ("section", "name"), FIELDS, ids=lambda item: item if isinstance(item, str) else type(item).__name__
)
def test_a_field_changes_the_digest_or_is_neutral(section, name):
    assert (name not in section.meaning()) == (marked_neutral(section, name) or marked_added(section, name))
    other = changed(section, name)
    if getattr(other, name) != getattr(section, name):  # a choice of one has no other value yet
        assert (digest(section.meaning()) == digest(other.meaning())) == marked_neutral(section, name)


def reachable(kind: Any) -> set[type[Section]]:
    """Return the sections that a type holds, at any depth."""
    if isinstance(kind, type) and issubclass(kind, Section):
        return {kind}.union(*(reachable(field.annotation) for field in kind.model_fields.values()))
    return set().union(*map(reachable, get_args(kind)))


def test_every_section_of_a_recipe_is_among_those_tested():
    assert reachable(Recipe) - {Recipe} == {type(section) for section in SECTIONS}


class Reference(Section):
    """A section in a list, as the first version had it."""

    name: str = "a"


class Nested(Section):
    """A nested section, as the first version had it."""

    steps: int = 3


class First(Section):
    """A section, as the first version had it."""

    size: int = 5
    mode: Literal["x", "y"] = "x"
    nested: Nested = Nested(steps=4)
    given: tuple[Reference, ...] = (Reference(),)


class LaterReference(Reference):
    """The same, with a further setting."""

    limit: int | None = added(None, since="0.2", ge=1)


class LaterNested(Nested):
    """The same, with a further setting."""

    rate: float = added(0.5, since="0.2", gt=0)


class Whole(Section):
    """A section that the first version did not have."""

    rank: int = 8
    workers: int = neutral(1)


class Later(Section):
    """What `First` became: each kind of thing that can be added."""

    size: int = 5
    mode: Literal["x", "y", "z"] = "x"
    nested: LaterNested = LaterNested(steps=4)
    given: tuple[LaterReference, ...] = (LaterReference(),)
    extra: bool = added(default=False, since="0.2")
    names: tuple[str, ...] = added((), since="0.2")
    mended: int = added(1, since="0.3", before=0)
    whole: Whole = added(Whole(), since="0.2")
    optional: Whole | None = added(None, since="0.3")


WITHOUT = {"mended": 0}


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"size": 6},
        {"mode": "y"},
        {"nested": {"steps": 9}},
        {"given": [{"name": "b"}, {"name": "c"}]},
    ],
)
def test_what_finished_runs_asked_for_keeps_its_digest(asked):
    later = Later.model_validate({**asked, **WITHOUT})
    assert digest(later.meaning()) == digest(First.model_validate(asked).meaning())
    assert digest(Later.model_validate_json(later.model_dump_json()).meaning()) == digest(later.meaning())


@pytest.mark.parametrize(
    "asked",
    [
        {"mode": "z"},
        {"mended": 1},
        {"mended": 2},
        {"extra": True},
        {"names": ["a"]},
        {"nested": {"rate": 0.7}},
        {"given": [{"limit": 3}]},
        {"whole": {"rank": 9}},
        {"optional": {}},
    ],
)
def test_what_an_added_setting_asks_for_changes_the_digest(asked):
    assert digest(Later.model_validate({**WITHOUT, **asked}).meaning()) != digest(First().meaning())


def test_an_added_setting_is_out_by_its_value_not_by_its_silence():
    asked = {"extra": False, "names": [], "whole": {"rank": 8, "workers": 5}, "nested": {"rate": 0.5}}
    assert digest(Later.model_validate({**WITHOUT, **asked}).meaning()) == digest(First().meaning())
    assert digest(Later().meaning()) != digest(First().meaning())  # its default is new behaviour


def test_what_an_earlier_version_recorded_means_what_was_done_then():
    first = First(size=6).model_dump(mode="json")
    assert Later.recorded(first).mended == 0  # not its default, which is new behaviour
    assert digest(Later.recorded(first).meaning()) == digest(First(size=6).meaning())
    again = Later.recorded(Later(mended=1, extra=True).model_dump(mode="json"))
    assert again == Later(mended=1, extra=True)
    with pytest.raises(ValidationError):
        Later.recorded({**first, "gone": 1})


def test_recorded_sections_are_compared_by_meaning():
    told = First().model_dump(mode="json")
    was = Later.recorded_meaning(told)
    assert was == Later(mended=0).meaning()
    assert was == Later.recorded_meaning({**told, "whole": {"rank": 8, "workers": 7}})
    assert was != Later.recorded_meaning({**told, "whole": {"rank": 9, "workers": 1}})
    assert Later.recorded_meaning({"size": "unreadable", "gone": 1}) == {"size": "unreadable", "gone": 1}


def test_an_added_setting_keeps_its_bounds():
    with pytest.raises(ValidationError):
        LaterNested(rate=0)


def test_the_meaning_of_named_settings_is_theirs_alone():
    assert Later().meaning(["size", "whole"]) == {"size": 5}
    assert Later(whole=Whole(rank=9)).meaning(["whole"]) == {"whole": {"rank": 9}}


def test_an_added_setting_names_the_version_that_has_it():
    for kind in reachable(Recipe):
        for name in kind.model_fields:
            since = marks(kind, name).get("added", {}).get("since", "0.2")
            assert re.fullmatch(r"\d+\.\d+(\.\d+)?", since), f"{kind.__name__}.{name}"


def test_the_engine_alone_changes_the_digest():
    trusted = DownloadSettings(trust_list=True)
    assert digest(trusted.meaning()) != digest(
        DownloadSettings(trust_list=True, engine="img2dataset").meaning()
    )


def test_a_neutral_field_of_a_nested_section_stays_out():
    quick = PriorSettings(training=TrainingSettings(num_workers=2))
    longer = PriorSettings(training=TrainingSettings(num_steps=7))
    assert digest(quick.meaning()) == digest(PriorSettings().meaning())
    assert digest(longer.meaning()) != digest(PriorSettings().meaning())
    training = quick.meaning()["training"]
    assert isinstance(training, dict)
    assert "num_workers" not in training


def test_neutral_settings_are_few_and_known(promise):
    neutral_names = {
        f"{type(section).__name__}.{name}" for section, name in FIELDS if marked_neutral(section, name)
    }
    assert not {
        name for name in neutral_names if name.rpartition(".")[2] in ("seed", "lr", "num_steps", "image_size")
    }
    assert "PlanSettings.input" in neutral_names
    assert Recipe.model_fields["root"].json_schema_extra == {"neutral": True}
    for section, name in FIELDS:
        other = changed(section, name)
        if getattr(other, name) != getattr(section, name):
            assert (digest(section.meaning()) == digest(other.meaning())) == marked_neutral(section, name)
    promise(
        9,
        f"{len(FIELDS)} settings changed in turn: {len(neutral_names)} declared neutral, the others change the digest",
    )


def test_settings_never_change_after_loading():
    for section, name in FIELDS:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(section, name, getattr(section, name))


def test_a_digest_does_not_depend_on_the_order_of_keys():
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest({"a": [1, 2]}) != digest({"a": [2, 1]})
    assert len(digest({})) == 32


def test_meaning_survives_a_round_trip_through_json():
    for section in SECTIONS:
        again = type(section).model_validate_json(section.model_dump_json())
        assert again == section
        assert digest(again.meaning()) == digest(section.meaning())


def test_neutral_keeps_its_bounds():
    class Speed(Section):
        """One neutral setting."""

        workers: int = neutral(1, ge=1)

    assert Speed().meaning() == {}
    with pytest.raises(ValidationError):
        Speed(workers=0)


def test_every_setting_is_documented_where_it_is_declared():
    assert [name for section, name in FIELDS if not type(section).model_fields[name].description] == []
