"""A run on one machine, seen from its network: Ray is on loopback, and the firewall rule of docs/run.md closes what is left."""

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.hosts import CHECKOUT, TMP, Host, open_hosts
from tests.support.open_ports import Listener, is_open, listeners
from tests.support.programs import require_program
from tests.support.slow_training import NUM_STEPS, slow_training

RUN_PAGE = CHECKOUT / "docs" / "run.md"
ROWS = re.compile(r"^\| `([^`]+)` \|[^|]*\| ([^|]*) \|$", re.MULTILINE)
RULE = re.compile(r"^ {4}sudo nft '(.*)'$", re.MULTILINE)
SOURCES = {"PYTHONPATH": str(CHECKOUT)}


def section() -> str:
    """Return what docs/run.md says of the ports of one machine."""
    return RUN_PAGE.read_text().partition("\n## Ports on one machine\n")[2].partition("\n## ")[0]


def outside(host: Host) -> list[Listener]:
    """Return the sockets of a host that its network reaches."""
    return [found for found in listeners(host) if not found.is_on_loopback]


@pytest.mark.flow
@pytest.mark.timeout(500)
def test_only_ports_of_the_table_are_reached_and_the_rule_closes_them(
    tmp_path: Path, promise: Callable[[int, str], None]
) -> None:
    require_program("nft")
    with open_hosts(tmp_path / "hosts") as hosts:
        host, stranger = hosts.add("laptop"), hosts.add("stranger")
        folder = host.tmp / "training"
        run = host.start(
            "python", "-m", "tests.support.slow_training", f"{TMP}/training", environment=SOURCES
        )
        metrics = slow_training(folder, 0.0).metrics_file
        end = time.monotonic() + 200
        while not metrics.exists() or len(metrics.read_text().splitlines()) < 3:
            assert run.poll() is None, run.communicate()[0]
            assert time.monotonic() < end, "the training did not start"
            time.sleep(0.2)
        found, all_of_them = outside(host), listeners(host)
        assert {"gcs_server", "raylet"} <= {each.program for each in all_of_them}
        assert {each.program for each in found} <= dict(ROWS.findall(section())).keys(), found
        before = [each.port for each in found if is_open(stranger, host.address, each.port)]
        [rule] = RULE.findall(section())
        host.checked("nft", rule)
        after = [each.port for each in found if is_open(stranger, host.address, each.port)]
        assert (before, after) == ([each.port for each in found], []), found
        said, _ = run.communicate()
        assert run.returncode == 0, said
        assert len(metrics.read_text().splitlines()) >= NUM_STEPS
    promise(
        30,
        f"one machine, in a training of two workers: {len(all_of_them) - len(found)} ports on loopback, {len(found)} of torch beside them, which the rule of docs/run.md closes",
    )
