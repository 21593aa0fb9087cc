"""The table of host slots: never more than the cap, nobody starves, the dead hold nothing."""

import itertools
import random
import sys
from collections import Counter
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from corgi.fetching.lease_table import HORIZON_S, LEASE_S, LeaseRequest, LeaseResponse, LeaseTable


def ask(
    table: LeaseTable, fetcher: str, held: int, wants: int, now: float, slots: int = 4, delay_s: float = 0.0
) -> int:
    wanted = {"h": wants} if wants else {}
    return len(
        table.lease(LeaseRequest(fetcher, {"h": held}, wanted, slots, delay_s), now).grants.get("h", ())
    )


def test_one_fetcher_may_have_every_slot_and_no_more() -> None:
    table = LeaseTable()
    assert ask(table, "a", 0, 10, 0.0) == 4
    assert ask(table, "a", 4, 10, 0.1) == 0
    assert table.num_held("h") == 4


def test_slots_are_shared_fairly_and_recalled() -> None:
    table = LeaseTable()
    assert ask(table, "a", 0, 4, 0.0) == 4
    assert ask(table, "b", 0, 4, 0.1) == 0
    response = table.lease(LeaseRequest("a", {"h": 4}, {}, 4, 0.0), 0.2)
    assert response.recalled == ("h",)
    assert ask(table, "a", 2, 2, 0.3) == 0
    assert ask(table, "b", 0, 4, 0.4) == 2


def test_who_waits_longest_is_next() -> None:
    table = LeaseTable()
    assert ask(table, "a", 0, 1, 0.0, slots=1) == 1
    assert ask(table, "b", 0, 1, 0.1, slots=1) == 0
    assert ask(table, "c", 0, 1, 0.2, slots=1) == 0
    assert ask(table, "a", 0, 1, 0.3, slots=1) == 0
    assert ask(table, "c", 0, 1, 0.4, slots=1) == 0
    assert ask(table, "b", 0, 1, 0.5, slots=1) == 1


def test_a_dead_fetcher_holds_nothing_after_its_lease() -> None:
    table = LeaseTable()
    assert ask(table, "dead", 0, 4, 0.0) == 4
    assert ask(table, "b", 0, 4, LEASE_S - 0.1) == 0
    assert ask(table, "b", 0, 4, LEASE_S + 0.1) == 4
    response = table.lease(LeaseRequest("dead", {"h": 1}, {}, 4, 0.0), LEASE_S + 0.2)
    assert not response.is_known


def test_starts_are_spaced_over_all_fetchers() -> None:
    table, starts = LeaseTable(), []
    for fetcher in ("a", "b", "c"):
        response = table.lease(LeaseRequest(fetcher, {}, {"h": 2}, 100, 0.25), 10.0)
        starts += [10.0 + wait for wait in response.grants.get("h", ())]
    assert starts == [10.0 + 0.25 * number for number in range(len(starts))]
    assert starts[-1] <= 10.0 + HORIZON_S


def test_the_cap_holds_whatever_fetchers_do() -> None:
    rng = random.Random(0)
    table, held, now = LeaseTable(), dict.fromkeys("abcde", 0), 0.0
    served = dict.fromkeys("abcde", 0)
    for _ in range(5000):
        now += rng.random() * 0.2
        fetcher = rng.choice("abcde")
        held[fetcher] = rng.randint(0, held[fetcher])
        given = ask(table, fetcher, held[fetcher], rng.randint(1, 4), now, slots=3)
        held[fetcher] += given
        served[fetcher] += given
        assert sum(held.values()) <= 3
    assert min(served.values()) > max(served.values()) / 4


def test_memory_holds_only_hosts_in_use() -> None:
    table = LeaseTable()
    for number in range(5000):
        host = f"h{number}"
        table.lease(LeaseRequest("a", {}, {host: 1}, 4, 0.1), float(number))
        table.lease(LeaseRequest("a", {host: 0}, {}, 4, 0.1), number + 0.5)
    assert len(table._hosts) < 1100
    assert table.is_idle()


def test_memory_holds_only_fetchers_whose_lease_is_valid() -> None:
    table = LeaseTable()
    for number in range(500):
        table.lease(LeaseRequest(f"f{number}", {}, {"h": 1}, 4, 0.0, number=1), float(number))
        table.lease(LeaseRequest(f"f{number}", {}, {}, 4, 0.0, is_whole=False, number=2), number + 0.5)
        kept = [len(value) for value in vars(table).values() if hasattr(value, "__len__")]
        assert max(kept) <= LEASE_S + 3


def test_a_late_report_does_not_give_a_fetcher_its_earlier_lease_back() -> None:
    """The fetcher's slots went to another one when its lease ended; an old message of its own then makes the table know it again."""
    table = LeaseTable()
    report = LeaseRequest("a", {}, {"h": 1}, 1, 0.0, number=1)
    since = table.lease(replace(report, number=2), 0.0).since
    assert table.lease(LeaseRequest("b", {}, {"h": 1}, 1, 0.0, number=1), LEASE_S + 1).grants
    table.lease(report, LEASE_S + 2)
    renewal = LeaseRequest("a", {}, {}, 1, 0.0, is_whole=False, number=3, since=since)
    assert not table.lease(renewal, LEASE_S + 3).is_known
    again = table.lease(replace(renewal, is_whole=True, number=4), LEASE_S + 3)
    assert not again.is_known
    assert table.lease(replace(renewal, number=5, since=again.since), LEASE_S + 4).is_known
    assert table.num_held("h") == 1


def test_a_fetcher_that_holds_nothing_is_asked_for_nothing() -> None:
    table = LeaseTable()
    assert ask(table, "a", 0, 2, 0.0, slots=2) == 2
    assert ask(table, "b", 0, 1, 0.1, slots=2) == 0
    assert table.lease(LeaseRequest("c", {"h": 0}, {"h": 1}, 2, 0.0), 0.2).recalled == ()
    assert table.lease(LeaseRequest("a", {"h": 2}, {}, 2, 0.0), 0.3).recalled == ("h",)


def test_a_renewal_keeps_what_it_does_not_name_and_a_whole_report_gives_it_back() -> None:
    table = LeaseTable()
    assert ask(table, "a", 0, 4, 0.0) == 4
    for now in (10.0, 20.0, 30.0):
        assert table.lease(LeaseRequest("a", {}, {}, 4, 0.0, is_whole=False), now).is_known
        assert table.num_held("h") == 4
    table.lease(LeaseRequest("a", {}, {}, 4, 0.0), 31.0)
    assert table.is_idle()


def test_an_unknown_fetcher_gets_nothing_until_it_has_reported_everything() -> None:
    table = LeaseTable()
    for _ in range(2):
        response = table.lease(LeaseRequest("a", {"h": 1}, {"h": 1}, 4, 0.0, is_whole=False), 0.0)
        assert response == LeaseResponse({}, (), is_known=False)
    assert ask(table, "a", 1, 1, 0.0) == 1


def test_a_table_that_follows_a_lost_one_waits_until_its_leases_are_not_in_use() -> None:
    table = LeaseTable(is_recovering=True)
    assert ask(table, "new", 0, 4, 100.0) == 0
    assert ask(table, "old", 3, 1, 101.0) == 0
    assert ask(table, "new", 0, 4, 100.0 + LEASE_S / 2) == 1
    paced = LeaseTable(is_recovering=True)
    assert ask(paced, "a", 0, 1, 100.0, delay_s=20.0) == 0
    assert ask(paced, "a", 0, 1, 110.0, delay_s=20.0) == 0
    assert ask(paced, "a", 0, 1, 100.0 + HORIZON_S + 20.0, delay_s=20.0) == 1


def test_a_request_asks_of_the_table_as_much_in_a_large_fleet_as_in_a_small_one() -> None:
    """Counted in calls into the table's hosts, whoever else holds or waits."""

    def calls(fetchers: int) -> int:
        table, number = LeaseTable(), 0
        for at in range(fetchers):
            table.lease(LeaseRequest(f"f{at}", {}, {"big": 1, f"own{at}": 1}, 4, 0.0), 0.0)

        def trace(frame: FrameType, event: str, value: object) -> Any:
            nonlocal number
            number += 1
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            table.lease(LeaseRequest("f0", {"big": 1}, {"big": 1}, 4, 0.0, is_whole=False), 1.0)
        finally:
            sys.settrace(before)
        return number

    assert calls(2000) <= calls(20) * 1.2


@dataclass
class Fetching:
    """What a fetcher does by its own knowledge: it uses its slots while its last answered request is younger than half a lease."""

    name: str
    number: int = 0
    since: float | None = None
    renewed_at: float = -1e9
    is_reported: bool = False
    held: Counter[str] = field(default_factory=Counter)
    changed: set[str] = field(default_factory=set)

    def request(self, wanted: dict[str, int], limit: int, delay_s: float) -> LeaseRequest:
        self.number += 1
        named = {*self.changed, *wanted} | (set() if self.is_reported else set(self.held))
        self.changed |= set(wanted)
        held = {host: self.held[host] for host in named}
        whole = not self.is_reported
        return LeaseRequest(
            self.name, held, wanted, limit, delay_s, is_whole=whole, number=self.number, since=self.since
        )

    def answered(self, request: LeaseRequest, response: LeaseResponse, sent_at: float) -> None:
        self.renewed_at, self.since = sent_at, response.since
        self.is_reported = request.is_whole or response.is_known
        self.changed -= set(request.held)
        if not response.is_known:
            self.changed |= set(self.held)
            self.held.clear()
        for host, waits in response.grants.items():
            self.held[host] += len(waits)

    def give(self, host: str) -> None:
        self.held.pop(host, None)
        self.changed.add(host)

    def used(self, host: str, now: float) -> int:
        return self.held[host] if now - self.renewed_at < LEASE_S / 2 else 0


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["ok", "ok", "ok", "lost", "unheard", "twice", "late", "give", "restart", "jump"]),
        st.integers(0, 3),
        st.sampled_from(["g", "h"]),
        st.integers(0, 3),
        st.sampled_from([0.0, 0.01, 0.5, 3.0, 6.0]),
    ),
    max_size=40,
)


class Fleet:
    """Four fetchers and a table, with messages that arrive once, never, twice or late, or whose answer is lost."""

    def __init__(self, limit: int, delay_s: float) -> None:
        self.limit, self.delay_s, self.now = limit, delay_s, 0.0
        self.table = LeaseTable()
        self.fetchers = [Fetching(f"f{at}") for at in range(4)]
        self.starts: dict[str, list[float]] = {"g": [], "h": []}
        self.late: list[LeaseRequest] = []

    def send(self, fetcher: Fetching, wanted: dict[str, int], kind: str = "ok") -> None:
        request = fetcher.request(wanted, self.limit, self.delay_s)
        if kind == "lost":
            self.late.append(request)
            return
        response = self.table.lease(request, self.now)
        if kind == "twice":
            assert not self.table.lease(request, self.now).grants
        if kind != "unheard":
            fetcher.answered(request, response, self.now)
            for host, waits in response.grants.items():
                self.starts[host] += [self.now + wait for wait in waits]

    def happens(self, kind: str, at: int, host: str, count: int, elapsed: float) -> None:
        self.now += 30.0 if kind == "jump" else elapsed
        if kind == "restart":  # what is under way to a lost table never arrives
            self.table, self.late = LeaseTable(is_recovering=True), []
        elif kind == "give":
            self.fetchers[at].give(host)
        elif kind == "late":
            for request in self.late[-3:]:
                self.table.lease(request, self.now)
        else:
            self.send(self.fetchers[at], {host: count} if count else {}, kind)

    def used(self, host: str) -> int:
        return sum(fetcher.used(host, self.now) for fetcher in self.fetchers)


@settings(max_examples=40, deadline=None)
@given(events=EVENTS, limit=st.integers(1, 4), delay_s=st.sampled_from([0.0, 0.3, 9.0]))
def test_cap_and_pace_hold_though_messages_are_lost_and_tables_restart(
    events: list[tuple[str, int, str, int, float]], limit: int, delay_s: float
) -> None:
    fleet = Fleet(limit, delay_s)
    for event in events:
        fleet.happens(*event)
        assert fleet.used("g") <= limit
        assert fleet.used("h") <= limit
    for times in fleet.starts.values():
        gaps = [after - before for before, after in itertools.pairwise(sorted(times))]
        assert min(gaps, default=delay_s) > delay_s - 1e-9


@settings(max_examples=15, deadline=None)
@given(events=EVENTS, limit=st.integers(1, 4), delay_s=st.sampled_from([0.0, 0.3, 9.0]))
def test_whatever_happened_everybody_is_granted_in_the_end(
    events: list[tuple[str, int, str, int, float]], limit: int, delay_s: float
) -> None:
    """The first to ask is always the same; starts of a paced host still go to who has waited longest."""
    fleet = Fleet(limit, delay_s)
    for event in events:
        fleet.happens(*event)
    served = set[str]()
    for _ in range(160):
        fleet.now += 0.5
        for fetcher in fleet.fetchers:
            for host in list(fetcher.held):
                fetcher.give(host)
            fleet.send(fetcher, {"h": 1})
            served |= {fetcher.name} if fetcher.held["h"] else set()
    assert len(served) == 4
