"""The inventory of the model files in a bucket: read by ranges of their headers, without a copy on this machine."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from blake3 import blake3

from holdfast.errors import HoldfastError, IntegrityError
from holdfast.formats.cache import DigestCache, Digests, Key
from holdfast.formats.content import NoDigestError, checkpoint_weights_digest
from holdfast.formats.opening import read_checkpoint
from holdfast.formats.summary import summary_of
from holdfast.inventory.copies import CopyFolder, is_backup_name, is_cache
from holdfast.inventory.models import ScanReport
from holdfast.inventory.ref_memory import ReferenceMemory
from holdfast.inventory.references import find_references
from holdfast.inventory.scan_files import (
    LEAST_BYTES,
    SPEAKING_FORMATS,
    Choice,
    Found,
    choose,
    damaged,
    enough,
    is_model,
)
from holdfast.inventory.scan_judge import Registered, assemble
from holdfast.inventory.tracking import GitIndex, Tracking
from holdfast.inventory.tree import Excludes
from holdfast.objectstore.parallel import concurrently
from holdfast.objectstore.source import ObjectSource
from holdfast.objectstore.store import ObjectInfo, ObjectStore

JOBS = 16
# how DVC names objects: files/md5/xx/yyyy, and xx/yyyy before DVC 3
_DVC_OBJECT = re.compile(r"(?:^|.*/)(?P<head>[0-9a-f]{2})/(?P<rest>[0-9a-f]{30})")


def scan_store(
    store: ObjectStore,
    cache: DigestCache,
    *,
    excludes: Sequence[str] = (),
    registered: Iterable[Registered] = (),
    project: Path | None = None,
    memory: ReferenceMemory | None = None,
    weights: bool = False,
    jobs: int = JOBS,
    progress: Callable[[int], None] = lambda _: None,
) -> ScanReport:
    """Take the inventory of the model files in a store; nothing is executed or changed.

    Objects that neither their name nor their content calls models are passed over, as of files. Equal bytes are told by
    equal sizes and ETags, so that some are missed where one of two was uploaded in parts. Objects of a DVC remote have
    no names: they are told by their content.

    Args:
        store: the objects, with keys relative to its prefix.
        cache: what is known of objects' content, by URL, ETag and size.
        excludes: patterns as of ``.gitignore`` of what is not looked at.
        registered: the versions that objects may be.
        project: the folder whose scripts may refer to the objects by their keys; None for no references.
        memory: what is known of its sources.
        weights: whether to take weights digests, for which all weights are read.
        jobs: requests at a time.
        progress: told how many objects were looked into.

    Raises:
        StoreError: the store cannot be listed.
    """
    notes: list[str] = []
    pattern = Excludes(tuple(excludes))
    looked = 0
    chosen: list[tuple[ObjectInfo, Key, Choice]] = []
    for info in store.list_objects():
        looked += 1
        choice = choose(info.key, info.key.rpartition("/")[2])
        small = choice == "content" and info.size < LEAST_BYTES
        if choice != "none" and not small and not pattern.file(info.key):
            chosen.append((info, _key_of(store, info), choice))
    known = cache.many(key for _, key, _ in chosen)

    def look(item: tuple[ObjectInfo, Key, Choice]) -> Digests | HoldfastError:
        info, key, choice = item
        if enough(known.get(key), weights):
            return known[key]
        try:
            return _read(store, info, choice, weights)
        except HoldfastError as error:
            return error

    found = []
    for number, ((info, key, choice), digests) in enumerate(
        zip(chosen, concurrently(look, chosen, jobs), strict=True), 1
    ):
        progress(number)
        if isinstance(digests, HoldfastError):
            notes.append(f"{info.key}: {digests.message}")
            continue
        if known.get(key) is not digests:
            cache.put_key(key, digests)
        if is_model(choice, digests):
            found.append((info, Found(info.key, key, digests)))
    labels = [info.key for info, _ in found]
    copies = list(_backups(labels))
    outs = {label: match["head"] + match["rest"] for label in labels if (match := _DVC_OBJECT.fullmatch(label))}
    live = [
        label
        for label in labels
        if label not in outs and not is_cache(label) and not any(label.startswith(f"{copy.path}/") for copy in copies)
    ]
    references = find_references(project, live, memory=memory) if project is not None and live else None
    return assemble(
        store.url,
        [item for _, item in found],
        _equal_objects(info for info, _ in found),
        references=references,
        copies=copies,
        tracking=Tracking(outs, GitIndex(Path(), None)),
        registered=registered,
        looked=looked,
        notes=[*notes, *(references.notes if references is not None else ())],
    )


def _key_of(store: ObjectStore, info: ObjectInfo) -> Key:
    """What the object's digests are kept under: one of 64 bits for the place, one for the state."""
    place, state = (
        int.from_bytes(blake3(text.encode("utf-8", "surrogateescape")).digest(8), "little")
        for text in (f"{store.url}\0{info.key}", info.etag)
    )
    return place, state, info.size, int(info.modified.timestamp() * 1e9)


def _read(store: ObjectStore, info: ObjectInfo, choice: Choice, weights: bool) -> Digests:
    source = ObjectSource(store, info.key, info)
    try:
        checkpoint = read_checkpoint(source)
        summary = summary_of(checkpoint)
        if not weights:
            return Digests(summary=summary)
        if choice == "content" and summary.format not in SPEAKING_FORMATS:
            return Digests(summary=summary, no_weights="it is no checkpoint")
        if checkpoint.no_digest:
            return Digests(summary=summary, no_weights=checkpoint.no_digest)
        return Digests(summary=summary, weights=checkpoint_weights_digest(checkpoint))
    except NoDigestError as error:
        return Digests(summary=summary, no_weights=error.message)
    except IntegrityError as error:
        return damaged(error.message.removeprefix(f"{source.name} "))


def _backups(labels: Iterable[str]) -> Iterator[CopyFolder]:
    """The outermost folders whose names say that they are backups."""
    seen: set[str] = set()
    for label in labels:
        folder = ""
        for part in label.split("/")[:-1]:
            folder = f"{folder}/{part}" if folder else part
            if folder in seen:
                break
            if is_backup_name(part):
                seen.add(folder)
                yield CopyFolder(folder, "name", ())
                break


def _equal_objects(infos: Iterable[ObjectInfo]) -> dict[str, str]:
    """What stands for the bytes of objects that share size and ETag with another."""
    groups: dict[tuple[int, str], list[str]] = {}
    for info in infos:
        if info.etag:
            groups.setdefault((info.size, info.etag), []).append(info.key)
    return {key: f"etag:{etag.strip(chr(34))}" for (_, etag), keys in groups.items() if len(keys) > 1 for key in keys}
