"""What git's remotes have and this clone has not: commits whose objects would look unused here."""

import os
import signal
import subprocess
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from holdfast.errors import HoldfastError
from holdfast.repo.gitfolder import find_git_folder

# branches, tags, experiments, and what others propose on GitHub and GitLab
PATTERNS = ("refs/heads/*", "refs/tags/*", "refs/exps/*", "refs/pull/*/head", "refs/merge-requests/*/head")
_OWN_EXPERIMENTS = ("refs/exps/exec/", "refs/exps/celery/")  # DVC's own of another clone


class UnreachableRemoteError(HoldfastError):
    """A git remote does not answer, so what it has cannot be known."""


@dataclass(frozen=True, slots=True)
class MissingCommit:
    """A commit that a remote offers and this clone lacks.

    Args:
        remote: the remote's name.
        ref: what it is called there.
        commit: 40 hex digits.
        command: what brings it.
    """

    remote: str
    ref: str
    commit: str
    command: str


def missing_commits(
    git_root: Path, *, timeout_seconds: float = 30.0, reached: Collection[str] | None = None
) -> list[MissingCommit]:
    """The commits that branches, tags, experiments, pull and merge requests of all remotes offer and that are not here.

    Args:
        git_root: the top of the working tree, or a bare repository.
        timeout_seconds: how long each remote may take to answer.
        reached: commits that refs here reach; one that is here but not among them counts as missing, since nothing
            keeps what it names. None to look for the object alone.

    Raises:
        UnreachableRemoteError: a remote does not answer; names it.
        ShallowCloneError, UnsupportedRepositoryError, UnreadableRefError: the repository cannot be read.
    """
    folder = find_git_folder(git_root)
    found: list[MissingCommit] = []
    for remote in _run(git_root, ["remote"], timeout_seconds).splitlines():
        offered = dict(_offered(git_root, remote, timeout_seconds))
        for ref, oid in offered.items():
            # of an annotated tag both are told, the tag itself and the commit behind it
            here = oid in folder.repository and (reached is None or ref + "^{}" in offered or oid in reached)
            if not here:
                name = ref.removesuffix("^{}")
                found.append(MissingCommit(remote, name, oid, fetch_command(remote, name)))
    return found


def fetch_command(remote: str, ref: str) -> str:
    """The command that brings a remote's ref, and all others of its kind, to where they count as branches."""
    kind = next((pattern for pattern in PATTERNS if ref.startswith(pattern.split("*")[0])), ref)
    if kind == "refs/exps/*":
        return f"git fetch {remote} '+{kind}:{kind}'"
    places = {"refs/heads/*": "*", "refs/tags/*": "tags/*", "refs/pull/*/head": "pull/*"}
    return f"git fetch {remote} '+{kind}:refs/remotes/{remote}/{places.get(kind, 'merge-requests/*')}'"


def _offered(git_root: Path, remote: str, timeout_seconds: float) -> Iterator[tuple[str, str]]:
    try:
        lines = _run(git_root, ["ls-remote", remote, *PATTERNS], timeout_seconds).splitlines()
    except UnreachableRemoteError as error:
        raise UnreachableRemoteError(
            f"the git remote {remote} does not answer: {error.message}",
            hint=f"`git remote get-url {remote}` shows where it is; `git remote remove {remote}` ends it",
        ) from error
    for line in lines:
        oid, _, ref = line.partition("\t")
        if not ref.startswith(_OWN_EXPERIMENTS):
            yield ref, oid


def _run(git_root: Path, arguments: list[str], timeout_seconds: float) -> str:
    # in a session of its own git has no terminal to ask for a password on, and is ended with all that it has started
    with subprocess.Popen(
        ["git", "-C", str(git_root), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            output, told = process.communicate(timeout=timeout_seconds)
        except subprocess.TimeoutExpired as error:
            os.killpg(process.pid, signal.SIGKILL)
            raise UnreachableRemoteError(f"no answer within {timeout_seconds:g} s") from error
    if process.returncode:
        lines = told.decode("utf-8", "replace").splitlines() or [f"git ended with {process.returncode}"]
        raise UnreachableRemoteError(lines[0].removeprefix("fatal: "))
    return output.decode("utf-8", "replace")
