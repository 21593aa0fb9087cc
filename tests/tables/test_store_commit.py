"""The commit, call by call: killed or refused anywhere it can be run again, and it is on the disk before it is announced."""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.programs import missing, require_program

pytestmark = pytest.mark.slow

MAX_POINTS = 40
_CALL = re.compile(r"^\d+ +(fsync|link|linkat|openat)\((.*)\) += (.*)$")


@pytest.fixture(scope="module")
def swept() -> Iterator[tuple[dict, Path]]:
    """Sweep once, in memory where the machine offers it: the order of calls is under test, not the disk."""
    require_program("strace")
    shared = Path("/dev/shm")  # noqa: S108
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        command = [sys.executable, "-m", "tests.support.kill_sweep", folder, str(MAX_POINTS)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
        if "strace cannot attach" in done.stderr:
            missing("strace may not attach to a process here")
        assert done.returncode == 0, done.stderr
        yield json.loads(done.stdout), Path(folder)


def test_killed_or_refused_at_any_call_a_second_run_ends_as_an_unbroken_one(swept, promise):
    result, _ = swept
    assert result["wrong"] == []
    assert result["hit"]["signal=SIGKILL"] >= MAX_POINTS // 2
    assert result["hit"]["error=ENOSPC"] >= 5
    assert sum(result["hit"].values()) == result["points"]
    promise(1, f"sample: {result['points']} of {result['points']} points, 0 lost, 0 doubled")
    promise(6, f"sample: ENOSPC at {result['hit']['error=ENOSPC']} calls, 0 damaged")


def test_data_and_folders_are_synced_before_the_manifest_is_linked_and_the_link_after(swept, promise):
    _, folder = swept
    calls = [
        found.groups()
        for line in (folder / "unbroken.log").read_text().splitlines()
        if (found := _CALL.match(line))
    ]
    links = [place for place, (call, *_) in enumerate(calls) if call.startswith("link")]
    assert len(links) == 7
    synced_at = [
        (place, re.findall(r"<(.*?)>", text)[0])
        for place, (call, text, _) in enumerate(calls)
        if call == "fsync"
    ]
    for place in links:
        private, manifest = (Path(name) for name in re.findall(r'"(.*?)"', calls[place][1]))
        assert manifest.name == "manifest-0.json"
        before = {Path(name) for at, name in synced_at if at < place}
        listed = [entry["name"] for entry in json.loads(manifest.read_text()).get("files", [])]
        folders = [parent for parent in manifest.parent.parents if parent.is_relative_to(folder)]
        assert {private, *folders, *(manifest.parent / name for name in listed)} <= before
        if listed:
            data_at = max(at for at, name in synced_at if Path(name).name in listed)
            assert any(data_at < at < place and Path(name) == manifest.parent for at, name in synced_at)
        following = next(name for at, name in synced_at if at > place)
        assert Path(following) == manifest.parent
    assert not re.search(r"^\d+ +rename", (folder / "unbroken.log").read_text(), re.MULTILINE)
    promise(
        3,
        f"{len(links)} of {len(links)} links follow the fsync of their files and folders and precede that of their own",
    )
