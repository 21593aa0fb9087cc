"""What calibration writes is a table of rates that `--plan` reads, and what cannot be measured keeps the table's own rate."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import calibrate
from corgi.budget.rates import load


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"NUM_EMBEDDED": 4, "NUM_ROWS": 100, "DIM": 8, "WRITE_BYTES": 2**16}.items():
        monkeypatch.setattr(calibrate, name, value)


@pytest.mark.slow
def test_measured_rates_are_read_by_the_plan_and_others_stay(
    quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def without_nginx(folder: Path) -> Iterator[float]:
        raise FileNotFoundError(2, "No such file", "nginx")
        yield 0.0

    monkeypatch.setattr(calibrate, "fetch_cpu_per_url", without_nginx)
    out = tmp_path / "rates.yaml"
    assert calibrate.main(["--root", str(tmp_path / "root"), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "fetch_cpu_per_url: not measured: nginx is missing; the table's own rate stays" in said
    own, table = load(str(out)), load()
    assert own["fetch_cpu_per_url"] == table["fetch_cpu_per_url"]
    for name in ("embed_cpu_per_tower", "statistics_cpu_per_row", "storage_bandwidth"):
        assert own[name] != table[name]
        assert 0 < own[name].low < own[name].high
    assert list((tmp_path / "root" / "calibration").iterdir()) == []


@pytest.mark.parametrize("values", [[1.0], [1.0, 2.0, 0.5], [1e-6, 3e9]])
def test_law_an_interval_holds_every_round(values: list[float]) -> None:
    low, high = calibrate.widened(values)
    assert low < min(values) <= max(values) < high
