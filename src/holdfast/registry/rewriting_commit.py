"""Rewritten references as files, and as one commit with what belongs to it, which one revert undoes.

The commit holds the paths that it is given and no others: what else is staged stays staged. Where git refuses, every
file and the index are put back. A process that was killed half-way leaves a journal in git's folder, with which
`undo_unfinished` puts the files back.
"""

import base64
import hashlib
import json
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from holdfast.atomic import write_atomically
from holdfast.errors import StalePlanError, UsageError
from holdfast.inventory.code_archive import CommitError, UncommittedChangesError
from holdfast.registry.rewriting import RewritePlan

JOURNAL = "holdfast-rewriting.json"
SHOWN_FILES = 3


def apply_rewrites(plan: RewritePlan) -> tuple[str, ...]:
    """Write the files of a plan, each in one step; the files. Where one cannot be written, all are put back.

    Raises:
        StalePlanError: a file has changed since the plan was made; nothing is written.
        OSError: a file cannot be written.
    """
    for rewrite in plan.rewrites:
        path = plan.root / rewrite.file
        if not path.is_file() or path.read_bytes() != rewrite.before:
            raise StalePlanError(f"{rewrite.file} has changed since the plan was made", hint="Make a new plan")
    try:
        for rewrite in plan.rewrites:
            _write(plan.root / rewrite.file, rewrite.after)
    except BaseException:  # an interrupted one too
        _put_back(plan)
        raise
    return plan.files


def commit_rewrites(plan: RewritePlan, message: str, *, also: Sequence[str] = ()) -> str:
    """Carry out a plan and commit its files together with others, and nothing else; the commit (40 hex digits).

    Args:
        plan: the files to rewrite; there may be none.
        message: of the commit.
        also: other files of the same change, from the root, as they are now: new, changed or gone. They stay as they
            are where git refuses.

    Raises:
        UsageError: there is nothing to commit, or a path leads out of the project.
        UncommittedChangesError: a file to be rewritten has changes that no commit holds, or is not tracked.
        StalePlanError: a file has changed since the plan was made, or an earlier rewriting was cut off and is undone
            now; nothing is written.
        CommitError: git refuses (a hook, a merge under way, an ignored file, no repository); all is as it was.
    """
    # imported here: 50 ms, which planning need not pay
    import git

    for path in also:
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise UsageError(f"{path} lies outside of the project")
    paths = sorted({*plan.files, *also})
    if not paths:
        raise UsageError("there is nothing to commit")
    if undo_unfinished(plan.root):
        raise StalePlanError("an earlier rewriting was cut off, and is undone now", hint="Make a new plan")
    refuse_uncommitted(plan.root, plan.files)
    command = _command(plan.root)
    index = command.ls_files("--stage", "-z", "--", *paths)
    journal = _journal(plan.root)
    head = _head(command)
    try:
        write_atomically(journal, _journal_text(plan))
        apply_rewrites(plan)
        if also:
            command.add("--all", "--", *also)
        command.commit("--quiet", "-m", message, "--only", "--", *paths)
    except BaseException as error:  # an interrupted one too
        refused = isinstance(error, git.exc.GitCommandError | OSError)
        # git may have made the commit before
        made = _head(command) != head and not command.diff("--name-only", "HEAD", "--", *paths)
        if not made:
            _put_back(plan)
            _restore_index(plan.root, paths, index)
        if not refused:
            raise
        if not made:
            raise CommitError(f"nothing was committed: {_reason(error)}", hint="Every file is as it was") from error
    finally:
        journal.unlink(missing_ok=True)
    return _head(command)


def undo_unfinished(root: Path) -> tuple[str, ...]:
    """Put back what a rewriting wrote that was killed before its commit; the files, none where there was none.

    Files that changed since are left as they are.

    Raises:
        CommitError: ``root`` is in no git repository that can be read, or a file cannot be written.
    """
    journal = _journal(root)
    if not journal.is_file():
        return ()
    put_back = []
    try:
        saved = json.loads(journal.read_bytes())
    except ValueError:
        saved = {}  # not ours: the journal is written in one step
    command = _command(root)
    try:
        for file, entry in saved.items():
            path = root / file
            changed = path.is_file() and command.diff("--name-only", "HEAD", "--", file)
            if changed and hashlib.sha256(path.read_bytes()).hexdigest() == entry["after"]:
                _write(path, base64.b64decode(entry["before"]))
                put_back.append(file)
        journal.unlink()
    except OSError as error:
        raise CommitError(f"an earlier rewriting was cut off, and cannot be undone: {error}") from error
    return tuple(put_back)


def refuse_uncommitted(root: Path, files: Sequence[str]) -> None:
    """Raise unless every file is as the checked-out commit has it.

    Raises:
        UncommittedChangesError: a file has changes that no commit holds, or is not tracked; it is named.
        CommitError: ``root`` is in no git repository that can be read.
    """
    import git  # imported here: see commit_rewrites

    if not files:
        return
    command = _command(root)
    try:
        tracked = set(command.ls_files("-z", "--", *files).split("\0"))
        unknown = [file for file in files if file not in tracked]
        changed = command.diff("--name-only", "-z", "--relative", "HEAD", "--", *files).strip("\0").split("\0")
    except (git.exc.GitCommandError, git.exc.GitCommandNotFound) as error:
        raise CommitError(
            f"git cannot say what has changed: {_reason(error)}",
            hint="Make a first commit, so that a revert can undo this",
        ) from error
    named = unknown or [file for file in changed if file]
    if named:
        more = f" and {len(named) - SHOWN_FILES} more" if len(named) > SHOWN_FILES else ""
        what = "not tracked by git" if unknown else "changed since the last commit"
        raise UncommittedChangesError(
            f"{', '.join(named[:SHOWN_FILES])}{more}: {what}",
            hint="Commit or stash first, so that a revert gives them back",
        )


def _command(root: Path) -> Any:
    import git  # imported here: see commit_rewrites

    command = git.Git(root)
    command.update_environment(GIT_LITERAL_PATHSPECS="1")  # names of files, not patterns
    return command


def _head(command: Any) -> str:
    """The checked-out commit; empty before the first."""
    import git  # imported here: see commit_rewrites

    try:
        return str(command.rev_parse("--verify", "--quiet", "HEAD"))
    except git.exc.GitCommandError:
        return ""


def _journal(root: Path) -> Path:
    import git  # imported here: see commit_rewrites

    try:
        return root / str(_command(root).rev_parse("--git-path", JOURNAL))
    except (git.exc.GitCommandError, git.exc.GitCommandNotFound) as error:
        raise CommitError(
            "the project is in no git repository that can be read",
            hint="Rewriting is one commit; run `git init` first",
        ) from error


def _journal_text(plan: RewritePlan) -> str:
    entries = {
        item.file: {
            "before": base64.b64encode(item.before).decode(),
            "after": hashlib.sha256(item.after).hexdigest(),
        }
        for item in plan.rewrites
    }
    return json.dumps(entries, indent=1)


def _put_back(plan: RewritePlan) -> None:
    for rewrite in plan.rewrites:
        path = plan.root / rewrite.file
        if path.is_file() and path.read_bytes() == rewrite.after:
            _write(path, rewrite.before)


def _restore_index(root: Path, paths: Sequence[str], before: str) -> None:
    """Give the index back what it had of the paths, and take out what it had not."""
    import git  # imported here: see commit_rewrites

    had = [line for line in before.split("\0") if line]
    known = {line.split("\t", 1)[1] for line in had}
    command = _command(root)
    try:
        now = {line.split("\t", 1)[1] for line in command.ls_files("--stage", "-z", "--", *paths).split("\0") if line}
        # at the top, as `update-index --index-info` takes names from there
        prefix = str(command.rev_parse("--show-prefix"))
        lines = [f"0 {'0' * 40}\t{prefix}{path}" for path in sorted(now - known)]
        lines += ["{0}\t{2}{1}".format(*line.split("\t", 1), prefix) for line in had]
        with tempfile.TemporaryFile() as stream:  # git takes no stream that is no file
            stream.write("".join(f"{line}\0" for line in lines).encode("utf-8", "surrogateescape"))
            stream.seek(0)
            command.update_index("-z", "--index-info", istream=stream)
    except git.exc.GitCommandError:
        pass  # the files are back, whatever the index says


def _write(path: Path, data: bytes) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    write_atomically(path, data)
    path.chmod(mode)  # a script stays executable


def _reason(error: BaseException) -> str:
    return " ".join(str(getattr(error, "stderr", "") or error).split()).removeprefix("stderr: ").strip("'")
