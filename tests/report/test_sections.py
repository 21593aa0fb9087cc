"""The kinds of section: each has a macro of its own name, and no macro is left without one."""

from collections.abc import Iterator
from importlib.resources import files

from jinja2 import Environment, nodes

from corgi.report.sections import Section

DRAWN_INSIDE = {"bars", "chart_of", "grid_of", "interval_chart", "numbers", "thumbnails"}


def kinds(of: type[Section]) -> Iterator[type[Section]]:
    for kind in of.__subclasses__():
        yield kind
        yield from kinds(kind)


def test_every_kind_of_section_has_a_macro_and_every_macro_draws_one() -> None:
    text = files("corgi.report").joinpath("sections.html.j2").read_text(encoding="utf-8")
    macros = {node.name for node in Environment(autoescape=True).parse(text).find_all(nodes.Macro)}
    assert {kind.macro for kind in kinds(Section)} == macros - DRAWN_INSIDE
