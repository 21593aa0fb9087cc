"""A digest of a table that two ways of making it are compared by."""

import pyarrow as pa

from corgi.settings.section import digest


def table_digest(table: pa.Table) -> str:
    """Return a digest of a table's rows whatever their order and their files' layout."""
    lines = sorted(repr(sorted(row.items())) for row in table.to_pylist())
    return digest(lines)
