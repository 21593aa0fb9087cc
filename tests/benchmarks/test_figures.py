"""Figures: recorded with their loads and spread on an idle machine, printed and not recorded on any other."""

import json
from pathlib import Path

import pytest

from benchmarks import figures as page
from benchmarks.all import ALL, main
from benchmarks.figures import Figures, alternated, ratios, spread
from benchmarks.load import Watch
from tests.benchmarks.test_load import Planted

MARKS = "before\n<!-- figures: toy -->\nold\n<!-- end -->\nafter\n"


@pytest.fixture
def results(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(page, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(page, "PAGE", tmp_path / "benchmarks.md")
    page.PAGE.write_text(MARKS)
    return tmp_path / "results"


def measured(*loads: float, **shares: float) -> Figures:
    readings = Planted(*loads, **shares)
    watch = Watch(readings)
    watch.start = lambda: watch.look(0.0)
    found = Figures("toy", "pyarrow", watch=watch)
    found.add_rounds("ratio", [2.0, 1.0, 4.0], "x", ">=1.5")
    found.add("images", 7, "images")
    readings.now = 10.0
    watch.look(10.0)
    return found


def test_an_idle_machines_rows_hold_loads_and_the_spread_of_their_rounds(results, capsys):
    assert measured(0.1, 1.4, 1.9).write()
    kept = json.loads((results / "toy.json").read_text())
    assert kept["rows"] == [
        {
            "name": "ratio",
            "value": 2.0,
            "unit": "x",
            "goal": ">=1.5",
            "met": True,
            "rounds": 3,
            "spread": 1.5,
            "load before": 0.1,
            "load after": 1.4,
        },
        {
            "name": "images",
            "value": 7,
            "unit": "images",
            "goal": "",
            "met": None,
            "rounds": 1,
            "spread": None,
            "load before": 0.1,
            "load after": 1.9,
        },
    ]
    assert "| ratio | 2 x | 150.0% of 3 rounds | 0.10, 1.40 | >=1.5 | met |" in page.PAGE.read_text()
    assert "| images | 7 images |  | 0.10, 1.90 |  |  |" in page.PAGE.read_text()
    assert capsys.readouterr().out.splitlines()[0] == "bench ratio 2 x goal >=1.5 met"


@pytest.mark.parametrize(("load", "share"), [(0.51, 0.0), (7.3, 0.0), (0.1, 0.21)])
def test_under_load_figures_are_printed_and_nothing_is_recorded(results, capsys, load, share):
    results.mkdir()
    (results / "toy.json").write_text("recorded before")
    assert not measured(load, other=share).write()
    assert (results / "toy.json").read_text() == "recorded before"
    assert page.PAGE.read_text() == MARKS
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == ["bench ratio 2 x goal >=1.5 met", "bench images 7 images goal -"]
    assert said[2].startswith("not recorded: ")


def test_blocks_that_arms_fill_are_left_alone(results):
    arms = "<!-- arms: toy -->\nkept\n<!-- end -->\n"
    page.PAGE.write_text(MARKS + arms)
    assert measured(0.1, 0.2).write()
    assert page.PAGE.read_text().endswith(arms)


def test_rows_recorded_before_there_were_loads_are_still_a_table(results):
    results.mkdir()
    row = {"name": "old", "value": 1.0, "unit": "x", "goal": "", "met": None}
    (results / "toy.json").write_text(json.dumps({"machine": {"cpus": 2}, "rows": [row]}))
    page.write_tables()
    assert "| old | 1 x |  |  |  |  |" in page.PAGE.read_text()


def test_rounds_alternate_and_their_ratios_are_of_one_round():
    calls = []
    taken = alternated(3, lambda: calls.append("a") or 6.0, lambda: calls.append("b") or 2.0)
    assert calls == list("ababab")
    assert ratios(*taken) == [3.0] * 3
    assert spread([3.0] * 3) == 0.0
    assert spread([3.0]) is None


def test_every_table_of_the_page_has_a_benchmark_in_the_list():
    text = (Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md").read_text()
    assert set(ALL) == {found[2] for found in page.TABLE.finditer(text)}
    assert all((Path(page.__file__).parent / f"{one.module}.py").exists() for one in ALL.values())


def test_the_list_tells_minutes_and_runs_nothing(capsys):
    assert main(["--list", "plan", "store"]) == 0
    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.splitlines()] == ["plan", "store", "together"]
    with pytest.raises(SystemExit):
        main(["nothing"])
