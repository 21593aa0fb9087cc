"""The memory that the shift stage needs, from the settings only: --plan shows it, and the stage does not start if it is too much."""

from corgi.clip.vector_inputs import check_vectors
from corgi.settings.clip import ShiftSettings
from corgi.settings.errors import SettingsError
from corgi.settings.recipe import Recipe
from corgi.settings.tower_width import towers_width
from corgi.sources.embeddings import holds_vectors

BLOCK_BYTES = 64 * 2**20
"""Memory for the sketches of the clusters of one pass, bytes."""
MIN_FIT_ROWS = 20_000
_GIB = 2**30


def fit_rows(settings: ShiftSettings, rows: int | None = None) -> int:
    """Return to how many of `rows` k-means is fitted; None means that the number is not known yet and assumed to be large."""
    num_rows = min(
        settings.max_fit_rows, max(MIN_FIT_ROWS, settings.fit_rows_per_cluster * settings.num_clusters)
    )
    return num_rows if rows is None else min(num_rows, rows)


def needed_bytes(settings: ShiftSettings, dim: int, rows: int | None = None) -> dict[str, int]:
    """Return the most memory that a process of the stage needs, by purpose, bytes.

    The sample is in memory as half floats and, in the fit, as floats; three copies of the sums are in memory while two are
    merged; the result is in memory as arrays and twice as a file's bytes.
    """
    k = settings.num_clusters
    rank = min(settings.rank, dim) if settings.covariance == "low_rank" else 0
    full = dim * dim * 8 if settings.covariance == "full" else 0
    return {
        "sample": fit_rows(settings, rows) * dim * (2 + 4),
        "moments": 3 * 2 * k * dim * 8,
        "sketches": 4 * BLOCK_BYTES if rank else 0,
        "full covariance": 4 * full,
        "result": 3 * (k * dim * 4 * (2 + rank) + full // 2),
    }


def check_memory(settings: ShiftSettings, dim: int, rows: int | None = None) -> int:
    """Return the bytes needed.

    Raises:
        SettingsError: they are more than shift.max_memory; the message states the total and its largest part.

    """
    needs = needed_bytes(settings, dim, rows)
    total = sum(needs.values())
    if total > settings.max_memory:
        largest = max(needs, key=lambda name: needs[name])
        remedy = {
            "sample": "shift.max_fit_rows",
            "moments": "shift.num_clusters",
            "full covariance": "shift.covariance",
        }
        raise SettingsError(
            f"shift.num_clusters={settings.num_clusters} with {dim} dimensions and a {settings.covariance} covariance needs "
            f"{total / _GIB:.1f} GiB in one process ({largest} {needs[largest] / _GIB:.1f} GiB), more than "
            f"shift.max_memory={settings.max_memory / _GIB:.1f} GiB; nothing was started; "
            f"lower {remedy.get(largest, 'shift.rank')} or raise shift.max_memory"
        )
    return total


def plan_lines(recipe: Recipe) -> list[str]:
    """Return what --plan prints about the stage.

    Raises:
        SettingsError: the stage would not fit in memory.

    """
    dim = embedding_dim(recipe)
    if dim is None:
        return ["memory: known once the towers are loaded"]
    needed = check_memory(recipe.shift, dim)
    return [
        f"memory: at most {needed / _GIB:.2f} GiB in one process (k {recipe.shift.num_clusters}, {dim} dimensions, {recipe.shift.covariance})"
    ]


def embedding_dim(recipe: Recipe) -> int | None:
    """Return the width of the recipe's embeddings: that of its vectors, or of its towers; None if a width is not known yet."""
    if any(map(holds_vectors, recipe.embed.input)):
        return sum(check_vectors(recipe.embed).values())
    return towers_width(recipe)
