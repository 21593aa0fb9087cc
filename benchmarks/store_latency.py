"""The flow of the smoke recipe with its root on S3, without and with 30 ms added to each request: `python -m benchmarks.store_latency`.

The server is moto on this machine's loopback, in a process of its own. The seconds of both flows include the trainings and what Ray
takes to start; what is compared is the same flow on the same server.
"""

import http.client
import logging
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.figures import Figures
from corgi.demo.packaged_styles import packaged
from corgi.demo.pictures import subset
from corgi.demo.raster import folder_name, rasterise
from corgi.demo.site import Site
from corgi.demo.url_list import HOST, write_url_list
from tests.support.ports import free_port

HOME = Path(__file__).resolve().parents[1]
BUCKET, NUM_PICTURES = "corgi", 300
DELAY_S = 0.030
LIMIT = 1.5
_MINUTES = 15


class Delayed:
    """A WSGI application that takes longer for each request, and counts them."""

    def __init__(self, app: Callable[..., Iterable[bytes]], delay_s: float) -> None:
        """Wrap an application."""
        self._app, self._delay_s = app, delay_s
        self._lock = threading.Lock()
        self.requests = 0

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request."""
        with self._lock:
            self.requests += 1
        time.sleep(self._delay_s)
        return self._app(environ, start_response)


def serve(pipe: Connection, delay_s: float) -> None:
    """Serve S3 until the pipe says so; the number of requests is its last word."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app = Delayed(DomainDispatcherApplication(create_backend_app), delay_s)
    server = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    pipe.send(server.port)
    pipe.recv()
    pipe.send(app.requests)


def flow(site: Site, listed: Path, folder: Path, delay_s: float) -> tuple[float, int]:
    """Return the seconds of the whole flow, and the requests to its store."""
    pipe, other = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(other, delay_s), daemon=True)
    server.start()
    port: int = pipe.recv()
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    client.request("PUT", f"/{BUCKET}")
    client.getresponse().read()
    client.close()
    command = [
        *(sys.executable, str(HOME / "pipelines" / "full.py"), "pipelines/recipes/smoke.yaml"),
        f'download.resolve=["{HOST}:80={site.address}"]',
        f'download.allow_private=["{site.address}"]',
        f"plan.input={listed}",
        f"root=s3://{BUCKET}/runs",
        f"scratch={folder / 'scratch'}",
    ]
    started = time.monotonic()
    with (folder / "said.log").open("w") as log:
        subprocess.run(
            command,
            check=True,
            stdout=log,
            stderr=log,
            cwd=HOME,
            env=_environment(port),
            timeout=60 * _MINUTES,
        )
    took_s = time.monotonic() - started
    pipe.send("end")
    requests: int = pipe.recv()
    server.join()
    return took_s, requests


def _environment(port: int) -> dict[str, str]:
    return {
        **os.environ,
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def main() -> int:
    """Print and keep the figures."""
    figures = Figures("store_latency", "ray", "moto", "obstore")
    found: dict[float, tuple[float, int]] = {}
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        pictures = subset(packaged().pictures, NUM_PICTURES)
        rasterise(pictures, work / folder_name(packaged()))
        write_url_list(work / "urls.parquet", pictures, packaged().credit)
        with Site(work / folder_name(packaged()), free_port()) as site:
            for delay_s in (0.0, DELAY_S):
                folder = work / f"{delay_s:g}"
                folder.mkdir()
                found[delay_s] = flow(site, work / "urls.parquet", folder, delay_s)
                figures.add(f"smoke_on_s3_with_{1000 * delay_s:.0f}_ms", found[delay_s][0], "s")
                figures.add(
                    f"smoke_on_s3_with_{1000 * delay_s:.0f}_ms_requests", found[delay_s][1], "requests"
                )
    figures.add("smoke_on_s3_delayed_over_not", found[DELAY_S][0] / found[0.0][0], "x", f"<={LIMIT:g}")
    figures.write()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
