"""Promises 1, 2, 3, 5, 6, 7, 8 in full: every call of the commit, two drivers, a full disk, a thousand flipped bits."""

import json
import multiprocessing
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from safetensors.numpy import save

from corgi.settings.errors import StorageError
from corgi.tables.manifest import RowCounts, ShardManifest
from corgi.tables.store import Store
from tests.support import commit_script, toy_stages
from tests.support.commit_script import KEY, STAGE, task
from tests.support.programs import missing, require_program
from tests.support.tables import png

MAX_POINTS = 400
NUM_ROOTS = 2000
NUM_POLLS, NUM_RACES, NUM_FLIPS, NUM_CUTS = 1000, 50, 1000, 200
NUM_WRITERS = 4


@pytest.mark.timeout(900)
def test_killed_at_every_call_of_the_commit(promise):
    require_program("strace")
    shared = Path("/dev/shm")  # noqa: S108
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        command = [sys.executable, "-m", "tests.support.kill_sweep", folder, str(MAX_POINTS)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=800, check=False)
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
    kills, refusals = result["hit"]["signal=SIGKILL"], result["hit"]["error=ENOSPC"]
    assert result["wrong"] == []
    assert kills >= 100
    assert refusals >= result["made"]["write"]
    promise(
        1, f"{kills} kills inside the commit path, every call of 6 shards and their stage: 0 lost, 0 doubled"
    )
    promise(
        6, f"ENOSPC at {refusals} calls, every write among them: 0 damaged, all complete when there is room"
    )


@pytest.mark.timeout(600)
def test_a_reader_polls_while_the_writer_is_killed_and_started_again(tmp_path, promise):
    """Every writer gets to commit something; then it is killed within a twentieth of a second."""
    rng, whole, polls, kills = random.Random(0), 0, 0, 0
    while polls < NUM_POLLS or kills < NUM_WRITERS:
        before = frontier(tmp_path)
        writer = multiprocessing.get_context("spawn").Process(
            target=commit_script.repeat, args=(str(tmp_path), NUM_ROOTS)
        )
        writer.start()
        due = None
        while writer.is_alive() and (due is None or time.monotonic() < due):
            root = max(0, frontier(tmp_path) - rng.randrange(3))
            whole += is_whole(Store(tmp_path / str(root)), rng.randrange(commit_script.NUM_SHARDS))
            polls += 1
            if due is None and frontier(tmp_path) > before:
                due = time.monotonic() + 0.5 + rng.random() * 0.05
        writer.kill()
        writer.join()
        kills += 1
    assert whole > 50
    promise(
        2, f"0 partial reads in {polls:,} polls, {whole} of them of whole shards, writer killed {kills} times"
    )


def frontier(folder: Path) -> int:
    """Return the highest root a writer has begun, -1 before the first."""
    return max((int(path.name) for path in folder.iterdir()), default=-1)


def is_whole(store: Store, shard: int) -> bool:
    """Read a shard and its stage as a reader does; return whether the shard was there; fail when it was there in part."""
    closed, found = store.stage(STAGE, KEY), store.shard(STAGE, task("", shard).key)
    if closed is not None:
        assert len(store.shards(closed)) == commit_script.NUM_SHARDS
    if found is None:
        return False
    assert store.read(found, "rows").equals(commit_script.table(shard))
    return True


@pytest.mark.timeout(900)
def test_two_drivers_race(tmp_path, promise):
    """Both start at once; one makes everything, the other exits 5 naming it, or finds everything done."""
    refused = after = 0
    for number in range(NUM_RACES):
        root = tmp_path / str(number)
        root.mkdir()
        (root / "recipe.yaml").write_text(f"{toy_stages.RECIPE}root: {root}\n")
        (root / "pause").write_text("0.05")
        command = [sys.executable, "-m", "tests.support.toy_stages", str(root / "recipe.yaml")]
        drivers = [
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        said = [driver.communicate(timeout=120) for driver in drivers]
        codes = sorted(driver.returncode for driver in drivers)
        assert codes in ([0, 5], [0, 0]), said
        refused, after = refused + (codes == [0, 5]), after + (codes == [0, 0])
        if codes == [0, 5]:
            told = next(err for driver, (_, err) in zip(drivers, said, strict=True) if driver.returncode == 5)
            assert "run toy is held by process" in told
            assert len(told.splitlines()) == 1
        made = (root / "made.txt").read_text().split()
        assert len(made) == len(set(made)) == 9
        manifests = list((root / "store").rglob("manifest-*.json"))
        assert {path.name for path in manifests} == {"manifest-0.json"}
    assert refused + after == NUM_RACES
    promise(
        5,
        f"two drivers at once, {NUM_RACES} of {NUM_RACES}: one commits; {refused} exit 5 naming it, {after} came late and found all done",
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 8 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)]
    mounted = subprocess.run(command, capture_output=True, check=False)
    if mounted.returncode:
        missing(f"mount is not permitted: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True, capture_output=True)


def fill(store: Store, shard: int, rng: random.Random) -> None:
    with store.attempt(task(store.location, shard)) as attempt:
        attempt.write_table("rows", pa.table({"image": [rng.randbytes(700_000)], "uid": [str(shard)]}))
        attempt.commit(RowCounts(rows_in=1, kept=1))


def fill_up(store: Store, rng: random.Random, kept: list[ShardManifest]) -> None:
    for shard in range(100):
        fill(store, shard, rng)
        manifest = store.shard(STAGE, task(store.location, shard).key)
        assert manifest is not None
        kept.append(manifest)


def test_a_disk_fills_up_and_is_given_room(small_disk, promise):
    store, rng = Store(small_disk), random.Random(0)
    kept: list[ShardManifest] = []
    (small_disk / "ballast").write_bytes(bytes(3 * 2**20))
    with pytest.raises(StorageError, match="no space is left") as found:
        fill_up(store, rng, kept)
    assert str(small_disk) in str(found.value)
    assert 3 <= len(kept) <= 8
    listed = {entry.name for m in kept for entry in m.files}
    lying = {path.name for path in (small_disk / "store").rglob("*.parquet")}
    assert lying == listed
    assert [line for m in kept for line in store.verify(m)] == []
    (small_disk / "ballast").unlink()
    for shard in range(len(kept), len(kept) + 3):
        fill(store, shard, rng)
        assert store.shard(STAGE, task(store.location, shard).key) is not None
    promise(
        6,
        f"8 MiB disk: full after {len(kept)} shards, exit 4 and its path named, {len(kept)} of {len(kept)} verify, goes on with room",
    )


@pytest.fixture
def artefacts(tmp_path: Path) -> tuple[Store, ShardManifest]:
    """One shard with an artefact of every kind the store holds, under a closed stage."""
    commit_script.main(str(tmp_path))
    store, rng = Store(tmp_path), np.random.default_rng(0)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(rng.normal(size=8192).astype(np.float16)), 64)
    with store.attempt(task(str(tmp_path), 9)) as attempt:
        attempt.write_table("vectors", pa.table({"uid": [str(n) for n in range(128)], "vector": vectors}))
        attempt.write_bytes(
            "weights", ".safetensors", save({"w": rng.normal(size=(32, 32)).astype(np.float32)})
        )
        attempt.write_bytes("plot", ".png", png(64, 64))
        attempt.write_bytes("lines", ".jsonl", b'{"step": 1, "loss": 0.5}\n' * 40)
        return store, attempt.commit(RowCounts(rows_in=128, kept=128))


def damaged(store: Store, manifest: ShardManifest, path: Path, data: bytes) -> str | None:
    """Write damaged bytes over a file; return the line that tells of it, None where nobody noticed."""
    whole = path.read_bytes()
    path.write_bytes(data)
    try:
        if path.name.startswith("manifest"):
            closed = store.stage(STAGE, KEY)
            assert closed is not None
            store.read_shard(manifest.path)
            return None
        lines = store.verify(manifest)
        entry = next(e for e in manifest.files if e.name == path.name)
        with pytest.raises(StorageError) as found:
            store.read(manifest, entry.table) if path.suffix == ".parquet" else store.path(
                manifest, entry.table
            )
        assert "\n" not in str(found.value)
        assert lines == [str(found.value).partition(";")[0]]
        return lines[0]
    except StorageError as error:
        return str(error)
    finally:
        path.write_bytes(whole)


def paths_of(store: Store, manifest: ShardManifest) -> list[Path]:
    closed = store.stage(STAGE, KEY)
    assert closed is not None
    files = [store.root / store.file_name(manifest, entry) for entry in manifest.files]
    return [*files, store.root / manifest.path, store.root / closed.path]


@pytest.mark.timeout(600)
def test_a_thousand_flipped_bits(artefacts, promise):
    store, manifest = artefacts
    rng, paths, found = random.Random(0), paths_of(*artefacts), 0
    for trial in range(NUM_FLIPS):
        path = paths[trial % len(paths)]
        data = bytearray(path.read_bytes())
        place = rng.randrange(len(data) * 8)
        data[place // 8] ^= 1 << place % 8
        line = damaged(store, manifest, path, bytes(data))
        assert line is not None, (path, place)
        assert path.name in line
        found += 1
    promise(
        7,
        f"{found:,} of {NUM_FLIPS:,} flips found, over Parquet, safetensors, PNG, JSON lines and both kinds of manifest",
    )


def test_two_hundred_truncations(artefacts, promise):
    store, manifest = artefacts
    rng, paths, named = random.Random(1), paths_of(*artefacts), 0
    for trial in range(NUM_CUTS):
        path = paths[trial % len(paths)]
        whole = path.read_bytes()
        left = 0 if trial < len(paths) else rng.randrange(len(whole))
        line = damaged(store, manifest, path, whole[:left])
        assert line is not None
        assert path.name in line
        if not path.name.startswith("manifest"):
            assert f"has {left} bytes, its manifest says {len(whole)}" in line
        named += 1
    promise(8, f"{named} of {NUM_CUTS} truncations found, file and expected size named")
