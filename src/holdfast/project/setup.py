"""What `holdfast init` proposes for a repository, writes, and how it is undone."""

import os
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from holdfast.atomic import write_atomically
from holdfast.errors import HoldfastError, StalePlanError, UsageError
from holdfast.project.collaboration import propose_hooks, propose_owners
from holdfast.project.configuration import configuration_text
from holdfast.project.dvc_files import FirstRemote, propose_dvc
from holdfast.project.git_state import ignored, uncommitted
from holdfast.project.merging import NotMergedError, with_item, with_lines
from holdfast.project.pipeline import Pipeline, propose_pipeline
from holdfast.project.proposals import Draft, Left, Proposal
from holdfast.project.survey import GITLAB_FILE, Survey
from holdfast.project.workflows import Service, WorkflowOptions, workflow_files
from holdfast.registry import FOLDER
from holdfast.repo.workspace import CONFIG_FILE

REGISTRY_TEXT = """# The model registry

One file a version, reviewed in pull requests: `<app>/<name>/v1.yaml`, and `model.yaml` with what is in use.
`holdfast registry --help` lists what writes here; `holdfast registry show` reads it.
"""
IGNORED_LINES = ("# what a writer of Holdfast's that was killed leaves behind", ".*.tmp", "/dvc_plots/")
WORKFLOWS = {
    ".github/workflows/model-report.yml": "workflow: a report on each pull request",
    ".github/workflows/gc.yml": "workflow: a plan of what could be collected",
    ".gitlab/holdfast.yml": "workflow: reports, and plans of what could be collected",
    GITLAB_FILE: "runs the workflow",
}
S3_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


class UncommittedError(HoldfastError):
    """Files that would be changed have changes that git could not bring back."""


@dataclass(frozen=True)
class Wishes:
    """What the user wants besides what is proposed anyway.

    Attributes:
        remote: the remote to begin with, where DVC has none.
        ci: who runs workflows; None for nobody.
        owner: who is to approve changes of the registry; None for whoever owns everything.
        author: who approves them where ``CODEOWNERS`` names nobody; None where unknown.
        pipeline: the stages to scaffold; None for none.
    """

    remote: FirstRemote
    ci: Service | None = None
    owner: str | None = None
    author: str | None = None
    pipeline: Pipeline | None = None


@dataclass(frozen=True)
class Setup:
    """What would be done.

    Attributes:
        git_root: the top of the working tree.
        proposals: the files, in the order in which they are written.
        left: what is left to the user.
        dirty: of the files that would be changed those that git could not bring back.
    """

    git_root: Path
    proposals: tuple[Proposal, ...]
    left: tuple[Left, ...]
    dirty: tuple[str, ...]

    def of(self, paths: set[str]) -> "Setup":
        """The same with some of the files alone."""
        chosen = tuple(item for item in self.proposals if item.path in paths)
        return Setup(self.git_root, chosen, self.left, tuple(path for path in self.dirty if path in paths))


def propose(survey: Survey, wishes: Wishes) -> Setup:
    """What would be written for a repository; nothing is.

    A file that is there is added to, where that leaves all of it as it is, or left as it is with a line that says what
    to add. What is there already is not proposed.

    Args:
        survey: what is in the repository.
        wishes: what the user wants.
    """
    draft = Draft(survey.git_root)
    remote = wishes.remote if not survey.remotes else None
    propose_dvc(draft, survey, remote)
    draft.create(f"{survey.prefix}{CONFIG_FILE}", configuration_text(survey), "settings of Holdfast, by what was found")
    if not _is_filled(survey.root / FOLDER):
        draft.create(f"{survey.prefix}{FOLDER}/README.md", REGISTRY_TEXT, "folder of the registry")
    propose_owners(draft, survey, wishes.owner, wishes.author)
    propose_hooks(draft, survey, push=remote is not None or survey.default_remote is not None)
    draft.change(
        f"{survey.prefix}.gitignore",
        lambda data: with_lines(data, IGNORED_LINES),
        "keeps temporary files out of git",
        f"the lines {', '.join(line for line in IGNORED_LINES if not line.startswith('#'))}",
    )
    if wishes.pipeline is not None:
        propose_pipeline(draft, survey, wishes.pipeline)
    if wishes.ci is not None:
        _propose_workflows(draft, survey, wishes.ci, remote)
    changed = [item.path for item in draft.proposals if not item.is_new]
    dirty = uncommitted(survey.git_root, changed)
    return Setup(survey.git_root, tuple(draft.proposals), tuple(draft.left), tuple(dirty))


def write(setup: Setup) -> None:
    """Write what is proposed, each file in one step. What was killed in the middle is completed by another `propose`.

    Raises:
        UncommittedError: a file that would be changed has changes that are not committed; nothing is written.
        StalePlanError: a file changed since the proposal was made; what comes after it is not written.
        OSError: a file cannot be written.
    """
    if setup.dirty:
        names = ", ".join(setup.dirty)
        verb = "has" if len(setup.dirty) == 1 else "have"
        raise UncommittedError(
            f"{names} {verb} changes that no commit has, and undoing would lose them; nothing is written",
            hint="Commit them first (`git add`, `git commit`), or `git stash` them",
        )
    check = Draft(setup.git_root)
    for proposal in setup.proposals:
        try:
            same = check.read(proposal.path) == proposal.before
        except NotMergedError:
            same = False
        if not same:
            raise StalePlanError(f"{proposal.path} was changed just now", hint="Run `holdfast init` again")
        place = setup.git_root / proposal.path
        mode = None if proposal.is_new else place.stat().st_mode & 0o7777
        write_atomically(place, proposal.after)
        if mode is not None:
            place.chmod(mode)


@dataclass(frozen=True)
class Footprint:
    """What a set-up touches, for git; to be taken before it is written.

    Attributes:
        git_root: the top of the working tree.
        changed: files that are added to.
        new: files and folders that were not there; of new folders in new folders the outermost.
        files: the new files.
    """

    git_root: Path
    changed: tuple[str, ...]
    new: tuple[str, ...]
    files: tuple[str, ...]

    def undo(self, start: Path) -> str:
        """The line that undoes it, for a shell in ``start``; to be asked for once it is written."""
        parts = []
        if self.changed:
            parts.append(f"git checkout -- {self._shown(self.changed, start)}")
        if self.new:
            # what git ignores goes only where a file of ours is ignored, and never DVC's cache
            force = "-fdx -e cache -e storage" if ignored(self.git_root, self.files) else "-fd"
            parts.append(f"git clean -q {force} -- {self._shown(self.new, start)}")
        return " && ".join(parts)

    def add(self, start: Path) -> str:
        """The line that adds it to git's index, for a shell in ``start``."""
        return f"git add -- {self._shown((*self.changed, *self.new), start)}"

    def _shown(self, paths: Iterable[str], start: Path) -> str:
        names = [os.path.relpath(self.git_root / path, start.resolve()) for path in paths]
        # git takes none of their characters for a pattern then
        return shlex.join(f":(literal){name}" if any(c in name for c in "*?[\\:") else name for name in names)


def footprint(setup: Setup) -> Footprint:
    """What a set-up that is not written yet will touch."""
    files = tuple(item.path for item in setup.proposals if item.is_new)
    changed = tuple(item.path for item in setup.proposals if not item.is_new)
    return Footprint(
        setup.git_root, changed, tuple(dict.fromkeys(_outermost(setup.git_root, path) for path in files)), files
    )


def _is_filled(folder: Path) -> bool:
    return folder.is_dir() and not folder.is_symlink() and any(folder.iterdir())


def _outermost(git_root: Path, path: str) -> str:
    """The outermost folder of a new file that is new, too; else the file."""
    folders = [folder.as_posix() for folder in reversed(PurePosixPath(path).parents) if folder != PurePosixPath()]
    return next((folder for folder in folders if not (git_root / folder).exists()), path)


def _propose_workflows(draft: Draft, survey: Survey, service: Service, remote: FirstRemote | None) -> None:
    url = remote.plan.url if remote is not None else survey.remotes.get(survey.default_remote or "", "")
    options = WorkflowOptions(
        # S3's keys, and no others: what else a remote may take is not known
        secrets={name: name for name in S3_KEYS} if url.startswith("s3://") else {},
        # a runner cannot reach a folder of this machine
        pull="dvc" if "://" in url else "",
        branch=survey.branch,
        folder=survey.prefix.rstrip("/") or ".",
    )
    try:
        files = workflow_files(service, options)
    except UsageError as error:
        draft.left.append(Left(f"the workflows of {service}", error.message, "docs/how-to/use-ci.md shows them"))
        return
    for path, text in files.items():
        if path == GITLAB_FILE and draft.holds(path):
            item = "local: .gitlab/holdfast.yml"
            draft.change(
                path,
                lambda data: data if b".gitlab/holdfast.yml" in data else with_item(data, "include", item),  # noqa: B023
                "includes the workflow",
                f"`include: [{{{item}}}]`",
            )
        else:
            draft.create(path, text, WORKFLOWS.get(path, "workflow"))
