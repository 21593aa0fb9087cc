"""Settings of the cluster: where Ray runs."""

from corgi.settings.section import Section, neutral


class ClusterSettings(Section):
    """Where Ray runs; never what runs."""

    num_cpus: int | None = neutral(None, ge=1)
    """Logical CPUs of a Ray started by the command itself; None: those of the machine, at least 4."""
    side_by_side: bool = neutral(True)
    """Where the cluster has CPUs and GPUs for both, and one CPU to spare: embed while download still runs, and train the prior
    beside autoencoder and decoder."""
    grows: bool = neutral(False)
    """The cluster joined starts nodes when they are asked for: room is not counted before prior and decoder train side by side."""
    file: str = neutral("")
    """File of cluster/ that the cluster was started from: what no node type in it can hold is refused at the start, and `--plan`
    counts its machines; empty: not known."""
    rates: str = neutral("")
    """File of rates and prices of your own, in the form of corgi/budget/rates.yaml, that `--plan` counts with; empty: that one."""
    object_store_mib: int = neutral(512, ge=80)
    """Object store of a Ray started by the command itself, MiB; pixels do not cross operators."""
