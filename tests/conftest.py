"""What all tests share: this checkout first on every path, and one local Ray for those that need it."""

import gc
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer

HOME = str(Path(__file__).resolve().parents[1])

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Compiled code is kept beside its source, also where a machine asks for none: a process of the tests would compile corgi again,
# and each of the three that run them would rewrite the assertions of 340 files.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# One thread per process: bits repeat, and threads of small products do not wait for each other on a busy machine, where
# they once took a test from 20 seconds to more than 180.
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
# Ray's node warns on screen about a disk over 95 % full, between the lines these tests count; a full disk is no defect.
os.environ["RAY_local_fs_capacity_threshold"] = "1"  # noqa: SIM112 - so Ray spells it
# Ray starts a worker per CPU beforehand, each an interpreter that imports Ray, and a pool's actors use none of them.
os.environ["RAY_prestart_worker_first_driver"] = "0"  # noqa: SIM112
os.environ["WANDB_MODE"] = "disabled"
os.environ.pop("RAY_ADDRESS", None)
os.environ["PYTHONPATH"] = os.pathsep.join([HOME, *filter(None, [os.environ.get("PYTHONPATH")])])
sys.path.insert(0, HOME)
# A shell without job control starts background commands with SIGINT ignored, and their children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
# No test asserts on seconds, and so neither an example of a property nor the drawing of examples does.
settings.register_profile("corgi", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("corgi")

# This checkout's, which the path above makes first.
from tests.support.costs import Costs, mark  # noqa: E402
from tests.support.lanes import Units, sort_files  # noqa: E402

COSTS = pytest.StashKey[Costs]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--costs", type=int, default=0, metavar="N", help="show the N dearest tests by CPU-seconds"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[COSTS] = Costs(config.getoption("--costs") or 0)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep the garbage collector off modules and tests, which live to the end: it would look through them again and again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        mark(item)
    sort_files(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Units:
    return Units(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    costs = item.config.stash[COSTS]
    before = costs.now()
    done = yield
    costs.add(item, costs.now() - before)
    return done


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if lines := config.stash[COSTS].lines():
        terminalreporter.section("CPU-seconds")
        terminalreporter.write_line("\n".join(lines))


@pytest.fixture
def promise(request: pytest.FixtureRequest) -> Callable[[int, str], None]:
    """Record the figure measured for a promise of docs/promises.md; call it after the last assertion."""
    from tests.support.promises import recorder

    return recorder(request.node.nodeid)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Leave shapes unchecked in a test with a long learning loop."""
    from tests.support.shapes import unchecked

    with unchecked():
        yield


@pytest.fixture
def in_process() -> Iterator[None]:
    """Make shards and pass over shards in this process, without Ray."""
    from corgi.flow import executor

    with executor.in_process():
        yield


@pytest.fixture(scope="session")
def ray_local() -> Iterator[None]:
    """Start a Ray of four logical CPUs on this machine, once for all tests."""
    import ray

    if ray.is_initialized():
        yield
        return
    ray.init(address="local", num_cpus=4, include_dashboard=False, object_store_memory=200 * 2**20)
    yield
    ray.shutdown()
