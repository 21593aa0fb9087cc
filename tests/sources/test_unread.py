"""A folder that holds sources of several kinds is read as one of them, and one line tells what of it is not read."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corgi.settings.data import PlanSettings
from corgi.sources.sources import sources
from corgi.sources.unread import unread
from tests.support.tars import write_tar

LIST = b"url,caption\nhttp://a.example/1,one\n"


def written(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".tar"):
            write_tar(path, [("0.jpg", b"x")])
        elif name.endswith(".parquet"):
            pq.write_table(pa.table({"url": ["http://a.example/2"], "caption": ["two"]}), path)
        else:
            path.write_bytes(b'{"file_name": "0.jpg", "caption": "x"}\n' if "metadata" in name else LIST)
    return folder


def told(folder, **plan) -> tuple[set[str], list[dict[str, int]]]:
    """Return the formats that are read, and what is not."""
    settings = PlanSettings.model_validate({"input": str(folder), **plan})
    found = list(unread(settings))
    assert all("\n" not in one.line() and one.first in one.line() for one in found)
    return {one.format for one in sources(settings)}, [dict(one.counts) for one in found]


@pytest.mark.parametrize(
    ("names", "format", "counts"),
    [
        (["0.tar", "1.jpg"], "webdataset", {"pictures": 1}),
        (["0.tar", "below/1.jpg", "below/2.PNG", "below/2.txt"], "webdataset", {"pictures": 2}),
        (["0.tar", "urls.csv", "more.parquet"], "webdataset", {"lists": 2}),
        (["0.tar", "below/1.tar"], "webdataset", {"tars": 1}),
        (["urls.csv", "below/1.jpg", "below/1.json"], "csv", {"pictures": 1}),
        (["urls.csv", "further.txt"], "csv", {"lists": 1}),
        (["urls.csv", "below/0.tar", "below/more.jsonl"], "csv", {"lists": 1, "tars": 1}),
        (["urls.csv", "urls.csv.bz2", "urls.zip"], "csv", {"packed files": 2}),
        (["1.jpg", "urls.csv", "1.json", "1.txt"], "files", {"lists": 1}),
        (["1.jpg", "below/0.tar"], "files", {"tars": 1}),
    ],
)
def test_what_is_not_read_is_counted(tmp_path, names, format, counts):
    assert told(written(tmp_path / "a", *names)) == ({format}, [counts])
    assert told(f"{written(tmp_path / 'a', *names)}/") == ({format}, [counts])


@pytest.mark.parametrize(
    "names",
    [
        ["0.tar", "0.parquet", "0_stats.json"],
        ["urls.csv", "more.parquet", "urls_stats.json"],
        ["1.jpg", "1.txt", "1.json", "1.caption", "below/2.jpg", "metadata.jsonl", "below/metadata.jsonl"],
        ["1.jpg", "._1.jpg", "__MACOSX/0.tar", ".DS_Store", ".hidden.csv"],
        ["0.tar", "licence.md"],
    ],
)
def test_what_is_read_and_what_goes_with_it_is_no_line(tmp_path, names):
    assert told(written(tmp_path / "a", *names))[1] == []


def test_what_is_named_apart_is_read(tmp_path):
    folder = written(tmp_path / "a", "0.tar", "urls.csv", "below/1.jpg")
    assert told(folder)[1] == [{"lists": 1, "pictures": 1}]
    settings = PlanSettings(input=(str(folder), str(folder / "urls.csv"), str(folder / "below")))
    assert list(unread(settings)) == []


def test_a_format_that_is_named_is_chosen_knowingly(tmp_path):
    folder = written(tmp_path / "a", "urls.csv", "below/1.jpg")
    assert told(folder, input_format="files") == ({"files"}, [])
