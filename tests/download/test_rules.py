"""Named rules and presets: what each keeps, what it says of what it leaves out, and that no row is lost between them."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, get_args

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from corgi.download.checks import RowChecks
from corgi.download.planned import Outcome, checked_outcomes
from corgi.download.rules import (
    CAPTION_RULES,
    IMAGE_RULES,
    PRESETS,
    Original,
    broken_rule,
    check_captions,
    check_image,
    placeholders,
    repeated,
    rules_of,
)
from corgi.download.shard_tables import shard_tables
from corgi.imaging.decode import StoredImage
from corgi.settings.data import DownloadSettings, FilterSettings, PresetName
from corgi.tables.rejection import Rejection
from corgi.tables.schema import PLAN, Reason
from tests.support.results import reason_of


def picture_of(url: str) -> StoredImage:
    return StoredImage(
        b"image", 64, 48, 400, 300, f"hash of {len(url)}", "0" * 16, "image/jpeg", "JPEG", False, 200, 9_000
    )


class Site:
    """An engine that has a picture for every URL, and remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def outcomes(
        self, urls: Sequence[str], expected_hashes: Sequence[str | None] | None = None
    ) -> list[Outcome]:
        self.asked += urls
        return [picture_of(url) for url in urls]

    def close(self) -> None:
        pass


def outcomes_by(rules: FilterSettings, site: Site, plan: pa.Table) -> list[Outcome]:
    return checked_outcomes(site, plan, plan["url"], RowChecks(DownloadSettings(filter=rules)))


def plan_of(captions: list[list[str]]) -> pa.Table:
    rows = [
        {
            "uid": f"{number:032x}",
            "url": f"http://a.test/{number}",
            "group": str(number),
            "split": "train",
            "captions": [{"caption": caption, "kind": "full"} for caption in texts],
            "sources": ["list"],
            "rows": [number],
        }
        for number, texts in enumerate(captions)
    ]
    return pa.Table.from_pylist(rows, schema=PLAN)


def test_a_preset_gives_way_to_single_rules_and_zero_switches_one_off() -> None:
    basic = rules_of(FilterSettings(preset="datacomp_basic"))
    assert basic == PRESETS["datacomp_basic"]
    changed = rules_of(
        FilterSettings(preset="datacomp_basic", min_side=0, caption_languages=(), min_caption_words=2)
    )
    assert (changed.min_side, changed.caption_languages, changed.min_caption_words) == (0, (), 2)
    assert changed.max_aspect_ratio == basic.max_aspect_ratio
    assert rules_of(FilterSettings()) == FilterSettings()
    with pytest.raises(ValidationError):
        FilterSettings.model_validate({"preset": "best"})


@pytest.mark.parametrize(
    ("caption", "rules", "setting"),
    [
        ("a dog", FilterSettings(min_caption_chars=5), None),
        ("  dog  ", FilterSettings(min_caption_chars=5), "min_caption_chars"),
        ("", FilterSettings(min_caption_chars=1), "min_caption_chars"),
        ("abcdef", FilterSettings(max_caption_chars=5), "max_caption_chars"),
        ("abcde ", FilterSettings(max_caption_chars=5), None),
        ("a small dog", FilterSettings(min_caption_words=3), None),
        ("a dog", FilterSettings(min_caption_words=3), "min_caption_words"),
        ("a b c d", FilterSettings(max_caption_words=3), "max_caption_words"),
        ("dog", FilterSettings(min_caption_chars=9, min_caption_words=2), "min_caption_chars"),
        ("anything", FilterSettings(), None),
    ],
)
def test_each_length_rule_names_itself(caption: str, rules: FilterSettings, setting: str | None) -> None:
    rule = broken_rule(caption, rules)
    assert (rule.setting if rule else None) == setting
    assert rule is None or rule.reason == Reason.CAPTION_LENGTH


@pytest.mark.parametrize(
    ("caption", "kept"),
    [
        ("a brown dog runs over the green field in the morning", True),
        ("ein brauner Hund läuft am Morgen über das grüne Feld", False),
        ("un chien brun court dans le champ vert le matin", False),
        ("茶色の犬が緑の野原を走っています", False),
    ],
)
def test_the_language_rule_knows_languages(caption: str, kept: bool) -> None:
    rules = FilterSettings(caption_languages=("en",))
    rule = broken_rule(caption, rules)
    assert (rule is None) == kept
    assert rule is None or rule.reason == Reason.CAPTION_LANGUAGE


@pytest.mark.parametrize(
    ("size", "num_bytes", "reason"),
    [
        ((200, 600), 9_000, None),
        ((199, 400), 9_000, Reason.TOO_SMALL),
        ((200, 601), 9_000, Reason.ASPECT_RATIO),
        ((601, 200), 9_000, Reason.ASPECT_RATIO),
        ((300, 300), 4_999, Reason.TOO_FEW_BYTES),
        ((300, 300), 5_000, None),
        ((300, 300), None, None),
    ],
)
def test_picture_rules_are_inclusive_and_named(
    size: tuple[int, int], num_bytes: int | None, reason: Reason | None
) -> None:
    found = check_image(*size, num_bytes, FilterSettings(min_side=200, max_aspect_ratio=3, min_bytes=5_000))
    assert (found.reason if found else None) == reason


def test_rows_without_a_caption_worth_keeping_are_not_even_asked_for() -> None:
    rules = FilterSettings(min_caption_chars=5, keep_without_caption=False)
    plan = plan_of([["a good one"], ["bad"], ["bad", "a good one"], []])
    site = Site()
    outcomes = outcomes_by(rules, site, plan)
    assert site.asked == ["http://a.test/0", "http://a.test/2"]
    assert [reason_of(outcome) for outcome in outcomes] == [
        None,
        Reason.CAPTION_LENGTH,
        None,
        Reason.NO_CAPTION,
    ]
    tables = shard_tables(plan, outcomes, rules)
    assert tables.captions.select(["uid", "ordinal", "caption"]).to_pylist() == [
        {"uid": f"{0:032x}", "ordinal": 0, "caption": "a good one"},
        {"uid": f"{2:032x}", "ordinal": 1, "caption": "a good one"},
    ]
    assert tables.facts["captions_left_out"] == {"min_caption_chars": 1}
    assert (tables.rows.rows_in, tables.rows.kept) == (4, 2)


def test_by_default_a_picture_outlives_its_captions() -> None:
    rules = FilterSettings(min_caption_chars=5)
    plan = plan_of([["bad"], []])
    tables = shard_tables(plan, outcomes_by(rules, Site(), plan), rules)
    assert (tables.images.num_rows, tables.captions.num_rows, tables.rows.kept) == (2, 0, 2)


def test_pictures_that_break_a_rule_are_ledger_rows_with_its_reason() -> None:
    plan = plan_of([["a caption"]])
    outcomes = outcomes_by(FilterSettings(min_side=301), Site(), plan)
    assert outcomes == [Rejection(Reason.TOO_SMALL, "min_side", 200, 9_000)]


@given(
    st.lists(st.lists(st.text(max_size=12), max_size=3), min_size=1, max_size=12),
    st.builds(
        FilterSettings,
        min_caption_chars=st.integers(0, 6),
        max_caption_words=st.integers(0, 3),
        keep_without_caption=st.booleans(),
        min_side=st.sampled_from([0, 300, 301]),
    ),
)
def test_rows_in_are_kept_or_rejected_with_a_reason(captions: list[list[str]], rules: FilterSettings) -> None:
    plan = plan_of(captions)
    tables = shard_tables(plan, outcomes_by(rules, Site(), plan), rules)
    ledger = tables.ledger.to_pylist()
    assert len(ledger) == len(captions) == tables.rows.kept + sum(tables.rows.rejected.values())
    assert all((row["reason"] is None) == (row["status"] == "kept") for row in ledger)
    assert tables.rows.rejected == Counter(row["reason"] for row in ledger if row["reason"])
    if not rules.keep_without_caption:
        assert set(tables.images["uid"].to_pylist()) == set(tables.captions["uid"].to_pylist())
    assert all(check_captions([text], rules) is None for text in tables.captions["caption"].to_pylist())


def test_every_rule_belongs_to_a_setting_and_every_setting_to_a_rule() -> None:
    rules = {rule.setting for rule in (*CAPTION_RULES, *IMAGE_RULES)}
    assert set(FilterSettings.model_fields) == rules | {
        "preset",
        "min_language_score",
        "keep_without_caption",
    }


def test_every_preset_is_a_choice() -> None:
    assert tuple(PRESETS) == get_args(PresetName)
    for name, preset in PRESETS.items():
        assert rules_of(FilterSettings(preset=name)) == preset


@pytest.mark.parametrize("rule", [*CAPTION_RULES, *IMAGE_RULES], ids=lambda rule: rule.setting)
def test_no_rule_is_asked_where_it_is_not_set(rule: Any) -> None:
    hopeless = "" if rule in CAPTION_RULES else Original(1, 1000, 0)
    for off in (None, 0, ()):
        rules = FilterSettings().model_copy(update={rule.setting: off})
        assert not rule.breaks(hopeless, rules)


def test_placeholders_are_bodies_under_many_urls() -> None:
    counts = repeated(["a", "b", "a", "c", "a", "b"])
    assert counts == {"a": 3, "b": 2}
    assert list(counts) == ["a", "b"]
    assert placeholders(counts, 3) == {"a"}
    assert placeholders(counts, None) == frozenset()
