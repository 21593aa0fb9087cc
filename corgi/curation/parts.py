"""The number of parts into which curate divides its rows, such that each call stays within `curate.task_memory`."""

from corgi.curation.perceptual import banding, expected_pairs
from corgi.settings.clip import CurateSettings
from corgi.settings.errors import SettingsError

PROCESS_BYTES = 320 * 2**20
"""Memory of a worker with numpy and pyarrow before it reads a row, bytes."""
ROW_BYTES = 256
"""Largest memory of a call per row of its part, bytes: rows as received, joined, sorted, and the result."""
WHOLE_ROW_BYTES = 2
"""Memory of the calls that mark rows of the whole set, bytes per row of the set."""
MAX_PAIRS = 1e12
"""Largest number of pairs of hashes that a run compares: some hours on a hundred cores."""
MAX_PARTS = 256
"""Largest number of parts: with more, parts times blocks would be more pieces than one driver can manage."""


def part_rows(num_rows: int, settings: CurateSettings) -> int:
    """Return the approximate number of rows of a part and of a block."""
    by_memory = max(1, (settings.task_memory - PROCESS_BYTES) // ROW_BYTES)
    return max(1, min(by_memory, -(-num_rows // settings.parts)), -(-num_rows // MAX_PARTS))


def num_parts(num_rows: int, settings: CurateSettings) -> int:
    """Return the number of parts for a number of rows."""
    return max(1, -(-num_rows // part_rows(num_rows, settings)))


def needed_bytes(num_rows: int, settings: CurateSettings) -> int:
    """Return the memory that the largest call needs, without vectors, bytes."""
    return PROCESS_BYTES + max(ROW_BYTES * part_rows(num_rows, settings), WHOLE_ROW_BYTES * num_rows)


def call_memory(num_rows: int, settings: CurateSettings) -> int:
    """Return the memory that each call reserves: what it needs, or all of `curate.task_memory` if vectors are compared, whose parts are sized to fit.

    Raises:
        SettingsError: a call needs more than `curate.task_memory`.

    """
    needed = needed_bytes(num_rows, settings)
    if needed > settings.task_memory:
        raise SettingsError(
            f"curate.task_memory={settings.task_memory / 2**30:.1f} GiB is too little for {num_rows:,} rows, for which one call needs "
            f"{needed / 2**30:.1f} GiB; nothing was started; set it to {-(-needed // 2**30)}GiB or more"
        )
    return needed if settings.semantic_cosine is None else settings.task_memory


def pairs_line(num_rows: int, settings: CurateSettings) -> str | None:
    """Return a line with the number of pairs of hashes compared for evenly distributed hashes; None if hashes are not compared.

    Raises:
        SettingsError: they are more than MAX_PAIRS.

    """
    distance = settings.perceptual_distance
    if distance is None:
        return None
    bands, pairs = banding(num_rows, distance), expected_pairs(num_rows, distance)
    if pairs > MAX_PAIRS:
        raise SettingsError(
            f"curate.perceptual_distance={distance} compares about {pairs:.1e} pairs of {num_rows:,} hashes, more than {MAX_PAIRS:.0e}; "
            "nothing was started; distances up to 6 need far fewer"
        )
    return f"near hashes: about {pairs:.1e} pairs by {len(bands.keys)} keys of {bands.per_key} of {len(bands.bands)} bands"
