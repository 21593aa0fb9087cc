"""The docs: the FAQ quotes messages that exist, the page of tables is current, and the site has every page and no dead link."""

import ast
import importlib.util
import re
from pathlib import Path

from tests.support import tables_page

HOME = Path(__file__).resolve().parents[1]
LINK = re.compile(r"\]\(([^)\s#]+)[^)]*\)")


def texts_of_the_code() -> str:
    """Return all text of the code, without the values in it."""
    nodes = (
        node
        for path in (HOME / "corgi").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    )
    return "\n".join(
        node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def test_every_message_of_the_faq_is_one_of_the_code():
    text = (HOME / "docs" / "faq.md").read_text(encoding="utf-8")
    quoted = re.findall(r'^## "(.+)"$', text, re.MULTILINE)
    code = texts_of_the_code()
    assert len(quoted) > 10
    assert [message for message in quoted if message not in code] == []


def test_the_page_of_tables_is_current():
    assert tables_page.PAGE.read_text(encoding="utf-8") == tables_page.page()


def site():
    """Return docs/site.py as a module."""
    spec = importlib.util.spec_from_file_location("docs_site", HOME / "docs" / "site.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_site_has_every_page_in_its_navigation_and_no_link_out_of_it(tmp_path, monkeypatch):
    module = site()
    monkeypatch.setattr(module, "TARGET", tmp_path / "docs")
    module.main()
    made = {path.relative_to(tmp_path / "docs").as_posix() for path in (tmp_path / "docs").rglob("*.md")}
    named = set(
        re.findall(r": ([\w/-]+\.md)$", (HOME / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert {name for name in made if not name.startswith("decisions/")} | {"decisions/index.md"} == named
    for page in (tmp_path / "docs").rglob("*.md"):
        for target in LINK.findall(page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), (page.name, target)


def test_links_of_the_repository_become_links_of_the_site():
    rewritten = site().rewritten
    assert (
        rewritten("[a](docs/run.md#w-b) [b](LICENSE) [c](cluster/)", "README.md")
        == "[a](run.md#w-b) b [c](cluster.md)"
    )
    assert (
        rewritten("[a](../README.md) ![g](images/x.png)", "docs/run.md") == "[a](index.md) ![g](images/x.png)"
    )
    assert (
        rewritten("[a](../run.md) [b](https://a.test/b)", "docs/decisions/0001-keys-from-content.md")
        == "[a](../run.md) [b](https://a.test/b)"
    )


SHOWN = re.compile(r"!\[[^\]]*\]\((?:docs/)?images/([^)]+)\)|<img[^>]* src=\"(?:docs/)?images/([^\"]+)\"")
CREDITS = ("OpenMoji", "CC BY-SA 4.0", "Twemoji", "CC BY 4.0")
PLOTS = {"autoscaling.png", "comparison-own.png", "comparison-off-centre.png", "noise-levels.png"}
"""Figures of numbers alone."""


def test_every_committed_picture_is_shown_on_a_page_that_credits_whose_it_is():
    pages = [HOME / "README.md", *(HOME / "docs").glob("*.md")]
    shown: dict[str, list[str]] = {}
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for found in SHOWN.finditer(text):
            shown.setdefault(found[1] or found[2], []).append(text)
    committed = {path.name for path in (HOME / "docs" / "images").iterdir()}
    assert set(shown) == committed
    uncredited = [
        name
        for name in sorted(committed - PLOTS)
        for text in shown[name]
        if not all(words in text for words in CREDITS)
    ]
    assert uncredited == []


def test_screenshots_are_there_in_every_look():
    looks = [
        f"{page}-{look}.jpg"
        for page in ("playground", "search", "report")
        for look in ("light", "dark", "phone")
    ]
    assert [name for name in looks if not (HOME / "docs" / "images" / name).is_file()] == []
