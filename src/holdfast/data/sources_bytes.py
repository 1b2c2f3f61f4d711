"""Checksums of what a source holds, in DVC's own terms, so that a bucket, a folder and DVC can be compared.

One file has the md5 of its bytes; a folder has the md5 of its listing, as DVC writes it, followed by ``.dir``.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from holdfast.objectstore.parallel import concurrently
from holdfast.objectstore.store import ObjectInfo, ObjectStore
from holdfast.repo.dvcfiles import LISTING_SUFFIX, listing_oid

CHUNK_BYTES = 8 * 2**20
MD5, SHA256, BLAKE3 = "md5", "sha256", "blake3"
MD5_PREFIX = f"{MD5}:"
LISTING = f"{MD5}{LISTING_SUFFIX}"


class Hasher(Protocol):
    """What hashlib and blake3 have in common."""

    def update(self, data: Any, /) -> Any:
        """Take in bytes."""

    def hexdigest(self) -> str:
        """The digest."""


def form_of(checksum: str) -> str:
    """How a checksum is taken: ``md5``, ``md5.dir``, ``sha256`` or ``blake3``."""
    name = checksum.partition(":")[0]
    return LISTING if checksum.endswith(LISTING_SUFFIX) else name


def checksums_of(digests: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """The checksums of a source by their form: that of the listing, and those of its file where it has one alone.

    Args:
        digests: of each file by its path, the digests in hexadecimal by algorithm; md5 is among them.
    """
    members = [{MD5: own[MD5], "relpath": path} for path, own in digests.items()]
    found = {LISTING: f"{MD5_PREFIX}{listing_oid(members)}"}
    if len(digests) == 1:
        ((_, own),) = digests.items()
        found |= {name: f"{name}:{digest}" for name, digest in own.items()}
    return found


def main_checksum(digests: Mapping[str, Mapping[str, str]]) -> str:
    """The checksum to write down: the file's own where there is one alone, else that of the listing."""
    found = checksums_of(digests)
    return found.get(MD5) or found[LISTING]


def read_objects(
    store: ObjectStore,
    objects: Iterable[ObjectInfo],
    prefix: str,
    expected: str,
    *,
    jobs: int,
    progress: Callable[[int], None] = lambda _: None,
) -> dict[str, dict[str, str]]:
    """Read objects and throw their bytes away: their digests by path below the prefix.

    Args:
        store: where they are.
        objects: as a listing has them.
        prefix: the source's folder.
        expected: the checksum that they will be held against, which says which digests are needed.
        jobs: objects that are read at a time.
        progress: told how many bytes were read, piece by piece.

    Raises:
        ChangedError: an object was replaced while it was being read.
        StoreError: it cannot be read.
    """

    def read(info: ObjectInfo) -> tuple[str, dict[str, str]]:
        def chunks() -> Iterator[bytes]:
            for offset in range(0, info.size, CHUNK_BYTES):
                data = store.get_range(info.key, offset, min(CHUNK_BYTES, info.size - offset), etag=info.etag)
                yield data
                progress(len(data))

        return info.key.removeprefix(f"{prefix}/"), digests_of(chunks(), expected)

    return dict(concurrently(read, objects, jobs))


def read_files(folder: Path, paths: Iterable[str], expected: str, *, jobs: int) -> dict[str, dict[str, str]]:
    """The digests of files in a folder, by path.

    Raises:
        OSError: one cannot be read.
    """

    def read(path: str) -> tuple[str, dict[str, str]]:
        with open(folder / path, "rb") as stream:
            return path, digests_of(iter(lambda: stream.read(CHUNK_BYTES), b""), expected)

    return dict(concurrently(read, paths, jobs))


def digests_of(chunks: Iterable[bytes], expected: str) -> dict[str, str]:
    """The digests of bytes: md5, and what else a checksum needs."""
    hashers: dict[str, Hasher] = {MD5: hashlib.md5(usedforsecurity=False)}
    if expected.startswith(f"{SHA256}:"):
        hashers[SHA256] = hashlib.sha256()
    elif expected.startswith(f"{BLAKE3}:"):
        from blake3 import blake3  # imported here: most catalogues have none

        hashers[BLAKE3] = blake3()
    for chunk in chunks:
        for hasher in hashers.values():
            hasher.update(chunk)
    return {name: hasher.hexdigest() for name, hasher in hashers.items()}
