"""The table of host slots: never more than the cap, nobody starves, the dead hold nothing."""

import random

from corgi.fetching.lease_table import HORIZON_S, LEASE_S, LeaseRequest, LeaseTable


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
