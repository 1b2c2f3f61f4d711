"""Where the project is: the folder with ``.dvc/``, the git repository around it."""

from dataclasses import dataclass
from pathlib import Path

from holdfast.errors import NotARepositoryError

DVC_FOLDER = ".dvc"
CONFIG_FILE = "holdfast.yaml"
_TOPS = (".git", DVC_FOLDER)


@dataclass(frozen=True)
class Project:
    """A DVC project in a git repository; all paths are absolute.

    Args:
        root: the folder that holds ``.dvc/``.
        git_root: the top of the git working tree, at or above ``root``.
    """

    root: Path
    git_root: Path

    @property
    def prefix(self) -> str:
        """``root`` as seen from ``git_root``, with slashes; empty where they are the same folder."""
        relative = self.root.relative_to(self.git_root).as_posix()
        return "" if relative == "." else relative


def find_project(start: Path) -> Project:
    """The project at or above ``start``.

    As DVC does it, the nearest folder with ``.dvc/`` counts, so that a project in a sub-folder (``dvc init --subdir``)
    is its own; git's folder may be the same one or any above, and may be a linked worktree.

    Raises:
        NotARepositoryError: there is no ``.dvc/`` above ``start``, or no git repository around it.
    """
    start = start.resolve()
    root = next((folder for folder in (start, *start.parents) if (folder / DVC_FOLDER).is_dir()), None)
    git_root = find_git_root(root or start)
    if root is None:
        setup = "holdfast init" if git_root else "git init && holdfast init"
        raise NotARepositoryError(
            f"{start} is not inside a DVC project",
            hint=f"Run `{setup}` to make it one, or name the project's folder with `holdfast --cd DIR`",
        )
    if git_root is None:
        raise NotARepositoryError(
            f"the DVC project {root} is not inside a git repository, and its history is what Holdfast reads",
            hint="Run `git init` there, or name another folder with `holdfast --cd DIR`",
        )
    return Project(root, git_root)


def find_git_root(start: Path) -> Path | None:
    """The nearest folder at or above ``start`` that holds ``.git`` (a folder, or the file of a worktree), or None."""
    start = start.resolve()
    return next((folder for folder in (start, *start.parents) if (folder / ".git").exists()), None)


def find_config(folder: Path) -> Path | None:
    """The ``holdfast.yaml`` that counts for ``folder``: its own, else the nearest above in the repository.

    Outside of a repository only the folder's own counts.
    """
    here = folder.resolve()
    places = [here, *here.parents]
    top = next((place for place in places if any((place / mark).exists() for mark in _TOPS)), here)
    for place in places[: places.index(top) + 1]:
        if (place / CONFIG_FILE).is_file():
            return place / CONFIG_FILE
    return None
