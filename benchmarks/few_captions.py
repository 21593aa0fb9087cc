"""Few captions: priors, Lafite, retrieval and neighbours on one decoder at several shares of captions, by arms that go on where they were.

python -m benchmarks.few_captions [ARM ...] [--quick] [--list]       (= make few-captions, which makes the tables first)

Questions, arms and what counts as an answer are in docs/results.md, written before the first arm ran. Each arm leaves a small file under
docs/results/few-captions/, and arms that have left one are not run again. The shared decoders of a seed are kept below the run's
folder; where they are missing, as on another machine, they are trained again, from the same seed.
"""

import argparse
import json
import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from safetensors.torch import save

from benchmarks.caption_arms import MEASURES, MINUTES, QUICK, Arm, Base, Figures, Plan
from benchmarks.comparison_page import table
from benchmarks.decoders import between
from corgi.models.language_free import NearestPictures, RawText, SoftmaxAverage, TrueEmbedding
from corgi.settings.recipe import load
from corgi.tables.run import Run
from corgi.training import pseudo_text

HOME = Path(__file__).resolve().parents[1]
PAGE = HOME / "docs" / "results.md"
_BLOCK = re.compile(r"(<!-- figures: few-captions -->\n).*?(<!-- end -->)", re.DOTALL)
PRIORS = ("shifted", "dalle2", "standardised")
NEIGHBOURS = 5


def run_arm(base: Base, arm: Arm) -> Figures:
    """Train what the arm needs and return its figures by method."""
    if arm.kind == "shared":
        decoder = base.decoder(f"shared-{arm.seed}", arm.seed)
        text, image = RawText(), base.train_images
        return {
            "true embedding": base.figures(decoder, TrueEmbedding(image)),
            "text embedding": base.figures(decoder, text),
            "nearest pictures": base.figures(decoder, NearestPictures(image, NEIGHBOURS)),
        }
    if arm.kind == "priors":
        decoder = base.decoder(f"shared-{arm.seed}", arm.seed)
        image, text = base.captioned(arm.share).pairs
        found = {
            f"prior {variant}": base.figures(decoder, *base.prior(variant, arm.share, arm.seed))
            for variant in PRIORS
        }
        return {**found, "softmax average": base.figures(decoder, SoftmaxAverage(text, image))}
    if arm.kind == "lafite-fixed":
        decoder = base.decoder(arm.name, arm.seed, pseudo_text_xi=round(base.xi, 3))
    else:
        way = "trained" if arm.kind == "lafite-trained" else "retrieved"
        decoder = base.decoder(arm.name, arm.seed, prepared(base, arm, way), pseudo_text=way)
    return {arm.kind: base.figures(decoder, RawText())}


def prepared(base: Base, arm: Arm, way: Literal["trained", "retrieved"]) -> str:
    """Return the file of the pseudo text that the captions of a share give."""
    path = base.work / f"{arm.name}.safetensors"
    if not path.exists():
        image, text = base.captioned(arm.share).pairs
        path.write_bytes(save(pseudo_text.prepared(way, image, text, arm.seed).state_dict()))
    return str(path)


def keep(base: Base, arm: Arm, out: Path) -> None:
    """Run an arm and leave its file."""
    begun = time.perf_counter()
    found = run_arm(base, arm)
    told = {
        "kind": arm.kind,
        "share": arm.share,
        "seed": arm.seed,
        "seconds": round(time.perf_counter() - begun),
        "decoder steps": base.plan.decoder_steps,
        "prior steps": base.plan.prior_steps,
        "captioned train pictures": base.captioned(arm.share).counts[0],
        "pictures": {name: len(rows) for name, rows in base.sets.items()},
        "figures": found,
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{arm.name}.json").write_text(json.dumps(told, indent=1) + "\n")


def kept(out: Path) -> dict[tuple[str, float], dict[int, dict[str, dict[str, float]]]]:
    """Return the figures of every file by (method, share), then by seed."""
    found: dict[tuple[str, float], dict[int, Any]] = {}
    for path in sorted(out.glob("*.json")):
        one = json.loads(path.read_text())
        for method, figures in one["figures"].items():
            found.setdefault((method, one["share"]), {})[one["seed"]] = figures
    return found


def parts(found: Mapping[tuple[str, float], Mapping[int, Any]]) -> Iterable[str]:
    """Yield a table per held-out set: methods by share, means over seeds with 95 % intervals (Student)."""
    sets = dict.fromkeys(
        name for by_seed in found.values() for figures in by_seed.values() for name in figures
    )
    for name in sets:
        rows = []
        for (method, share), by_seed in sorted(found.items(), key=lambda one: (-one[0][1], one[0][0])):
            here = [figures[name] for _, figures in sorted(by_seed.items()) if name in figures]
            cells = [between([one[measure] for one in here]) for measure in MEASURES]
            rows.append([f"{100 * share:g} %", method, str(len(here)), *cells])
        yield f"### {name}, independent space; CLIP saw all captions\n"
        yield table(["captions", "method", "seeds", *MEASURES], rows)


def write_page(out: Path) -> None:
    """Fill the block of docs/results.md."""
    text = "\n".join(parts(kept(out)))
    PAGE.write_text(_BLOCK.sub(lambda block: f"{block[1]}{text}{block[2]}", PAGE.read_text()))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the arms that are named, by default all that left no file; write the page after each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="ARM", help="arms by name (default: all)")
    parser.add_argument("--run", default="runs/few-captions", help="run with tables, shift and autoencoder")
    parser.add_argument("--work", help="folder of weights (default: below the run)")
    parser.add_argument("--out", help="folder of the files (default: docs/results/few-captions)")
    parser.add_argument(
        "--quick", action="store_true", help="the 15-minute variant; its files stay below the run"
    )
    parser.add_argument(
        "--list", action="store_true", help="list the arms with the minutes announced; run nothing"
    )
    told = parser.parse_args(argv)
    plan = QUICK if told.quick else Plan()
    if told.list:
        return show(plan)
    run = Run.open(told.run)
    work = Path(told.work or f"{told.run}/{'quick' if told.quick else 'arms'}").absolute()
    out = (
        Path(told.out)
        if told.out
        else work / "files"
        if told.quick
        else HOME / "docs" / "results" / "few-captions"
    )
    work.mkdir(parents=True, exist_ok=True)
    base = Base(run, load(told.run), work, plan)
    for arm in plan.arms:
        if (not told.names or arm.name in told.names) and not (out / f"{arm.name}.json").exists():
            keep(base, arm, out)
            print(f"{arm.name}: kept", flush=True)
            if not told.quick and not told.out:
                write_page(out)
    if told.quick or told.out:
        print("\n".join(parts(kept(out))))
    return 0


def show(plan: Plan) -> int:
    """Print the arms and their minutes."""
    for arm in plan.arms:
        print(f"{arm.name:<24} {MINUTES[arm.kind]:g} minutes")
    print(f"{len(plan.arms)} arms, {sum(MINUTES[arm.kind] for arm in plan.arms):g} minutes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
