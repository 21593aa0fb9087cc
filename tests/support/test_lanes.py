from types import SimpleNamespace
from typing import Any

from tests.support.lanes import RAY, STRANGERS, sort_files, unit_of


def item(nodeid: str, *marks: str) -> Any:
    return SimpleNamespace(nodeid=nodeid, get_closest_marker=lambda name: name in marks or None)


def test_files_that_share_a_process_are_one_unit_and_others_one_each() -> None:
    assert unit_of("tests/training/test_trainer.py::test_a[x::y]") == RAY
    assert unit_of("tests/flow/test_executor.py::test_b") == RAY
    for kind in ("prior", "stock", "whole"):
        assert unit_of(f"tests/inference/test_export_{kind}.py::test_c") == STRANGERS
    assert unit_of("tests/flow/test_dag.py::test_c[@]") == "tests/flow/test_dag.py"


def test_long_files_come_first_and_a_files_tests_stay_together_in_their_order() -> None:
    items = [
        item("a.py::1"),
        item("b.py::1"),
        item("b.py::2", "slow"),
        item("c.py::1", "flow"),
        item("c.py::2", "ray", "flow"),
        item("d.py::1"),
    ]
    sort_files(items)
    assert [one.nodeid for one in items] == ["c.py::1", "c.py::2", "b.py::1", "b.py::2", "a.py::1", "d.py::1"]
