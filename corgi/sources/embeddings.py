"""Precomputed vectors: clip-retrieval's npy with Parquet, and DataComp's npz with Parquet, row by row.

Arrays are opened without pickle; the shape in a file's header is first compared with the rows of the Parquet file.
"""

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from corgi.settings.errors import InputError
from corgi.sources.cells import text_of
from corgi.sources.identity import canonical_urls, uid_bytes
from corgi.sources.sources import FORMATS, IMAGE_VECTORS, METADATA, TEXT_VECTORS
from corgi.storage.paths import ending, first_line
from corgi.tables.arrow import pc
from corgi.tables.schema import given_vectors
from corgi.unit_vectors import unit_and_norm

_DATACOMP = {"img": "image", "txt": "text"}
_PART_ROWS = 16_384


@dataclass(frozen=True)
class VectorFile:
    """One Parquet file and the arrays that correspond to it row by row, by column: `<tower>/image`, `<tower>/text`."""

    metadata: Path
    arrays: dict[str, tuple[Path, str | None]]
    """For each column a file and, for an npz file, the array's name in it."""


def holds_vectors(uri: str) -> bool:
    """Return whether a folder contains vectors in one of the two layouts; no file is opened."""
    folder = Path(uri)
    return ((folder / METADATA).is_dir() and (folder / IMAGE_VECTORS).is_dir()) or any(folder.glob("*.npz"))


def vector_files(folder: str | Path, tower: str = "clip") -> list[VectorFile]:
    """Return the vectors of a folder: clip-retrieval's `img_emb`, `text_emb`, `metadata`, or DataComp's shards.

    Args:
        folder: where they are stored.
        tower: name of the tower that computed clip-retrieval's vectors; DataComp's files name theirs (`b32`, `l14`).

    Raises:
        InputError: the folder contains neither.

    """
    folder = Path(folder)
    found = _clip_retrieval(folder, tower) if (folder / METADATA).is_dir() else _datacomp(folder)
    if not found:
        raise InputError(
            f"{folder} has no vectors (metadata/*.parquet with img_emb/*.npy, or *.parquet with *.npz); nothing was started; name another folder"
        )
    return found


def vector_tables(file: VectorFile) -> Iterator[pa.Table]:
    """Yield the rows of a file as `given_vectors` tables, vectors scaled to unit norm, in their order.

    Raises:
        InputError: a file is damaged, contains objects, or has a different number of rows than its Parquet file.

    """
    with _readable(file), pq.ParquetFile(file.metadata) as metadata:
        arrays = opened_arrays(file)
        names = [name for name in ("uid", "url", "caption", "text") if name in metadata.schema_arrow.names]
        start = 0
        for batch in metadata.iter_batches(_PART_ROWS, columns=names, use_threads=False):
            stop = start + batch.num_rows
            parts = {name: array[start:stop] for name, array in arrays.items()}
            yield _table(batch, parts, str(file.metadata))
            start = stop


def widths(file: VectorFile) -> dict[str, int]:
    """Return the width of each column's vectors, from the headers only.

    Raises:
        InputError: as for `vector_tables`.

    """
    with _readable(file):
        num_rows = pq.read_metadata(file.metadata).num_rows
        return {name: _width(*uri, num_rows) for name, uri in file.arrays.items()}


def opened_arrays(file: VectorFile) -> dict[str, np.ndarray]:
    """Return each column's vectors as written, one per row of the Parquet file; an npy file is memory-mapped, not read.

    Raises:
        InputError: as for `vector_tables`.

    """
    with _readable(file):
        widths(file)
        found = {}
        for name, (path, key) in file.arrays.items():
            opened = np.load(path, mmap_mode="r" if key is None else None, allow_pickle=False)
            found[name] = opened if key is None else opened[key]
        return found


def unit_vectors(array: np.ndarray) -> tuple[Float[np.ndarray, "n dim"], Float[np.ndarray, "n"]]:
    """Return rows scaled to unit norm and their original norms, both float32."""
    return unit_and_norm(np.asarray(array, np.float32))


@contextmanager
def _readable(file: VectorFile) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, pa.ArrowException) as error:
        raise InputError(
            f"{file.metadata} or its vectors cannot be read: {first_line(error)}; nothing was started; correct the files"
        ) from error


def _clip_retrieval(folder: Path, tower: str) -> list[VectorFile]:
    found = []
    for metadata in _lists(folder / METADATA):
        number = metadata.stem.removeprefix("metadata_")
        paths = {
            f"{tower}/image": folder / IMAGE_VECTORS / f"img_emb_{number}.npy",
            f"{tower}/text": folder / TEXT_VECTORS / f"text_emb_{number}.npy",
        }
        _check_pair(metadata, paths[f"{tower}/image"])
        found.append(
            VectorFile(metadata, {name: (path, None) for name, path in paths.items() if path.exists()})
        )
    for kind in (IMAGE_VECTORS, TEXT_VECTORS):
        for array in sorted((folder / kind).glob("*.npy")):
            number = array.stem.removeprefix(f"{kind}_")
            _check_pair(array, folder / METADATA / f"metadata_{number}.parquet")
    return found


def _datacomp(folder: Path) -> list[VectorFile]:
    packs = sorted(folder.glob("*.npz"))
    found = []
    for metadata in _lists(folder) if packs else ():
        packed = metadata.with_suffix(".npz")
        _check_pair(metadata, packed)
        arrays: dict[str, tuple[Path, str | None]] = {
            f"{key.rpartition('_')[0]}/{_DATACOMP[key.rpartition('_')[2]]}": (packed, key)
            for key in sorted(_array_names(packed))
            if key.rpartition("_")[2] in _DATACOMP
        }
        found.append(VectorFile(metadata, arrays))
    for packed in packs:
        _check_pair(packed, packed.with_suffix(".parquet"))
    return found


def _lists(folder: Path) -> list[Path]:
    """Return the Parquet lists of a folder, all of which the plan reads.

    Raises:
        InputError: there is a list of another format, to whose rows no vectors can belong.

    """
    listed = [path for path in sorted(folder.iterdir()) if ending(path.name) in FORMATS and path.is_file()]
    found = [path for path in listed if path.suffix != ".txt" and not path.name.endswith("_stats.json")]
    for path in found:
        if path.suffix != ".parquet":
            raise InputError(
                f"{path}: vectors must be listed in Parquet, but this is another list in their folder; nothing was started; move it elsewhere"
            )
    return found


def _check_pair(path: Path, partner: Path) -> None:
    if not partner.exists():
        raise InputError(
            f"{path} has no {partner.name} in {partner.parent}; nothing was started; add that file or move this one elsewhere"
        )


def _array_names(packed: Path) -> list[str]:
    try:
        with zipfile.ZipFile(packed) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{packed} cannot be read: {first_line(error)}; nothing was started; correct the file"
        ) from error


def _width(path: Path, key: str | None, num_rows: int) -> int:
    """Return the number of dimensions of a row, after comparing the header with the expected number of rows."""
    if key is None:
        with path.open("rb") as member:
            shape, dtype = _header(member)
    else:
        with zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as member:
            shape, dtype = _header(member)
    _check_shape(shape, dtype, num_rows, path)
    return shape[1]


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(member)
    reader: Any = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, _, dtype = reader(member)
    return shape, dtype


def _check_shape(shape: tuple[int, ...], dtype: np.dtype, num_rows: int, path: Path) -> None:
    if len(shape) != 2 or shape[0] != num_rows or not 1 <= shape[1] <= 16_384 or dtype.kind != "f":
        raise ValueError(
            f"{path.name} is {dtype.name}{list(shape)}, not floats with {num_rows} rows like its Parquet file"
        )


def _table(batch: pa.RecordBatch, arrays: Mapping[str, Float[np.ndarray, "n dim"]], uri: str) -> pa.Table:
    texts = {name: text_of(batch.column(name), name, uri) for name in batch.schema.names}
    nulls = pa.nulls(batch.num_rows, pa.string())
    urls = texts.get("url", nulls)
    canonical = canonical_urls(urls)
    derived = pa.array([digest.hex() for digest in uid_bytes(canonical.cast(pa.binary()).to_pylist())])
    derived = pc.if_else(pc.equal(canonical, ""), pa.scalar(None, pa.string()), derived)
    columns: dict[str, pa.Array] = {
        "uid": pc.coalesce(texts.get("uid", nulls), derived),
        "url": canonical,
        "caption": texts.get("caption", texts.get("text", nulls)),
    }
    dims = {}
    for name, array in arrays.items():
        unit, norm = unit_vectors(array)
        half = pa.array(unit.astype(np.float16).ravel(), pa.float16())
        columns[name] = pa.FixedSizeListArray.from_arrays(half, unit.shape[1])
        columns[f"{name}_norm"] = pa.array(norm, pa.float32())
        dims[name] = unit.shape[1]
    return pa.table(columns).cast(given_vectors(dims))
