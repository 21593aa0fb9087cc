"""The lease table: slots and start times of every host, over all fetchers. Arithmetic only: no clock, no network.

A slot is the right to have one request to a host in flight. Fetchers lease several slots at a time, reuse them from request to
request, and give them back when idle or recalled; the slots of a fetcher that has not renewed its lease are free again.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

LEASE_S = 15.0
"""Time after a fetcher's last request at which its slots are free again, s."""
SWEEP_EVERY = 1000
"""Requests between two removals of hosts that are not leased and whose next start has come."""
HORIZON_S = 1.0
"""Longest reservation ahead, s; a crashed fetcher wastes at most this much of a host's budget."""


@dataclass(frozen=True)
class LeaseRequest:
    """A fetcher's request: slots it holds (of the hosts named), further slots wanted, and its own limits per host."""

    fetcher: str
    held: Mapping[str, int]
    wanted: Mapping[str, int]
    limit: int
    delay_s: float


@dataclass(frozen=True)
class LeaseResponse:
    """The response: per host the waits, s, before each granted slot may be used; and hosts for which others wait.

    `is_known` false: the table does not know this fetcher, which must report all slots it holds.
    """

    grants: dict[str, tuple[float, ...]]
    recalled: tuple[str, ...]
    is_known: bool = True


@dataclass
class _Host:
    held: dict[str, int] = field(default_factory=dict)
    waiting: dict[str, float] = field(default_factory=dict)
    next_start: float = 0.0

    def fair_share(self, limit: int, fetcher: str) -> int:
        return math.ceil(limit / len({*self.held, *self.waiting, fetcher}))

    def older_waiters(self, fetcher: str, now: float) -> int:
        mine = self.waiting.get(fetcher, now)
        return sum(
            at < mine and other not in self.held for other, at in self.waiting.items() if other != fetcher
        )

    def is_wanted_from(self, fetcher: str, limit: int) -> bool:
        if not any(other != fetcher and other not in self.held for other in self.waiting):
            others = any(other != fetcher for other in self.waiting)
            return others and self.held.get(fetcher, 0) > self.fair_share(limit, fetcher)
        return sum(self.held.values()) >= limit


class LeaseTable:
    """All leased slots; memory holds only hosts that are leased, waited for or paced."""

    def __init__(self, lease_s: float = LEASE_S) -> None:
        """Start without any fetcher."""
        self._lease_s = lease_s
        self._hosts: dict[str, _Host] = {}
        self._of: dict[str, set[str]] = {}
        self._last_seen: dict[str, float] = {}
        self._num_requests = 0

    def lease(self, request: LeaseRequest, now: float) -> LeaseResponse:
        """Record what a fetcher holds, grant its fair share of free slots, and name the hosts for which others wait."""
        self._expire(now)
        self._num_requests += 1
        if self._num_requests % SWEEP_EVERY == 0:
            for name in list(self._hosts):
                self._tidy(name, now)
        is_known = request.fetcher in self._last_seen
        self._last_seen[request.fetcher] = now
        mine = self._of.setdefault(request.fetcher, set())
        for name, count in request.held.items():
            self._record(request.fetcher, name, count, is_waiting=name in request.wanted)
        grants = {
            name: waits
            for name, count in request.wanted.items()
            if (waits := self._grant(request, name, count, now))
        }
        for name in [*request.held, *request.wanted]:
            self._tidy(name, now)
        recalled = tuple(
            name
            for name in mine
            if (host := self._hosts.get(name)) and host.is_wanted_from(request.fetcher, request.limit)
        )
        return LeaseResponse(grants, recalled, is_known)

    def num_held(self, host: str) -> int:
        """Return how many slots of a host are leased, over all fetchers."""
        return sum(self._hosts[host].held.values()) if host in self._hosts else 0

    def is_idle(self) -> bool:
        """Return whether no slot is leased or waited for."""
        return not any(host.held or host.waiting for host in self._hosts.values())

    def _record(self, fetcher: str, name: str, count: int, is_waiting: bool) -> None:
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

    def _grant(self, request: LeaseRequest, name: str, count: int, now: float) -> tuple[float, ...]:
        host = self._hosts.setdefault(name, _Host())
        self._of[request.fetcher].add(name)
        mine = host.held.get(request.fetcher, 0)
        free = request.limit - sum(host.held.values()) - host.older_waiters(request.fetcher, now)
        number = max(0, min(count, free, host.fair_share(request.limit, request.fetcher) - mine))
        waits = self._starts(host, number, request.delay_s, now)
        if waits:
            host.held[request.fetcher] = mine + len(waits)
        if len(waits) == count:
            host.waiting.pop(request.fetcher, None)
        else:
            host.waiting.setdefault(request.fetcher, now)
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
        dead = [fetcher for fetcher, seen_at in self._last_seen.items() if now - seen_at > self._lease_s]
        for fetcher in dead:
            del self._last_seen[fetcher]
            for name in self._of.pop(fetcher, ()):
                if (host := self._hosts.get(name)) is not None:
                    host.held.pop(fetcher, None)
                    host.waiting.pop(fetcher, None)
                    self._tidy(name, now)

    def _tidy(self, name: str, now: float) -> None:
        host = self._hosts.get(name)
        if host is not None and not host.held and not host.waiting and host.next_start <= now:
            del self._hosts[name]
