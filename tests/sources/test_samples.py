"""Pictures in are rows out: in a tar and in a folder, whatever the names of their members are."""

import errno
import hashlib
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from webdataset.tariterators import group_by_keys, tar_file_expander

from corgi.settings.data import PlanSettings
from corgi.settings.errors import InputError
from corgi.sources.samples import Tally
from corgi.sources.sources import batches, sources
from tests.support.tars import write_tar

PICTURES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tiff", "avif", "heic", "jxl", "jp2", "ppm")
KINDS = ("tar", "folder")
FOLDERS = st.sampled_from(["", "a/", "v1.0/", "train.v1/b/", "__MACOSX/", "__MACOSX/a/"])
STEMS = st.sampled_from(
    ["0", "1", "0.left", "0.right", "shot.2024.0", "shot.2024.1", "v0.5 final", "._0", "._1"]
)
ENDINGS = st.sampled_from([f".{one}" for one in (*PICTURES, "JPG", "txt", "TXT", "json", "npy")])
NAMES = st.one_of(
    st.tuples(FOLDERS, STEMS, ENDINGS).map("".join),
    st.tuples(FOLDERS, st.sampled_from([".DS_Store", "README", "licence.md"])).map("".join),
)
MANY = settings(
    max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def rows_of(path: Path, **plan: Any) -> list[dict[str, Any]]:
    chosen = PlanSettings.model_validate(
        {"input": str(path), "input_format": "files" if path.is_dir() else "auto", **plan}
    )
    return [
        row for source in sources(chosen) for batch in batches(source, chosen) for row in batch.to_pylist()
    ]


def refused(path: Path, **plan: Any) -> str:
    with pytest.raises(InputError) as found:
        rows_of(path, **plan)
    assert "\n" not in str(found.value)
    assert "nothing was started" in str(found.value)
    return str(found.value)


def written(kind: str, place: Path, members: list[tuple[str, bytes]]) -> Path:
    """Write members as a tar or as a folder."""
    if kind == "tar":
        return write_tar(place / "a.tar", members)
    for name, data in members:
        path = place / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return place / "pictures"


def body(name: str, number: int) -> bytes:
    """Return what a member holds: its name and number, as JSON where its name says so."""
    text = f"{name} {number}"
    return json.dumps({"note": text, "caption": None}).encode() if name.endswith(".json") else text.encode()


def is_counted(name: str) -> bool:
    is_stranger = "__MACOSX" in name or name.rpartition("/")[2].startswith("._")
    return name.lower().endswith(PICTURES) and not is_stranger


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@MANY
@given(names=st.lists(NAMES, max_size=14))
def test_every_picture_of_a_tar_is_a_row(tmp_path_factory, names):
    """Doubles, dots, strangers, upper case, no pair and nested folders, in any order."""
    members = [(name, body(name, number)) for number, name in enumerate(names)]
    rows = rows_of(written("tar", tmp_path_factory.mktemp("t"), members))
    found = [row["content"] for row in rows if row["location"]]
    assert found == [sha256(data) for name, data in members if is_counted(name)]
    assert {row["reason"] for row in rows if not row["location"]} <= {"no_picture"}


@MANY
@given(names=st.sets(NAMES, min_size=1, max_size=14))
def test_every_picture_of_a_folder_is_a_row(tmp_path_factory, names):
    members = [(name, body(name, number)) for number, name in enumerate(sorted(names))]
    pictures = [(name, data) for name, data in members if is_counted(name)]
    place = written("folder", tmp_path_factory.mktemp("f"), members)
    if not pictures:
        assert "has no list, tar or picture" in refused(place)
        return
    rows = rows_of(place)
    assert [row["content"] for row in rows] == [sha256(data) for _, data in pictures]
    assert [row["reason"] for row in rows] == [None] * len(pictures)
    texts = {name[:-4]: data.decode() for name, data in reversed(members) if name.lower().endswith(".txt")}
    assert [row["captions"] for row in rows] == [captions_by_name(name, texts) for name, _ in pictures]


def captions_by_name(picture: str, texts: dict[str, str]) -> list[str]:
    """Return the text of a picture's own name, else of its name up to the first dot."""
    folder, slash, name = picture.rpartition("/")
    for stem in (name.rpartition(".")[0], name.partition(".")[0]):
        if folder + slash + stem in texts:
            return [texts[folder + slash + stem]]
    return []


@MANY
@given(st.data())
def test_samples_of_one_picture_are_those_of_the_library(tmp_path_factory, data):
    """Whatever else a tar holds: where webdataset makes a sample of one picture, its picture, text and JSON are ours."""
    name = st.tuples(
        st.sampled_from(["", "a/", "v1.0/"]), st.sampled_from(["0", "1", "0.left", "s.2.0"]), ENDINGS
    ).map("".join)
    stray = st.sampled_from(["README", "a/LICENSE", ".hidden", "v1.0/.hidden.txt"])
    names = [
        *data.draw(st.lists(st.one_of(name, stray), max_size=14, unique_by=str.lower)),
        "z.jpg",
        "z.json",
    ]
    path = write_tar(
        tmp_path_factory.mktemp("t") / "a.tar", [(one, body(one, at)) for at, one in enumerate(names)]
    )
    rows = rows_of(path, save_additional_columns=["note"])
    whole = path.read_bytes()
    ours = [
        (whole[start : start + size], row["captions"], dict(row["additional"])["note"])
        for row in rows
        if row["location"]
        for start, size in [map(int, row["location"].rpartition("/")[2].split(":"))]
    ]
    for sample in library_samples(path):
        endings = [suffix for suffix in sample if suffix.rpartition(".")[2] in PICTURES]
        if len(endings) == 1:
            text, note = (nearest(sample, endings[0], ending) for ending in ("txt", "json"))
            captions = [] if text is None else [text.decode()]
            assert (sample[endings[0]], captions, note and json.loads(note)["note"]) in ours


def nearest(sample: dict[str, bytes], picture: str, ending: str) -> bytes | None:
    own = f"{picture.rpartition('.')[0]}.{ending}".lstrip(".")
    return sample.get(own, sample.get(ending))


def library_samples(path: Path) -> list[dict[str, bytes]]:
    with path.open("rb") as stream:
        files = tar_file_expander([{"url": str(path), "stream": stream}])
        return [
            {name: value for name, value in sample.items() if not name.startswith("__")}
            for sample in group_by_keys(files)
        ]


@pytest.mark.parametrize("kind", KINDS)
def test_two_pictures_of_one_sample_take_its_caption_and_never_its_url(tmp_path, kind):
    note = json.dumps({"url": "http://a.example/1", "caption": "from JSON", "id": 7}).encode()
    members = [
        ("0.left.jpg", b"left"),
        ("0.right.jpg", b"right"),
        ("0.json", note),
        ("1.jpg", b"1"),
        ("1.json", note),
    ]
    rows = rows_of(written(kind, tmp_path, members), save_additional_columns=["id"])
    assert [row["captions"] for row in rows] == [["from JSON"]] * 3
    assert [row["url"] for row in rows] == [None, None, "http://a.example/1"]
    assert [row["content"] for row in rows] == [sha256(b"left"), sha256(b"right"), None]
    assert [dict(row["additional"]) for row in rows] == [{"id": "7"}] * 3


@pytest.mark.parametrize("kind", KINDS)
def test_an_own_caption_comes_before_that_of_the_sample(tmp_path, kind):
    members = [("0.left.jpg", b"l"), ("0.left.txt", b"own"), ("0.right.jpg", b"r"), ("0.txt", b"both")]
    rows = rows_of(written(kind, tmp_path, members))
    assert [row["captions"] for row in rows] == [["own"], ["both"]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_blank_text_does_not_take_the_place_of_the_caption_in_json(tmp_path, kind):
    members = [("0.jpg", b"0"), ("0.json", b'{"caption": "words"}'), ("0.txt", b" \n")]
    assert [row["captions"] for row in rows_of(written(kind, tmp_path, members))] == [["words"]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("notes", "captions"),
    [
        ({"0.caption": b"words"}, ["words"]),
        ({"0.CAPTION": b"words"}, ["words"]),
        ({"0.caption": b"other", "0.txt": b"words"}, ["words"]),
        ({"0.caption": b"words", "0.json": b'{"caption": "from JSON"}'}, ["words"]),
    ],
)
def test_a_caption_may_be_in_a_file_that_ends_so(tmp_path, kind, notes, captions):
    members = [("0.jpg", b"0"), *notes.items()]
    assert [row["captions"] for row in rows_of(written(kind, tmp_path, members))] == [captions]


@pytest.mark.parametrize("kind", KINDS)
def test_a_column_that_an_object_has_twice_is_one_line_and_another_is_not(tmp_path, kind):
    members = [("0.jpg", b"0"), ("0.json", b'{"caption": "x", "id": 1, "id": 2, "caption": "y"}')]
    place = written(kind, tmp_path, members)
    assert "has 'caption' more than once" in refused(place)
    assert len(rows_of(place, caption_col=None)) == 1


def test_links_are_counted(tmp_path):
    """A tar's link has no bytes of its own; a folder's link to a file is read, to a folder or to nothing it is not."""
    folder = written("folder", tmp_path, [("0.jpg", b"0"), ("below/1.jpg", b"1")])
    for name, target in (("2.jpg", "0.jpg"), ("3.jpg", "nowhere"), ("4.txt", "nowhere"), ("linked", "below")):
        (folder / name).symlink_to(target)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(folder / "0.jpg", "0.jpg")
        for kind, name in (
            (tarfile.LNKTYPE, "1.jpg"),
            (tarfile.SYMTYPE, "2.jpg"),
            (tarfile.SYMTYPE, "2.txt"),
        ):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, "0.jpg"
            archive.addfile(link)
        archive.add(folder / "below", "d.jpg", recursive=False)
    for place, num_rows in ((folder, 3), (tmp_path / "a.tar", 1)):
        chosen, tally = PlanSettings(input=(str(place),)), Tally()
        [source] = sources(chosen)
        assert sum(batch.num_rows for batch in batches(source, chosen, tally)) == num_rows
        assert +tally == Tally(links=3)


def test_a_folder_that_cannot_be_listed_is_one_line(tmp_path, monkeypatch):
    folder = written("folder", tmp_path, [("0.jpg", b"0"), ("below/1.jpg", b"1")])
    scandir = os.scandir

    def denied(path):
        if str(path).endswith("below"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    assert "cannot be read (Permission denied)" in refused(folder)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("notes", "number"),
    [
        (["0.txt"], 0),
        (["0.txt", "0.json"], 0),
        (["0.txt", "0.TXT"], 1),
        (["0.txt", "0.caption"], 1),
        (["0.a.txt", "0.b.json", "0.txt"], 2),
    ],
)
def test_captions_that_no_picture_takes_are_counted(tmp_path, kind, notes, number):
    chosen = PlanSettings(
        input=(str(written(kind, tmp_path, [("0.jpg", b"0"), *((name, b"{}") for name in notes)])),)
    )
    [source], tally = sources(chosen), Tally()
    assert sum(batch.num_rows for batch in batches(source, chosen, tally)) == 1
    assert tally["notes_without_picture"] == number


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("value", "captions"),
    [
        (["one", "two"], ["one", "two"]),
        ("one", ["one"]),
        (7, ["7"]),
        (float("nan"), []),
        (None, []),
        ([], []),
    ],
)
def test_captions_of_json_obey_the_one_rule(tmp_path, kind, value, captions):
    note = json.dumps({"text": value}).encode()
    rows = rows_of(written(kind, tmp_path, [("0.jpg", b"0"), ("0.json", note)]), caption_col="text")
    assert [row["captions"] for row in rows] == [captions]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [{"en": "x"}, [1, 2], [["x"]]])
def test_a_caption_of_a_wrong_type_is_one_line(tmp_path, kind, value):
    note = json.dumps({"caption": value}).encode()
    assert "'caption'" in refused(written(kind, tmp_path, [("0.jpg", b"0"), ("0.json", note)]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "named",
    [
        {"caption_col": "words"},
        {"caption_kind_col": "sort"},
        {"group_col": "base"},
        {"uid_col": "id"},
        {"url_col": "link"},
        {"verify_hash": ["digest", "md5"]},
        {"save_additional_columns": ["size"]},
    ],
)
def test_a_named_column_that_no_member_has_is_an_error(tmp_path, kind, named):
    members = [("0.jpg", b"0"), ("0.json", b'{"text": "x", "id7": 1}'), ("1.jpg", b"1"), ("1.json", b"{}")]
    line = refused(written(kind, tmp_path, members), **{"caption_col": "text", **named})
    assert "has no column" in line
    assert "(it has text, id7)" in line


@pytest.mark.parametrize("kind", KINDS)
def test_json_without_the_captions_column_is_an_error_and_pictures_alone_are_not(tmp_path, kind):
    members = [("0.jpg", b"0"), ("0.json", b'{"text": "x"}')]
    assert "has no column 'caption' (it has text)" in refused(written(kind, tmp_path / "a", members))
    assert [row["captions"] for row in rows_of(written(kind, tmp_path / "b", members[:1]))] == [[]]
    assert "has no column 'text' (it has none)" in refused(
        tmp_path / "b" / Path("a.tar" if kind == "tar" else "pictures"), caption_col="text"
    )
    assert rows_of(written(kind, tmp_path / "c", [*members, ("0.txt", b"words")]))[0]["captions"] == ["words"]


@pytest.mark.parametrize("kind", KINDS)
def test_one_member_that_has_the_column_is_enough(tmp_path, kind):
    members = [("0.jpg", b"0"), ("0.json", b'{"text": null}'), ("1.jpg", b"1"), ("1.json", b'{"id": 1}')]
    assert len(rows_of(written(kind, tmp_path, members), caption_col="text")) == 2


def test_captions_apart_from_their_pictures_are_rows_too(tmp_path):
    """As the library has it: neighbours are a sample, a caption elsewhere in a tar is another one."""
    members = [("0.jpg", b"0"), ("1.jpg", b"1"), ("0.txt", b"zero"), ("1.txt", b"one")]
    rows = rows_of(write_tar(tmp_path / "a.tar", members, tarfile.GNU_FORMAT))
    assert [(row["captions"], row["reason"]) for row in rows] == [
        ([], None),
        ([], None),
        (["zero"], "no_picture"),
        (["one"], "no_picture"),
    ]
