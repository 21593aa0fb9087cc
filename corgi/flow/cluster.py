"""The Ray cluster that a run uses: the one to which it was submitted, or one started on this machine."""

# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# Ray leaves types out of what it returns

import logging
import os
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corgi.flow import demand, node_types
from corgi.flow.address import check_address
from corgi.flow.executor import is_in_process
from corgi.settings import errors
from corgi.settings.errors import ClusterError, CorgiError
from corgi.settings.recipe import Recipe

if TYPE_CHECKING:
    from corgi.flow.dag import Step

_RAISED = re.compile(rf"^{re.escape(errors.__name__)}\.(\w+): (.*)$", re.MULTILINE)
FREE_CPUS = 1.0
"""CPUs that are left for the driver's tasks and short stages while two stages run at the same time."""
_OF_COMMAND = "CORGI_RAY_OF_COMMAND"
_ON_LOOPBACK = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "GLOO_SOCKET_IFNAME": "lo",
    "NCCL_SOCKET_IFNAME": "lo",
}
"""Environment in which Ray on one machine, and the trainings on it, listen on 127.0.0.1. Ray documents the first variable for
Windows and macOS but reads it everywhere: the node's address becomes 127.0.0.1, and all servers of such a node
bind to it. docs/run.md says what still listens elsewhere."""
_HOME = str(Path(__file__).resolve().parents[2])


def is_submitted() -> bool:
    """Return whether this process is the entry point of a `ray job submit`."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def is_of_this_command() -> bool:
    """Return whether Ray was started by this command for itself, or by the command that started this process."""
    return _starts_ray() or os.environ.get(_OF_COMMAND) == "1"


def _starts_ray() -> bool:
    return os.environ.get("RAY_ADDRESS", "") in ("", "local")


def shared() -> dict[str, str]:
    """Return the environment in which another process on this machine joins the cluster to which this process is connected."""
    import ray

    found = {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    return {**found, _OF_COMMAND: "1"} if is_of_this_command() else found


def environment_beside(recipe: Recipe, cpus: float, gpus: float) -> dict[str, str] | None:
    """Return the environment of a concurrent process, if the cluster has these resources for both; None if they must run one after the other."""
    if not recipe.cluster.side_by_side:
        return None
    connect(recipe)
    return shared() if has_room(recipe, cpus, gpus) else None


def has_room(recipe: Recipe, cpus: float, gpus: float) -> bool:
    """Return whether the cluster has these resources and FREE_CPUS; a cluster that this command did not start may still grow."""
    import ray

    if not is_of_this_command() and recipe.cluster.grows:
        return True
    have = ray.cluster_resources()
    return cpus + FREE_CPUS <= have.get("CPU", 0) and gpus <= have.get("GPU", 0)


def check_start(recipe: Recipe, plan: Callable[[], Iterable["Step"]]) -> None:
    """Check that the cluster responds and can provide what the unfinished steps of a plan need.

    `plan` is called only if the nodes are known before they start: if `cluster.file` names them, or if they are fixed.

    Raises:
        ClusterError: it does not respond, or some stage would wait forever.
        InputError: `cluster.file` is not a cluster file.

    """
    check()
    if recipe.cluster.file:
        declared = node_types.read(recipe.cluster.file)
    elif is_of_this_command() or recipe.cluster.grows:
        return
    else:
        connect(recipe)
        if has_autoscaler():
            return
        declared = node_types.alive()
    unfinished = [step.stage.name for step in plan() if step.done is None]
    for wanted in demand.demands(recipe, unfinished):
        (demand.check if recipe.cluster.file else demand.check_one)(wanted, declared)


def check_memory(recipe: Recipe, unfinished: Iterable[str]) -> None:
    """Check, for a plan, that a node has the memory for one call of each stage that reserves memory; nothing is started.

    Raises:
        ClusterError: no node of `cluster.file` has it, or not this machine if the command would start Ray itself.
        InputError: `cluster.file` is not a cluster file.

    """
    if recipe.cluster.file:
        declared = node_types.read(recipe.cluster.file)
    elif is_of_this_command():
        declared = node_types.this_machine()
    else:
        return
    for wanted in demand.demands(recipe, unfinished):
        if wanted.memory:
            demand.check_one(wanted, declared)


def has_autoscaler() -> bool:
    """Return whether an autoscaler reports to the cluster that this process has joined."""
    import ray
    from ray import _raylet
    from ray.core.generated import autoscaler_pb2

    native: Any = _raylet
    messages: Any = autoscaler_pb2  # protobuf makes its classes when it is imported
    status = native.GcsClient(ray.get_runtime_context().gcs_address).get_cluster_status()
    return messages.GetClusterStatusReply.FromString(status).autoscaling_state.autoscaler_state_version > 0


def check() -> None:
    """Check that the cluster of RAY_ADDRESS responds, if it names one.

    Raises:
        ClusterError: it does not.

    """
    if address := os.environ.get("RAY_ADDRESS"):
        check_address(address)


def connect(recipe: Recipe) -> None:
    """Join the cluster of RAY_ADDRESS, or start a local Ray that ends with this process; do nothing if work is done in this process.

    Raises:
        ClusterError: the cluster cannot be reached or started.

    """
    if is_in_process():
        return
    if is_of_this_command():
        os.environ |= _ON_LOOPBACK  # before Ray is imported, since it reads the variable at import
    import ray

    if ray.is_initialized():
        return
    check()
    quiet: dict[str, Any] = {
        "logging_level": logging.WARNING,
        "log_to_driver": True,
        "configure_logging": True,
    }
    try:
        if not _starts_ray():
            ray.init(**quiet)
        else:
            os.environ["PYTHONPATH"] = os.pathsep.join([_HOME, *filter(None, [os.environ.get("PYTHONPATH")])])
            ray.init(
                address="local",
                num_cpus=recipe.cluster.num_cpus or max(4, os.cpu_count() or 1),
                object_store_memory=recipe.cluster.object_store_mib * 2**20,
                include_dashboard=False,
                **quiet,
            )
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise ClusterError(
            f"Ray cannot be reached or started: {' '.join(str(error).split())[:300]}; committed work is safe; start the cluster and run the same command"
        ) from error


def cause(error: BaseException) -> CorgiError | None:
    """Return the CorgiError inside the exception that Ray raised for a worker, if there is one.

    Ray Data passes on only the text of a worker's first error, so the text is searched too.
    """
    seen: set[int] = set()
    queue: list[BaseException | None] = [error]
    while queue:
        found = queue.pop()
        if found is None or id(found) in seen:
            continue
        seen.add(id(found))
        inner = getattr(found, "cause", None)
        if isinstance(found, CorgiError) and not isinstance(inner, BaseException):
            return found
        if type(found).__module__.startswith("ray.") and (told := _RAISED.findall(str(found))):
            name, message = told[-1]
            return getattr(errors, name)(message)
        queue += [found.__cause__, found.__context__, inner if isinstance(inner, BaseException) else None]
        queue += list(getattr(found, "worker_failures", {}).values())
    return None


def shutdown() -> None:
    """Leave the cluster if this process has joined one. Ray is not imported for this."""
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        ray.shutdown()
