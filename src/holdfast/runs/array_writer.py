"""The one writer of an array store: files put in place in the order of saving, journal, manifest, resumption."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

from holdfast.atomic import replacing
from holdfast.formats.digest import content_digest
from holdfast.runs.array_check import VerifiedFiles
from holdfast.runs.array_contract import ArrayContract, ArrayStoreError
from holdfast.runs.array_files import ArrayFormat, EncodedSample
from holdfast.runs.array_manifest import (
    JOURNAL,
    MANIFEST,
    METADATA,
    Catalogue,
    FormatSettings,
    Journal,
    Metadata,
    StoredFile,
    is_in_place,
    leftovers,
    read_metadata,
    read_state,
    write_manifest,
    write_metadata,
)


class ArrayWriter:
    """Takes compressed samples in order and keeps the folder such that a kill at any moment costs at most one file.

    What the folder ends up holding depends on the samples and their order alone, not on how often it was closed or
    stopped in between: a last shard that is not full is taken up again.

    Args:
        folder: made where it is missing; a stopped writer's leftovers are removed.
        contract: what the store has to have.
        settings: what the store has to have.
        fmt: the format of ``settings``.

    Raises:
        ArrayStoreError: the folder holds something else, or a store with another contract or format.
        ArrayDamageError: the existing store's manifest or metadata is damaged.
        LockedError: another writer is at work.
    """

    def __init__(self, folder: Path, contract: ArrayContract, settings: FormatSettings, fmt: ArrayFormat) -> None:
        self._folder, self._format = folder, fmt
        self._metadata = Metadata(contract, settings, 0)
        self._shard: list[EncodedSample] = []  # samples of the last file while it is not full
        self._shard_places: dict[str, int] = {}
        self._shard_elements = 0
        self._shard_name = ""
        self._shard_is_dirty = False
        self._failed = False
        folder.mkdir(parents=True, exist_ok=True)
        _refuse_another_store(folder, contract, settings)
        self._journal = Journal(folder)
        try:
            for path in leftovers(folder):
                path.unlink()
            if not (folder / METADATA).exists():
                write_manifest(folder, Catalogue())
                write_metadata(folder, self._metadata)  # last: a store that has it has a manifest, or lost it
            self.catalogue: Catalogue = read_state(folder).catalogue
            write_manifest(folder, self.catalogue)
            self._journal.clear()
        except BaseException:
            self._journal.release()
            raise
        self._files = VerifiedFiles(folder, fmt)

    @property
    def has_failed(self) -> bool:
        """Whether a write was cut short, after which nothing more is written."""
        return self._failed

    def content(self, file_id: str) -> str | None:
        """The checksum of what is saved under an id, or None."""
        if file_id in self._shard_places:
            return self._shard[self._shard_places[file_id]].stored.content
        return self.catalogue.sample(file_id).content if file_id in self.catalogue else None

    def unwritten(self) -> list[str]:
        """The ids that no file holds yet, in order."""
        return [file_id for file_id in self._shard_places if file_id not in self.catalogue]

    def place(self, encoded: EncodedSample) -> None:
        """Put the next sample into its file, or into the shard that is not full yet; an id that exists is replaced.

        Raises:
            OSError: the disk is full or the folder gone.
            ArrayDamageError: the shard that has to be written again is damaged.
        """
        self.check()
        self._continue_last_shard()
        file_id = encoded.stored.file_id
        if file_id in self._shard_places:
            place = self._shard_places[file_id]
            self._shard_elements -= self._shard[place].stored.elements
            self._shard[place] = encoded
        elif file_id in self.catalogue:
            self._rewrite(encoded)
            return
        else:
            if not self._shard:
                self._shard_name = self._format.file_name(file_id, len(self.catalogue.files), self.catalogue.has_name)
            self._shard_places[file_id] = len(self._shard)
            self._shard.append(encoded)
        self._shard_elements += encoded.stored.elements
        self._shard_is_dirty = True
        if self._format.is_full(len(self._shard), self._shard_elements):
            self.flush()
            self._forget_shard()

    def flush(self) -> None:
        """Put the shard on disk as it is now; it is written again as it grows.

        Raises:
            OSError: the disk is full or the folder gone.
        """
        self.check()
        if self._shard_is_dirty:
            self._write_file(self._shard_name, self._shard)
            self._shard_is_dirty = False

    def close(self) -> None:
        """Write what is left, the manifest and the count, and remove the journal.

        Raises:
            ArrayStoreError: writing had failed before; the journal stays.
            OSError: the disk is full or the folder gone; the journal stays.
        """
        try:
            self.flush()
            write_manifest(self._folder, self.catalogue)
            count = len(self.catalogue)
            write_metadata(self._folder, Metadata(self._metadata.contract, self._metadata.settings, count))
            # the journal goes last: while it is there, the store counts as unfinished and its lines as true
            self._journal.remove()
        finally:
            self._release()

    def abandon(self) -> None:
        """Put on disk what is there and leave the journal, which says that the set is unfinished; raises nothing."""
        with contextlib.suppress(Exception):  # called while another exception is on its way, which must not be hidden
            self.flush()
        self._release()

    def discard_damaged(self) -> list[str]:
        """Forget and delete the files that are missing or have another checksum than they should.

        Returns:
            The ids that the store no longer holds.
        """
        self.flush()
        self._forget_shard()
        damaged = [file for file in self.catalogue.files.values() if not is_in_place(self._folder, file)]
        for file in damaged:
            self.catalogue.drop(file.name)
        # the manifest first: a deleted file that it still named could not be told from a lost one
        write_manifest(self._folder, self.catalogue)
        self._journal.clear()
        for file in damaged:
            (self._folder / file.name).unlink(missing_ok=True)
        return [sample.file_id for file in damaged for sample in file.samples]

    def check(self) -> None:
        """Raise ArrayStoreError after a write was cut short."""
        if self._failed:
            raise ArrayStoreError(
                f"{self._folder}: writing has failed before",
                hint="Open the folder again with ArrayStore(folder, contract) and save what is missing.",
            )

    def _continue_last_shard(self) -> None:
        if self._shard or not self.catalogue.files:
            return
        last = next(reversed(self.catalogue.files.values()))
        elements = sum(sample.elements for sample in last.samples)
        if not self._format.is_full(len(last.samples), elements):
            self._shard_elements = elements
            self._shard = [self._format.encode(self._files.sample(last, place)) for place in range(len(last.samples))]
            self._shard_places = {sample.file_id: place for place, sample in enumerate(last.samples)}
            self._shard_name = last.name

    def _rewrite(self, encoded: EncodedSample) -> None:
        name, place = self.catalogue.place(encoded.stored.file_id)
        file = self.catalogue.files[name]
        samples = [
            encoded if position == place else self._format.encode(self._files.sample(file, position))
            for position in range(len(file.samples))
        ]
        self._write_file(name, samples)

    def _write_file(self, name: str, samples: Sequence[EncodedSample]) -> None:
        data = self._format.assemble(samples)
        checksum = f"blake3:{content_digest(data).hex()}"
        file = StoredFile(name, checksum, tuple(sample.stored for sample in samples))
        self._failed = True  # only the journal's last line may lack its file: nothing is appended after a failure
        self._journal.append(file, durable=name in self.catalogue.files)
        with replacing(self._folder / name) as stream:
            stream.write(data)
        self.catalogue.put(file)
        self._failed = False

    def _forget_shard(self) -> None:
        self._shard, self._shard_places, self._shard_elements = [], {}, 0
        self._shard_name, self._shard_is_dirty = "", False

    def _release(self) -> None:
        self._journal.release()
        self._files.close()
        self._forget_shard()


def _refuse_another_store(folder: Path, contract: ArrayContract, settings: FormatSettings) -> None:
    if not (folder / METADATA).exists():
        # what a kill before the metadata leaves
        begun = {JOURNAL, MANIFEST, *(path.name for path in leftovers(folder))}
        if others := sorted(path.name for path in folder.iterdir() if path.name not in begun):
            raise ArrayStoreError(
                f"{folder} is no array store and not empty: it holds {others[0]}", hint="Write to a folder of its own."
            )
        return
    existing = read_metadata(folder)
    wanted, found = _described(contract, settings), _described(existing.contract, existing.settings)
    for part, value in found.items():
        if wanted[part] != value:
            raise ArrayStoreError(
                f"{folder} holds a store with {part}={value!r}, not {wanted[part]!r}",
                hint="Open it with the same contract and format, or write to another folder.",
            )


def _described(contract: ArrayContract, settings: FormatSettings) -> dict[str, object]:
    return {
        **vars(contract),
        "file_format": settings.name,
        "compression_level": settings.compression_level,
        "shard_bytes": settings.shard_bytes,
    }
