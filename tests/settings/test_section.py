"""Sections are frozen, and every field either changes the digest or is documented as neutral."""

from typing import Any, Literal, Union, get_args, get_origin

import pytest
from annotated_types import Ge, Gt, Le, Lt
from pydantic import ByteSize, ValidationError

from corgi.settings.clip import CurateSettings, EmbedSettings, ShiftSettings, TowerRef, TowerSettings
from corgi.settings.data import DownloadSettings, PlanSettings
from corgi.settings.models import AutoencoderSettings, DecoderSettings, EvaluateSettings, PriorSettings
from corgi.settings.recipe import ClusterSettings, Recipe
from corgi.settings.section import Section, digest, neutral
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
            PlanSettings,
        )
    ),
    *(kind() for kind in (AutoencoderSettings, DecoderSettings, EvaluateSettings, TrainingSettings)),
    PriorSettings(training=TrainingSettings(zero_stage=0)),  # a learned shift needs it
    ClusterSettings(),
    TrackingSettings(),
    TOWER,
]
FIELDS = [(section, name) for section in SECTIONS for name in type(section).model_fields]
HAND_MADE: dict[tuple[str, str], Any] = {
    ("EmbedSettings", "towers"): (TOWER,),
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
}


def marked_neutral(section: Section, name: str) -> bool:
    extra = type(section).model_fields[name].json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("neutral"))


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
    if isinstance(value, TrainingSettings):
        return value.model_copy(update={"num_steps": value.num_steps + 1})
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
    }
    extra = needs.get((type(section), name), {})
    return type(section).model_validate({**section.model_dump(), **extra, name: another(section, name)})


@pytest.mark.parametrize(
    ("section", "name"), FIELDS, ids=lambda item: item if isinstance(item, str) else type(item).__name__
)
def test_a_field_changes_the_digest_or_is_neutral(section, name):
    assert (name not in section.meaning()) == marked_neutral(section, name)
    other = changed(section, name)
    if getattr(other, name) != getattr(section, name):  # a choice of one has no other value yet
        assert (digest(section.meaning()) == digest(other.meaning())) == marked_neutral(section, name)


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
    assert "num_workers" not in quick.meaning()["training"]


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
