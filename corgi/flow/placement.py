"""On which nodes work may run: labels of the node types in the files in cluster/, and selectors for them."""

WORK_LABEL = "corgi/work"
"""Node label for the kind of work of a node type: `cpu`, `gpu`, or `none` for a head."""


def selector(gpus: float) -> dict[str, str]:
    """Return the label selector for work that reserves this number of GPUs.

    CPU work goes to any node that is not labelled `gpu`, so that it never starts a GPU node, and also runs on nodes without
    labels: one machine, or fixed machines. GPU work needs no label, since only GPU nodes have the GPUs it reserves.
    """
    return {} if gpus else {WORK_LABEL: "!gpu"}
