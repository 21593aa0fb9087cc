"""A circuit breaker per host: hosts that do not respond are tried again only once per pause."""

from collections import OrderedDict

MAX_HOSTS = 20_000


class Breaker:
    """After `max_faults` faults in a row a host gets one request per `pause_s`, until it responds.

    A fault counts only if the host has not responded since the request began, so slow requests that fail together after
    others succeeded do not count. Only the most recent hosts are kept in memory.
    """

    def __init__(self, max_faults: int, pause_s: float) -> None:
        """Set the limits; with `max_faults` 0 the breaker never opens."""
        self._max_faults = max_faults
        self._pause_s = pause_s
        self._hosts: OrderedDict[str, tuple[int, float, float]] = OrderedDict()

    def allows(self, host: str, now: float) -> bool:
        """Return whether a request may start; while the breaker is open, one may per pause."""
        faults, heard_at, open_until = self._hosts.get(host, (0, -1.0, 0.0))
        if not self._max_faults or faults < self._max_faults:
            return True
        if now < open_until:
            return False
        self._hosts[host] = (faults, heard_at, now + self._pause_s)
        return True

    def heard(self, host: str, now: float) -> None:
        """Record that the host responded."""
        self._keep(host, (0, now, 0.0))

    def failed(self, host: str, began: float, now: float) -> None:
        """Record that a request begun at `began` got no response, or that the host is overloaded."""
        faults, heard_at, _ = self._hosts.get(host, (0, -1.0, 0.0))
        if began > heard_at:
            self._keep(host, (faults + 1, heard_at, now + self._pause_s))

    def _keep(self, host: str, state: tuple[int, float, float]) -> None:
        self._hosts[host] = state
        self._hosts.move_to_end(host)
        if len(self._hosts) > MAX_HOSTS:
            self._hosts.popitem(last=False)
