"""The benchmark of the plan plans: rows and bytes are counted on a short list."""

import json

import pytest

from benchmarks.plan import plan_alone, write_list


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_list_is_planned_and_measured(tmp_path, capsys, ending):
    write_list(tmp_path / f"list.{ending}", 100)
    plan_alone(tmp_path / f"list.{ending}", tmp_path / "runs")
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["rows"] == 100
    assert figures["cpu_seconds"] > 0
    assert figures["peak_bytes"] > 0
