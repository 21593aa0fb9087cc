"""CSV and TSV: no quotation mark swallows a row; every line or record of the file is a row, or one line of error."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corgi.settings.data import PlanSettings
from corgi.settings.errors import InputError
from corgi.sources import separated
from corgi.sources.sources import batches, sources
from tests.support.lists import only_caption

ENDS = st.sampled_from(["\n", "\r\n", "\r"])
CELL = st.text(st.sampled_from('ab" ,é\u2028'), max_size=4)


def rows_of(path: Path, **plan) -> list[tuple[str, str | None]]:
    chosen = PlanSettings.model_validate({"input": str(path), **plan})
    read = (batch for source in sources(chosen) for batch in batches(source, chosen))
    return [(row["url"], only_caption(row)) for batch in read for row in batch.to_pylist()]


def written(path: Path, text: str) -> Path:
    path.write_text(text, newline="", encoding="utf-8")
    return path


def refused(path: Path, **plan) -> str:
    with pytest.raises(InputError) as found:
        rows_of(path, **plan)
    assert "\n" not in str(found.value)
    assert str(path) in str(found.value)
    return str(found.value)


def listed(separator: str, num_rows: int, stray: int) -> str:
    """Return a list one of whose captions begins with a quotation mark that nothing closes."""
    rows = [
        f"http://a.example/{n}{separator}{'' if n != stray else chr(34)}caption {n}\n"
        for n in range(num_rows)
    ]
    return f"url{separator}caption\n" + "".join(rows)


def test_a_quotation_mark_in_a_tsv_swallows_no_row(tmp_path):
    rows = rows_of(written(tmp_path / "a.tsv", listed("\t", 30_000, 100)))
    assert len(rows) == 30_000
    assert rows[100] == ("http://a.example/100", '"caption 100')


@pytest.mark.parametrize("num_rows", [102, 30_000])
def test_an_unclosed_quotation_mark_in_a_csv_is_one_line_that_names_file_and_row(tmp_path, num_rows):
    path = written(tmp_path / "a.csv", listed(",", num_rows, 100))
    line = refused(path)
    assert "row 100 (line 102)" in line
    assert "plan.quoting=none" in line
    assert len(rows_of(path, quoting="none")) == num_rows


@pytest.mark.parametrize(
    ("cell", "line"),
    [("x" * (2**20 + 1), "longer than 1048576 characters"), ("x\n" * 1000 + "x", "longer than 1000 lines")],
)
def test_a_cell_that_is_too_long_is_one_line_that_names_file_and_row(tmp_path, cell, line):
    body = "url,caption\nhttp://a/0,fine\nhttp://a/1,{}\n"
    assert f"row 1 (line 3): a cell is {line}" in refused(
        written(tmp_path / "a.csv", body.format(f'"{cell}"'))
    )
    assert len(rows_of(written(tmp_path / "b.csv", body.format(f'"{cell[:-2]}"')))) == 2


def test_many_long_cells_are_read_in_small_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(separated, "BLOCK_CHARS", 1000)
    path = written(tmp_path / "a.csv", "url,caption\n" + f"http://a/1,{'x' * 400}\n" * 9)
    chosen = PlanSettings.model_validate({"input": str(path)})
    blocks = [batch.num_rows for batch in batches(sources(chosen)[0], chosen)]
    assert blocks == [3, 3, 3]


@pytest.mark.parametrize(("name", "separator"), [("a.csv", ","), ("a.tsv", "\t")])
@pytest.mark.parametrize("cells", [1, 3])
def test_a_row_with_another_number_of_cells_is_one_line(tmp_path, name, separator, cells):
    row = separator.join(["http://a/1", "x", "y"][:cells])
    path = written(tmp_path / name, f"url{separator}caption\nhttp://a/0{separator}x\n{row}\n")
    assert f"row 1 (line 3): {cells} cells where the header has 2" in refused(path)


@pytest.mark.parametrize(("name", "separator"), [("a.csv", ","), ("a.tsv", "\t")])
def test_two_columns_of_one_name_are_one_line_unless_they_are_not_read(tmp_path, name, separator):
    text = "url,caption,caption\nhttp://a/0,x,y\n".replace(",", separator)
    assert "2 columns 'caption'" in refused(written(tmp_path / name, text))
    assert rows_of(tmp_path / name, caption_col=None) == [("http://a/0", None)]


@given(st.lists(st.tuples(CELL, CELL) | st.sampled_from(["", " ", "\t", " \t "])), ENDS, st.booleans())
@settings(max_examples=100)
def test_rows_of_a_tsv_are_the_lines_that_are_not_blank(tmp_path_factory, parts, end, is_ended):
    body = end.join(part if isinstance(part, str) else "\t".join(part) for part in ["url\tcaption", *parts])
    path = written(tmp_path_factory.mktemp("list") / "a.tsv", body + end * is_ended)
    with path.open(encoding="utf-8") as file:
        filled = [line.rstrip("\n") for line in file if line.strip(" \t\n")]
    assert rows_of(path) == [tuple(line.split("\t")) for line in filled[1:]]


@given(st.text(st.sampled_from('ab", \n\r')), st.sampled_from(["csv", "none"]))
@settings(max_examples=300)
def test_rows_of_a_csv_are_the_records_of_pythons_module(tmp_path_factory, body, quoting):
    """Any text behind a header: the same rows, or one line where a row is ragged or a quotation mark is never closed."""
    path = written(tmp_path_factory.mktemp("list") / "a.csv", f"url,caption\n{body}")
    rule = csv.QUOTE_NONE if quoting == "none" else csv.QUOTE_MINIMAL

    def records(text: str) -> list[list[str]]:
        return [record for record in csv.reader(io.StringIO(text, newline=""), quoting=rule) if record]

    found = records(body)
    if quoting == "none":
        found = [record for record in found if "".join(record).strip()]
    is_closed = records(f"{body}\nlast,row")[-1:] == [["last", "row"]]
    if not is_closed or any(len(record) != 2 for record in found):
        refused(path, quoting=quoting)
    else:
        assert rows_of(path, quoting=quoting) == [tuple(record) for record in found]


@given(st.lists(st.tuples(st.text(st.sampled_from('ab", \n\ré')), st.text(max_size=9))), ENDS)
@settings(max_examples=100)
def test_what_pythons_module_writes_is_read_back(tmp_path_factory, rows, end):
    path = tmp_path_factory.mktemp("list") / "a.csv"
    rows = [tuple(cell.encode("utf-8", "ignore").decode() for cell in row) for row in rows]
    with path.open("w", newline="", encoding="utf-8") as sink:
        csv.writer(sink, lineterminator=end, quoting=csv.QUOTE_ALL).writerows([("url", "caption"), *rows])
    assert rows_of(path) == rows


@pytest.mark.parametrize(
    ("num_quoted", "quoting", "num_lines"),
    [(0, None, 0), (1, None, 0), (5, None, 1), (5, "none", 0), (5, "csv", 0)],
)
def test_a_tsv_with_quoted_cells_is_one_warning_that_names_the_setting(
    tmp_path, capsys, num_quoted, quoting, num_lines
):
    rows = [f"http://a/{n}\t" + ('"two words"' if n < num_quoted else 'a "word"') for n in range(100)]
    path = written(tmp_path / "a.tsv", "\n".join(["url\tcaption", *rows]))
    assert len(rows_of(path, quoting=quoting)) == 100
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == num_lines
    assert all("plan.quoting=csv" in line and str(path) in line for line in lines)


def test_a_tsv_read_with_quoting_has_cells_without_marks(tmp_path):
    path = written(tmp_path / "a.tsv", 'url\tcaption\nhttp://a/0\t"two\nlines"\n')
    assert rows_of(path, quoting="csv") == [("http://a/0", "two\nlines")]


def test_a_quoted_header_names_the_setting(tmp_path):
    path = written(tmp_path / "a.tsv", '"url"\t"caption"\n"http://a/0"\t"x"\n')
    assert "set plan.quoting=csv" in refused(path)
    assert rows_of(path, quoting="csv") == [("http://a/0", "x")]


def test_an_empty_list_says_that_it_has_no_header(tmp_path):
    assert "no column 'url'" in refused(written(tmp_path / "a.csv", ""))
