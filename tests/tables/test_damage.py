"""What is said of a file that is not as committed: one line with the place, what is wrong, what is safe and what to do."""

import errno

import pytest

from corgi.settings.errors import StorageError
from corgi.tables.damage import check_hash, check_length, unreadable
from corgi.tables.manifest import FileEntry

PLACE, STAGE = "s3://bucket/runs/store/embed/k/rows.parquet", "embed"
ENTRY = FileEntry(table="rows", name="rows.parquet", size=7, sha256="a" * 64)
ADVICE = "; other shards are safe; rerun with --only embed --force"


def said(call, *arguments: object) -> StorageError:
    with pytest.raises(StorageError) as found:
        call(PLACE, STAGE, *arguments)
    assert str(found.value).startswith(f"{PLACE} ")
    assert "\n" not in str(found.value)
    return found.value


def test_a_file_as_committed_is_no_complaint() -> None:
    check_length(PLACE, STAGE, ENTRY, 7)
    check_hash(PLACE, STAGE, ENTRY, "a" * 64)


def test_what_was_found_stands_beside_what_was_expected() -> None:
    assert str(said(check_length, ENTRY, 6)).endswith(f"has 6 bytes, its manifest says 7{ADVICE}")
    told = str(said(check_hash, ENTRY, "b" * 64))
    assert told.endswith(f"expected {'a' * 64}, found {'b' * 64}{ADVICE}")


@pytest.mark.parametrize(
    ("error", "told", "may_pass"),
    [
        (FileNotFoundError(errno.ENOENT, "gone"), "is listed but missing", False),
        (PermissionError(errno.EACCES, "no"), "cannot be read (no)", False),
        (
            OSError(errno.ETIMEDOUT, "late"),
            "cannot be read (late) after several attempts",
            True,
        ),
    ],
)
def test_a_file_that_cannot_be_read_is_missing_late_or_damaged(
    error: OSError, told: str, may_pass: bool
) -> None:
    found = said(unreadable, error)
    assert told in str(found)
    assert found.may_pass == may_pass
    assert str(found).endswith("run the same command again" if may_pass else ADVICE)
