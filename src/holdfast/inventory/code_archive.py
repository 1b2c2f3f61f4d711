"""Legacy variants moved out of the way: a plan to look at, carried out as one commit that one revert undoes."""

import contextlib
import hashlib
import json
import stat
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from holdfast.atomic import write_atomically
from holdfast.errors import HoldfastError, StalePlanError, UsageError
from holdfast.inventory.code_imports import Resolver, Use, find_uses
from holdfast.inventory.code_modules import CodeTree, read_code
from holdfast.inventory.code_rewrite import (
    CannotRewriteError,
    Edit,
    Replacement,
    apply_edits,
    apply_to_notebook,
    cell_text,
    rewrite,
)
from holdfast.inventory.code_variants import judge
from holdfast.inventory.references import find_references

SCHEMA = 1
ARCHIVE = "archive"
NOTEBOOK = ".ipynb"


class UncommittedChangesError(HoldfastError):
    """Files that would change have changes that no commit holds."""


class CommitError(HoldfastError):
    """Git refuses the commit; everything is as it was."""


@dataclass(frozen=True, slots=True)
class Move:
    """A legacy module and where it goes, from the root; why, in words."""

    source: str
    target: str
    why: str


@dataclass(frozen=True, slots=True)
class Manual:
    """A use of a legacy module that a person must change before the module can go."""

    place: str
    module: str
    why: str


@dataclass(frozen=True)
class ArchivePlan:
    """What archiving would do.

    Args:
        root: the folder of code; not part of the plan's file.
        moves: legacy modules that nothing needs any more once the edits are made.
        edits: imports that take the canonical module instead.
        manual: uses that are not rewritten.
        held: legacy modules that stay for their sake.
        digests: SHA-256 of every file that would be touched.
    """

    root: Path
    moves: tuple[Move, ...]
    edits: tuple[Edit, ...]
    manual: tuple[Manual, ...]
    held: tuple[str, ...]
    digests: dict[str, str]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not self.moves and not self.edits

    def to_json(self) -> dict[str, Any]:
        """For ``json.dump``; `read_plan` reads it."""
        whole = asdict(self)
        del whole["root"]
        return {"schema": SCHEMA, "kind": "code archive"} | whole


def read_plan(root: Path, data: bytes) -> ArchivePlan:
    """A plan that was saved.

    Raises:
        UsageError: it is none.
    """
    try:
        saved = json.loads(data)
        if saved["schema"] != SCHEMA or saved["kind"] != "code archive":
            raise ValueError("it is another kind of plan")
        plan = ArchivePlan(
            root,
            tuple(Move(**item) for item in saved["moves"]),
            tuple(Edit(**item) for item in saved["edits"]),
            tuple(Manual(**item) for item in saved["manual"]),
            tuple(saved["held"]),
            {str(path): str(digest) for path, digest in saved["digests"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"the plan cannot be read: {error}", hint="Write one with `holdfast code archive --json`"
        ) from error
    for path in [*plan.digests, *(move.target for move in plan.moves)]:
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise UsageError(f"the plan names {path}, which is outside of {root}")
    if {*(move.source for move in plan.moves), *(edit.file for edit in plan.edits)} - set(plan.digests):
        raise UsageError("the plan changes files that it has no digest of", hint="Make a new one")
    return plan


def plan_archive(root: Path, *, canonical: Sequence[str] = (), folder: str = ARCHIVE) -> ArchivePlan:
    """What archiving the legacy variants below ``root`` would do; changes nothing.

    A legacy module moves only where every use of it can be rewritten, or moves with it.

    Args:
        root: a folder of code.
        canonical: see `find_variants`.
        folder: where legacy modules go, from ``root``.

    Raises:
        UsageError: the folder lies outside ``root``.
    """
    if PurePosixPath(folder).is_absolute() or ".." in PurePosixPath(folder).parts:
        raise UsageError(f"{folder} lies outside the code", hint="Name a folder from PATH, such as archive")
    tree = read_code(root)
    uses = find_uses(tree)
    report = judge(tree, uses, canonical=canonical)
    groups = [group for group in report.groups if group.certain]
    legacy = {v.path: (group.canonical.path, v) for group in groups for v in group.variants if v.status == "legacy"}
    planner = _Planner(tree, {path: wanted for path, (wanted, _) in legacy.items()}, uses)
    moving = planner.settle()
    moves = tuple(
        Move(path, (PurePosixPath(folder) / path).as_posix(), "; ".join(legacy[path][1].reasons))
        for path in sorted(moving)
    )
    held = tuple(sorted(set(legacy) - moving))
    edits = tuple(sorted(planner.edits, key=lambda edit: (edit.file, edit.cell or 0, edit.start)))
    touched = sorted({*moving, *(edit.file for edit in edits)})
    digests = {path: _digest(root / path) for path in touched}
    return ArchivePlan(root, moves, edits, tuple(planner.manual), held, digests)


class _Planner:
    def __init__(self, tree: CodeTree, legacy: dict[str, str], uses: Sequence[Use]) -> None:
        self._tree = tree
        self._legacy = legacy
        self._resolver = Resolver(tree.modules, tree.root.resolve().name)
        # what a package hands on is changed in the package
        self._uses = [use for use in uses if use.module in legacy and use.kind != "through package"]
        self.edits: list[Edit] = []
        self.manual: list[Manual] = []
        self._strings = self._paths_in_strings()

    def settle(self) -> set[str]:
        """The modules that can move: those that stay need what they import, so it goes round until nothing changes."""
        moving = set(self._legacy)
        while True:
            self.edits, self.manual = [], []
            blocked = {path for path in moving if not self._free(path, moving)}
            for path in set(self._legacy) - moving:
                self._free(path, moving)
            if not blocked:
                self.manual.sort(key=lambda item: (item.place, item.module))
                return moving
            moving -= blocked

    def _free(self, path: str, moving: set[str]) -> bool:
        """Whether nothing needs the module once its uses are rewritten; collects edits, and what hinders."""
        free = True
        for use in (
            use for use in self._uses if use.module == path and use.file not in moving and use.role != "archived"
        ):
            try:
                self.edits += [edit for edit in self._rewritten(use) if edit not in self.edits]
            except CannotRewriteError as error:
                self.manual.append(Manual(use.place, path, str(error)))
                free = False
        for place, file in self._strings.get(path, ()):
            if file not in moving:
                self.manual.append(Manual(place, path, "it is named by its path"))
                free = False
        return free

    def _rewritten(self, use: Use) -> list[Edit]:
        if use.kind == "config":
            raise CannotRewriteError(f"{use.text} is named there")
        data = (self._tree.root / use.file).read_bytes()
        try:
            text = data.decode()
        except UnicodeDecodeError:
            raise CannotRewriteError("the file is not UTF-8") from None
        canonical = self._tree.modules[self._legacy[use.module]]
        replacement = Replacement(use.module, canonical, self._resolver, self._tree.root.resolve().name)
        part = cell_text(text, use.cell) if use.cell is not None else text.removeprefix("\ufeff")
        edits = rewrite(part, use, replacement)
        if use.cell is not None:
            try:
                apply_to_notebook(text, edits)
            except (ValueError, KeyError, TypeError):
                raise CannotRewriteError("the notebook is written in a way that is not rewritten") from None
        return edits

    def _paths_in_strings(self) -> dict[str, list[tuple[str, str]]]:
        found: dict[str, list[tuple[str, str]]] = {}
        if not self._legacy:
            return found
        for reference in find_references(self._tree.root, self._legacy).references:
            # a configuration's mention is a use already
            if reference.how == "path" and reference.kind != "config":
                for target in reference.targets:
                    found.setdefault(target, []).append((reference.place, reference.file))
        return found


def apply_plan(plan: ArchivePlan, *, message: str = "Archive legacy variants") -> str:
    """Carry out a plan as one commit of the files that it names, and no others; the commit (40 hex digits).

    Where anything fails, every file is put back as it was.

    Raises:
        StalePlanError: a file has changed since the plan was made, or a target exists.
        UncommittedChangesError: a file that would change has changes that no commit holds, or is not tracked.
        CommitError: git refuses (a hook, a merge under way, no repository).
    """
    # imported here: 50 ms, which planning need not pay
    import git

    for path, digest in plan.digests.items():
        if not (plan.root / path).is_file() or _digest(plan.root / path) != digest:
            raise StalePlanError(f"{path} has changed since the plan was made", hint="Make a new plan")
    for move in plan.moves:
        if (plan.root / move.target).exists():
            raise StalePlanError(f"{move.target} exists already", hint="Choose another folder with --to")
    command = git.Git(plan.root)
    _refuse_uncommitted(command, sorted(plan.digests))
    before = {path: (plan.root / path).read_bytes() for path in plan.digests}
    paths = sorted({*plan.digests, *(move.target for move in plan.moves)})
    try:
        for path, data in _rewritten(plan, before).items():
            _write(plan.root / path, data)
        for move in plan.moves:
            (plan.root / move.target).parent.mkdir(parents=True, exist_ok=True)
            command.mv("--", move.source, move.target)
        # only these paths: what else is staged stays staged
        command.commit("--quiet", "-m", message, "--only", "--", *paths)
        return str(command.rev_parse("HEAD"))
    except BaseException as error:  # an interrupted one too
        _put_back(plan, before, command)
        if not isinstance(error, git.exc.GitCommandError | OSError | ValueError):
            raise
        reason = " ".join(str(getattr(error, "stderr", "") or error).split()).removeprefix("stderr: ")
        raise CommitError(f"nothing was archived: {reason}", hint="Everything is as it was") from error


def _refuse_uncommitted(command: Any, paths: list[str]) -> None:
    import git

    try:
        tracked = set(command.ls_files("-z", "--", *paths).split("\0"))
        changed = command.status("--porcelain", "--untracked-files=no", "--", *paths)
    except (git.exc.GitCommandError, git.exc.GitCommandNotFound) as error:
        raise CommitError(
            "the code is in no git repository that can be read", hint="Archiving is one commit; run `git init` first"
        ) from error
    unknown = [path for path in paths if path not in tracked]
    if unknown or changed:
        named = unknown or [line[3:] for line in changed.splitlines()]
        shown = ", ".join(named[:3]) + (f" and {len(named) - 3} more" if len(named) > 3 else "")
        what = "not tracked by git" if unknown else "changed since the last commit"
        raise UncommittedChangesError(
            f"{shown}: {what}", hint="Commit or stash first, so that a revert gives them back"
        )


def _rewritten(plan: ArchivePlan, before: dict[str, bytes]) -> dict[str, bytes]:
    result = {}
    for file in sorted({edit.file for edit in plan.edits}):
        text = before[file].decode()
        edits = [edit for edit in plan.edits if edit.file == file]
        mark = "\ufeff" if text.startswith("\ufeff") else ""
        if file.endswith(NOTEBOOK):
            result[file] = apply_to_notebook(text, edits).encode()
        else:
            result[file] = (mark + apply_edits(text.removeprefix(mark), edits)).encode()
    return result


def _put_back(plan: ArchivePlan, before: dict[str, bytes], command: Any) -> None:
    import git

    for move in plan.moves:
        (plan.root / move.target).unlink(missing_ok=True)
    for path, data in before.items():
        if not (plan.root / path).is_file() or (plan.root / path).read_bytes() != data:
            _write(plan.root / path, data)
    with contextlib.suppress(git.exc.GitCommandError):  # the files are back, whatever the index says
        command.reset("--quiet", "--", *sorted(before), *(move.target for move in plan.moves))
    for move in plan.moves:
        folder = (plan.root / move.target).parent
        while folder != plan.root and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
            folder = folder.parent


def _write(path: Path, data: bytes) -> None:
    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else None
    write_atomically(path, data)
    if mode is not None:
        path.chmod(mode)  # a script stays executable


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
