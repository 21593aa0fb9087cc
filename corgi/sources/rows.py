"""Rows as every source yields them, before they get identities: one row of a list or one sample of a tar."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import pyarrow as pa

from corgi.settings.data import PlanSettings
from corgi.settings.errors import InputError
from corgi.sources.captions import CAPTIONS, captions_of
from corgi.sources.cells import column_of, text_of
from corgi.tables.arrow import pc
from corgi.tables.schema import ADDITIONAL, Reason

BATCH_ROWS = 65_536
ROWS = pa.schema(
    [
        (name, pa.string())
        for name in (
            "url",
            "kind",
            "group",
            "uid",
            "expected_hash",
            "content",
            "location",
            "reason",
        )
    ]
    + [("captions", CAPTIONS), ("additional", ADDITIONAL)]
)
"""`content` is the sha256 of an image without a URL; `location` is where its source stores it; see PLAN for the rest."""
_KINDS = pa.array(["full", "coarse", ""])
_HASH_DIGITS = {"sha256": 64, "md5": 32}


@dataclass(frozen=True)
class Columns:
    """The columns named by a recipe, by their meaning."""

    named: dict[str, str]
    additional: tuple[str, ...]
    hash_kind: str | None

    @classmethod
    def of(cls, settings: PlanSettings) -> "Columns":
        """Return the columns that the settings name; those set to None are left out."""
        wanted = {
            "url": settings.url_col,
            "caption": settings.caption_col,
            "kind": settings.caption_kind_col,
            "group": settings.group_col,
            "uid": settings.uid_col,
            "expected_hash": settings.verify_hash[0] if settings.verify_hash else None,
        }
        named = {name: column for name, column in wanted.items() if column is not None}
        kind = settings.verify_hash[1] if settings.verify_hash else None
        return cls(named, settings.save_additional_columns, kind)

    @property
    def names(self) -> list[str]:
        """Return every column once, in order."""
        return list(dict.fromkeys([*self.named.values(), *self.additional]))

    def without(self, meaning: str) -> "Columns":
        """Return the columns without one of them."""
        return Columns(
            {name: column for name, column in self.named.items() if name != meaning},
            self.additional,
            self.hash_kind,
        )

    def rows(self, found: Mapping[str, pa.Array], uri: str, **given: pa.Array) -> pa.RecordBatch:
        """Return ROWS from columns as they were read; `given` are columns that the reader computed.

        Raises:
            InputError: a column is of a wrong type, is not UTF-8, or contains an invalid caption kind.

        """
        length = len(next(iter([*found.values(), *given.values()])))
        texts = {name: text_of(found[name], name, uri) for name in self._texts}
        arrays = {name: texts[column] for name, column in self.named.items() if name != "caption"}
        if "caption" in self.named:
            caption = self.named["caption"]
            arrays["captions"] = captions_of(found[caption], caption, uri)
        _check_kinds(arrays.get("kind"), uri, self.named.get("kind", ""))
        reasons = given.get("reason")
        if "expected_hash" in arrays and self.hash_kind is not None:
            arrays["expected_hash"], bad = expected_hashes(arrays["expected_hash"], self.hash_kind)
            why = pc.if_else(bad, pa.scalar(str(Reason.BAD_HASH)), pa.scalar(None, pa.string()))
            reasons = why if reasons is None else pc.coalesce(reasons, why)
        arrays |= given
        if reasons is not None:
            arrays["reason"] = reasons
        arrays["additional"] = additional_of({name: texts[name] for name in self.additional}, length)
        return pa.record_batch([arrays.get(f.name, pa.nulls(length, f.type)) for f in ROWS], schema=ROWS)

    def read(self, rows: Sequence[Mapping[str, object]], uri: str) -> dict[str, pa.Array]:
        """Return the columns of parsed rows; a missing cell is null.

        Raises:
            InputError: a cell contains a list or an object that is not allowed.

        """
        caption = self.named.get("caption")
        return {
            name: column_of([row.get(name) for row in rows], name, uri, may_be_lists=name == caption)
            for name in self.names
        }

    @property
    def _texts(self) -> list[str]:
        """Return the columns that must be text: all but the captions, which may be lists of texts."""
        texts = (column for name, column in self.named.items() if name != "caption")
        return list(dict.fromkeys([*texts, *self.additional]))


def expected_hashes(hashes: pa.Array, kind: str) -> tuple[pa.Array, pa.Array]:
    """Return hashes as `kind:hex`, null for a missing or invalid hash, and which cells are invalid."""
    plain = pc.utf8_lower(pc.utf8_trim_whitespace(hashes))
    plain = pc.if_else(pc.equal(plain, ""), pa.scalar(None, pa.string()), plain)
    plain = pc.replace_substring_regex(plain, f"^{kind}:", "")
    good = pc.match_substring_regex(plain, f"^[0-9a-f]{{{_HASH_DIGITS[kind]}}}$")
    named = pc.if_else(good, pc.binary_join_element_wise(kind, plain, ":"), pa.scalar(None, pa.string()))
    return named, pc.fill_null(pc.invert(good), False)


def additional_of(columns: Mapping[str, pa.Array], length: int) -> pa.Array:
    """Return one map per row of the additional columns; null if there are none."""
    if not columns:
        return pa.nulls(length, ADDITIONAL)
    width = len(columns)
    offsets = pa.array(range(0, width * length + 1, width), pa.int32())
    keys = pa.array([*columns] * length, pa.string())
    by_column = pa.concat_arrays(list(columns.values()))
    order = [column * length + row for row in range(length) for column in range(width)]
    return pa.MapArray.from_arrays(offsets, keys, by_column.take(pa.array(order, pa.int64())))


_Row = TypeVar("_Row")


def chunked(rows: Iterator[_Row], size: int = BATCH_ROWS) -> Iterator[list[_Row]]:
    """Yield lists of at most `size` items."""
    block: list[_Row] = []
    for row in rows:
        block.append(row)
        if len(block) == size:
            yield block
            block = []
    if block:
        yield block


def _check_kinds(kinds: pa.Array | None, uri: str, column: str) -> None:
    if kinds is None:
        return
    wrong = kinds.filter(pc.fill_null(pc.invert(pc.is_in(kinds, value_set=_KINDS)), False))
    wrong = wrong.drop_null()
    if len(wrong):
        raise InputError(
            f"{uri}: caption kind {wrong[0].as_py()!r} is neither full nor coarse; nothing was started; "
            f"correct column {column!r}"
        )
