"""The lease table: slots and start times of every host, over all fetchers. Arithmetic only: no clock, no network.

A slot is the right to have one request to a host in flight. Fetchers lease several slots at a time, reuse them for successive
requests, and return them when idle or recalled; the slots of a fetcher that has not renewed its lease become free.
"""

import itertools
import math
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

LEASE_S = 15.0
"""Time after a fetcher's last request until its slots become free, s."""
HORIZON_S = 1.0
"""Longest reservation ahead, s; a crashed fetcher wastes at most this much of a host's budget."""


@dataclass(frozen=True)
class LeaseRequest:
    """A fetcher's request: the slots it holds (of the hosts named), the additional slots it wants, and its limits per host.

    `is_whole`: all hosts of which it holds slots are named; otherwise only those that changed, and a renewal names none.
    `number` increases with every message of a fetcher, so that one delivered late or twice has no effect; 0: messages are not numbered.
    `since` identifies the lease that the fetcher believes it has, as in the last response; None: it has had no response yet.
    """

    fetcher: str
    held: Mapping[str, int]
    wanted: Mapping[str, int]
    limit: int
    delay_s: float
    is_whole: bool = True
    number: int = 0
    since: float | None = None


@dataclass(frozen=True)
class LeaseResponse:
    """The response: for each host the waits, s, before each granted slot may be used; and hosts for which other fetchers wait.

    If `is_known` is false, the table did not know this fetcher: others may have its unused slots, and it must report all slots in use.
    `since`: when its lease began, by the table's clock.
    """

    grants: dict[str, tuple[float, ...]]
    recalled: tuple[str, ...]
    is_known: bool = True
    since: float | None = None


@dataclass
class _Host:
    held: dict[str, int] = field(default_factory=dict)
    waiting: dict[str, float] = field(default_factory=dict)
    next_start: float = 0.0

    @property
    def num_held(self) -> int:
        return sum(self.held.values())

    def fair_share(self, limit: int, fetcher: str) -> int:
        others = sum(other not in self.waiting for other in self.held)
        is_new = fetcher not in self.held and fetcher not in self.waiting
        return math.ceil(limit / (len(self.waiting) + others + is_new))

    def older_waiters(self, fetcher: str, most: int) -> int:
        """Return how many fetchers without a slot have waited longer, at most `most`."""
        number = 0
        for other in self.waiting:  # in the order in which they started waiting
            if other == fetcher or number >= most:
                break
            number += other not in self.held
        return number

    def starts_ahead(self, request: LeaseRequest, now: float) -> int:
        """Return how many starts within the horizon remain for a fetcher, after one for each fetcher that has waited longer."""
        left = HORIZON_S - max(0.0, self.next_start - now)
        room = math.floor(left / request.delay_s) + 1 if left >= 0 else 0
        older = itertools.takewhile(lambda other: other != request.fetcher, self.waiting)
        return room - sum(1 for _ in itertools.islice(older, room))

    def is_wanted_from(self, fetcher: str, limit: int) -> bool:
        if fetcher not in self.held:
            return False
        if not any(other not in self.held for other in self.waiting):
            others = any(other != fetcher for other in self.waiting)
            return others and self.held[fetcher] > self.fair_share(limit, fetcher)
        return self.num_held >= limit


@dataclass
class _Lease:
    """The lease of a fetcher; nothing is kept of an ended lease.

    A message that was sent before the end but arrives later begins a new lease, without the fetcher knowing. The fetcher may still
    believe that it holds the slots of the ended lease, until `since` shows that this is another lease.
    """

    since: float
    number: int = 0
    seen_at: float = 0.0
    hosts: set[str] = field(default_factory=set)
    contested: set[str] = field(default_factory=set)


class LeaseTable:
    """All leased slots; only fetchers with a valid lease, and hosts that are leased, waited for or paced, are kept in memory.

    The time of a request depends on the hosts it names and those for which others wait on its fetcher, not on the number of fetchers.
    """

    def __init__(self, lease_s: float = LEASE_S, is_recovering: bool = False) -> None:
        """Start without any fetcher; a recovering table replaces one whose leases may still be in use, and grants nothing until they have expired."""
        self._lease_s = lease_s
        self._is_recovering = is_recovering
        self._lost_at: float | None = None
        self._hosts: dict[str, _Host] = {}
        self._leases: OrderedDict[str, _Lease] = OrderedDict()
        self._resting: deque[tuple[float, str]] = deque()

    def lease(self, request: LeaseRequest, now: float) -> LeaseResponse:
        """Record what a fetcher holds, grant its fair share of free slots, and name the hosts for which others wait."""
        self._expire(now)
        if self._is_recovering and self._lost_at is None:
            self._lost_at = now
        fetcher, known = request.fetcher, self._leases.get(request.fetcher)
        if known is not None and request.number and request.number <= known.number:
            return LeaseResponse({}, ())
        is_known = known is not None and request.since in (None, known.since)
        if not is_known and not request.is_whole:
            return LeaseResponse({}, (), is_known=False)
        lease = self._renewed(request, is_known, now)
        named = {*request.held, *request.wanted}
        if request.is_whole:
            named |= lease.hosts
        for name in named if request.is_whole else request.held:
            self._record(fetcher, name, request.held.get(name, 0), is_waiting=name in request.wanted)
        grants = {
            name: waits
            for name, count in request.wanted.items()
            if (waits := self._grant(request, name, count, now))
        }
        for name in named:
            self._tidy(name, now)
        return LeaseResponse(grants, self._recalled(fetcher, request.limit), is_known, lease.since)

    def num_held(self, host: str) -> int:
        """Return how many slots of a host are leased, over all fetchers."""
        return self._hosts[host].num_held if host in self._hosts else 0

    def is_idle(self) -> bool:
        """Return whether no slot is leased or waited for."""
        return not any(host.held or host.waiting for host in self._hosts.values())

    def _renewed(self, request: LeaseRequest, is_known: bool, now: float) -> _Lease:
        """Renew the lease of a fetcher, or begin one."""
        known = self._leases.setdefault(request.fetcher, _Lease(now))
        if not is_known:
            known.since = now
        known.number, known.seen_at = request.number, now
        self._leases.move_to_end(request.fetcher)
        return known

    def _record(self, fetcher: str, name: str, count: int, is_waiting: bool) -> None:
        host = self._hosts.setdefault(name, _Host())
        if count:
            host.held[fetcher] = count
            self._leases[fetcher].hosts.add(name)
            if host.waiting:
                self._contest(fetcher, name)
        else:
            host.held.pop(fetcher, None)
        if not is_waiting:
            host.waiting.pop(fetcher, None)
        if not count and not is_waiting:
            self._leases[fetcher].hosts.discard(name)

    def _grant(self, request: LeaseRequest, name: str, count: int, now: float) -> tuple[float, ...]:
        host = self._hosts.setdefault(name, _Host())
        self._leases[request.fetcher].hosts.add(name)
        mine = host.held.get(request.fetcher, 0)
        free = max(0, request.limit - host.num_held)
        free -= host.older_waiters(request.fetcher, free)
        number = max(0, min(count, free, host.fair_share(request.limit, request.fetcher) - mine))
        if (
            request.delay_s and number
        ):  # starts are scarce here, not slots: fetchers that have waited longer come first
            number = max(0, min(number, host.starts_ahead(request, now)))
        waits = self._starts(host, number, request.delay_s, now)
        if waits:
            host.held[request.fetcher] = mine + len(waits)
            if host.waiting:
                self._contest(request.fetcher, name)
        if len(waits) == count:
            host.waiting.pop(request.fetcher, None)
        elif request.fetcher not in host.waiting:
            host.waiting[request.fetcher] = now
            for holder in host.held:
                self._contest(holder, name)
        return waits

    def _contest(self, fetcher: str, name: str) -> None:
        self._leases[fetcher].contested.add(name)

    def _recalled(self, fetcher: str, limit: int) -> tuple[str, ...]:
        """Return the hosts of which a fetcher should give a slot back, and forget those for which no fetcher waits any more."""
        recalled: list[str] = []
        contested = self._leases[fetcher].contested
        for name in list(contested):
            host = self._hosts.get(name)
            if host is None or fetcher not in host.held or not host.waiting:
                contested.discard(name)
            elif host.is_wanted_from(fetcher, limit):
                recalled.append(name)
        return tuple(recalled)

    def _starts(self, host: _Host, count: int, delay_s: float, now: float) -> tuple[float, ...]:
        if self._lost_at is not None:
            if (
                now < self._lost_at + self._lease_s / 2
            ):  # a fetcher that has not reported by then uses no slot
                return ()
            host.next_start = max(host.next_start, self._lost_at + HORIZON_S + delay_s if delay_s else 0.0)
        if not delay_s:
            return (0.0,) * count
        waits: list[float] = []
        while len(waits) < count and host.next_start - now <= HORIZON_S:
            start = max(now, host.next_start)
            waits.append(start - now)
            host.next_start = start + delay_s
        return tuple(waits)

    def _expire(self, now: float) -> None:
        while self._leases and now - next(iter(self._leases.values())).seen_at > self._lease_s:
            fetcher, gone = self._leases.popitem(last=False)
            for name in gone.hosts:
                if (host := self._hosts.get(name)) is not None:
                    host.held.pop(fetcher, None)
                    host.waiting.pop(fetcher, None)
                    self._tidy(name, now)
        while self._resting and self._resting[0][0] <= now:
            self._tidy(self._resting.popleft()[1], now)

    def _tidy(self, name: str, now: float) -> None:
        host = self._hosts.get(name)
        if host is None or host.held or host.waiting:
            return
        if host.next_start <= now:
            del self._hosts[name]
        else:
            self._resting.append((host.next_start, name))
