"""The report's accounts: they add up at every stage, whatever was rejected, and examples are of every reason."""

from collections import Counter
from pathlib import Path

import pytest

from corgi.report.committed import Committed
from corgi.report.funnel import NUM_EXAMPLES, NUM_THUMBNAILS, contact_sheet, examples, funnel, reasons, sizes
from corgi.tables.schema import Reason, Split
from tests.support.tables import new_run, some_pictures, tiny_run


@pytest.fixture
def run(tmp_path: Path) -> Committed:
    return Committed(tiny_run(tmp_path, some_pictures(60, 12)))


def test_each_passage_and_each_split_adds_up(run: Committed) -> None:
    found = funnel(run)
    assert [passage.stage for passage in found.passages] == ["plan", "download", "embed", "curate"]
    for passage in found.passages:
        assert passage.rows_in == passage.kept + passage.rejected
    assert set(found.splits) == set(Split)
    for name, stage, table in (("URLs", "plan", "plan"), ("downloaded", "download", "images")):
        assert sum(split[name] for split in found.splits.values()) == run.num_rows(stage, table)
    assert sum(split["used"] for split in found.splits.values()) == run.stages["curate"].rows.kept
    assert sum(found.captions.values()) == run.num_rows("download", "captions")


def test_reasons_are_in_words_most_frequent_first_and_only_those_that_occurred() -> None:
    bars = reasons({Reason.DNS: 1, Reason.TIMEOUT: 5, Reason.TOO_LARGE: 0})
    assert [bar.label for bar in bars] == [Reason.TIMEOUT.text, Reason.DNS.text]


def test_examples_are_of_every_reason_and_few_of_each(run: Committed) -> None:
    counted = Counter(example.reason for example in examples(run))
    told = Counter({**run.stages["download"].rows.rejected, **run.stages["curate"].rows.rejected})
    assert counted == {Reason(reason).text: min(count, NUM_EXAMPLES) for reason, count in told.items()}
    assert all(example.url.startswith("http://pictures.test/") for example in examples(run))


def test_a_contact_sheet_is_bounded_and_shows_used_pictures_of_lowest_uid(run: Committed) -> None:
    sheet = contact_sheet(run)
    used = run.stages["curate"].rows.kept
    assert len(sheet) == min(NUM_THUMBNAILS, used) < used
    assert all(shown.uri.startswith("data:image/jpeg;base64,") for shown in sheet)
    assert sheet == contact_sheet(run)


def test_a_run_of_nothing_has_empty_accounts(tmp_path: Path) -> None:
    nothing = Committed(new_run(tmp_path))
    found = funnel(nothing)
    assert (found.steps, found.passages, found.splits, found.captions) == ([], [], {}, {})
    assert (sizes(nothing), contact_sheet(nothing), examples(nothing)) == (None, [], [])
