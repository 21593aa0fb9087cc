"""A shard's rows by what the plan says of them: what is asked for, and under which name."""

from collections.abc import Sequence

import pyarrow as pa

from corgi.download.checks import RowChecks
from corgi.download.planned import Outcome, outcomes_of
from corgi.settings.data import DownloadSettings
from corgi.tables.rejection import Rejection
from corgi.tables.schema import PLAN, REQUEST_URL, Reason

ROWS = [
    {"uid": "1", "url": "http://a.test/a%7Cb"},
    {"uid": "2", "url": "http://a.test/b"},
    {"uid": "3", "url": "http://a.test/c%7C", "location": "tar/0:9"},
    {"uid": "4", "url": "http://a.test/d%7C", "reason": "blocked_url"},
]


class Engine:
    """Rejects every row and notes what was requested."""

    def __init__(self, heard: list[str]) -> None:
        self.heard = heard

    def outcomes(self, urls: Sequence[str], expected_hashes: object = None) -> list[Outcome]:
        self.heard.extend(urls)
        return [Rejection(Reason.DNS)] * len(urls)

    def close(self) -> None: ...


def asked(plan: pa.Table) -> tuple[list[str], list[str]]:
    """Return what the web is asked for, and what is read."""
    heard: tuple[list[str], list[str]] = ([], [])

    outcomes = outcomes_of(plan, Engine(heard[0]), Engine(heard[1]), RowChecks(DownloadSettings()))
    assert len(outcomes) == plan.num_rows
    return heard


def test_a_row_is_asked_for_by_its_request_url_where_it_has_one() -> None:
    plan = pa.Table.from_pylist(ROWS, schema=PLAN)
    requests = pa.array(["http://a.test/a|b", None, "http://a.test/c|", "http://a.test/d|"])
    found = asked(plan.append_column(REQUEST_URL, requests))
    assert found == (["http://a.test/a|b", "http://a.test/b"], ["tar/0:9"])


def test_a_plan_without_request_urls_asks_for_the_canonical_ones() -> None:
    found = asked(pa.Table.from_pylist(ROWS, schema=PLAN))
    assert found == (["http://a.test/a%7Cb", "http://a.test/b"], ["tar/0:9"])
