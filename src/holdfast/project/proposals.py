"""What `holdfast init` would write: each file as it is and as it would be, with the reason."""

import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from holdfast.project.merging import NotMergedError

MAX_BYTES = 2**20


@dataclass(frozen=True)
class Proposal:
    """A file that would be written.

    Attributes:
        path: from the top of the working tree, with slashes.
        before: its bytes; None where there is no such file.
        after: the bytes that it would have.
        why: the reason, in words.
    """

    path: str
    before: bytes | None
    after: bytes
    why: str

    @property
    def is_new(self) -> bool:
        """Whether there is no such file."""
        return self.before is None

    def diff(self) -> str:
        """What would change, as git shows it."""
        old = (self.before or b"").decode(errors="replace").splitlines(keepends=True)
        new = self.after.decode(errors="replace").splitlines(keepends=True)
        source = "/dev/null" if self.is_new else f"a/{self.path}"
        lines = difflib.unified_diff(old, new, source, f"b/{self.path}")
        ended = (line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)
        return "".join(ended).replace("\r\n", "\n")


@dataclass(frozen=True)
class Left:
    """Something that is left for the user to do.

    Attributes:
        path: the file.
        why: why it is not written.
        add: what to add to it, or what else to do.
    """

    path: str
    why: str
    add: str


@dataclass
class Draft:
    """Collects proposals.

    Attributes:
        git_root: the top of the working tree.
        proposals: in the order in which they are written.
        left: what is not proposed, and why.
    """

    git_root: Path
    proposals: list[Proposal] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)

    def read(self, path: str) -> bytes | None:
        """The bytes that a file would have, or has; None where there is none.

        Raises:
            NotMergedError: it is no file that could be written; says why.
        """
        for proposal in self.proposals:
            if proposal.path == path:
                return proposal.after
        return _read(self.git_root, path)

    def create(self, path: str, text: str, why: str) -> None:
        """Propose a file where there is none; one that is there stays as it is."""
        try:
            if self.read(path) is None:
                self.proposals.append(Proposal(path, None, text.encode(), why))
        except NotMergedError as error:
            self.left.append(Left(path, error.message, why))

    def change(self, path: str, edit: Callable[[bytes], bytes], why: str, add: str) -> None:
        """Propose a file that is there with an addition, or a new one.

        Args:
            path: from the top of the working tree.
            edit: its bytes → the new ones, the same where nothing is to be added; empty ones are given for a new file.
                Raises `NotMergedError` where it cannot say.
            why: the reason.
            add: what the user is told to add where the file cannot be written.
        """
        try:
            before = self.read(path)
            after = edit(before or b"")
        except NotMergedError as error:
            self.left.append(Left(path, error.message, add))
            return
        if after != before:
            self.proposals.append(Proposal(path, before, after, why))

    def holds(self, path: str) -> bool:
        """Whether something, of whatever kind, is at a path, or would be."""
        return os.path.lexists(self.git_root / path) or any(item.path == path for item in self.proposals)


def _read(git_root: Path, path: str) -> bytes | None:
    place = git_root / path
    for folder in place.relative_to(git_root).parents:
        above = git_root / folder
        if above.is_symlink():
            raise NotMergedError(f"{folder} is a link")
        if above.exists() and not above.is_dir():
            raise NotMergedError(f"{folder} is a file, and must be a folder")
    if place.is_symlink():
        raise NotMergedError("it is a link")
    try:
        with open(place, "rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except IsADirectoryError as error:
        raise NotMergedError("it is a folder, and must be a file") from error
    except OSError as error:
        raise NotMergedError(f"it cannot be read ({error.strerror})") from error
    if len(data) > MAX_BYTES:
        raise NotMergedError(f"it is larger than {MAX_BYTES // 2**20} MiB")
    return data
