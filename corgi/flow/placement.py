"""On which nodes work may run: labels that the files in cluster/ give their node types, and selectors over them."""

WORK_LABEL = "corgi/work"
"""Node label that tells what a node type is for: `cpu`, `gpu`, or `none` for a head."""


def selector(gpus: float) -> dict[str, str]:
    """Return the label selector of work that reserves so many GPUs of a node.

    CPU work goes to any node that is not labelled `gpu`, so that it never starts a GPU node, and also runs where nodes have no
    labels: one machine, or fixed machines. GPU work needs no label, since only GPU nodes have what it reserves.
    """
    return {} if gpus else {WORK_LABEL: "!gpu"}
