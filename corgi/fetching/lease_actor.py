"""The cluster's one book of host slots: a named Ray actor that every fetcher of every run asks."""

import asyncio
import time
from typing import Any

from corgi.fetching.lease_table import Answer, Ask, HostBook
from corgi.flow.placement import selector
from corgi.settings.errors import ClusterError

NAME = "corgi-host-book-1"
"""The actor's name; its number rises with the form of an Ask or an Answer."""
NAMESPACE = "corgi"
_ASK_TIMEOUT_S = 60.0
_ATTEMPTS = 3
_INTERVAL_PER_FETCHER_S = 0.0005
_MIN_INTERVAL_S = 0.01


class BookKeeper:
    """The actor: a book and the clock of the node it runs on."""

    def __init__(self) -> None:
        """Open an empty book."""
        self._book = HostBook()

    def ask(self, ask: Ask) -> Answer:
        """Return what a fetcher is given."""
        return self._book.ask(ask, time.monotonic())

    def is_idle(self) -> bool:
        """Say whether no fetcher holds or waits for a slot."""
        return self._book.is_idle()

    def num_held(self, host: str) -> int:
        """Return how many slots of a host are leased."""
        return self._book.num_held(host)


class ClusterLessor:
    """Ask the cluster's book; asks leave one after another, at least `interval_s` apart, and carry all hosts at once."""

    def __init__(self, num_fetchers: int) -> None:
        """Space the asks so that one book serves all fetchers."""
        self.interval_s = max(_MIN_INTERVAL_S, num_fetchers * _INTERVAL_PER_FETCHER_S)
        self._keeper: Any = None

    async def ask(self, ask: Ask) -> Answer:
        """Return what a fetcher is given.

        Raises:
            ClusterError: the book cannot be reached.

        """
        from ray.exceptions import RayError

        last: Exception | None = None
        for _ in range(_ATTEMPTS):
            try:
                self._keeper = self._keeper or open_book()
                async with asyncio.timeout(_ASK_TIMEOUT_S):
                    return await self._keeper.ask.remote(ask)
            except (
                RayError,
                TimeoutError,
                ValueError,
            ) as error:  # ended with its node: the next one starts empty
                self._keeper, last = None, error
        raise ClusterError(
            "the book of host slots does not answer; committed shards are safe; check the cluster and run the same command"
        ) from last


def open_book() -> Any:
    """Return the cluster's book, which is started if there is none; it outlives who starts it."""
    import ray

    options = {"name": NAME, "namespace": NAMESPACE, "get_if_exists": True, "lifetime": "detached"}
    kind = ray.remote(num_cpus=0, max_restarts=-1, label_selector=selector(0))(BookKeeper)
    return kind.options(**options).remote()


def close_book() -> None:
    """End the cluster's book if no fetcher of any run uses it."""
    import ray
    from ray.exceptions import RayError

    try:
        keeper = ray.get_actor(NAME, namespace=NAMESPACE)
        if ray.get(keeper.is_idle.remote(), timeout=_ASK_TIMEOUT_S):
            ray.kill(keeper)
    except (ValueError, RayError):  # gone already, with its node or by another run
        return
