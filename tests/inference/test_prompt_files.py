"""Files of prompts in every format: each row once, in order; a bad row has its reason and spoils no other."""

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corgi.inference.prompt_files import Prompt, read_prompts
from corgi.settings.errors import InputError
from corgi.tables.schema import Reason

ROWS = 10_000
BAD = 6_321


def captions() -> list[str]:
    return [f"picture number {row}" for row in range(ROWS)]


def text_file(folder: Path, rows: list[bytes], name: str = "prompts.txt") -> Path:
    path = folder / name
    path.write_bytes(b"\n".join(rows) + b"\n")
    return path


def csv_file(folder: Path, rows: list[bytes]) -> Path:
    return text_file(folder, [b"id,caption", *(b"%d,%s" % (n, row) for n, row in enumerate(rows))], "p.csv")


def tsv_file(folder: Path, rows: list[bytes]) -> Path:
    return text_file(folder, [b"caption\tid", *(b"%s\t%d" % (row, n) for n, row in enumerate(rows))], "p.tsv")


def parquet_file(folder: Path, rows: list[bytes]) -> Path:
    path = folder / "p.parquet"
    column = pa.array(rows, pa.binary()).cast(pa.string(), safe=False) if _is_text(rows) else pa.array(rows)
    pq.write_table(pa.table({"id": range(len(rows)), "caption": column}), path, row_group_size=999)
    return path


def _is_text(rows: list[bytes]) -> bool:
    try:
        b"".join(rows).decode()
    except UnicodeDecodeError:
        return False
    return True


FORMATS = [text_file, csv_file, tsv_file, parquet_file]


@pytest.mark.parametrize("write", FORMATS)
@pytest.mark.parametrize(
    ("bad", "what", "reason"),
    [
        (b"\xff\xfe fox", "is no UTF-8 text", Reason.NO_CAPTION),
        (b"x" * 20_000, "has more than 16384 characters", Reason.CAPTION_LENGTH),
        (b"\xe2\x80\x83", "has no words", Reason.NO_CAPTION),
    ],
)
def test_one_bad_row_of_ten_thousand_has_a_reason_and_the_rest_are_whole(
    tmp_path: Path, write, bad: bytes, what: str, reason: Reason
) -> None:
    rows = [caption.encode() for caption in captions()]
    rows[BAD] = bad
    found = list(read_prompts(str(write(tmp_path, rows))))
    assert [prompt.row for prompt in found] == list(range(ROWS))
    faults = {prompt.row: prompt.fault for prompt in found if prompt.fault}
    assert {row: (fault.what, fault.reason) for row, fault in faults.items()} == {BAD: (what, reason)}
    assert [prompt.caption for prompt in found if not prompt.fault] == captions()[:BAD] + captions()[
        BAD + 1 :
    ]


def test_a_null_and_a_row_of_another_width_have_a_reason(tmp_path: Path) -> None:
    pq.write_table(pa.table({"caption": ["a", None, "b"]}), tmp_path / "p.parquet")
    nulls = list(read_prompts(str(tmp_path / "p.parquet")))
    assert [prompt.fault.what if prompt.fault else None for prompt in nulls] == [None, "has no words", None]
    (tmp_path / "p.csv").write_text('caption,id\na,1\n\nb\n"c"x,3\n"d, and\ne",4\n')
    found = list(read_prompts(str(tmp_path / "p.csv")))
    told = [prompt.fault.what.split(" (")[0] if prompt.fault else prompt.caption for prompt in found]
    assert told == ["a", "has 1 cells where the header has 2", "cannot be read", "d, and\ne"]


def test_blank_lines_of_a_text_are_no_rows_and_a_text_may_be_compressed(tmp_path: Path) -> None:
    (tmp_path / "p.txt.gz").write_bytes(gzip.compress(b"\xef\xbb\xbfa fox\r\n\r\n  red heart \r\n"))
    assert list(read_prompts(str(tmp_path / "p.txt.gz"))) == [
        Prompt(0, "a fox", None),
        Prompt(1, "red heart", None),
    ]


@pytest.mark.parametrize(
    ("name", "body", "words"),
    [
        ("absent.txt", None, "No such file"),
        ("p.json", b"{}", "not a file of prompts"),
        ("p.csv", b"text,id\na,1\n", "has no column 'caption'"),
        ("p.csv", b"caption,caption\na,1\n", "has 2 columns 'caption'"),
        ("p.csv", b"", "has no column 'caption' (it has none)"),
        ("p.csv", b'caption\n"a\nb\nc\n', "line 2 opens a quotation mark"),
        ("p.txt", "a fox".encode("utf-16"), "UTF-16"),
        ("p.parquet", b"no parquet", "cannot be read as prompts"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(
    tmp_path: Path, name: str, body: bytes | None, words: str
) -> None:
    if body is not None:
        (tmp_path / name).write_bytes(body)
    with pytest.raises(InputError) as caught:
        list(read_prompts(str(tmp_path / name)))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_column_of_numbers_is_one_line_and_another_column_may_be_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"caption": [1, 2], "text": ["a", "b"]}), tmp_path / "p.parquet")
    with pytest.raises(InputError, match="has type int64, not text"):
        list(read_prompts(str(tmp_path / "p.parquet")))
    assert [prompt.caption for prompt in read_prompts(str(tmp_path / "p.parquet"), "text")] == ["a", "b"]
