"""Other repositories whose projects share a cache or remote with ours: their objects are in use, too."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from holdfast.errors import HoldfastError, IntegrityError
from holdfast.repo.gitfolder import GitFolder, find_git_folder
from holdfast.repo.history import HistoryReader, Sighting
from holdfast.repo.workspace import find_git_root


class UnreadableOtherError(IntegrityError):
    """Another repository cannot be read, so which objects it needs is unknown."""


@dataclass(frozen=True)
class OtherRepository:
    """Another git repository.

    Args:
        name: its path as it is configured.
        folder: its git folder.
    """

    name: str
    folder: GitFolder


def other_repositories(root: Path, paths: Sequence[str]) -> list[OtherRepository]:
    """The repositories that a project names: clones (or folders in them) and bare repositories.

    Args:
        root: the project's folder; paths are seen from there.
        paths: as they are configured.

    Raises:
        UnreadableOtherError: one is missing, or of a kind that cannot be read; names it.
    """
    found = []
    for path in paths:
        with _named(path):
            place = (root / Path(path).expanduser()).resolve()
            if not place.is_dir():
                raise HoldfastError(f"there is no folder {place}")
            bare = (place / "HEAD").is_file() and (place / "objects").is_dir()
            found.append(OtherRepository(path, find_git_folder(place if bare else find_git_root(place) or place)))
    return found


def read_other(other: OtherRepository, cache: Path | None = None) -> Iterator[Sighting]:
    """All that another repository names: in its workspace, its index, and every commit that a ref of it reaches.

    Paths are seen from its own root, and its name stands before those of refs.

    Args:
        other: from `other_repositories`.
        cache: see `HistoryReader`; it may be the one of our own project.

    Raises:
        UnreadableOtherError: something of it cannot be read; names it.
    """
    with _named(other.name):
        reader = HistoryReader(other.folder, cache)
        for part in (reader.read_workspace().sightings, reader.read_refs(), reader.read_index()):
            for sighting in part:
                origin = sighting.origin._replace(ref=f"{other.name}: {sighting.origin.ref or 'workspace'}")
                yield sighting._replace(origin=origin)
        reader.close()


def submodules(folder: GitFolder) -> list[str]:
    """Submodules of the working tree, by path; they are repositories of their own and are not read."""
    return folder.submodules()


@contextmanager
def _named(name: str) -> Iterator[None]:
    try:
        yield
    except UnreadableOtherError:
        raise
    except (HoldfastError, OSError) as error:
        told = error.message if isinstance(error, HoldfastError) else str(error)
        hint = error.hint if isinstance(error, HoldfastError) and error.hint else "Mend it"
        raise UnreadableOtherError(
            f"the repository {name} (`repos:` in holdfast.yaml) cannot be read: {told}",
            hint=f"{hint}; or take it out of `repos:` if it no longer shares objects with this project",
        ) from error
