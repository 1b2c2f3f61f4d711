"""What a clone is called where several of them share a store."""

import contextlib
import os
import re
import secrets

from holdfast.atomic import create_exclusively
from holdfast.repo.gitfolder import find_git_folder
from holdfast.repo.workspace import Project

_ID = re.compile(r"[0-9a-f]{32}")


def clone_id(project: Project) -> str:
    """The clone's id: 32 hex digits, drawn by lot once and kept in its git folder; its worktrees have the same.

    It is no part of what is cloned. One whose folder was copied or moved gets another one, too, since what it needs is
    its own from then on.

    Raises:
        OSError: the git folder cannot be written.
    """
    folder = find_git_folder(project.git_root).common
    path = folder / "holdfast" / "clone"
    while True:
        try:
            known, _, place = path.read_text(encoding="utf-8", errors="surrogateescape").rstrip("\n").partition(" ")
        except FileNotFoundError:
            path.parent.mkdir(exist_ok=True)
            # where another process was first, its id is read
            with contextlib.suppress(FileExistsError):
                create_exclusively(path, os.fsencode(f"{secrets.token_hex(16)} {folder}\n"))
            continue
        if _ID.fullmatch(known) and place == str(folder):
            return known
        # what the old one registered stays until it is forgotten
        path.unlink(missing_ok=True)
