"""The same app as replicas of Ray Serve on a cluster: each replica loads the models, and has a bounded queue that paints equal settings together."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import serve
from ray.serve.config import HTTPOptions, ProxyLocation
from ray.serve.schema import LoggingConfig

from corgi.flow.cluster import cause, connect, shutdown
from corgi.serving.address import CONNECTIONS, Serving, bound, rules_of
from corgi.settings.errors import ClusterError
from corgi.settings.recipe import load
from corgi.tables.run import Run

if TYPE_CHECKING:
    from fastapi import FastAPI
    from ray.serve import Application

NAME = "corgi"
"""Name of the deployment; the application is named after the run."""


@dataclass(frozen=True)
class Scale:
    """The number of replicas, and the CPUs and GPUs that each reserves."""

    replicas: int = 1
    cpus: float = 1.0
    gpus: float = 0.0


def application(serving: Serving, scale: Scale) -> "Application":
    """Return the app of a run as a Serve application.

    It is the queue of each replica that rejects requests with 503 and Retry-After: Serve passes on every connected request.
    """

    def build() -> "FastAPI":
        from corgi.serving.app import make_app
        from corgi.serving.server import studio_of  # torch is only imported in replicas

        return make_app(studio_of(serving), rules_of(serving))

    deployment: Any = serve.deployment(  # Ray's overloads have no options together with a class
        serve.ingress(build)(),
        name=NAME,
        num_replicas=scale.replicas,
        max_ongoing_requests=CONNECTIONS,
        max_queued_requests=CONNECTIONS,
        ray_actor_options={"num_cpus": scale.cpus, "num_gpus": scale.gpus},
    )
    return deployment.bind()


def serve_on_cluster(serving: Serving, scale: Scale) -> None:
    """Serve a run on the cluster of RAY_ADDRESS, or on Ray on this machine, until the process is stopped.

    Raises:
        CorgiError: the run, the address, the token or the cluster cannot be used; nothing was started.

    """
    rules_of(serving)
    name = Run.open(serving.run).name
    with bound(serving) as free:
        serving = replace(serving, port=free.getsockname()[1])
    connect(load(serving.run, []))
    try:
        with deployed(name, serving, scale):
            address = serving.url(serving.port)
            print(
                f"{Path(serving.run).name}: {address}/ (API: {address}/v1; stop it with Ctrl-C)", flush=True
            )
            _wait()
    finally:
        shutdown()


@contextmanager
def deployed(name: str, serving: Serving, scale: Scale) -> Iterator[None]:
    """Run the application while the block runs.

    Raises:
        CorgiError: a replica could not load the run, or the cluster has no room for it.

    """
    where = ProxyLocation.EveryNode if serving.is_open else ProxyLocation.HeadOnly
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.start(
        proxy_location=where,
        http_options=HTTPOptions(host=serving.host, port=serving.port),
        logging_config=LoggingConfig(log_level="WARNING", enable_access_log=False),
    )
    try:
        serve.run(application(serving, scale), name=name, route_prefix="/")
        yield
    except RuntimeError as error:
        raise cause(error) or ClusterError(
            f"Ray Serve could not deploy {name}: {' '.join(str(error).split())[:300]}; committed work is safe; read the replicas' logs in the folder that Ray names"
        ) from error
    finally:
        serve.delete(name)


def _wait() -> None:
    """Wait for Ctrl-C or SIGTERM."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        threading.Event().wait()
