"""The playground and the HTTP API of a trained run: `python pipelines/serve.py runs/openmoji [--port 8000]`."""

import argparse
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from corgi.flow.output import program, until_closed
from corgi.settings.errors import CorgiError, SettingsError

SERVE_PACKAGES = ("fastapi", "starlette", "uvicorn", "grpc_reflection", "mmh3", "watchfiles", "websockets")
"""Packages of the extra `serve`, by their import names."""
TOKEN = "CORGI_TOKEN"  # noqa: S105 - the variable's name


def main() -> int:
    """Serve until stopped; return the exit code."""
    arguments = _parser().parse_args()
    try:
        _server(arguments)()
    except CorgiError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program(),
        description="Open the playground and the HTTP API of a trained run. Clients of other servers' /v1/images/generations work "
        "without changes.",
        epilog=f"A server that other machines can reach needs a token: set {TOKEN}, and send it as Authorization: Bearer TOKEN.",
    )
    parser.add_argument("run", help="a run's folder, such as runs/openmoji")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    parser.add_argument(
        "--port", type=int, default=8000, help="port to listen at; 0: any (default: %(default)s)"
    )
    parser.add_argument(
        "--max-waiting",
        type=int,
        default=32,
        metavar="N",
        help="requests in the queue at most; further ones get 503 (default: %(default)s)",
    )
    parser.add_argument(
        "--per-minute",
        type=int,
        metavar="N",
        help="requests for pictures per address and minute, 0: any number (default: 0 on loopback, else 30)",
    )
    parser.add_argument(
        "--no-nearest",
        dest="nearest",
        action="store_false",
        help="do not index the run's pictures, to save memory",
    )
    parser.add_argument(
        "--search", action="store_true", help="also search over the run's pictures, at /search"
    )
    cluster = parser.add_argument_group("on a cluster")
    cluster.add_argument(
        "--cluster",
        action="store_true",
        help="serve by Ray Serve: on the cluster of RAY_ADDRESS, or on a Ray of this machine",
    )
    cluster.add_argument(
        "--replicas", type=int, default=1, metavar="N", help="copies of the models (default: %(default)s)"
    )
    cluster.add_argument(
        "--cpus", type=float, default=1.0, metavar="N", help="CPUs per replica (default: %(default)s)"
    )
    cluster.add_argument(
        "--gpus", type=float, default=0.0, metavar="N", help="GPUs per replica (default: %(default)s)"
    )
    return parser


def _server(arguments: argparse.Namespace) -> Callable[[], None]:
    """Return the function that serves as the arguments say.

    Raises:
        SettingsError: a package of the extra `serve` is not installed.

    """
    try:
        from corgi.serving.address import Serving

        serving = Serving(
            run=arguments.run,
            host=arguments.host,
            port=arguments.port,
            token=os.environ.get(TOKEN),
            max_waiting=arguments.max_waiting,
            per_minute=arguments.per_minute,
            nearest=arguments.nearest,
            search=arguments.search,
        )
        if arguments.cluster:
            from corgi.serving.on_ray import Scale, serve_on_cluster

            scale = Scale(arguments.replicas, arguments.cpus, arguments.gpus)
            return partial(serve_on_cluster, serving, scale)
        from corgi.serving.server import serve

        return partial(serve, serving)
    except ModuleNotFoundError as error:
        if error.name not in SERVE_PACKAGES:
            raise
        raise SettingsError(
            f"{error.name} is not installed; nothing was started; install the extra: pip install 'corgi[serve]'"
        ) from error


if __name__ == "__main__":
    sys.exit(until_closed(main))
