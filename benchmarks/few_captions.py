"""Few captions: priors, Lafite, retrieval and neighbours on one decoder at several shares of captions, by arms that go on where they were.

python -m benchmarks.few_captions [ARM ...] [--quick] [--list]       (= make few-captions, which makes the tables first)

Questions, arms and what counts as an answer are in docs/results.md, written before the first arm ran. Each arm leaves a small file under
docs/results/few-captions/, and arms that have left one are not run again. The shared decoders of a seed are kept below the run's
folder; where they are missing, as on another machine, they are trained again, from the same seed.
"""

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from safetensors.torch import save

from benchmarks.arms import Experiment, File, named, show
from benchmarks.caption_answers import kept_rows, lafite_rows, plot, without_rows
from benchmarks.caption_arms import MEASURES, QUICK, Arm, Base, Figures, Plan
from benchmarks.comparison_page import table
from benchmarks.decoders import between
from corgi.models.language_free import NearestPictures, RawText, SoftmaxAverage, TrueEmbedding
from corgi.settings.recipe import load
from corgi.tables.run import Run
from corgi.training import pseudo_text

PRIORS = ("shifted", "dalle2", "standardised")
NEIGHBOURS = 5
PLOT = "few-captions.png"
KEPT = ("prior", "at 100 %", "share kept at 1.7 %", "few captions are")
PAIRED = ("question", "first", "second", "first minus second", "first is better")


class FewCaptions(Experiment[Arm]):
    """Priors, Lafite, retrieval and neighbours at several shares of captions."""

    name = "few-captions"

    def __init__(self, base: Base) -> None:
        """Take what the arms share."""
        self.base = base

    def run_arm(self, arm: Arm) -> File:
        """Train what the arm needs; return its figures by method, with what they are of."""
        base = self.base
        return {
            "kind": arm.kind,
            "share": arm.share,
            "seed": arm.seed,
            "decoder steps": base.plan.decoder_steps,
            "prior steps": base.plan.prior_steps,
            "captioned train pictures": base.captioned(arm.share).counts[0],
            "pictures": {name: len(rows) for name, rows in base.sets.items()},
            "figures": figures_of(base, arm),
        }

    def parts(self, files: Sequence[File]) -> Iterable[str]:
        """Yield a table per held-out set: methods by share, means over seeds with 95 % intervals (Student)."""
        sets = dict.fromkeys(name for one in files for figures in one["figures"].values() for name in figures)
        ways = {(one["share"], method) for one in files for method in one["figures"]}
        for name in sets:
            rows = []
            for share, method in sorted(ways, key=lambda way: (-way[0], way[1])):
                of_share = [one["figures"] for one in files if one["share"] == share]
                here = [found[method][name] for found in of_share if name in found.get(method, {})]
                cells = [between([one[measure] for one in here]) for measure in MEASURES]
                rows.append([f"{100 * share:g} %", method, str(len(here)), *cells])
            yield f"### {name}, independent space; CLIP saw all captions\n"
            yield table(["captions", "method", "seeds", *MEASURES], rows)
        yield from answers(files)

    def plots(self, files: Sequence[File]) -> Mapping[str, bytes]:
        """Return R@1 by share of captions."""
        return {PLOT: plot(files)}


def answers(files: Sequence[File]) -> Iterable[str]:
    """Yield the plot and a table per question."""
    yield f"![R@1 by share of captions](images/{PLOT})\n"
    yield "Question 1, R@1 on HELD-OUT PAIR beyond the text embedding's, and the share of it kept at 1.7 % of the captions:\n"
    yield table(KEPT, list(kept_rows(files)))
    yield "Question 2, methods without captions minus the best prior at 1.7 %, on HELD-OUT PAIR:\n"
    yield table(["method", "best prior", "R@1", "Frechet", "as good"], list(without_rows(files)))
    yield "Questions 3 and 4, differences of R@1 on HELD-OUT PAIR:\n"
    yield table(PAIRED, list(lafite_rows(files)))
    yield "Not announced: questions 1, 3 and 4 by similarity in place of R@1:\n"
    yield table(KEPT, list(kept_rows(files, "similarity")))
    yield table(PAIRED, list(lafite_rows(files, "similarity")))


def figures_of(base: Base, arm: Arm) -> Figures:
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
    arms = named(plan.arms, told.names)
    if told.list:
        show(arms)
        return 0
    work = Path(told.work or f"{told.run}/{'quick' if told.quick else 'arms'}").absolute()
    out = Path(told.out) if told.out else work / "files" if told.quick else None
    work.mkdir(parents=True, exist_ok=True)
    FewCaptions(Base(Run.open(told.run), load(told.run), work, plan)).run(arms, out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
