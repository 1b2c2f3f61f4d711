"""Which parts of git and of the workspace keep objects alive: the choice that `dvc gc` offers, and more."""

from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase

from holdfast.errors import UsageError


@dataclass(frozen=True, slots=True)
class Roots:
    """What is meant by "in use". Everything that is chosen counts; nothing chosen takes away what something else chose.

    The first nine are the options of ``dvc gc`` and mean what they mean there.

    Args:
        workspace: the files of the working tree, and of the repository's other working trees.
        all_branches: the tips of local branches; with ``num`` as many commits of each, along first parents.
        all_tags: what tags point to.
        all_commits: all that the current commit, a branch, a remote's branch or a tag reaches.
        all_experiments: the commits of every experiment, up to the commit that it started from.
        date: ``YYYY-MM-DD``: commits among ``all_commits`` that were committed on or after that day, local time.
        revisions: commits named in any way that git or DVC understands.
        num: commits for each revision (and branch, with ``all_branches``) along first parents; -1 for all.
        branches: patterns of local and remote branches (``main``, ``release/*``, ``origin/*``), as `fnmatch` has them.
        without_branches: patterns that take branches out of ``branches``.
        tags: patterns of tags.
        without_tags: patterns that take tags out of ``tags``.
        since: of the commits behind the tips that are chosen those that were committed at that time or later, seconds
            since 1970.
        forgotten: what DVC does not look at: the index, stashes, the queue of experiments and those that failed, the
            heads of all worktrees and of merges under way, every other ref.
        behind: also every commit behind the tips that are chosen.
    """

    workspace: bool = True
    all_branches: bool = False
    all_tags: bool = False
    all_commits: bool = False
    all_experiments: bool = False
    date: str | None = None
    revisions: tuple[str, ...] = ()
    num: int = 1
    branches: tuple[str, ...] = ()
    without_branches: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    without_tags: tuple[str, ...] = ()
    since: float | None = None
    forgotten: bool = False
    behind: bool = False

    @property
    def day(self) -> float | None:
        """The time at which ``date`` begins, seconds since 1970; None where there is none.

        Raises:
            UsageError: ``date`` is no day.
        """
        if self.date is None:
            return None
        try:
            return datetime.strptime(self.date, "%Y-%m-%d").timestamp()
        except (ValueError, OverflowError) as error:
            raise UsageError(f"{self.date!r} is no day", hint="Write it as YYYY-MM-DD") from error

    def chooses_ref(self, name: str) -> bool:
        """Whether the tip of a ref counts for its name; ``name`` is the whole one, or that of a head (``HEAD``)."""
        if name.startswith("refs/heads/"):
            return self.all_branches or self._chooses_branch(name.removeprefix("refs/heads/"))
        if name.startswith("refs/remotes/"):
            return self._chooses_branch(name.removeprefix("refs/remotes/"))
        if name.startswith("refs/tags/"):
            short = name.removeprefix("refs/tags/")
            return self.all_tags or (_matches(short, self.tags) and not _matches(short, self.without_tags))
        return self.forgotten

    def _chooses_branch(self, short: str) -> bool:
        return _matches(short, self.branches) and not _matches(short, self.without_branches)


# nothing that may be needed is left out
EVERYTHING = Roots(all_commits=True, all_experiments=True, forgotten=True, behind=True)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
