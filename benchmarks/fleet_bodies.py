"""The bodies of the shards of each stage, really run on 32 sampled shards and multiplied.

Each stage is run in this process over one shard and over 33: the difference is what 32 bodies take, without what a worker
does once. Three sets: a list of rows for plan; pictures of web-like sizes behind nginx on loopback for download, embed and
latents; made tables of 10,000 rows for the stages that read no picture. The store is one of objects, in memory, and counted.
"""

import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

from benchmarks import curate as made
from benchmarks.fleet_counting import Asked, CountingObjects
from benchmarks.web import PLAIN_PORT, make_site, serving
from corgi.clip.stages import Embed
from corgi.curation.stages import Curate, Features
from corgi.download.stages import Download
from corgi.feeding.stages import Pack
from corgi.flow.dag import Dag, Selection
from corgi.flow.executor import in_process
from corgi.flow.stage import Stage
from corgi.latents.stages import Autoencoder
from corgi.planning.stages import Plan
from corgi.settings.recipe import Recipe
from corgi.shift.stages import Shift
from corgi.tables import run as run_module
from corgi.tables import store as store_module
from corgi.tables.run import Run
from corgi.tables.schema import CAPTIONS, caption_embeddings, image_embeddings
from corgi.tables.store import Store

SAMPLED = 32
ROWS = 10_000
"""Rows of a shard of a fleet."""
WEB_ROWS, NUM_BODIES, LATENT_PX = 64, 300, 64
"""Rows of a sampled shard of pictures, different pictures among them, and the side at which a latent is made."""
DIM = 512
_TOWER = {"name": "b32", "model": "ViT-B-32", "pretrained": "random"}


class Body(NamedTuple):
    """What a shard of 10,000 rows asks of a worker and of the store."""

    cpu_s: float
    requests: float
    bytes_read: float
    bytes_written: float
    rows: int
    """Of each sampled shard; what it took is multiplied to 10,000."""


class VectorsDownload(made.MadeDownload):
    """Images without pixels, and a caption each."""

    def tables(self, number: int, num_shards: int) -> dict[str, pa.Table]:
        """Return `images` and `captions`."""
        found = super().tables(number, num_shards)
        uids = found["images"]["uid"]
        columns = {
            "uid": uids,
            "ordinal": np.zeros(len(uids), np.int32),
            "caption": [f"picture {row} of {number}" for row in range(len(uids))],
            "kind": ["full"] * len(uids),
            "weight": np.ones(len(uids), np.float32),
        }
        return {**found, "captions": pa.table(columns, schema=CAPTIONS)}


class VectorsEmbed(made.MadeEmbed):
    """Random vectors of a tower's width."""

    def tables(self, number: int, num_shards: int) -> dict[str, pa.Table]:
        """Return `image_embeddings` and `caption_embeddings`."""
        uids, rows = made.uids(number, num_shards), made.SHARD_ROWS
        generator = np.random.default_rng(number)
        image, text = (_vectors(generator, rows) for _ in range(2))
        ones, similarity = np.ones(rows, np.float32), generator.random(rows).astype(np.float32)
        split = np.where(generator.random(rows) < 0.02, "val", "train")
        images = {"uid": uids, "split": split, "t/image": image, "t/image_norm": ones}
        texts = {"uid": uids, "ordinal": np.zeros(rows, np.int32), "kind": ["full"] * rows}
        texts |= {"t/text": text, "t/text_norm": ones}
        told, widths = {"similarity": similarity}, {"t": DIM}
        return {
            "image_embeddings": pa.table(images | told, schema=image_embeddings(widths)),
            "caption_embeddings": pa.table(texts | told, schema=caption_embeddings(widths)),
        }


def _vectors(generator: np.random.Generator, rows: int) -> pa.Array:
    values = generator.standard_normal((rows, DIM), np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.astype(np.float16).reshape(-1)), DIM)


@contextmanager
def counted(folder: Path) -> Iterator[Asked]:
    """Let every store be of objects in memory until the end of the block; yield what is asked of all of them."""
    asked, stores = Asked(), dict[str, CountingObjects]()

    def opened(root: str | Path, cache: Path | None = None) -> CountingObjects:
        return stores.setdefault(str(root), CountingObjects(str(root), folder / "copies", asked))

    with (
        mock.patch.object(store_module, "open_storage", opened),
        mock.patch.object(run_module, "open_storage", opened),
        in_process(),
    ):
        yield asked


def cpu_s() -> float:
    """Return the CPU-seconds of this process and of all that descend from it, those that have ended included."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    alive = [child.cpu_times() for child in psutil.Process().children(recursive=True) if child.is_running()]
    return time.process_time() + ended.ru_utime + ended.ru_stime + sum(sum(times[:4]) for times in alive)


def costs(stages: Sequence[Stage], values: dict[str, Any], folder: Path) -> dict[str, tuple[float, Asked]]:
    """Return the CPU-seconds of each stage of a run and what it asks of its store."""
    folder.mkdir(parents=True)
    recipe = Recipe.model_validate({"name": "fleet", "tracking": {"mode": "disabled"}, **values})
    found: dict[str, tuple[float, Asked]] = {}
    with counted(folder) as asked:
        store = Store(f"s3://fleet/{folder.name}", folder / "copies")
        dag = Dag(stages, recipe, store, Run(f"{store.location}/fleet", store, folder))
        for stage in stages:
            before, started = Asked(**vars(asked)), cpu_s()
            dag.execute(Selection(only=stage.name), lambda line: None)
            spent = Asked(**{name: value - getattr(before, name) for name, value in vars(asked).items()})
            found[stage.name] = (cpu_s() - started, spent)
    return found


def bodies_of(
    stages: Callable[[], Sequence[Stage]], values: Callable[[int], dict[str, Any]], rows: int
) -> dict[str, Body]:
    """Return the body of each stage's shard from runs over one shard and over 33; `rows` are those of a sampled shard."""
    with tempfile.TemporaryDirectory(prefix="fleet-") as folder:
        _, one, many = (  # the first imports modules
            costs(stages(), values(count), Path(folder) / name)
            for name, count in (("first", 1), ("one", 1), ("many", 1 + SAMPLED))
        )
    each = ROWS / rows / SAMPLED
    return {
        name: Body(
            each * (cpu - one[name][0]),
            (asked.requests - one[name][1].requests) / SAMPLED,
            each * (asked.bytes_read - one[name][1].bytes_read),
            each * (asked.bytes_written - one[name][1].bytes_written),
            rows,
        )
        for name, (cpu, asked) in many.items()
    }


def of_lists(folder: Path) -> dict[str, Body]:
    """Return the body of plan."""

    def values(count: int) -> dict[str, Any]:
        listed = folder / f"{count}.parquet"
        urls = [f"http://host{n % 977}.example/{n}.jpg" for n in range(count * ROWS)]
        pq.write_table(pa.table({"url": urls, "caption": [f"picture {n}" for n in range(len(urls))]}), listed)
        return {
            "plan": {"input": [str(listed)], "number_sample_per_shard": ROWS},
            "embed": {"towers": [_TOWER]},
        }

    return bodies_of(lambda: [Plan()], values, ROWS)


def of_pictures(folder: Path) -> dict[str, Body]:
    """Return the bodies of download, embed and latents."""
    names = make_site(folder / "site", "web", NUM_BODIES)
    AutoencoderTiny().save_pretrained(folder / "autoencoder")

    def values(count: int) -> dict[str, Any]:
        listed = folder / f"{count}.parquet"
        number = range(count * WEB_ROWS)
        urls = [f"http://127.0.0.1:{PLAIN_PORT}/{names[n % len(names)]}?{n}" for n in number]
        pq.write_table(pa.table({"url": urls, "caption": [f"picture {n}" for n in number]}), listed)
        return {
            "plan": {"input": [str(listed)], "number_sample_per_shard": WEB_ROWS},
            "download": {
                "image_size": 256,
                "allow_private": [f"127.0.0.1:{PLAIN_PORT}"],
                "host_connections": 64,
                "host_max_faults": 0,
            },
            "embed": {"towers": [_TOWER], "batch_size": 64, "cpus_per_actor": os.cpu_count() or 1},
            "autoencoder": {
                "kind": "pretrained",
                "image_size": LATENT_PX,
                "pretrained": {"path": str(folder / "autoencoder")},
            },
        }

    with serving(folder):
        found = bodies_of(
            lambda: [Plan(), Download(), Embed(), Features(), Curate(), Autoencoder()], values, WEB_ROWS
        )
    return {name: found[name] for name in ("download", "embed", "autoencoder")}


def of_tables() -> dict[str, Body]:
    """Return the bodies of the stages that read no picture."""

    def values(count: int) -> dict[str, Any]:
        tower = {"name": "t", "model": "RN50", "pretrained": "random"}
        return {
            "plan": {"number_sample_per_shard": count},
            "embed": {"towers": [tower]},
            "curate": {"perceptual_distance": 4, "max_domain_share": 0.05},
            "shift": {"num_clusters": 64},
        }

    def stages() -> list[Stage]:
        return [VectorsDownload(), VectorsEmbed(), Features(), Curate(), Shift(), Pack()]

    found = bodies_of(stages, values, made.SHARD_ROWS)
    return {name: found[name] for name in ("features", "curate", "shift", "pack")}


def all_bodies() -> dict[str, Body]:
    """Return the body of every stage that has one per shard."""
    with tempfile.TemporaryDirectory(prefix="fleet-") as folder:
        lists, pictures = Path(folder) / "lists", Path(folder) / "pictures"
        lists.mkdir()
        pictures.mkdir()
        return {**of_lists(lists), **of_pictures(pictures), **of_tables()}
