"""The tree: no import cycle, no overgrown package, module or function; the measuring tool finds what it looks for."""

from pathlib import Path

import pytest

from tests.support import house


@pytest.fixture(scope="module")
def found() -> list[house.Module]:
    return house.modules()


def test_no_modules_and_no_packages_import_each_other_in_a_cycle(found: list[house.Module]) -> None:
    files, packages = house.cycles(found)
    assert files == []
    assert packages == []


def test_no_package_holds_more_than_an_eighth_of_the_lines(found: list[house.Module]) -> None:
    name, share = next(iter(house.package_shares(found).items()))
    assert share <= 1 / 8, name


def test_functions_fit_on_a_screen_and_modules_stay_short(found: list[house.Module]) -> None:
    lines, function = house.longest_function(found)
    assert lines <= 60, function
    lines, module = house.longest_module(found)
    assert lines <= 350, module


def test_tests_know_little_of_what_is_private() -> None:
    found = house.private_uses()
    assert len(found) <= 16, (
        found
    )  # 33 at 0a7c469; what is left are steps that are replaced to count or to fail


def planted(tmp_path: Path, **texts: str) -> list[house.Module]:
    for name, text in texts.items():
        path = tmp_path / "corgi" / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (tmp_path / "pipelines").mkdir()
    return house.modules(tmp_path)


def test_a_planted_cycle_is_found_among_modules_and_packages(tmp_path: Path) -> None:
    found = planted(
        tmp_path,
        a__one="from corgi.b import two\n",
        b__two="def f() -> None:\n    import corgi.a.one\n",
        b__three="from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from corgi.c import four\n",
        c__four="from corgi.b import three\n",
    )
    files, packages = house.cycles(found)
    assert files == [["corgi.a.one", "corgi.b.two"]]
    assert packages == [["a", "b"]]


def test_only_code_is_counted(tmp_path: Path) -> None:
    text = '"""Docstring.\n\nMore.\n"""\n\n# comment\nX = 1\n"""About X."""\n\n\ndef f() -> str:\n    """Say."""\n    return """a\nb"""\n'
    (module,) = planted(tmp_path, a__one=text)
    assert module.num_code_lines == 4
    assert house.longest_function([module]) == (3, "corgi.a.one:f")


def test_any_in_a_signature_is_found_however_deep(tmp_path: Path) -> None:
    text = "from typing import Any\n\n\ndef f(*, x: list[dict[str, Any]]) -> int: ...\ndef g(x: int) -> int:\n    y: Any = x\n    return y\n"
    assert house.any_signatures(planted(tmp_path, a__one=text)) == ["corgi.a.one:f"]


def test_uses_of_private_names_are_counted_and_other_libraries_names_are_not(tmp_path: Path) -> None:
    planted(tmp_path, a__one="_LIMIT = 1\n\n\nclass A:\n    def _held(self) -> None: ...\n")
    text = """
import os
from corgi.a.one import _LIMIT, A
class T(A):
    def f(self): self._held()
A()._held()
os._exit
monkeypatch.setattr("corgi.a.one._LIMIT", 2)
monkeypatch.setattr(A, "_held", None)
"""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_one.py").write_text(text)
    found = [place.split()[0].split(":")[1] + place.split()[1] for place in house.private_uses(tmp_path)]
    assert sorted(found) == ["3_LIMIT", "6_held", "8_LIMIT", "9_held"]
