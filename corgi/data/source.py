"""Lists of URLs as they lie on disk: Parquet, CSV, TSV and JSON lines, streamed, never loaded whole."""

import glob
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.dataset as pa_dataset

from corgi.settings.data import PlanSettings
from corgi.settings.errors import InputError

_BATCH_ROWS = 65_536
_JSON = (".jsonl", ".json", ".ndjson")
_KINDS = (None, "", "full", "coarse")


@dataclass(frozen=True)
class Source:
    """One file of a list and the sha256 of its bytes, which names its rows in every ledger."""

    path: Path
    sha256: str

    @property
    def meaning(self) -> str:
        """Return what a plan depends on: the bytes, and the ending that says how to read them; not the name."""
        return f"{self.sha256}{_ending(self.path)}"


def sources(settings: PlanSettings) -> list[Source]:
    """Return the files of the list, sorted by digest so that neither names nor order of arguments matter.

    Raises:
        InputError: no input is named, a file is missing or cannot be read.

    """
    if not settings.input:
        raise InputError(
            "plan.input names no list; nothing was started; set plan.input=PATH to a Parquet, CSV, TSV or JSON-lines file"
        )
    found: dict[str, Source] = {}
    for pattern in settings.input:
        paths = [pattern] if Path(pattern).exists() else sorted(glob.glob(pattern, recursive=True))
        if not paths:
            raise InputError(
                f"plan.input: {pattern} does not exist; nothing was started; name an existing list"
            )
        for path in map(Path, paths):
            try:
                source = Source(path, _sha256(path))
            except OSError as error:
                raise InputError(
                    f"plan.input: {path} cannot be read ({error.strerror}); nothing was started; name a readable list"
                ) from error
            found[source.sha256] = source
    return [found[name] for name in sorted(found)]


def fingerprint(recipe: Any) -> list[str]:
    """Return what the plan depends on outside the store: the contents of the list's files."""
    return [source.meaning for source in sources(recipe.plan)]


def batches(source: Source, settings: PlanSettings) -> Iterator[pa.RecordBatch]:
    """Yield a list's rows as (url, caption, kind, group) strings, in file order.

    Raises:
        InputError: the file is not what its name says, or lacks a column.

    """
    wanted = {
        "url": settings.url_col,
        "caption": settings.caption_col,
        "kind": settings.caption_kind_col,
        "group": settings.group_col,
    }
    columns = {name: column for name, column in wanted.items() if column is not None}
    names = list(columns.values())
    try:
        scanned = _dataset(source.path, names).to_batches(
            columns=names, batch_size=_BATCH_ROWS, fragment_readahead=1
        )
        for batch in scanned:
            yield _renamed(batch, columns, source.path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"{source.path} cannot be read as a list: {str(error).splitlines()[0]}; nothing was started; correct the file"
        ) from error


def _dataset(path: Path, columns: list[str]) -> pa_dataset.Dataset:
    """Open a list; columns whose type is only a guess are taken as text."""
    dataset = pa_dataset.dataset(str(path), format=_format(path, columns))
    for column in columns:
        if column not in dataset.schema.names:
            raise InputError(
                f"{path} has no column {column!r} (it has {', '.join(dataset.schema.names)}); nothing was started; "
                "set plan.url_col, plan.caption_col, plan.caption_kind_col or plan.group_col"
            )
        if isinstance(dataset.schema.field(column).type, pa.BaseExtensionType):
            raise InputError(
                f"{path}: column {column!r} is of an extension type; nothing was started; store it as plain text"
            )
    guessed = _ending(path) in _JSON
    fields = [pa.field(f.name, pa.string()) if _is_guess(f.type, guessed) else f for f in dataset.schema]
    return pa_dataset.dataset(str(path), schema=pa.schema(fields), format=_format(path, columns))


def _is_guess(kind: pa.DataType, from_text: bool) -> bool:
    """Say whether a type was guessed: null from a block without values, a time from a text that looks like one."""
    return pa.types.is_null(kind) or (from_text and pa.types.is_temporal(kind))


def _renamed(batch: pa.RecordBatch, columns: dict[str, str], path: Path) -> pa.RecordBatch:
    arrays = {name: batch.column(column).cast(pa.string()) for name, column in columns.items()}
    kinds = arrays["kind"].unique().to_pylist() if "kind" in arrays else []
    for kind in kinds:
        if kind not in _KINDS:
            raise InputError(
                f"{path}: caption kind {kind!r} is neither full nor coarse; nothing was started; "
                f"correct column {columns['kind']!r}"
            )
    nulls = pa.nulls(batch.num_rows, pa.string())
    return pa.record_batch({name: arrays.get(name, nulls) for name in ("url", "caption", "kind", "group")})


def _ending(path: Path) -> str:
    return Path(path.name.removesuffix(".gz").removesuffix(".zst")).suffix


def _format(path: Path, columns: list[str]) -> pa_dataset.FileFormat | str:
    """Return how a list is read; CSV columns are text, so that a caption such as 007 stays as it is."""
    ending = _ending(path)
    if ending == ".parquet":
        return "parquet"
    if ending in _JSON:
        return "json"
    if ending in (".tsv", ".csv"):
        delimiter = "\t" if ending == ".tsv" else ","
        return pa_dataset.CsvFileFormat(
            parse_options=pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=pa_csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.string())),
        )
    raise InputError(
        f"{path} is no list Corgi reads by its ending; nothing was started; use .parquet, .csv, .tsv or .jsonl"
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
