"""Failure speaks: every message of a user's error says what is wrong, what is safe and what to do next."""

import ast
from pathlib import Path

import pytest

from corgi.settings import errors

HOME = Path(__file__).resolve().parents[2]
CLASSES = ("SettingsError", "InputError", "StorageError", "ClusterError")


def raised() -> list[tuple[str, str]]:
    """Return (place, text) of every user's error raised with a text; a formatted value stands as {}."""
    found = []
    for path in sorted((HOME / "corgi").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
                name = node.exc.func
                if isinstance(name, ast.Name) and name.id in CLASSES:
                    found.append((f"{path.relative_to(HOME)}:{node.lineno}", text_of(node.exc.args[0])))
    return [(place, text) for place, text in found if text]


def text_of(node: ast.expr) -> str:
    """Return a literal's text, its parts joined."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return "{}"
    if isinstance(node, ast.BinOp):
        return text_of(node.left) + text_of(node.right)
    return ""


def test_every_message_has_three_parts_on_one_line(promise):
    messages = raised()
    assert len(messages) > 50
    assert [(place, text) for place, text in messages if "\n" in text or not is_whole(text)] == []
    promise(
        35, f"{len(messages)} of {len(messages)} messages: one line; what is wrong, what is safe, what next"
    )


def is_whole(text: str) -> bool:
    """Return whether a text has its parts; what ends in a value may hand the last ones on."""
    return text.count("; ") >= 2 or (text.count("; ") == 1 and text.endswith("{}"))


@pytest.mark.parametrize(("name", "code"), list(zip(CLASSES, (2, 3, 4, 5), strict=True)))
def test_exit_codes_by_class(name, code):
    assert getattr(errors, name).exit_code == code
