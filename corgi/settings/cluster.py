"""Settings of the cluster: where Ray runs."""

from corgi.settings.section import Section, neutral


class ClusterSettings(Section):
    """Where Ray runs; these settings never change what is computed."""

    num_cpus: int | None = neutral(None, ge=1)
    """Logical CPUs of a Ray that the command itself starts; None: the CPUs of the machine, and at least 4."""
    side_by_side: bool = neutral(True)
    """Embed while download still runs, and train the prior at the same time as autoencoder and decoder, where the cluster has CPUs
    and GPUs for both and one more CPU."""
    grows: bool = neutral(False)
    """Whether the cluster that is joined starts nodes on demand: its free CPUs and GPUs are then not counted before prior and decoder
    are trained at the same time."""
    file: str = neutral("")
    """File of cluster/ that the cluster was started from: a stage that fits no node type in it is an error at the start, and
    `--plan` counts its machines; empty: not known."""
    rates: str = neutral("")
    """Your own file of rates and prices for `--plan`, in the format of corgi/budget/rates.yaml; empty: that file."""
    object_store_mib: int = neutral(512, ge=80)
    """Size of the object store of a Ray that the command itself starts, MiB; pixels are not passed between operators."""
