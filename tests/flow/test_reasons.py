"""A plan says of each stage the run has finished before why it is to be made again, and of no other."""

import json

import pytest

from corgi.settings.section import digest
from tests.support import toy_stages


def because(toy, *overrides):
    """Return the reasons that a plan prints, by stage."""
    assert toy.run("--plan", *overrides) == 0
    found, stage = {}, ""
    for line in toy.said.splitlines():
        if line.startswith(" "):
            found[stage] = line.strip().removeprefix("redone because: ")
        else:
            stage = line.split()[0]
    return found


def test_a_first_run_and_a_finished_one_have_no_reasons(toy):
    assert because(toy) == {}
    assert toy.run() == 0
    assert because(toy) == {}


@pytest.mark.parametrize(
    ("overrides", "stage", "why"),
    [
        (["plan.seed=5"], "numbers", "plan.seed 0 -> 5"),
        (["plan.seed=5", "plan.val_share=0.1"], "numbers", "plan.seed 0 -> 5; plan.val_share 0.05 -> 0.1"),
        (["download.filter.min_side=9"], "squares", "download.filter.min_side null -> 9"),
        (["shift.num_clusters=3"], "total", "shift.num_clusters 16 -> 3"),
        (["--force", "--only", "squares"], "squares", "--force"),
    ],
)
def test_changed_settings_are_named_with_both_values(finished, overrides, stage, why):
    assert because(finished, *overrides)[stage] == why


def test_a_stage_whose_inputs_are_to_be_made_again_says_so(finished):
    assert because(finished, "plan.seed=5") == {
        "numbers": "plan.seed 0 -> 5",
        "squares": "numbers may change",
        "total": "squares may change",
    }


def test_neutral_settings_are_no_reason(finished):
    assert because(finished, "plan.seed=5", "plan.credit=X")["numbers"] == "plan.seed 0 -> 5"
    assert because(finished, "download.connections=3") == {}


def test_a_raised_version_and_a_raised_part_are_named(finished, monkeypatch):
    made = toy_stages.stages
    changes = {"version": 3, "parts": lambda recipe: {"csv": 2, "tsv": 0}}

    def stages(recipe):
        numbers, *others = made(recipe)
        vars(numbers).update(changes)
        return [numbers, *others]

    monkeypatch.setattr(toy_stages, "stages", stages)
    assert because(finished)["numbers"] == "version 1 -> 3; version of csv 0 -> 2"


@pytest.mark.parametrize(
    ("was", "now", "why"),
    [
        (["a" * 64 + " csv"], ["b" * 64 + " csv"], "aaaaaaaaaaaa… csv is gone; bbbbbbbbbbbb… csv is new"),
        ({"own x.pt": "a", "y": "1"}, {"own x.pt": "b", "z": "1"}, "y is gone; own x.pt changed; z is new"),
        ("one list", "another", "a file outside the store changed"),
    ],
)
def test_what_lies_outside_the_store_is_named(toy, monkeypatch, was, now, why):
    monkeypatch.setattr(toy_stages, "outside", lambda recipe: was)
    assert toy.run() == 0
    monkeypatch.setattr(toy_stages, "outside", lambda recipe: now)
    assert because(toy)["numbers"] == why


def test_a_manifest_that_does_not_say_what_was_outside_leaves_that_as_the_reason(finished):
    for place in (finished.root / "store" / "numbers" / "closed").rglob("manifest-*.json"):
        told = json.loads(place.read_text())
        told = {name: value for name, value in told.items() if name not in ("outside", "content_digest")}
        place.write_text(json.dumps({**told, "content_digest": digest(told)}))
    finished.steer(outside="another list")
    assert because(finished)["numbers"] == "a file outside the store changed"


def test_an_input_that_came_out_otherwise_is_named(finished):
    finished.steer(salt="00002")
    assert finished.run("--force", "--only", "numbers") == 0
    assert because(finished)["squares"] == "input numbers changed"


def test_the_reason_is_still_there_after_an_interruption(finished):
    finished.steer(stop="squares 1")
    assert finished.run("download.image_size=64") == 130
    finished.release("stop")
    assert because(finished, "download.image_size=64") == {
        "squares": "download.image_size 256 -> 64",
        "total": "squares may change",
    }


def test_many_reasons_are_counted(finished):
    shares = ["plan.val_share=0.1", "plan.test_share=0.2", "plan.seed=1", "plan.url_col=a", "plan.uid_col=b"]
    assert because(finished, *shares, "plan.caption_col=c", "plan.group_col=d")["numbers"].endswith(
        "; 2 more"
    )
