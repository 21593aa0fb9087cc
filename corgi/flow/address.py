"""The address of a Ray cluster, tested before Ray connects: Ray waits minutes for a cluster that does not respond."""

# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# gRPC has no types, nor have the classes that protobuf makes

import socket
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing
from threading import Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from corgi.settings.errors import ClusterError

if TYPE_CHECKING:
    import grpc

CONNECTION_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 10.0
"""Longest waits for a connection, including the name look-up, and for an answer over it, s."""
_UNANSWERED = "accepts connections and does not answer"


def check_address(address: str) -> None:
    """Check that a cluster responds at an address as in RAY_ADDRESS: `host:port`, `ray://host:port`, auto or local.

    Raises:
        ClusterError: nothing responds there in time, or what responds is not a Ray cluster; the message says which.

    """
    if address == "local":
        return
    if address.startswith(("http://", "https://")):
        raise ClusterError(
            f"RAY_ADDRESS={address} is the address of a dashboard, which only takes jobs; committed work is safe; run the same command through `ray job submit --working-dir . --`, or set RAY_ADDRESS to the head's host:port"
        )
    found = _of_this_machine() if address == "auto" else address
    reason = _failure(found.removeprefix("ray://"), is_client=found.startswith("ray://"))
    if reason:
        named = address if found == address else f"{address} ({found})"
        raise ClusterError(
            f"the Ray cluster of RAY_ADDRESS={named} {reason}; committed work is safe; start the cluster or correct RAY_ADDRESS, or unset it to use this machine alone, and run the same command"
        )


def _of_this_machine() -> str:
    from ray._private.services import canonicalize_bootstrap_address

    try:
        found = canonicalize_bootstrap_address("auto")
    except ConnectionError:
        found = None
    if found is None:
        raise ClusterError(
            "RAY_ADDRESS=auto finds no Ray cluster on this machine; committed work is safe; start one with `ray start --head`, or unset RAY_ADDRESS, and run the same command"
        )
    return found


def _failure(address: str, is_client: bool) -> str:
    """Return what is wrong with `host:port`, or an empty text."""
    try:
        parts = urlsplit(f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port:
        return "is not host:port"
    try:
        _within(CONNECTION_TIMEOUT_S, lambda: _connect(host, port))
    except TimeoutError:
        return f"cannot be reached: no connection in {CONNECTION_TIMEOUT_S:.0f} s"
    except OSError as error:
        return f"cannot be reached: {error.strerror or error}"
    return _answer(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", is_client)


def _connect(host: str, port: int) -> None:
    socket.create_connection((host, port), CONNECTION_TIMEOUT_S).close()


def _answer(address: str, is_client: bool) -> str:
    """Request a first response from a head, or from the server of Ray clients; return what is wrong with it, or an empty text."""
    import grpc
    from ray._private.grpc_utils import init_grpc_channel
    from ray.core.generated import gcs_service_pb2
    from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub

    channel: Any = init_grpc_channel(address)
    messages: Any = gcs_service_pb2  # protobuf makes its classes when it is imported
    with closing(channel):
        try:
            if is_client:
                grpc.channel_ready_future(channel).result(ANSWER_TIMEOUT_S)
            else:
                ask = NodeInfoGcsServiceStub(channel).GetClusterId
                ask(messages.GetClusterIdRequest(), timeout=ANSWER_TIMEOUT_S, wait_for_ready=True)
        except grpc.FutureTimeoutError:
            return _UNANSWERED
        except grpc.RpcError as error:
            return _meaning(error)
    return ""


def _meaning(error: "grpc.RpcError") -> str:
    import grpc

    assert isinstance(error, grpc.Call)
    if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
        return _UNANSWERED
    if error.code() == grpc.StatusCode.UNIMPLEMENTED:
        return "is not the port of a Ray head, which is usually 6379"
    return f"answers with an error: {' '.join(str(error.details()).split())[:200]}"


def _within(timeout_s: float, work: Callable[[], None]) -> None:
    """Wait for a call. One that takes longer is abandoned, since a name lookup cannot be interrupted."""
    done: Future[None] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except OSError as error:
            done.set_exception(error)

    Thread(target=run, daemon=True).start()
    done.result(timeout_s)
