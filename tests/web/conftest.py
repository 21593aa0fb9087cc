"""What the web tests share: the run that `make smoke` left, served by the command `corgi`, and a real browser."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
# the extra `web` is installed by make test-web

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

HOME = Path(__file__).resolve().parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
_START_S = 180


@pytest.fixture(scope="session")
def run() -> Path:
    """The run of `make smoke`, or the one that CORGI_WEB_RUN names."""
    folder = Path(os.environ.get("CORGI_WEB_RUN", HOME / "runs" / "smoke"))
    assert (folder / "run.json").is_file(), f"{folder} holds no run; run make smoke first"
    return folder


@contextmanager
def served(run: Path, *options: str, **variables: str) -> Iterator[str]:
    """Serve a run as a user does; yield the address."""
    command = [sys.executable, "-m", "corgi.commands", "serve", str(run), "--port", "0", *options]
    environment = {**os.environ, **variables}
    with subprocess.Popen(command, cwd=HOME, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            found = None
            while found is None:
                line = process.stdout.readline()
                assert line, f"the server ended with {process.wait()}"
                found = re.search(r"http://\S+?:\d+", line)
            yield found.group()
        finally:
            process.terminate()
            assert process.wait(60) in (0, -15, 143)


@pytest.fixture(scope="session")
def server(run: Path) -> Iterator[str]:
    """The address of a server over the run."""
    with served(run) as address:
        yield address


@pytest.fixture(scope="session")
def indexed(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the run with what `corgi index` adds to it; files are linked, since none is ever changed."""
    home = tmp_path_factory.mktemp("indexed")
    for name in (run.name, "store"):
        shutil.copytree(run.parent / name, home / "runs" / name, copy_function=_linked)
    words = [sys.executable, "-m", "corgi.commands", "index", f"runs/{run.name}"]
    done = subprocess.run(words, cwd=home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return home / "runs" / run.name


def _linked(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)
    return target


@pytest.fixture(scope="session")
def searched(indexed: Path) -> Iterator[str]:
    """The address of a server over the indexed run that also searches."""
    with served(indexed, "--search") as address:
        yield address


@pytest.fixture(scope="session")
def browser():
    """Debian's Chromium, driven by playwright; no browser is downloaded."""
    from playwright.sync_api import sync_playwright

    if CHROMIUM is None:
        message = "chromium is not installed (apt-get install chromium)"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, request):
    """A page of a context of its own; the test fails if the page asks for another host or writes an error to the console."""
    options = getattr(request, "param", {})
    context = browser.new_context(**{"viewport": {"width": 1100, "height": 900}, **options})
    page = context.new_page()
    page.set_default_timeout(60_000)
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on(
        "request",
        lambda asked: (
            None
            if re.match(r"(http://127\.0\.0\.1:\d+/|data:|blob:|file:)", asked.url)
            else faults.append(f"asked for {asked.url}")
        ),
    )
    page.faults = faults
    yield page
    context.close()
