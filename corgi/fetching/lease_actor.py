"""The lease tables of the whole cluster: named Ray actors that serve all fetchers of all runs, each for the hosts with one hash value."""

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from corgi.fetching.lease_table import LeaseRequest, LeaseResponse, LeaseTable
from corgi.flow.placement import selector
from corgi.settings.errors import ClusterError

if TYPE_CHECKING:
    from ray.actor import ActorProxy

NAME = "corgi-host-leases-3"
"""The first actor's name; its number is raised when LeaseRequest, LeaseResponse or the assignment of hosts to actors changes."""
NAMESPACE = "corgi"
_RESPONSE_TIMEOUT_S = 60.0
_ATTEMPTS = 3
_INTERVAL_PER_FETCHER_S = 0.0015
"""Interval between requests per fetcher, s. More frequent requests load a table more without fetching more, because pending requests are repeated each time (docs/scale.md)."""
_MAX_INTERVAL_S = 0.5
_MIN_INTERVAL_S = 0.01


class LeaseActor:
    """One of the cluster's lease tables and the clock of the node it runs on."""

    def __init__(self, num_tables: int) -> None:
        """Start with an empty table; after a restart it waits until the lost table's leases are no longer in use."""
        import ray

        self._num_tables = num_tables
        self._table = LeaseTable(
            is_recovering=bool(ray.get_runtime_context().was_current_actor_reconstructed)
        )

    def lease(self, request: LeaseRequest, num_tables: int) -> LeaseResponse:
        """Return what the table grants to a fetcher that divides hosts among `num_tables` tables.

        Raises:
            ClusterError: hosts are now divided among a different number of tables, so that two tables would lease the same host.

        """
        if num_tables != self._num_tables:
            raise ClusterError(
                f"another run that has started since divides hosts among {self._num_tables} tables, this one among {num_tables}; committed shards are safe; run the same command again"
            )
        return self._table.lease(request, time.monotonic())

    def num_tables(self) -> int:
        """Return the number of tables among which hosts are divided."""
        return self._num_tables

    def is_idle(self) -> bool:
        """Return whether no fetcher holds or waits for a slot."""
        return self._table.is_idle()

    def num_held(self, host: str) -> int:
        """Return how many slots of a host are leased."""
        return self._table.num_held(host)


class ClusterLeases:
    """Leases from one of the actors; requests are sent one after another, at least `interval_s` apart."""

    def __init__(self, num_fetchers: int, table: int = 0, num_tables: int = 1) -> None:
        """Space the requests so that one actor serves all fetchers."""
        self.interval_s = min(_MAX_INTERVAL_S, max(_MIN_INTERVAL_S, num_fetchers * _INTERVAL_PER_FETCHER_S))
        self._table, self._num_tables = table, num_tables
        self._actor: Any = None
        self._num_sent = 0

    async def lease(self, request: LeaseRequest) -> LeaseResponse:
        """Return what the table grants.

        Raises:
            ClusterError: the actor cannot be reached, or the division of hosts has changed.

        """
        from ray.exceptions import RayError

        last: Exception | None = None
        for _ in range(_ATTEMPTS):
            try:
                return await self._asked(request)
            except ClusterError:
                raise
            except (
                RayError,
                TimeoutError,
                ValueError,
            ) as error:  # the actor ended with its node; the next actor starts empty
                self._actor, last = None, error
        raise ClusterError(
            "the lease actor of host slots does not respond; committed shards are safe; check the cluster and run the same command"
        ) from last

    async def _asked(self, request: LeaseRequest) -> LeaseResponse:
        """Send a request with a new number and return the response."""
        self._actor = self._actor or _actor(self._table, self._num_tables)
        self._num_sent += 1
        numbered = replace(request, number=self._num_sent)
        async with asyncio.timeout(_RESPONSE_TIMEOUT_S):
            return await self._actor.lease.remote(numbered, self._num_tables)


def cluster_leases(num_fetchers: int, num_tables: int) -> list[ClusterLeases]:
    """Return the lease clients' connections for one of `num_fetchers` fetchers, one per table."""
    return [ClusterLeases(num_fetchers, table, num_tables) for table in range(num_tables)]


def start_lease_actors(num_tables: int) -> int:
    """Start the cluster's lease actors if there are none; return their number. They outlive the process that starts them.

    The first actor is started here, each other one by the first fetcher that needs it.
    """
    import ray

    first: Any = _actor(0, num_tables)
    return ray.get(first.num_tables.remote())


def stop_lease_actors() -> None:
    """End the lease actors if no fetcher of any run uses them."""
    import ray
    from ray.exceptions import RayError

    try:
        first: Any = ray.get_actor(NAME, namespace=NAMESPACE)
        number: int = ray.get(first.num_tables.remote(), timeout=_RESPONSE_TIMEOUT_S)
        others = [_found(table, number) for table in range(1, number)]
        actors = [*(actor for actor in others if actor is not None), first]
        if all(ray.get([actor.is_idle.remote() for actor in actors], timeout=_RESPONSE_TIMEOUT_S)):
            for actor in actors:
                ray.kill(actor)
    except (ValueError, RayError):  # it has already ended, with its node or by another run
        return


def actor_name(table: int, num_tables: int) -> str:
    """Return the name of one of `num_tables` lease actors."""
    return f"{NAME}-{table}-of-{num_tables}" if table else NAME


def _actor(table: int, num_tables: int) -> "ActorProxy[LeaseActor]":
    """Return a lease actor; it is started if it does not exist."""
    import ray

    options = {"namespace": NAMESPACE, "get_if_exists": True, "lifetime": "detached"}
    kind = ray.remote(num_cpus=0, max_restarts=-1, label_selector=selector(0))(LeaseActor)
    return kind.options(name=actor_name(table, num_tables), **options).remote(num_tables)


def _found(table: int, num_tables: int) -> "ActorProxy[LeaseActor] | None":
    """Return a lease actor if it was started and has not ended."""
    import ray

    try:
        return ray.get_actor(actor_name(table, num_tables), namespace=NAMESPACE)
    except ValueError:
        return None
