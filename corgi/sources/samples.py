"""Samples: an image with its captions and JSON, by naming rules that tars and folders share."""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import pyarrow as pa

from corgi.sources.cells import parsed
from corgi.sources.rows import Columns
from corgi.sources.url_lists import missing_column
from corgi.tables.schema import Reason

PICTURE_ENDINGS = frozenset(
    {"jpg", "jpeg", "jpe", "jfif", "png", "apng", "webp", "gif", "bmp", "dib", "tif", "tiff", "avif"}
    | {"heic", "heif", "jxl", "jp2", "j2k", "ppm", "pgm", "pbm", "pnm", "ico"}
)
"""Suffixes of images, whether or not their format may be decoded: that is decided from the bytes, with a reason."""
NOTE_ENDINGS = ("json", "txt")
_SPELLINGS = {"json": ("json",), "txt": ("txt", "caption")}
"""Suffixes of notes; if an image has two, the first is used."""
MAX_NOTE_BYTES = 2**20
"""Longest caption, metadata or extended header that is read, bytes; a longer caption is ignored, a longer header is an error."""
_SHOWN_NAMES = 20
_DEFAULT_NAMES = {"url": "url", "caption": "caption"}
"""Columns that pictures may lack as long as the settings give them no other name."""

Tally = Counter[str]
"""The number of members of a source that are not rows, by kind."""
MEANINGS = {
    "strangers": "files of macOS and hidden pictures, left out",
    "links": "links and other files without their own bytes, left out",
    "notes_unreadable": "captions or JSON too long or unreadable, left out",
    "notes_without_picture": "captions or JSON without a picture, left out",
    "pictures_unnamed": "pictures that no metadata names, kept",
}
"""The meaning of the names of a tally, for the screen."""
_Note = TypeVar("_Note")


@dataclass(frozen=True)
class Sample:
    """What a source has about one image; if there is no location, there is no image."""

    cells: dict[str, Any]
    location: str | None
    content: str | None


def is_stranger(path: str) -> bool:
    """Return whether a path is a file left behind by macOS, which is ignored."""
    *folders, name = path.split("/")
    return name.startswith("._") or name == ".DS_Store" or "__MACOSX" in folders


def is_picture(path: str) -> bool:
    """Return whether a path has a picture's ending, in upper or lower case."""
    return last_ending(path) in PICTURE_ENDINGS


def last_ending(path: str) -> str:
    """Return what follows the last dot of a name, in lower case; empty without a dot."""
    _, dot, ending = path.rpartition("/")[2].rpartition(".")
    return ending.lower() if dot else ""


def stem(path: str) -> str:
    """Return a path without its last ending."""
    folder, slash, name = path.rpartition("/")
    return folder + slash + (name.rpartition(".")[0] or name)


def first_stem(path: str) -> str:
    """Return a path up to the first dot of its name."""
    folder, slash, name = path.rpartition("/")
    return folder + slash + name.partition(".")[0]


def is_note(path: str) -> bool:
    """Return whether a path has the ending of a caption or of JSON, in upper or lower case."""
    return any(last_ending(path) in spellings for spellings in _SPELLINGS.values())


class Notes(dict[tuple[str, str], _Note]):
    """Captions and JSON by (path without its last ending, ending)."""

    def put(self, path: str, note: _Note) -> None:
        """Add a note; if there are several with one path, the first is used."""
        if is_note(path):
            self.setdefault((stem(path), last_ending(path)), note)

    def beside(self, picture: str, ending: str) -> _Note | None:
        """Return the note of a picture: the one with its name without the last ending, else with its name up to the first dot.

        Args:
            picture: path of the picture.
            ending: one of NOTE_ENDINGS; a caption may also end in `.caption`.

        """
        for name in (stem(picture), first_stem(picture)):
            for spelling in _SPELLINGS[ending]:
                if (name, spelling) in self:
                    return self[name, spelling]
        return None

    def taken_by(self, pictures: Iterable[str]) -> set[_Note]:
        """Return the notes that belong to one or more of the pictures."""
        found = (self.beside(picture, ending) for picture in pictures for ending in NOTE_ENDINGS)
        return {note for note in found if note is not None}

    def shared(self, pictures: Iterable[str], ending: str) -> set[_Note]:
        """Return the notes that belong to more than one of the pictures."""
        taken = Counter(note for note in (self.beside(one, ending) for one in pictures) if note is not None)
        return {note for note, number in taken.items() if number > 1}


def cells_of(note: bytes | None, caption: bytes | None, columns: Columns, tally: Tally) -> dict[str, object]:
    """Return the cells from a sample's JSON and text; a note that is not a JSON object gives no cells and is counted.

    A text that is not blank replaces the JSON's caption.
    """
    cells: dict[str, object] = {}
    if note is not None:
        try:
            found = parsed(note)
        except (ValueError, RecursionError):
            found = None
        cells = found if isinstance(found, dict) else {}
        tally["notes_unreadable"] += not isinstance(found, dict)
    if caption is not None and "caption" in columns.named:
        text = caption.decode("utf-8", "replace").strip()
        if text or columns.named["caption"] not in cells:
            cells[columns.named["caption"]] = text
    return cells


def laid_over(below: Mapping[str, object], above: Mapping[str, object]) -> dict[str, object]:
    """Return the cells of both; for a column in both `above` is used, unless it is empty."""
    said = {name: value for name, value in above.items() if value not in (None, "") or name not in below}
    return {**below, **said}


def without_identity(cells: Mapping[str, object], columns: Columns) -> dict[str, object]:
    """Return the cells of JSON that several pictures share, without URL, uid and hash, which cannot belong to several pictures."""
    names = {columns.named.get(name) for name in ("url", "uid", "expected_hash")}
    return {name: value for name, value in cells.items() if name not in names}


def has_url(cells: Mapping[str, object], columns: Columns) -> bool:
    """Return whether the cells contain a picture's URL."""
    return str(cells.get(columns.named.get("url", "")) or "").strip() != ""


def checked(
    samples: Iterable[Sample], columns: Columns, uri: str, known: Iterable[str] = ()
) -> Iterator[Sample]:
    """Yield the samples with only the cells in the named columns; `known` are columns that the source always has.

    Raises:
        InputError: at the end, if a named column is in none of the samples.

    """
    names, is_empty = dict.fromkeys(known), True
    missing = {name: None for name in columns.names if name not in names}
    for sample in samples:
        is_empty = False
        for name in sample.cells:
            missing.pop(name, None)
        if len(names) < _SHOWN_NAMES:
            names |= dict.fromkeys(itertools.islice(sample.cells, _SHOWN_NAMES))
        yield replace(sample, cells={name: sample.cells.get(name) for name in columns.names})
    if not is_empty:
        missing = [name for name in missing if not _may_be_missing(name, columns, bool(names))]
        if missing:
            raise missing_column(uri, missing[0], list(names))


def _may_be_missing(name: str, columns: Columns, has_cells: bool) -> bool:
    """Return whether pictures may lack a column: the URL under its default name, and the caption under its default name if no picture has a note."""
    if name in columns.additional:
        return False
    meanings = [meaning for meaning, column in columns.named.items() if column == name]
    return all(
        _DEFAULT_NAMES.get(meaning) == name and not (meaning == "caption" and has_cells)
        for meaning in meanings
    )


def sample_rows(samples: list[Sample], columns: Columns, uri: str) -> pa.RecordBatch:
    """Return ROWS of samples."""
    read = columns.read([sample.cells for sample in samples], uri)
    reasons = [None if sample.location else str(Reason.NO_PICTURE) for sample in samples]
    return columns.rows(
        read,
        uri,
        location=pa.array([sample.location for sample in samples], pa.string()),
        content=pa.array([sample.content for sample in samples], pa.string()),
        reason=pa.array(reasons, pa.string()),
    )
