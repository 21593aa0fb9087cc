"""Webdataset tars: samples as they were written; a hostile tar costs a line or a row, never a file or a process."""

import contextlib
import io
import json
import os
import pickle
import tarfile
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corgi.settings.data import PlanSettings
from corgi.settings.errors import InputError
from corgi.sources.rows import Columns
from corgi.sources.samples import MAX_NOTE_BYTES, Tally
from corgi.sources.tars import Tar, tar_rows
from corgi.storage.paths import open_file
from tests.support.tars import end, picture, samples, special, write_tar

NAME = st.text(st.sampled_from("abc/._ü"), min_size=1, max_size=300)


def rows_of(path: Path, **plan) -> list[dict]:
    columns = Columns.of(PlanSettings.model_validate({"input": str(path), **plan}))
    return [row for batch in tar_rows(str(path), columns, "5e" * 32, Tally()) for row in batch.to_pylist()]


def walked(data: bytes):
    return list(Tar(_Handle(data), "hostile.tar").members())


class _Handle(io.BytesIO):
    """Bytes whose reads are counted."""

    total = 0

    def readinto(self, buffer) -> int:
        type(self).total += len(buffer)
        return super().readinto(buffer)


def refused(data: bytes) -> str:
    with pytest.raises(InputError) as found:
        walked(data)
    assert "\n" not in str(found.value)
    return str(found.value)


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@given(sizes=st.lists(st.integers(0, 1500), max_size=6), name=NAME)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_members_are_those_that_tarfile_sees(tmp_path_factory, form, sizes, name):
    if form == tarfile.USTAR_FORMAT:
        name = "short"
    path = tmp_path_factory.mktemp("tar") / "a.tar"
    write_tar(path, [(f"{name}{at}", bytes([at + 1]) * size) for at, size in enumerate(sizes)], form)
    with tarfile.open(path) as archive:
        expected = [(info.name, info.offset_data, info.size) for info in archive]
    with open_file(str(path)) as handle:
        found = [(member.name, member.offset, member.size) for member in Tar(handle, str(path)).members()]
    assert [(one.rstrip("/"), *rest) for one, *rest in found] == [(one, *rest) for one, *rest in expected]


def test_samples_give_captions_columns_and_places(tmp_path):
    path = write_tar(tmp_path / "a.tar", samples(3, url=lambda n: f"http://a/{n}", punsafe=lambda n: n / 2))
    rows = rows_of(path, save_additional_columns=["punsafe"])
    assert [(row["url"], row["captions"]) for row in rows] == [
        (f"http://a/{n}", [f"picture {n}"]) for n in range(3)
    ]
    assert [dict(row["additional"])["punsafe"] for row in rows] == ["0.0", "0.5", "1.0"]
    assert {row["content"] for row in rows} == {None}
    data = path.read_bytes()
    for number, row in enumerate(rows):
        offset, size = map(int, row["location"].rpartition("/")[2].split(":"))
        assert data[offset : offset + size] == picture(number)


def test_a_sample_without_a_url_is_named_by_its_content(tmp_path):
    first, second = (rows_of(write_tar(tmp_path / f"{n}.tar", samples(2 + n))) for n in range(2))
    assert [row["content"] for row in first] == [row["content"] for row in second][:2]
    assert len({row["content"] for row in second}) == 3


def test_a_sample_without_a_picture_is_a_row_with_that_reason(tmp_path):
    path = write_tar(tmp_path / "a.tar", [("a.txt", b"words"), ("b.jpg", picture(1)), ("c.json", b"{}")])
    assert [row["reason"] for row in rows_of(path)] == ["no_picture", None, "no_picture"]


def test_a_pickled_member_is_never_loaded(tmp_path):
    class Canary:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "fired"),))

    payload = pickle.dumps(Canary())
    names = ("a.pyd", "a.pickle", "a.pkl", "a.pth", "a.npy", "a.json", "a.txt", "a.jpg")
    rows = rows_of(write_tar(tmp_path / "a.tar", [(name, payload) for name in names]))
    assert len(rows) == 1
    assert not (tmp_path / "fired").exists()


def test_no_path_of_a_tar_is_ever_opened_or_made(tmp_path):
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(picture(0))
    hostile = [
        special(str(secret), tarfile.SYMTYPE, target=str(secret)),
        special("link.jpg", tarfile.LNKTYPE, target="../secret.jpg"),
        special("device.jpg", tarfile.CHRTYPE),
        special("pipe.jpg", tarfile.FIFOTYPE),
        special("folder.jpg/", tarfile.DIRTYPE),
        special("sparse.jpg", tarfile.GNUTYPE_SPARSE, 0),
    ]
    path = tmp_path / "in" / "a.tar"
    write_tar(path, [("/etc/absolute.jpg", picture(1)), ("../../above.jpg", picture(2))])
    path.write_bytes(b"".join(hostile) + path.read_bytes())
    before = sorted(tmp_path.rglob("*"))
    rows = rows_of(path)
    assert sorted(tmp_path.rglob("*")) == before
    assert [row["reason"] for row in rows] == [None, None]
    assert all(":" in row["location"] and "etc" not in row["location"] for row in rows)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XGLTYPE])
def test_a_huge_extended_header_is_refused_unread(kind):
    data = special("x", kind, 64 * 2**20) + bytes(64 * 2**20) + end()
    _Handle.total = 0
    assert "longer than" in refused(data)
    assert _Handle.total <= MAX_NOTE_BYTES


@pytest.mark.parametrize("size", [2**33 - 1, 2**62, 4096])
def test_a_member_longer_than_the_file_is_refused(size):
    assert "longer than the file" in refused(special("a.jpg", tarfile.REGTYPE, size) + bytes(1024))


def test_a_negative_size_is_refused():
    header = bytearray(special("a.jpg", tarfile.REGTYPE, 0))
    header[124:136] = b"\xff" * 12
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    assert "longer than the file" in refused(bytes(header) + end())


@pytest.mark.parametrize("value", ["-1", "99999999999999999999", "1e3", "0x10", ""])
def test_a_pax_size_that_is_none_is_refused_or_out_of_bounds(value):
    record = f" size={value}\n"
    length = len(record) + 2
    body = f"{length}{record}".encode()
    data = (
        special("x", tarfile.XHDTYPE, len(body))
        + body.ljust(512, b"\0")
        + special("a.jpg", tarfile.REGTYPE)
        + end()
    )
    refused(data)


def test_a_note_too_long_is_no_caption_and_the_row_stays(tmp_path):
    long = json.dumps({"caption": "x" * MAX_NOTE_BYTES}).encode()
    rows = rows_of(
        write_tar(tmp_path / "a.tar", [("a.jpg", picture(1)), ("a.json", long), ("a.txt", b"\xff\xfe")])
    )
    assert [(row["captions"], row["reason"]) for row in rows] == [(["\ufffd\ufffd"], None)]
    rows = rows_of(write_tar(tmp_path / "b.tar", [("a.jpg", picture(1)), ("a.json", long)]))
    assert rows[0]["captions"] == []


@pytest.mark.parametrize("data", [b"", b"no tar", bytes(range(256)) * 4, b"\x1f\x8b" + bytes(600)])
def test_what_is_no_tar_is_one_line(data):
    assert "cannot be read as a tar" in refused(data)


def test_a_cut_tar_is_one_line(tmp_path):
    data = write_tar(tmp_path / "a.tar", samples(3)).read_bytes()
    cut = data[: data.index(picture(2)) + 100]
    assert "longer than the file" in refused(cut)


@given(st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_damage_is_a_line_or_rows(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("tar")
    body = bytearray(write_tar(folder / "a.tar", samples(2, url=lambda n: f"http://a/{n}")).read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    (folder / "b.tar").write_bytes(body)
    with contextlib.suppress(InputError):
        assert all(row["location"] or row["reason"] for row in rows_of(folder / "b.tar"))


def test_a_broken_header_is_a_line_and_never_the_end_of_the_tar(tmp_path):
    """tarfile takes it for the end, and every picture behind it would be lost without a word."""
    body = bytearray(write_tar(tmp_path / "a.tar", samples(3), tarfile.GNU_FORMAT).read_bytes())
    at = body.index(b"00001.jpg")
    for place in (at, at + 100, at + 148):
        broken = bytearray(body)
        broken[place] ^= 0x55
        assert "cannot be read as a tar" in refused(bytes(broken))


def test_bytes_behind_the_end_are_not_read(tmp_path):
    body = write_tar(tmp_path / "a.tar", samples(1)).read_bytes()
    assert walked(body + b"whatever" * 512) == walked(body)


def test_a_last_member_without_its_padding_is_read(tmp_path):
    body = write_tar(tmp_path / "a.tar", [("a.jpg", picture(1))], tarfile.GNU_FORMAT).read_bytes()
    (member,) = walked(body)
    assert walked(body[: member.offset + member.size]) == [member]
    assert "longer than the file" in refused(body[: member.offset + member.size - 1])


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XGLTYPE])
def test_endless_extended_headers_are_refused_within_the_bound(kind):
    """A chain of small headers costs no more than one large one, and no recursion of any depth."""
    body = b"18 comment=hello!\n"
    chain = (special("x", kind, len(body)) + body.ljust(512, b"\0")) * 20_000
    _Handle.total = 0
    refused(chain + special("a.jpg", tarfile.REGTYPE) + end())
    assert _Handle.total <= 4 * MAX_NOTE_BYTES


def test_global_headers_do_not_pile_up(tmp_path):
    """Each may be as long as the bound; only one is held at a time."""
    value = b"x" * 500_000
    parts = []
    for number in range(24):
        record = b" key%d=%s\n" % (number, value)
        record = b"%d%s" % (len(record) + 6, record)
        padded = record.ljust(-(-len(record) // 512) * 512, b"\0")
        parts += [
            special("x", tarfile.XGLTYPE, len(record)),
            padded,
            special(f"{number}.jpg", tarfile.REGTYPE),
        ]
    data = b"".join(parts) + end()
    tracemalloc.start()
    try:
        assert len(walked(data)) == 24
        assert tracemalloc.get_traced_memory()[1] < len(data) + 6 * 2**20
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_pictures(tmp_path):
    path = write_tar(tmp_path / "a.tar", [(f"{n}.jpg", bytes(2**20)) for n in range(48)])
    tracemalloc.start()
    try:
        before = pa.total_allocated_bytes()
        assert len(rows_of(path)) == 48
        assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
        assert pa.total_allocated_bytes() - before < 16 * 2**20
    finally:
        tracemalloc.stop()
