"""The lease table of the whole cluster: a named Ray actor that serves every fetcher of every run."""

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
"""The actor's name; its number is raised when LeaseRequest or LeaseResponse changes."""
NAMESPACE = "corgi"
_RESPONSE_TIMEOUT_S = 60.0
_ATTEMPTS = 3
_INTERVAL_PER_FETCHER_S = 0.0005
_MIN_INTERVAL_S = 0.01


class LeaseActor:
    """A lease table and the clock of the node it runs on."""

    def __init__(self) -> None:
        """Start with an empty table; after a restart, with one that waits until the leases of the lost one are not in use."""
        import ray

        self._table = LeaseTable(
            is_recovering=bool(ray.get_runtime_context().was_current_actor_reconstructed)
        )

    def lease(self, request: LeaseRequest) -> LeaseResponse:
        """Return what the table grants."""
        return self._table.lease(request, time.monotonic())

    def is_idle(self) -> bool:
        """Return whether no fetcher holds or waits for a slot."""
        return self._table.is_idle()

    def num_held(self, host: str) -> int:
        """Return how many slots of a host are leased."""
        return self._table.num_held(host)


class ClusterLeases:
    """Lease from the actor; requests are sent one after another, at least `interval_s` apart."""

    def __init__(self, num_fetchers: int) -> None:
        """Space the requests so that one actor serves all fetchers."""
        self.interval_s = max(_MIN_INTERVAL_S, num_fetchers * _INTERVAL_PER_FETCHER_S)
        self._actor: Any = None
        self._num_sent = 0

    async def lease(self, request: LeaseRequest) -> LeaseResponse:
        """Return what the table grants.

        Raises:
            ClusterError: the actor cannot be reached.

        """
        from ray.exceptions import RayError

        last: Exception | None = None
        for _ in range(_ATTEMPTS):
            try:
                self._actor = self._actor or start_lease_actor()
                async with asyncio.timeout(_RESPONSE_TIMEOUT_S):
                    self._num_sent += 1
                    return await self._actor.lease.remote(replace(request, number=self._num_sent))
            except (
                RayError,
                TimeoutError,
                ValueError,
            ) as error:  # the actor ended with its node: the next one starts empty
                self._actor, last = None, error
        raise ClusterError(
            "the lease actor of host slots does not respond; committed shards are safe; check the cluster and run the same command"
        ) from last


def start_lease_actor() -> "ActorProxy[LeaseActor]":
    """Return the cluster's lease actor, started if there is none; it outlives the process that starts it."""
    import ray

    options = {"name": NAME, "namespace": NAMESPACE, "get_if_exists": True, "lifetime": "detached"}
    kind = ray.remote(num_cpus=0, max_restarts=-1, label_selector=selector(0))(LeaseActor)
    return kind.options(**options).remote()


def stop_lease_actor() -> None:
    """End the lease actor if no fetcher of any run uses it."""
    import ray
    from ray.exceptions import RayError

    try:
        actor = ray.get_actor(NAME, namespace=NAMESPACE)
        if ray.get(actor.is_idle.remote(), timeout=_RESPONSE_TIMEOUT_S):
            ray.kill(actor)
    except (ValueError, RayError):  # ended already, with its node or by another run
        return
