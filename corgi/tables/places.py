"""Which shard contains a row: its number follows from the hash of the row's canonical URL and the number of shards."""

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Self

from corgi.tables.manifest import StageManifest


def uid(canonical: str) -> str:
    """Return the 128-bit identity of a canonical URL, as 32 lower-case hex digits."""
    return hashlib.blake2b(canonical.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def shard_of(identity: str, num_shards: int) -> int:
    """Return the shard of a URL's hash: equal ranges of its leading 64 bits, so that hosts are spread over shards and duplicates are in the same shard."""
    return int(identity[:16], 16) * num_shards >> 64


@dataclass(frozen=True)
class Places:
    """The numbers of shards, by the folder of their files, and how many shards their stage has."""

    by_folder: dict[str, tuple[int, int]]

    @classmethod
    def of(cls, stages: Iterable[StageManifest]) -> Self:
        """Return the numbers of the numbered shards of closed stages, which all use the plan's partition."""
        found: dict[str, tuple[int, int]] = {}
        for stage in stages:
            numbers = {entry.path: _number(entry.shard) for entry in stage.shards}
            count = sum(number is not None for number in numbers.values())
            for path, number in numbers.items():
                if number is not None:
                    found[_folder(path)] = (number, count)
        return cls(found)

    def candidates(self, paths: Iterable[str], hashes: Collection[str]) -> list[str]:
        """Return those of the given manifest paths whose shard may contain a row whose URL has one of these hashes.

        A shard whose number is unknown may contain any row.
        """
        numbers: dict[int, frozenset[int]] = {}
        found: list[str] = []
        for path in paths:
            place = self.by_folder.get(_folder(path))
            if place is None:
                found.append(path)
                continue
            number, count = place
            if count not in numbers:
                numbers[count] = frozenset(shard_of(name, count) for name in hashes)
            if number in numbers[count]:
                found.append(path)
        return found


def has_own_uids(stage: StageManifest) -> bool:
    """Return whether the list of a stage had its own uids, which are not hashes of URLs."""
    sections: list[Any] = [section for section in stage.settings.values() if isinstance(section, dict)]
    return any(section.get("uid_col") is not None for section in sections)


def _number(shard: str) -> int | None:
    """Return the number in a shard's name, such as 00012 or features-00012; None for shards such as `model`."""
    digits = shard.rpartition("-")[2]
    return int(digits) if digits.isdigit() else None


def _folder(path: str) -> str:
    return path.rpartition("/")[0]
