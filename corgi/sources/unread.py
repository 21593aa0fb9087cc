"""Files of a folder that are not read although they could be sources: they are counted and reported, so that nothing is lost silently."""

import itertools
import os
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from corgi.settings.data import PlanSettings
from corgi.sources.metadata import naming_column
from corgi.sources.rows import Columns
from corgi.sources.samples import is_picture, is_stranger
from corgi.sources.sources import FORMATS, sources_in, vectors_list
from corgi.storage.paths import ending, expand, inside, is_folder, is_local

_TEXT_LISTS = frozenset({".txt", ".json"})
"""Endings of lists that are captions and JSON files in a folder with pictures."""
_PACKED = (".bz2", ".xz", ".zip", ".7z", ".rar", ".tgz")


@dataclass(frozen=True)
class Unread:
    """The files of one folder that are not read: the numbers of tars, lists, pictures and packed files, and the path of the first."""

    folder: str
    counts: Counter[str]
    first: str

    def line(self) -> str:
        """Return a line that reports them and says what to do."""
        what = ", ".join(f"{kind} ({number})" for kind, number in sorted(self.counts.items()))
        return (
            f"plan.input: {self.folder}: {what} are not read, such as {self.first}; the plan is made from the rest; "
            "name all of them in plan.input, or set plan.input_format to the format to read"
        )


def unread(settings: PlanSettings) -> Iterator[Unread]:
    """Yield the folders of the input with files that are not read; none if plan.input_format is set, since that is an explicit choice."""
    if settings.input_format != "auto":
        return
    uris = list(dict.fromkeys(itertools.chain.from_iterable(map(expand, settings.input))))
    read = {path for uri in uris for path, _ in sources_in(uri, settings)}
    for uri in filter(is_folder, uris):
        if vectors_list(uri) is None and (found := _unread_in(uri, read, Columns.of(settings))):
            yield found


def _unread_in(uri: str, read: Collection[str], columns: Columns) -> Unread | None:
    """Return the files of a folder that are neither read nor belong to files that are read; texts and JSON of images are not lists."""
    beside_tars = {path.removesuffix(".tar") for path in read if path.endswith(".tar")}
    of_pictures = tuple(f"{path.rstrip('/')}/" for path in read if is_folder(path))
    has_pictures, found, texts = uri in read, Counter[str](), Counter[str]()
    firsts: dict[str, str] = {}
    for path in filter(lambda path: path not in read, _files(uri)):
        kind = _kind(path)
        is_of_pictures = path.startswith(of_pictures) and (kind == "pictures" or naming_column(path, columns))
        if kind is None or is_of_pictures or path.rpartition(".")[0] in beside_tars:
            continue
        has_pictures = has_pictures or kind == "pictures"
        (texts if ending(path) in _TEXT_LISTS else found)[kind] += 1
        firsts.setdefault(ending(path), path)
    if not has_pictures:
        found += texts
    first = next((path for end, path in firsts.items() if not (has_pictures and end in _TEXT_LISTS)), "")
    return Unread(uri, found, first) if found else None


def _kind(path: str) -> str | None:
    """Return the kind of a file by its name; None if it cannot be a source."""
    if is_stranger(path) or os.path.basename(path).startswith(".") or path.endswith("_stats.json"):
        return None
    if is_picture(path):
        return "pictures"
    if path.lower().endswith(_PACKED):
        return "packed files"
    if ending(path) == ".tar":
        return "tars"
    return "lists" if ending(path) in FORMATS else None


def _files(uri: str) -> Iterator[str]:
    """Yield the files of a folder, and of its subfolders if it is on a disk."""
    if not is_local(uri):
        yield from inside(uri)
        return
    for base, _, names in os.walk(uri.rstrip("/") or "/"):
        yield from (f"{base}/{name}" for name in names)
