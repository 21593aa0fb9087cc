"""The img2dataset engine: runs the library for one shard and maps its output to outcomes, one for every row.

The library checks neither addresses nor sizes, so it should only be run on lists that the user trusts. It runs in a separate
process because it installs a signal handler and replaces the standard streams.
"""

import contextlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from corgi.download.planned import Outcome
from corgi.fetching.address import UrlRefusedError, parse_url, resolved_pairs
from corgi.imaging.decode import STORED_MIMES, StoredImage, decode_stored, phash_of
from corgi.settings.data import DownloadSettings
from corgi.settings.errors import ClusterError
from corgi.tables.rejection import Rejection
from corgi.tables.schema import Reason

# The library starts two processes that would each import it again, and loads torch and Ray without using them here.
# Forking one process without them takes a third of that CPU time for every shard.
_RUN = """
import json, multiprocessing, multiprocessing.context, sys
new_context = multiprocessing.get_context
multiprocessing.context.SpawnProcess = multiprocessing.context.ForkProcess
multiprocessing.get_context = lambda method=None: new_context("fork")
sys.modules["torch"] = sys.modules["ray"] = None
from img2dataset import download
download(**json.load(sys.stdin))
"""
_ROW = "list_row"
_PNG_COMPRESSION = 6
_START_ALLOWANCE_S = 120

_HTTP_ERROR = re.compile(r"HTTP Error (\d{3})")
_MESSAGES: tuple[tuple[str, Reason], ...] = (
    ("infinite loop", Reason.TOO_MANY_REDIRECTS),
    ("x-robots-tag", Reason.OPTED_OUT),
    ("hash mismatch", Reason.HASH_MISMATCH),
    ("image decoding error", Reason.DECODE_FAILED),
    ("image too small", Reason.TOO_SMALL),
    ("image area too large", Reason.TOO_MANY_PIXELS),
    ("aspect ratio too large", Reason.ASPECT_RATIO),
    ("timed out", Reason.TIMEOUT),
    ("incompleteread", Reason.SHORT_BODY),
    ("name or service", Reason.DNS),
    ("name resolution", Reason.DNS),
    ("no address associated", Reason.DNS),
    ("unknown url type", Reason.BAD_URL),
    ("no host given", Reason.BAD_URL),
    ("url can't contain", Reason.BAD_URL),
    ("nonnumeric port", Reason.BAD_URL),
    ("redirection to url", Reason.BAD_URL),
    ("connection", Reason.CONNECTION),
    ("remote end closed", Reason.CONNECTION),
    ("ssl", Reason.CONNECTION),
    ("unreachable", Reason.CONNECTION),
    ("opencv", Reason.DECODE_FAILED),
)


class Img2datasetEngine:
    """Run `img2dataset.download` over one shard's URLs."""

    def __init__(self, settings: DownloadSettings) -> None:
        """Take the settings; only the separate process imports the library."""
        self._settings = settings

    def close(self) -> None:
        """Do nothing: the library's process ends with each call."""

    def outcomes(
        self, urls: Sequence[str], expected_hashes: Sequence[str | None] | None = None
    ) -> list[Outcome]:
        """Return one outcome per URL, in order; rows that are missing in the library's output are rejected with reason `engine`.

        Expected hashes are compared here, sha256 only: the library computes one kind of hash per run.

        Raises:
            ClusterError: the library ended without any output.

        """
        outcomes: dict[int, Outcome] = {}
        requested: dict[int, str] = {}
        for row, url in enumerate(urls):
            try:
                requested[row] = self._resolved(url)
            except UrlRefusedError as error:
                outcomes[row] = Rejection(Reason.BAD_URL, str(error))
        if requested:
            outcomes |= self._downloaded(requested)
        lost = Rejection(Reason.ENGINE, "lost by the library")
        expected = expected_hashes or [None] * len(urls)
        return [_verified(outcomes.get(row, lost), digest) for row, digest in enumerate(expected)]

    def _resolved(self, url: str) -> str:
        parsed = parse_url(url)
        mapped = resolved_pairs(self._settings.resolve).get((parsed.host or "", parsed.port or 0))
        return url if mapped is None else str(parsed.with_host(mapped[0]).with_port(mapped[1]))

    def _downloaded(self, requested: dict[int, str]) -> dict[int, Outcome]:
        with tempfile.TemporaryDirectory(prefix="corgi-img2dataset-") as folder:
            urls = Path(folder) / "urls.parquet"
            pq.write_table(pa.table({"url": list(requested.values()), _ROW: list(requested)}), urls)
            options = library_options(self._settings, urls, Path(folder) / "out", len(requested))
            last_line = _run_library(options, Path(folder), self._limit_s(len(requested)))
            outputs = sorted((Path(folder) / "out").glob("*.parquet"))
            if not outputs:
                raise ClusterError(
                    f"img2dataset ended without output ({last_line}); committed shards are safe; correct the cause and run the same command"
                )
            rows = (row for path in outputs for row in pq.read_table(path).to_pylist())
            return {row[_ROW]: outcome_of(row, self._settings) for row in rows}

    def _limit_s(self, num_urls: int) -> float:
        settings = self._settings
        rounds = math.ceil(num_urls / settings.connections)
        return _START_ALLOWANCE_S + 3 * rounds * settings.timeout_s * (settings.retries + 1)


def library_options(settings: DownloadSettings, urls: Path, output: Path, num_urls: int) -> dict[str, object]:
    """Return the library's arguments that correspond to the settings."""
    is_png = settings.encode_format == "png"
    return {
        "url_list": str(urls),
        "output_folder": str(output),
        "input_format": "parquet",
        "output_format": "parquet",
        "url_col": "url",
        "save_additional_columns": [_ROW],
        "processes_count": 1,
        "thread_count": settings.connections,
        "number_sample_per_shard": max(10, num_urls),
        "image_size": settings.image_size,
        "resize_mode": settings.resize_mode,
        "resize_only_if_bigger": settings.resize_only_if_bigger,
        "encode_format": settings.encode_format,
        "encode_quality": _PNG_COMPRESSION if is_png else settings.encode_quality,
        "timeout": math.ceil(settings.timeout_s),
        "retries": settings.retries,
        "min_image_size": settings.min_image_size,
        "max_image_area": settings.max_pixels,
        "max_aspect_ratio": settings.max_aspect_ratio,
        "compute_hash": "sha256",
        "extract_exif": False,
        "enable_wandb": False,
        "user_agent_token": settings.user_agent.partition("/")[0],
        "disallowed_header_directives": list(settings.disallowed_header_directives),
    }


def outcome_of(row: dict[str, Any], settings: DownloadSettings) -> Outcome:
    """Return the outcome of one row of the library's output."""
    if row["status"] != "success":
        return rejection_of(row["error_message"] or "")
    data = row[settings.encode_format]
    return StoredImage(
        image=data,
        width=row["width"],
        height=row["height"],
        original_width=row["original_width"],
        original_height=row["original_height"],
        sha256=row["sha256"],
        phash=phash_of(decode_stored(data)),
        mime=STORED_MIMES[settings.encode_format],
        format="not told by the library",
    )


def _verified(outcome: Outcome, expected: str | None) -> Outcome:
    if isinstance(outcome, Rejection) or not expected:
        return outcome
    name, _, digest = expected.strip().lower().partition(":")
    if name != "sha256":
        return Rejection(Reason.HASH_MISMATCH, "this engine compares sha256 only")
    if digest != outcome.sha256:
        return Rejection(Reason.HASH_MISMATCH, "sha256 differs")
    return outcome


def rejection_of(message: str) -> Rejection:
    """Return the rejection for one of the library's error messages, with a detail that is the same for the same cause."""
    lowered = message.lower()
    known = next(((text, reason) for text, reason in _MESSAGES if text in lowered), None)
    status = _HTTP_ERROR.search(message)
    if known is not None:
        return Rejection(known[1], known[0])
    if status is not None:
        return Rejection(Reason.HTTP_STATUS, f"HTTP status {status[1]}", http_status=int(status[1]))
    return Rejection(Reason.ENGINE, "message of the library that is not known")


def _run_library(options: Mapping[str, object], folder: Path, limit_s: float) -> str:
    """Run the library until it ends or reaches its time limit; return the last line that it wrote."""
    environment = {**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1", "PYTHONWARNINGS": "ignore"}
    log = folder / "log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-c", _RUN],
            stdin=subprocess.PIPE,
            stdout=sink,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
        try:
            process.communicate(json.dumps(options).encode(), timeout=limit_s)
        except subprocess.TimeoutExpired:
            return "its time limit"
        finally:
            _end(process)
    lines = log.read_text(errors="replace").split("\n")
    return next(
        (line.strip()[:200] for line in reversed(lines) if line.strip()), f"exit code {process.returncode}"
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the library's process and its children, which are in the same process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
