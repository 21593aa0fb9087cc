"""The embed stage beside a bare open_clip loop with the demo's trained tower, and what each resize path costs in cosine.

make bench-embed             (= python benchmarks/embed.py; needs a run of make demo or make smoke)
"""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from jaxtyping import Float
from open_clip.transform import image_transform
from PIL import Image

from benchmarks.figures import Figures, alternated, ratios
from corgi.clip.embed import embed_pictures
from corgi.clip.references import model_shard, tower_refs
from corgi.clip.towers import Tower, build_model, load_tower
from corgi.demo.packaged_styles import packaged
from corgi.demo.pictures import subset
from corgi.demo.raster import folder_name, rasterise
from corgi.imaging.decode import decode, decode_stored
from corgi.settings.clip import EmbedSettings, TowerRef
from corgi.settings.data import DownloadSettings
from corgi.tables.run import Run

RUNS = ("runs/openmoji", "runs/smoke")
RESIZE_PATHS = [
    (mode, interpolation)
    for mode in ("shortest", "longest", "squash")
    for interpolation in ("bicubic", "bilinear")
]
STORED = (("png", 128), ("png", 192), ("jpg", 192), ("webp", 192))


def trained(folder: str | None) -> tuple[Run, TowerRef]:
    """Return a run and its trained tower."""
    chosen = folder or next((name for name in RUNS if Path(name, "run.json").exists()), RUNS[0])
    run = Run.open(chosen)
    settings = EmbedSettings.model_validate(run.facts.get("recipe", {})["embed"])
    return run, tower_refs(run.store, settings, model_shard(run.shards("tower")))[0]


def speed(figures: Figures, run: Run, ref: TowerRef, number: int, batch_size: int) -> None:
    """Compare the pictures' part of a shard with a bare forward loop, decoding added as far as cores must do it."""
    encoded: list[bytes] = []
    for shard in run.shards("download"):
        encoded += run.store.read(shard, "images", ["image"])["image"].to_pylist()
    encoded = (encoded * (number // len(encoded) + 1))[:number]
    model, transform, _ = build_model(ref)
    model.eval().requires_grad_(False)
    tower = load_tower(ref)
    settings = EmbedSettings(batch_size=batch_size, decode_threads=os.cpu_count() or 1)
    start = time.process_time()
    torch_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    batches = [
        torch.stack([transform(decode_stored(data)) for data in encoded[first : first + batch_size]])
        for first in range(0, number, batch_size)
    ]
    torch.set_num_threads(torch_threads)
    decode_cpu_s = time.process_time() - start

    @torch.no_grad()
    def bare() -> float:
        begun = time.perf_counter()
        for batch in batches:
            model.encode_image(batch)  # pyright: ignore[reportCallIssue]
        return time.perf_counter() - begun

    def ours() -> float:
        begun = time.perf_counter()
        embed_pictures([tower], encoded, settings)
        return time.perf_counter() - begun

    taken = alternated(3, bare, ours)
    cores = len(os.sched_getaffinity(0))
    figures.add_rounds("embed_bare_open_clip", [number / seconds for seconds in taken[0]], "pictures/s")
    figures.add_rounds("embed_ours", [number / seconds for seconds in taken[1]], "pictures/s")
    figures.add("embed_decode_cpu", 1000 * decode_cpu_s / number, "CPU-ms/picture")
    bound = [seconds + decode_cpu_s / cores for seconds in taken[0]]
    figures.add_rounds("embed_vs_bare_plus_decode", ratios(taken[1], bound), "x", "<=1.05")


def parity(figures: Figures, ref: TowerRef, number: int, work: Path) -> None:
    """Compare our vectors with open_clip's own on the demo's pictures at source size, then on what is stored of it."""
    paths = sources(number, work)
    pictures = [opened_picture(path) for path in paths]
    for mode, interpolation in RESIZE_PATHS:
        cosine = whole_cosines(ref, mode, interpolation, pictures)
        figures.add(f"parity_{mode}_{interpolation}_min_cosine", float(cosine.min()), "", ">=0.999")
    for name, cosine in stored_cosines(load_tower(ref), paths).items():
        figures.add(f"stored_{name}_mean_cosine", float(cosine.mean()), "")
        figures.add(f"stored_{name}_lowest_1_percent_cosine", float(np.quantile(cosine, 0.01)), "")


def sources(number: int, work: Path) -> list[Path]:
    """Return the demo's pictures at source size, rendered into a folder where they are not there yet."""
    folder = work / folder_name(packaged())
    rasterise(subset(packaged().pictures, number), folder)
    return sorted(path for path in folder.rglob("*.*") if path.suffix in (".png", ".jpg", ".webp"))[:number]


def whole_cosines(
    ref: TowerRef, mode: str, interpolation: str, pictures: list[Image.Image]
) -> Float[np.ndarray, "n"]:
    """Return the cosines of our vectors and a bare open_clip model's behind its own transform of one resize path."""
    model, _, tokenizer = build_model(ref)
    model.eval().requires_grad_(False)
    size = load_tower(ref).image_size
    chosen: Any = {"resize_mode": mode, "interpolation": interpolation}
    transform: Any = image_transform(size, is_train=False, **chosen)
    theirs = _theirs(model, transform, pictures)
    return (theirs * _ours(Tower("parity", model, transform, tokenizer), pictures)).sum(axis=1)


def stored_cosines(tower: Tower, paths: list[Path]) -> dict[str, Float[np.ndarray, "n"]]:
    """Return the cosines of the vectors of pictures as a recipe stores them and of the originals, by encoding and size."""
    whole = _ours(tower, [opened_picture(path) for path in paths])
    found = {}
    for encoding, size in STORED:
        settings = DownloadSettings.model_validate({"image_size": size, "encode_format": encoding})
        small = [decode_stored(decode(path.read_bytes(), settings).image) for path in paths]  # pyright: ignore[reportAttributeAccessIssue]
        found[f"{encoding}_{size}"] = (whole * _ours(tower, small)).sum(axis=1)
    return found


def opened_picture(path: Path) -> Image.Image:
    """Return a picture at source size on white."""
    with Image.open(path) as picture:
        layered = picture.convert("RGBA")
    white = Image.new("RGB", layered.size, (255, 255, 255))
    white.paste(layered, mask=layered.getchannel("A"))
    return white


@torch.no_grad()
def _theirs(model: Any, transform: Any, pictures: list[Image.Image]) -> np.ndarray:
    found = [
        model.encode_image(
            torch.stack([transform(picture) for picture in pictures[first : first + 50]]), normalize=True
        )
        for first in range(0, len(pictures), 50)
    ]
    return torch.cat(found).numpy()


def _ours(tower: Tower, pictures: list[Image.Image]) -> np.ndarray:
    found = [tower.images(pictures[first : first + 50])[0] for first in range(0, len(pictures), 50)]
    return torch.cat(found).numpy()


def main() -> int:
    """Run all of it."""
    parser = argparse.ArgumentParser(description="Benchmark the embed stage.")
    parser.add_argument(
        "--run", help="a run with a trained tower; runs/openmoji or runs/smoke when not given"
    )
    parser.add_argument("--pictures", type=int, default=2000, help="pictures of the timed loops")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--parity-pictures", type=int, default=500)
    parser.add_argument("--work", type=Path, default=Path("runs/bench-embed"))
    arguments = parser.parse_args()
    figures = Figures("embed", "torch", "open_clip_torch", "ray")
    run, ref = trained(arguments.run)
    speed(figures, run, ref, arguments.pictures, arguments.batch_size)
    parity(figures, ref, arguments.parity_pictures, arguments.work)
    figures.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
