"""Arms of an experiment: what left a file is not run again, files of another machine count, and the page has the tables of all."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.arms import Experiment, File, fill_block, named, show
from benchmarks.compare_styles import CompareStyles
from benchmarks.decoders import Decoders
from benchmarks.few_captions import FewCaptions
from benchmarks.networks import Networks

PAGE = "before\n<!-- arms: trial -->\nold\n<!-- end -->\n<!-- figures: other -->\nkept\n<!-- end -->\n"


@dataclass(frozen=True)
class Arm:
    name: str
    minutes: float = 2.5


class Trial(Experiment[Arm]):
    name = "trial"

    def __init__(self, folder: Path, breaks_at: str = "") -> None:
        self.page, self.results = folder / "page.md", folder / "results"
        self.page.write_text(PAGE)
        self.ran: list[str] = []
        self.breaks_at = breaks_at

    def run_arm(self, arm: Arm) -> File:
        if arm.name == self.breaks_at:
            raise KeyboardInterrupt
        self.ran.append(arm.name)
        return {"arm": arm.name, "figure": len(arm.name)}

    def parts(self, files: Sequence[File]) -> Iterable[str]:
        for one in files:
            yield f"{one['arm']}: {one['figure']}"


ARMS = [Arm("b"), Arm("aa"), Arm("c")]


def test_an_interrupted_experiment_goes_on_with_the_arms_that_left_no_file(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        Trial(tmp_path, breaks_at="aa").run(ARMS)
    trial = Trial(tmp_path)
    trial.run(ARMS)
    assert trial.ran == ["aa", "c"]
    assert trial.page.read_text() == PAGE.replace("old\n", "aa: 2\nb: 1\nc: 1")


def test_the_page_has_what_was_run_until_an_arm_fails(tmp_path: Path):
    trial = Trial(tmp_path, breaks_at="c")
    with pytest.raises(KeyboardInterrupt):
        trial.run(ARMS)
    assert "aa: 2\nb: 1<!-- end -->" in trial.page.read_text()


def test_files_of_another_machine_fill_the_page_without_a_run(tmp_path: Path):
    Trial(tmp_path).run(ARMS)
    trial = Trial(tmp_path)
    trial.run(ARMS)
    assert trial.ran == []
    assert "aa: 2" in trial.page.read_text()


def test_files_elsewhere_are_printed_and_the_page_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    trial = Trial(tmp_path)
    trial.run(ARMS[:1], tmp_path / "quick")
    assert trial.page.read_text() == PAGE
    assert "b: 1" in capsys.readouterr().out
    assert json.loads((tmp_path / "quick" / "b.json").read_text())["figure"] == 1


def test_arms_are_chosen_by_name_in_the_order_asked_for():
    assert named(ARMS, ["c", "b"]) == [ARMS[2], ARMS[0]]
    assert named(ARMS, []) == ARMS
    with pytest.raises(SystemExit, match="z is no arm; nothing was run"):
        named(ARMS, ["b", "z"])


def test_the_minutes_announced_are_summed(capsys: pytest.CaptureFixture[str]):
    show(ARMS)
    assert capsys.readouterr().out.splitlines()[-1] == "3 arms, 7.5 minutes"


def test_text_with_backslashes_is_written_as_it_is(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    fill_block(page, "trial", r"\1 \g<0>", "arms")
    assert r"\1 \g<0><!-- end -->" in page.read_text()


@pytest.mark.parametrize("kind", [CompareStyles, Decoders, FewCaptions, Networks])
def test_the_page_of_every_experiment_has_its_block(kind: type[Experiment]) -> None:
    name = getattr(kind, "name", "decoders")
    assert kind.page.read_text().count(f"<!-- arms: {name} -->\n") == 1
