"""What DVC's files in git history and in the workspace name.

Commits are read best known first, and every tree and every file only where it is first met: the history of a file that
did not change costs nothing, and what is first met is met under its best name.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.errors import IntegrityError
from holdfast.repo.answers import Answer, digest_of, place_of
from holdfast.repo.answers import Sighting as Sighting
from holdfast.repo.dvcfiles import DVC_SUFFIX, LOCK_FILE, PIPELINE_FILE, UnreadableFileError
from holdfast.repo.gitfolder import GitFolder, RefState, git_folder_of
from holdfast.repo.objects import GitObjects
from holdfast.repo.recordcache import RecordCache
from holdfast.repo.records import DamagedFileError, MissingObjectError, Named, Records, file_key, reads
from holdfast.repo.refs import Origin, list_tips, order_commits, reflog_commits, unreadable
from holdfast.repo.refs import UnknownRevisionError as UnknownRevisionError
from holdfast.repo.roots import EVERYTHING, Roots
from holdfast.repo.workspace import DVC_FOLDER

if TYPE_CHECKING:
    import pygit2

_SKIPPED_FOLDERS = frozenset({".git", DVC_FOLDER, "node_modules", "__pycache__"})
_VENV_MARK = "pyvenv.cfg"
_FILES_OF = "files of "  # what the answer with a repository's loose files is kept under


class UnreadableDvcFileError(IntegrityError):
    """A DVC file in a commit or in the workspace cannot be read, so what it names is unknown."""


class HistoryReader:
    """Reads the DVC files of a repository; each distinct tree and file once, in the order in which it is asked.

    What commits say is yielded where it is first met: an out of a file once, in the best place.

    Args:
        repository: what to read; a `GitFolder` is opened only where its objects are needed.
        cache: the file that remembers what commits said; None for none. `close` writes what is new.

    Raises, in every method:
        UnreadableDvcFileError: a file is not what its name says; names commit and path.
        UnreadableRefError: a ref, commit, tree or blob cannot be read.
    """

    def __init__(self, repository: "pygit2.Repository | GitFolder", cache: Path | None = None) -> None:
        self.folder = repository if isinstance(repository, GitFolder) else git_folder_of(repository)
        self.reached: set[str] = set()
        self._cache = RecordCache(cache)
        self.objects = GitObjects(self.folder, self._cache.commits, self._cache.peeled, self._cache.load)
        self._folders: set[int] = set()
        self._files: set[int] = set()
        self._met: set[int] = set()  # outs, by number
        # the answer that was given, whose outs have no numbers yet, and the one to keep
        self._given = Answer()
        self._found: tuple[str, bytes, Answer] | None = None
        # files of workspace and index
        self._known_files: dict[str, list[Named]] | None = None
        self._used_files: dict[str, list[Named]] = {}

    def read_revision(self, revision: str) -> Iterator[Sighting]:
        """What one commit says, named in any way that git understands: a branch, a tag, ``HEAD~2``, a hash.

        Raises besides:
            UnknownRevisionError: there is no such commit.
        """
        roots = Roots(workspace=False, revisions=(revision,))
        tips = [] if self.objects.find_revision(revision) else list_tips(self.folder, self.objects)
        for origin in order_commits(self.objects, tips, roots):
            yield from self._read_commit(origin)

    def read_refs(self, roots: Roots = EVERYTHING) -> Iterator[Sighting]:
        """What every commit says that is chosen; by default all that a branch, tag, experiment, stash or other ref
        reaches.

        Raises besides:
            UnknownRevisionError: git and DVC know no such revision.
            UsageError: the date is none.
        """
        state = self.folder.state()
        kept = self._kept_answer(state, roots)
        yield from self._read_refs(state, roots, Answer()) if kept is None else kept

    def answer_refs(self, roots: Roots = EVERYTHING) -> Answer:
        """What `read_refs` yields, as one answer, of which only that is made which is asked for.

        Raises besides:
            UnknownRevisionError, UsageError: as of `read_refs`.
        """
        state = self.folder.state()
        answer = self._kept_answer(state, roots)
        if answer is None:
            answer = Answer()
            for _ in self._read_refs(state, roots, answer):
                pass
        return answer

    def read_reflogs(self) -> Iterator[Sighting]:
        """What commits say that only a reflog reaches; those that cannot be read are passed over. After `read_refs`."""
        for origin in reflog_commits(self.folder, self.objects, self.reached):
            try:
                yield from self._read_commit(origin)
            except IntegrityError:
                continue  # git may have pruned half of it, and nothing rests on it

    def read_index(self) -> Iterator[Sighting]:
        """What is staged for the next commit, whatever commits said."""
        origin = Origin("workspace", "staged")
        found: list[Named] = []
        for path, blob, definition in self._cache.staged(self.folder):
            with _told(origin, self.folder):
                found += self._file(path, blob, definition, partial(self._blob, path))
        for entry in dict.fromkeys(found):
            yield Sighting(entry.out, entry.file, origin, entry.version)

    def read_workspace(self) -> "Workspace":
        """What the working tree and the repository's other worktrees say, as `read_workspace`; not what is staged."""
        result = Workspace([], [])
        if self.folder.worktree is not None:
            ignored = lambda path: self.folder.repository.path_is_ignored(path)  # noqa: E731
            self._read_worktree(self.folder.worktree, Origin("workspace", ""), result, ignored)
            for name, folder in self.folder.worktrees().items():
                self._read_worktree(folder, Origin("workspace", name), result, None)
        return result

    def close(self) -> None:
        """Write down what was found out, for the next time."""
        if self._found is not None:
            self._cache.keep_answer(*self._found)
        if self._known_files is not None and self._used_files.keys() - self._known_files.keys():
            self._cache.keep_answer(_FILES_OF + str(self.folder.path), b"", Answer(files=self._used_files))
        self._cache.save(self.objects)

    def _keeps_answer(self, roots: Roots) -> bool:
        # what a revision's name leads to may change where no ref does, a limit that moves with the clock never comes
        # again, and an answer tells all, met before or not
        return not roots.revisions and roots.since is None and not self._met and not len(self._given)

    def _kept_answer(self, state: RefState, roots: Roots) -> Answer | None:
        """The answer of an earlier time, where refs are as they were."""
        if not self._keeps_answer(roots):
            return None
        answer = self._cache.answer(place_of(self.folder, roots), digest_of(state))
        if answer is not None:
            self.reached.update(answer.reached)
            self._given = answer
        return answer

    def _read_refs(self, state: RefState, roots: Roots, answer: Answer) -> Iterator[Sighting]:
        """What every commit says that is chosen, which goes into ``answer``, too."""
        keeps = self._keeps_answer(roots)
        for origin in order_commits(self.objects, list_tips(self.folder, self.objects, state), roots):
            self.reached.add(origin.commit)
            answer.reached.append(origin.commit)
            for entry in self._read_entries(origin):
                yield answer.add(entry, origin)
        if keeps:
            self._found = (place_of(self.folder, roots), digest_of(state), answer)

    def _read_commit(self, origin: Origin) -> Iterator[Sighting]:
        for entry in self._read_entries(origin):
            yield Sighting(entry.out, entry.file, origin, entry.version)

    def _read_entries(self, origin: Origin) -> Iterator[Named]:
        records = self._records()
        with _told(origin, self.folder):
            commit = self.objects.find_commit(origin.commit)
            if commit is None:
                raise MissingObjectError(f"commit {origin.commit}", "commit")
            top = records.top(self.objects, commit.tree)
        named, met = records.named, self._met
        stack = [top]
        while stack:
            folder = stack.pop()
            if folder in self._folders:
                continue
            self._folders.add(folder)
            files, below = records.folders[folder]
            for file in files:
                if file not in self._files:
                    self._files.add(file)
                    for number in records.files[file]:
                        if number not in met:
                            met.add(number)
                            yield named[number]
            stack += below

    def _records(self) -> Records:
        """What is known of trees and files; what an answer told counts as met there."""
        records = self._cache.load()
        for entry in self._given.named:
            self._met.add(records.number(entry))
        self._given = Answer()
        return records

    def _file(self, path: str, blob: str, definition: str, read: Callable[[str], bytes]) -> list[Named]:
        """The outs of a DVC file that need not be in any commit."""
        if self._known_files is None:
            kept = self._cache.answer(_FILES_OF + str(self.folder.path), b"")
            self._known_files = {} if kept is None else kept.files
        key = file_key(path, blob, definition)
        if key not in self._used_files:
            found = self._known_files.get(key)
            if found is None:
                records = self._cache.load()
                number = records.file(path, blob, definition, read)
                found = [records.named[index] for index in records.files[number]]
            self._used_files[key] = found
        return self._used_files[key]

    def _blob(self, path: str, oid: str) -> bytes:
        data = self.objects.read_blob(oid)
        if data is None:
            raise MissingObjectError(path, "blob")
        return data

    def _read_worktree(
        self, top: Path, origin: Origin, result: "Workspace", ignored: Callable[[str], bool] | None
    ) -> None:
        def refuse(error: OSError) -> None:
            raise UnreadableDvcFileError(f"{error.filename}: {error.strerror}", hint="Its DVC files may name objects")

        tracked: set[str] = set()
        start = len(str(top)) + 1
        for where, folders, files in os.walk(top, onerror=refuse):
            folder = where[start:].replace(os.sep, "/")
            if _VENV_MARK in files:
                folders.clear()
                continue
            if DVC_FOLDER in folders and not origin.ref:
                result.projects.append(folder)
            for name in sorted(name for name in files if reads(folder, name)):
                path = f"{folder}/{name}" if folder else name
                try:
                    found = self._read_path(where, path, name, origin)
                except UnreadableDvcFileError:
                    if ignored and ignored(path):
                        continue
                    raise
                result.sightings.extend(found)
                if name.endswith(DVC_SUFFIX):
                    tracked.update(sighting.out.path for sighting in found)
            folders[:] = sorted(
                name
                for name in folders
                if name not in _SKIPPED_FOLDERS and (f"{folder}/{name}" if folder else name) not in tracked
            )

    def _read_path(self, where: str, path: str, name: str, origin: Origin) -> list[Sighting]:
        place = f"{where}/{name}"
        contents: dict[str, bytes] = {}

        def take(place: str) -> str:
            data = Path(place).read_bytes()
            # git's id of such a file, so that one which is committed is known already
            oid = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
            contents[oid] = data
            return oid

        try:
            blob = take(place)
            sibling = f"{where}/{PIPELINE_FILE}"
            definition = take(sibling) if name == LOCK_FILE and Path(sibling).is_file() else ""
        except FileNotFoundError:
            return []  # gone since the folder was listed, or a link to nowhere
        except OSError as error:
            raise UnreadableDvcFileError(f"{place}: {error.strerror}", hint="It may name objects") from error
        with _told(origin, self.folder):
            found = self._file(path, blob, definition, contents.__getitem__)
        return [Sighting(entry.out, entry.file, origin, entry.version) for entry in found]


@dataclass(frozen=True)
class Workspace:
    """What the files of a working tree name now, committed or not.

    Args:
        sightings: one for each out.
        projects: folders with ``.dvc/``, from the git root; empty for the root itself.
    """

    sightings: list[Sighting]
    projects: list[str]


def read_workspace(repository: "pygit2.Repository") -> Workspace:
    """Read the DVC files of the working tree and of the repository's other worktrees.

    Git's and DVC's own folders, virtual environments and the folders that ``*.dvc`` files track are not entered. A
    file that is ignored by git and no DVC file in spite of its name is passed over, as DVC does.

    Raises:
        UnreadableDvcFileError: a file or folder cannot be read.
    """
    return HistoryReader(repository).read_workspace()


class _told:  # noqa: N801 - used as a function
    """What could not be read, as an error that says where."""

    def __init__(self, origin: Origin, folder: GitFolder) -> None:
        self._origin = origin
        self._folder = folder

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, DamagedFileError):
            raise unreadable_file(error.path, self._origin, error.reason) from error
        if isinstance(error, MissingObjectError):
            commit = self._origin.commit
            place = f"{error.what}{f' in commit {commit}' if commit and error.kind != 'commit' else ''}"
            what = ValueError(f"its {error.kind} is missing or damaged")
            raise unreadable(place, self._origin, what, self._folder.promisor) from error
        if isinstance(error, RecursionError):
            what = ValueError("its folders nest too deeply")
            raise unreadable(f"commit {self._origin.commit}", self._origin, what) from error


def unreadable_file(path: str, origin: Origin, error: UnreadableFileError) -> UnreadableDvcFileError:
    """The error for a DVC file of ``origin`` that is not what its name says."""
    if origin.kind == "workspace":
        return UnreadableDvcFileError(f"{path} cannot be read: {error}", hint=f"Mend it, or `git checkout -- {path}`")
    short = origin.commit[:8]
    behind = f", {origin.back} behind" if origin.back else ""
    return UnreadableDvcFileError(
        f"{path} in commit {short} ({origin.ref}{behind}) cannot be read: {error}",
        hint=f"See `git show {short}:{path}`. If nobody needs {origin.ref}, delete it, else rewrite the commit",
    )
