"""How fast a served run answers: `python -m benchmarks.serving [RUN]`.

From an opened page to the first picture, by the requests that the page makes; then 16 clients for a minute; then search over a
million vectors of 512 dimensions on one thread (benchmarks/search_index.py).
"""

import argparse
import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median

import aiohttp
import psutil

from benchmarks.figures import Figures

HOME = Path(__file__).resolve().parents[1]
ROUNDS = 5
CLIENTS, SECONDS = 16, 60.0
PAGE = ("/", "/page.css", "/page.js", "/corgi/about")


def main(arguments: list[str]) -> int:
    """Measure; print and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="?", default="runs/openmoji", help="a finished run")
    run = parser.parse_args(arguments).run
    figures = Figures("serving", "torch", "fastapi", "uvicorn")
    asyncio.run(measure(run, figures))
    measure_search(figures)
    figures.write()
    return 0


async def measure(run: str, figures: Figures) -> None:
    """Serve the run and ask it."""
    async with served(run) as (address, process), aiohttp.ClientSession(address) as session:
        await painted(session, 0)
        first = [await page_to_picture(session, seed) for seed in range(ROUNDS)]
        figures.add_rounds("serving/page_to_first_picture", first, "s", "<=3")
        before = resident_mib(process)
        waits, errors = await many(session)
        figures.add("serving/16_clients/pictures_per_s", len(waits) / SECONDS, "1/s")
        figures.add("serving/16_clients/errors", errors, "", "<=0")
        figures.add("serving/16_clients/median_wait", median(waits), "s")
        figures.add("serving/16_clients/largest_wait_over_median", max(waits) / median(waits), "x", "<=3")
        figures.add("serving/16_clients/memory_growth", resident_mib(process) - before, "MiB", "<=256")


def measure_search(figures: Figures) -> None:
    """Search a million vectors in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.search_index"]
    done = subprocess.run(command, cwd=HOME, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout)
    for name in ("any", "train"):
        figures.add(f"serving/search_1m/median/{name}", found[f"median_ms/{name}"], "ms", "<=100")
        figures.add(f"serving/search_1m/recall_at_10/{name}", found[f"recall/{name}"], "", ">=0.95")
    figures.add("serving/search_1m/peak_memory", found["peak_mib"], "MiB", "<=1144")
    figures.add("serving/search_1m/build", found["build_s"], "s")


@asynccontextmanager
async def served(run: str) -> AsyncIterator[tuple[str, psutil.Process]]:
    """Serve a run on a free port; yield its address and process."""
    command = [sys.executable, "-m", "corgi.commands", "serve", run, "--port", "0"]
    with subprocess.Popen(command, cwd=HOME, stdout=subprocess.PIPE, text=True) as process:
        lines = process.stdout or iter(())
        address = next(found.group() for line in lines if (found := re.search(r"http://\S+?:\d+", line)))
        try:
            yield address, psutil.Process(process.pid)
        finally:
            process.terminate()


def resident_mib(process: psutil.Process) -> float:
    """Return the resident memory of the server and its children, MiB."""
    return sum(one.memory_info().rss for one in (process, *process.children(recursive=True))) / 2**20


async def page_to_picture(session: aiohttp.ClientSession, seed: int) -> float:
    """Return the seconds from opening the page to a picture, as the page asks for it."""
    started = time.perf_counter()
    for path in PAGE:
        async with session.get(path) as response:
            await response.read()
    await painted(session, seed)
    return time.perf_counter() - started


async def painted(session: aiohttp.ClientSession, seed: int) -> bool:
    """Ask for a picture; return whether it came."""
    body = {"prompt": "red heart", "seed": seed}
    async with session.post("/v1/images/generations", json=body) as response:
        answer = await response.json()
        return response.status == 200 and bool(answer["data"][0]["b64_json"])


async def many(session: aiohttp.ClientSession) -> tuple[list[float], int]:
    """Return the waits, s, and the number of errors of clients that each ask again as soon as they are answered."""
    end = time.perf_counter() + SECONDS
    waits: list[float] = []
    errors = 0

    async def client(number: int) -> None:
        nonlocal errors
        while time.perf_counter() < end:
            started = time.perf_counter()
            errors += not await painted(session, number)
            waits.append(time.perf_counter() - started)

    await asyncio.gather(*map(client, range(CLIENTS)))
    return waits, errors


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
