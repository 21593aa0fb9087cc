"""Drawn pictures, committed as a tiny download stage, and the DAG of the stages around CLIP over them."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw

from corgi.clip.stages import Embed, Tower
from corgi.curation.stages import Curate, Features
from corgi.flow.context import Context
from corgi.flow.dag import Dag, Selection, open_dag
from corgi.settings.recipe import Recipe
from corgi.shift.stages import Shift
from corgi.tables.manifest import RowCounts
from corgi.tables.schema import CAPTIONS, IMAGES
from corgi.tables.store import ShardTask
from tests.support.stages import stage

SHAPES = ("square", "disc", "bar", "cross")
COLOURS = ("red", "green", "blue", "orange", "purple", "black")
NUM_SHARDS = 2


def picture(number: int) -> Image.Image:
    """Return a drawn shape: its kind and colour from the number, its place from the number's own generator."""
    generator = np.random.default_rng(number)
    image = Image.new("RGB", (80, 80), "white")
    draw = ImageDraw.Draw(image)
    x, y = generator.integers(8, 24, 2).tolist()
    side = int(generator.integers(28, 44))
    box = (x, y, x + side, y + side)
    shape, colour = SHAPES[number % len(SHAPES)], COLOURS[number // len(SHAPES) % len(COLOURS)]
    if shape == "disc":
        draw.ellipse(box, fill=colour)
    elif shape == "bar":
        draw.rectangle((x, y + side // 3, x + side, y + side // 2), fill=colour)
    elif shape == "cross":
        draw.line((x, y, x + side, y + side), fill=colour, width=8)
        draw.line((x, y + side, x + side, y), fill=colour, width=8)
    else:
        draw.rectangle(box, fill=colour)
    return image


def caption(number: int) -> str:
    return f"a {COLOURS[number // len(SHAPES) % len(COLOURS)]} {SHAPES[number % len(SHAPES)]}"


def encoded(image: Image.Image) -> bytes:
    body = io.BytesIO()
    image.save(body, "PNG")
    return body.getvalue()


def tables(numbers: range) -> tuple[pa.Table, pa.Table]:
    """Return images and captions: every fifth picture is held out, every seventh has no caption, some are coarse."""
    images, captions = [], []
    for number in numbers:
        data = encoded(picture(number))
        uid = f"{number:032x}"
        split = {3: "val", 4: "test"}.get(number % 5, "train")
        fixed = dict.fromkeys(("width", "height", "original_width", "original_height"), 80)
        images.append(
            {
                "uid": uid,
                "url": uid,
                "image": data,
                **fixed,
                "sha256": uid,
                "phash": "",
                "mime": "image/png",
                "group": uid,
                "split": split,
            }
        )
        words = (
            [] if number % 7 == 6 else [(caption(number), "full"), (SHAPES[number % len(SHAPES)], "coarse")]
        )
        captions += [
            {"uid": uid, "ordinal": place, "caption": text, "kind": kind, "weight": 1.0}
            for place, (text, kind) in enumerate(words)
        ]
    return pa.Table.from_pylist(images, schema=IMAGES), pa.Table.from_pylist(captions, schema=CAPTIONS)


def download(context: Context) -> list[ShardTask]:
    """Stand in for the download stage: commit two shards of drawn pictures."""
    tasks = [context.task(f"{shard:05d}") for shard in range(NUM_SHARDS)]
    share = 35
    for shard, task in enumerate(context.pending(tasks)):
        images, captions = tables(range(shard * share, (shard + 1) * share))
        with context.store.attempt(task) as attempt:
            attempt.write_table("images", images)
            attempt.write_table("captions", captions)
            attempt.commit(RowCounts(rows_in=images.num_rows, kept=images.num_rows))
    return tasks


def run(dag: Dag, last: str) -> int:
    """Run the stages up to one; return how many were not done before."""
    return dag.execute(Selection(last=last), lambda line: None)


def dag(root: Path, **sections: object) -> Dag:
    """Return the DAG of a recipe that differs from the defaults in some sections."""
    recipe = Recipe.model_validate(
        {"name": "tiny", "root": str(root), "tracking": {"mode": "disabled"}, **sections}
    )
    tower = [Tower()] if recipe.tower is not None else []
    stages = [
        stage("download", download),
        *tower,
        Embed(has_tower=bool(tower)),
        Features(),
        Curate(),
        Shift(),
    ]
    return open_dag(stages, recipe)
