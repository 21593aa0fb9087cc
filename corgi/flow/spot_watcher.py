"""The watcher of a spot machine: it waits for the cloud's notice and drains the machine's Ray node.

`cluster/aws.yaml` and `cluster/gcp.yaml` start it after Ray on every worker: `python -m corgi.flow.spot_watcher aws`.
On an on-demand machine there is no notice, and the watcher ends.

Exit codes: 0 the node is drained, or the machine is not spot; 2 unknown arguments; 5 no metadata server, or the node could not be drained.
"""

# pyright: reportUnknownVariableType=false
# Ray leaves types out of what it returns

import argparse
import asyncio
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

from corgi.flow.metadata_server import CLOUDS, Clock, Cloud, MetadataError, connected
from corgi.settings.errors import ClusterError

START_ATTEMPTS = 12
"""Number of queries without a usable response after which a machine counts as one without this metadata server."""
DRAIN_PAUSE_S = 1.0
DRAIN_TIMEOUT_S = 5.0
"""Longest wait for the head's response to a drain request, s."""

_log = logging.getLogger("spot_watcher")

Drain = Callable[[float], None]
"""Drains this machine's node until a Unix time; raises ClusterError."""


async def watch(cloud: Cloud, drain: Drain, clock: Clock) -> None:
    """Wait for the cloud's notice and drain the node once; return at once on a machine that is not spot.

    Raises:
        ClusterError: there is no metadata server, or the node could not be drained before the machine is taken away.

    """
    if not await _is_spot(cloud, clock):
        _log.info("this machine is not spot: nothing to watch")
        return
    _log.info("waiting for the notice that this spot machine goes")
    deadline = await _notice(cloud, clock)
    _log.info("notice: the machine goes in %.0f s", deadline - clock.now())
    await _drain(drain, deadline, clock)
    _log.info("the node is draining")


async def _is_spot(cloud: Cloud, clock: Clock) -> bool:
    trouble = ""
    for _ in range(START_ATTEMPTS):
        try:
            return await cloud.is_spot()
        except MetadataError as error:
            trouble = str(error)
        await clock.sleep(cloud.pause_s)
    raise ClusterError(
        f"no usable metadata server of this cloud: {trouble}; work on this machine goes on, and committed work is safe when it is taken away; name the right cloud in worker_start_ray_commands, or remove the watcher where there is no cloud"
    )


async def _notice(cloud: Cloud, clock: Clock) -> float:
    """Return the deadline in the cloud's notice once there is one; while the server fails, the query is repeated."""
    responds = True
    while True:
        try:
            deadline = await cloud.deadline()
        except MetadataError as error:
            if responds:
                _log.warning("metadata server: %s; asking on", error)
            responds = False
        else:
            if not responds:
                _log.info("metadata server: responds again")
            responds = True
            if deadline is not None:
                return deadline
        await clock.sleep(cloud.pause_s)


async def _drain(drain: Drain, deadline: float, clock: Clock) -> None:
    while True:
        try:
            return drain(deadline)
        except ClusterError as error:
            if clock.now() + DRAIN_PAUSE_S >= deadline:
                raise
            _log.warning("%s", error)
        await clock.sleep(DRAIN_PAUSE_S)


def drain_node(deadline: float) -> None:
    """Tell the cluster's head that this machine's node is preempted and will be taken away at a Unix time.

    This is the call behind `ray drain-node`, but that command would first join the cluster as a driver to find out which node this is.

    Raises:
        ClusterError: no Ray node here, the head does not respond, or it does not accept.

    """
    from ray.exceptions import RayError

    try:
        trouble = _refusal(deadline)
    except (RayError, OSError, RuntimeError, ValueError) as error:
        trouble = " ".join(str(error).split())[:300]
    if trouble:
        raise ClusterError(
            f"the node was not drained: {trouble}; committed work is safe, and a training goes back to its newest checkpoint; see that this node's Ray runs and its head responds"
        )


def _refusal(deadline: float) -> str:
    """Return why the head does not drain this machine's node; empty if it does."""
    from ray import _raylet
    from ray._private import services
    from ray.core.generated import autoscaler_pb2

    native: Any = _raylet
    messages: Any = autoscaler_pb2  # protobuf makes its classes when it is imported
    reason = messages.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    nodes, address = services.find_node_ids(), services.canonicalize_bootstrap_address("auto")
    if not nodes or address is None:
        return "no Ray node runs on this machine"
    client = native.GcsClient(address=address)
    for node in nodes:
        accepted, why = client.drain_node(
            node,
            reason,
            "the cloud takes this spot machine back",
            int(deadline * 1000),
            timeout=DRAIN_TIMEOUT_S,
        )
        if not accepted:
            return str(why)
    return ""


async def _run(name: str, url: str) -> None:
    clock = Clock()
    async with connected(name, url, clock) as cloud:
        await watch(cloud, drain_node, clock)


def main(arguments: Sequence[str] | None = None) -> int:
    """Watch until the node is drained and return the exit code; the log goes to standard output."""
    parser = argparse.ArgumentParser("spot_watcher", description="Drain this spot machine at its notice.")
    parser.add_argument("cloud", choices=sorted(CLOUDS))
    parser.add_argument("--metadata-server", default="", metavar="URL", help="another than the cloud's own")
    chosen = parser.parse_args(arguments)
    logging.basicConfig(
        stream=sys.stdout, level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s"
    )
    try:
        asyncio.run(_run(chosen.cloud, chosen.metadata_server))
    except ClusterError as error:
        _log.error("%s", error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
