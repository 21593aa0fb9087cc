"""Who may ask which host: slots and start times of every host, over all fetchers. Arithmetic only: no clock, no network.

A slot is the right to have one request of a host in flight. Fetchers lease slots, several at a time, keep them from one
request to the next, and give them back when idle or recalled; a fetcher that is not heard of for a while holds none.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

LEASE_S = 15.0
"""Time after which the slots of a fetcher that is not heard of are free again, s."""
SWEEP_EVERY = 1000
"""Asks between two looks for hosts that nobody holds and whose next start has come."""
HORIZON_S = 1.0
"""How far ahead a start is promised, s: what a fetcher that dies may waste."""


@dataclass(frozen=True)
class Ask:
    """What a fetcher tells and wants: slots it holds (of the hosts named), further slots wanted, and its own limits."""

    fetcher: str
    held: Mapping[str, int]
    wants: Mapping[str, int]
    slots: int
    delay_s: float


@dataclass(frozen=True)
class Answer:
    """What it is given: per host the waits, s, before each granted slot may be used; and hosts others wait for.

    `is_known` false: the book has no memory of this fetcher, which must tell all it holds.
    """

    grants: dict[str, tuple[float, ...]]
    recalled: tuple[str, ...]
    is_known: bool = True


@dataclass
class _Host:
    held: dict[str, int] = field(default_factory=dict)
    waiting: dict[str, float] = field(default_factory=dict)
    next_start: float = 0.0

    def fair_share(self, slots: int, fetcher: str) -> int:
        return math.ceil(slots / len({*self.held, *self.waiting, fetcher}))

    def older_waiters(self, fetcher: str, now: float) -> int:
        mine = self.waiting.get(fetcher, now)
        return sum(
            at < mine and other not in self.held for other, at in self.waiting.items() if other != fetcher
        )

    def is_wanted_from(self, fetcher: str, slots: int) -> bool:
        if not any(other != fetcher and other not in self.held for other in self.waiting):
            others = any(other != fetcher for other in self.waiting)
            return others and self.held.get(fetcher, 0) > self.fair_share(slots, fetcher)
        return sum(self.held.values()) >= slots


class HostBook:
    """The one account of leased slots; memory holds only hosts that are leased, waited for or paced."""

    def __init__(self, lease_s: float = LEASE_S) -> None:
        """Start with no fetcher known."""
        self._lease_s = lease_s
        self._hosts: dict[str, _Host] = {}
        self._of: dict[str, set[str]] = {}
        self._heard: dict[str, float] = {}
        self._num_asks = 0

    def ask(self, ask: Ask, now: float) -> Answer:
        """Note what a fetcher holds, give it what is free and fair, and name what others wait for."""
        self._expire(now)
        self._num_asks += 1
        if self._num_asks % SWEEP_EVERY == 0:
            for name in list(self._hosts):
                self._tidy(name, now)
        is_known = ask.fetcher in self._heard
        self._heard[ask.fetcher] = now
        mine = self._of.setdefault(ask.fetcher, set())
        for name, count in ask.held.items():
            self._note(ask.fetcher, name, count, is_waiting=name in ask.wants)
        grants = {
            name: waits for name, count in ask.wants.items() if (waits := self._grant(ask, name, count, now))
        }
        for name in [*ask.held, *ask.wants]:
            self._tidy(name, now)
        recalled = tuple(
            name
            for name in mine
            if (host := self._hosts.get(name)) and host.is_wanted_from(ask.fetcher, ask.slots)
        )
        return Answer(grants, recalled, is_known)

    def num_held(self, host: str) -> int:
        """Return how many slots of a host are leased, over all fetchers."""
        return sum(self._hosts[host].held.values()) if host in self._hosts else 0

    def is_idle(self) -> bool:
        """Say whether nobody holds or waits for anything."""
        return not any(host.held or host.waiting for host in self._hosts.values())

    def _note(self, fetcher: str, name: str, count: int, is_waiting: bool) -> None:
        host = self._hosts.setdefault(name, _Host())
        if count:
            host.held[fetcher] = count
            self._of[fetcher].add(name)
        else:
            host.held.pop(fetcher, None)
        if not is_waiting:
            host.waiting.pop(fetcher, None)
        if not count and not is_waiting:
            self._of[fetcher].discard(name)

    def _grant(self, ask: Ask, name: str, count: int, now: float) -> tuple[float, ...]:
        host = self._hosts.setdefault(name, _Host())
        self._of[ask.fetcher].add(name)
        mine = host.held.get(ask.fetcher, 0)
        free = ask.slots - sum(host.held.values()) - host.older_waiters(ask.fetcher, now)
        given = max(0, min(count, free, host.fair_share(ask.slots, ask.fetcher) - mine))
        waits = self._starts(host, given, ask.delay_s, now)
        if waits:
            host.held[ask.fetcher] = mine + len(waits)
        if len(waits) == count:
            host.waiting.pop(ask.fetcher, None)
        else:
            host.waiting.setdefault(ask.fetcher, now)
        return waits

    @staticmethod
    def _starts(host: _Host, count: int, delay_s: float, now: float) -> tuple[float, ...]:
        if not delay_s:
            return (0.0,) * count
        waits: list[float] = []
        while len(waits) < count and host.next_start - now <= HORIZON_S:
            start = max(now, host.next_start)
            waits.append(start - now)
            host.next_start = start + delay_s
        return tuple(waits)

    def _expire(self, now: float) -> None:
        dead = [fetcher for fetcher, heard in self._heard.items() if now - heard > self._lease_s]
        for fetcher in dead:
            del self._heard[fetcher]
            for name in self._of.pop(fetcher, ()):
                if (host := self._hosts.get(name)) is not None:
                    host.held.pop(fetcher, None)
                    host.waiting.pop(fetcher, None)
                    self._tidy(name, now)

    def _tidy(self, name: str, now: float) -> None:
        host = self._hosts.get(name)
        if host is not None and not host.held and not host.waiting and host.next_start <= now:
            del self._hosts[name]
