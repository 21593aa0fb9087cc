"""Feature shards of an own tower with random features, committed without the trunks."""

import numpy as np

from corgi.clip.features import MOMENTS, FeatureCounts, moments_table, train_moments
from corgi.clip.vectors import column
from corgi.tables.run import Run
from corgi.training.network_cost import IMAGE_FEATURES, TEXT_FEATURES
from tests.support.tables import Output, commit_stage


def commit_features(run: Run, counts: bool = True, moments: bool = True) -> list[str]:
    """Commit features of each picture and of one caption; return the manifests' paths.

    Shards of 0.1 have no counts, and shards made before moments were stored have none of those.
    """
    rng, outputs = np.random.default_rng(0), dict[str, Output]()
    for shard in run.shards("download"):
        images = run.store.read(shard, "images", ["uid", "split", "group"])
        named = {"pictures": (images, IMAGE_FEATURES), "captions": (images.select(["uid"]), TEXT_FEATURES)}
        tables = {
            name: table.append_column("feature", column(rng.standard_normal((table.num_rows, width)) + 3))
            for name, (table, width) in named.items()
        }
        if moments:
            tables[MOMENTS] = moments_table(train_moments(tables["pictures"]))
        facts = FeatureCounts.of(images, images).as_facts() if counts else {}
        outputs[shard.shard] = Output(shard.rows, tables, facts=facts)
    commit_stage(run, "tower", outputs, ["download"])
    return [shard.path for shard in run.shards("tower")]
