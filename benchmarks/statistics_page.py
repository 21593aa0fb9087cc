"""Fill the tables of docs/statistics.md from a run of `make demo`: `python -m benchmarks.statistics_page [RUN]`."""

import json
import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from corgi.tables.run import Run

PAGE = Path(__file__).resolve().parents[1] / "docs" / "statistics.md"
_BLOCK = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def measured(found: dict[str, Any]) -> str:
    """Return the table of what was measured once."""
    cosine = found["val_cosine"]
    rows = [
        (
            "train pictures, dimensions, k",
            f"{found['train_pictures']:,}, {found['dim']}, {found['num_clusters']}",
        ),
        (
            "pictures of a cluster: smallest, median, largest",
            "{smallest}, {median:.0f}, {largest}".format(**found["occupancy"]),
        ),
        ("norm of the global mean", f"{found['global_mean_norm']:.3f}"),
        ("global variance (trace)", f"{found['global_variance']:.3f}"),
        ("variance left within clusters", f"{found['within_cluster_variance']:.3f}"),
        ("held-out captions", f"{found['val_captions']}"),
        ("cosine of a held-out picture and its caption", f"{cosine['picture_text']:.3f}"),
        ("cosine of a held-out picture and its own mu_k", f"{cosine['picture_mean']:.3f}"),
        ("cosine of its caption and that mu_k", f"{cosine['text_mean']:.3f}"),
        ("c over pictures that share a caption", f"{found['scale_matched_to_captions']:.3f}"),
        ("upper bound of c by a linear map from the caption", f"{found['scale_at_most_by_regression']:.3f}"),
        ("cosine of two pictures of one caption", f"{found['two_sample_cosine_given_caption']:.3f}"),
    ]
    return "| measured | |\n|---|---|\n" + "".join(f"| {name} | {value} |\n" for name, value in rows)


def accuracy(found: dict[str, Any]) -> str:
    """Return the table of how often a caption chooses its picture's own cluster, by k."""
    rows = sorted((int(k), row) for k, row in found["text_to_cluster_accuracy_by_k"].items())
    head = "| k | by cosine to mu_k | by expected cosine | chance |\n|---|---|---|---|\n"
    return head + "".join(
        f"| {k} | {row['cosine']:.3f} | {row['expected_cosine']:.3f} | {row['chance']:.3f} |\n"
        for k, row in rows
    )


def main() -> int:
    """Read the run's statistics.json and write the page's tables."""
    run = Run.open(sys.argv[1] if len(sys.argv) > 1 else "runs/openmoji")
    shard = run.shards("shift")[0]
    found = json.loads(run.store.path(shard, "statistics").read_text())
    tables = {"measured": measured, "accuracy": accuracy}
    PAGE.write_text(_BLOCK.sub(lambda block: block[1] + tables[block[2]](found) + block[3], PAGE.read_text()))
    print(f"{PAGE.name}: figures of {run.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
