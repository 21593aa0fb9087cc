"""docs/tables.md: the columns of every committed table and the reasons of the ledger, from `corgi/tables/schema.py`.

`python -m tests.support.tables_page` writes the page; a test keeps it current.
"""

import ast
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pyarrow as pa

from corgi.tables import schema
from corgi.tables.schema import Reason

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tables.md"

_HEAD = """# Tables and reasons

Every stage commits Parquet tables, one file per shard, below `root/store/STAGE/`. Any reader of Parquet opens them; only files that a manifest names
count. This page is written by `python -m tests.support.tables_page` from `corgi/tables/schema.py`.

A width of a vector and the name of a tower come from the recipe: here a tower `TOWER` of 512 dimensions, a text encoder `ENCODER` and a score `SCORE`.
"""
_MADE = {
    "image_embeddings": lambda: schema.image_embeddings({"TOWER": 512}, ["SCORE"]),
    "caption_embeddings": lambda: schema.caption_embeddings({"TOWER": 512}),
    "caption_tokens": lambda: schema.caption_tokens({"ENCODER": 512}),
    "latents": lambda: schema.latents(512),
}


def page() -> str:
    """Return the whole page."""
    return "\n".join([_HEAD, *_tables(), *_reasons()]) + "\n"


def _tables() -> Iterator[str]:
    texts = _docstrings()
    for name, value in vars(schema).items():
        if isinstance(value, pa.Schema):
            yield from _table(name.lower(), texts.get(name, ""), value)
    for name, made in _MADE.items():
        text = (getattr(schema, name).__doc__ or "").replace("Return the schema of one", "One", 1)
        yield from _table(name, text, made())


def _table(name: str, text: str, columns: pa.Schema) -> Iterator[str]:
    yield f"## {name}\n\n{' '.join(text.split())}\n\n| column | type |\n|---|---|"
    yield from (f"| `{field.name}` | `{field.type}` |" for field in columns)
    yield ""


def _docstrings() -> dict[str, str]:
    """Return the string after each assignment of the module, by the assigned name."""
    body = ast.parse(Path(schema.__file__).read_text(encoding="utf-8")).body
    return {
        first.targets[0].id: ast.literal_eval(second.value)
        for first, second in pairwise(body)
        if isinstance(first, ast.Assign) and isinstance(first.targets[0], ast.Name)
        if isinstance(second, ast.Expr) and isinstance(second.value, ast.Constant)
    }


def _reasons() -> Iterator[str]:
    yield "## Reasons\n\nWhy a row of the list is rejected, or a kept image is not used.\n\n| reason | meaning |\n|---|---|"
    yield from (f"| `{reason.value}` | {reason.text} |" for reason in Reason)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
