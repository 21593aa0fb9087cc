"""What a running command is waiting for: demands that no node can meet yet, stored in the run's folder for --status."""

# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false
# Ray leaves types out of what it returns

import json
import sys
import time
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any, Protocol

from corgi.storage.files import write_file

NAME = "waiting.json"
LOOK_EVERY_S = 5.0
SHORTEST_S = 30.0
"""Shortest wait that is reported, s: with a shorter one, work is only queued and no node is missing."""


class Request(Protocol):
    """Resources that one task, actor or bundle requests."""

    resources_bundle: Mapping[str, float]


class Requests(Protocol):
    """Equal requests, and their number."""

    request: Request
    count: int


class Chosen(Protocol):
    """The bundles of a gang, with selectors of the nodes on which they may be placed."""

    resource_requests: Sequence[Request]


class Gang(Protocol):
    """Requests that must be met together."""

    requests: Sequence[Request]
    bundle_selectors: Sequence[Chosen]


class ClusterState(Protocol):
    """The parts of Ray's untyped message `ClusterResourceState` that are read."""

    pending_resource_requests: Sequence[Requests]
    pending_gang_resource_requests: Sequence[Gang]


@contextmanager
def noted(folder: Path) -> Generator[None]:
    """While the block runs, keep a file in the run's folder that says what is waiting for nodes."""
    ended = Event()
    thread = Thread(target=_watch, args=(folder / NAME, ended), name="waiting", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        (folder / NAME).unlink(missing_ok=True)


def lines(folder: Path) -> Iterator[str]:
    """Yield one line per kind of waiting demand, with the time at which the wait began."""
    with suppress(OSError, ValueError):
        for need, told in json.loads((folder / NAME).read_text()).items():
            since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(told["since"]))
            yield f"waits for nodes: {told['count']} x {need}, since {since}"


def _watch(note: Path, ended: Event) -> None:
    since: dict[str, float] = {}
    while not ended.wait(LOOK_EVERY_S):
        found = pending()
        if found is None:
            continue
        since = {need: since.get(need, time.time()) for need in found}
        told = {
            need: {"count": count, "since": since[need]}
            for need, count in found.items()
            if time.time() - since[need] >= SHORTEST_S
        }
        with suppress(OSError):
            write_file(note, json.dumps(told).encode())


def pending() -> Counter[str] | None:
    """Return how many requests of each kind wait for resources; None if no cluster is joined or its head does not respond."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return None
    from ray import _raylet
    from ray.autoscaler.v2.sdk import get_cluster_resource_state
    from ray.exceptions import RayError

    native: Any = _raylet
    try:
        client = native.GcsClient(ray.get_runtime_context().gcs_address)
        state: ClusterState = get_cluster_resource_state(client)
        return requests_of(state)
    except RayError:  # the head does not respond now; the next check asks again
        return None


def requests_of(state: ClusterState) -> Counter[str]:
    """Return the numbers of pending requests in a cluster's state, by their text; gangs are counted by their bundles."""
    found: Counter[str] = Counter()
    for entry in state.pending_resource_requests:
        found[_in_words(entry.request.resources_bundle)] += entry.count
    for gang in state.pending_gang_resource_requests:
        bundles = gang.requests or [
            one for chosen in gang.bundle_selectors[:1] for one in chosen.resource_requests
        ]
        for request in bundles:
            found[_in_words(request.resources_bundle)] += 1
    return found


def _in_words(bundle: Mapping[str, float]) -> str:
    named = [f"{bundle[kind]:g} {kind}" for kind in sorted(bundle) if kind in ("CPU", "GPU")]
    return " and ".join(named) or "0 CPU"
