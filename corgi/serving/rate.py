"""Rate limit per client address: one token bucket per address, in bounded memory."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

MAX_ADDRESSES = 10_000
"""Number of addresses remembered; the one whose last request is oldest is forgotten first."""


@dataclass
class Rate:
    """At most `per_minute` requests per address and minute, also in a burst; 0: unlimited."""

    per_minute: int
    clock: Callable[[], float] = time.monotonic
    _buckets: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)
    """Tokens left and the time of the last request, s, by address."""

    def wait_s(self, address: str) -> float:
        """Take a token from an address's bucket; return 0, or the seconds until the bucket has a token again."""
        if self.per_minute == 0:
            return 0.0
        now = self.clock()
        tokens, before = self._buckets.pop(address, (float(self.per_minute), now))
        tokens = min(self.per_minute, tokens + (now - before) * self.per_minute / 60)
        is_allowed = tokens >= 1
        self._buckets[address] = (tokens - is_allowed, now)
        if len(self._buckets) > MAX_ADDRESSES:
            self._buckets.popitem(last=False)
        return 0.0 if is_allowed else (1 - tokens) * 60 / self.per_minute
