"""Folders of pictures: named by what they hold, whatever the case of an ending, and the same as ever where nothing is new."""

import hashlib
import json
from pathlib import Path

import pytest

from corgi.settings.data import PlanSettings
from corgi.sources import folders
from corgi.sources.folders import folder_digest
from corgi.sources.rows import Columns
from corgi.sources.sources import batches, sources
from corgi.storage import file_memory
from corgi.storage.file_memory import MIN_BYTES


def folder_of(path: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def digest_of(folder: Path) -> str:
    (source,) = sources(PlanSettings(input=(str(folder),)))
    return source.sha256


def captions_of(folder: Path) -> list[list[str]]:
    chosen = PlanSettings(input=(str(folder),))
    return [
        caption
        for one in sources(chosen)
        for batch in batches(one, chosen)
        for caption in batch.column("captions").to_pylist()
    ]


def test_the_digest_is_that_of_pictures_json_and_captions_in_order(tmp_path):
    """The name of a finished run's source: pictures by path, each before its JSON and its caption."""
    files = {
        "a/1.jpg": b"1",
        "a/1.json": b"{}",
        "a/1.txt": b"one",
        "0.png": b"0",
        "0.txt": b"zero",
        "notes.pdf": b"x",
    }
    lines = [
        f"{name}\0{hashlib.sha256(files[name]).hexdigest()}\n"
        for name in ("0.png", "0.txt", "a/1.jpg", "a/1.json", "a/1.txt")
    ]
    assert digest_of(folder_of(tmp_path / "a", files)) == hashlib.sha256("".join(lines).encode()).hexdigest()


@pytest.mark.parametrize("name", ["metadata.csv", "0.TXT", "0.JSON", "1.bmp"])
def test_whatever_a_row_can_come_from_is_in_the_digest(tmp_path, name):
    body = {"metadata.csv": b"file_name,caption\n0.jpg,x\n", "0.JSON": b'{"caption": "x"}'}.get(name, b"x")
    folder = folder_of(tmp_path / "a", {"0.jpg": b"0"})
    before = digest_of(folder)
    (folder / name).write_bytes(body)
    first = digest_of(folder)
    (folder / name).write_bytes(body + b" ")
    assert len({before, first, digest_of(folder)}) == 3


def test_what_no_row_can_come_from_is_not_in_the_digest(tmp_path):
    folder = folder_of(tmp_path / "a", {"0.jpg": b"0"})
    before = digest_of(folder)
    folder_of(
        folder,
        {"._0.jpg": b"x", ".DS_Store": b"x", "__MACOSX/._0.jpg": b"x", "__MACOSX/0.jpg": b"x", "1.npy": b"x"},
    )
    assert digest_of(folder) == before


@pytest.mark.parametrize("ending", ["txt", "TXT", "Txt"])
def test_a_caption_is_found_whatever_the_case_of_its_ending(tmp_path, ending):
    assert captions_of(folder_of(tmp_path / "a", {"A.JPG": b"0", f"A.{ending}": b"words"})) == [["words"]]


@pytest.mark.parametrize("how", ["rewritten", "renamed", "another caption"])
def test_a_folder_is_read_once_over_commands_while_nothing_in_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    folder, columns = tmp_path / "images", Columns.of(PlanSettings())
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"a" * MIN_BYTES)
    (folder / "a.txt").write_text("one")
    file_memory.forget()
    digest = folder_digest(str(folder), columns)
    told = json.dumps(file_memory.told())
    file_memory.forget()
    file_memory.take_over(json.loads(told))
    with monkeypatch.context() as patched:
        patched.setattr(folders, "sha256_of", lambda path: pytest.fail(f"{path} is read a second time"))
        assert folder_digest(str(folder), columns) == digest
    if how == "rewritten":
        (folder / "a.jpg").write_bytes(b"b" * MIN_BYTES)
    elif how == "renamed":
        (folder / "a.jpg").rename(folder / "b.jpg")
    else:
        (folder / "a.txt").write_text("two")
    assert folder_digest(str(folder), columns) != digest
    file_memory.forget()
