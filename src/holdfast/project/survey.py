"""What is in a git repository before it is set up: models, runs, remotes, and what other tools left."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from holdfast.inventory.models import ScanReport
from holdfast.inventory.run_verdicts import Sorting
from holdfast.project.git_state import big_files
from holdfast.repo.git_commands import run_git
from holdfast.repo.workspace import CONFIG_FILE, DVC_FOLDER

LFS_FILTER = re.compile(r"^(?!\s*#)\s*(?P<pattern>\S+)\s.*\bfilter=lfs\b", re.MULTILINE)
MLFLOW_STORES = ("mlflow.db", "mlruns.db")
MLFLOW_FOLDER = "mlruns"
PRE_COMMIT = ".pre-commit-config.yaml"
# where GitHub and GitLab look for owners, first to last
OWNERS_PLACES = (".github/CODEOWNERS", "CODEOWNERS", "docs/CODEOWNERS", ".gitlab/CODEOWNERS")
GITHUB_FOLDER, GITLAB_FILE = ".github/workflows", ".gitlab-ci.yml"


@dataclass(frozen=True)
class Survey:
    """What is there.

    Attributes:
        git_root: the top of the working tree, absolute.
        root: the folder that is, or becomes, the DVC project; at or below it.
        scan: the inventory of model files of the whole tree.
        sorting: the runs below ``root``.
        remotes: DVC's remotes, names to URLs; empty where there is no DVC.
        default_remote: DVC's default one; None where there is none.
        lfs: the patterns that Git LFS keeps.
        mlflow: folders and databases of MLflow's, from the top.
        in_git: files of 10 MB or more that git itself keeps, and their bytes.
        origin: the URL of git's remote ``origin``, or of the only one; empty where there is none.
        branch: the branch that others start from.
    """

    git_root: Path
    root: Path
    scan: ScanReport
    sorting: Sorting
    remotes: dict[str, str] = field(default_factory=dict)
    default_remote: str | None = None
    lfs: tuple[str, ...] = ()
    mlflow: tuple[str, ...] = ()
    in_git: tuple[tuple[str, int], ...] = ()
    origin: str = ""
    branch: str = "main"

    @property
    def prefix(self) -> str:
        """``root`` from the top, with a slash at its end; empty where it is the top."""
        place = self.root.relative_to(self.git_root).as_posix()
        return "" if place == "." else f"{place}/"

    @property
    def has_dvc(self) -> bool:
        """Whether DVC is set up."""
        return is_set_up(self.root)

    @property
    def service(self) -> str:
        """Who runs the workflows: ``github``, ``gitlab``, or nothing where nothing tells."""
        if (self.git_root / GITHUB_FOLDER).is_dir() or re.search(r"[@/.]github\.", self.origin):
            return "github"
        return "gitlab" if (self.git_root / GITLAB_FILE).exists() or "gitlab" in self.origin else ""

    def existing(self) -> list[str]:
        """The files there are of those that a set-up is made of."""
        names = [f"{self.prefix}{CONFIG_FILE}", PRE_COMMIT, *OWNERS_PLACES, GITHUB_FOLDER, GITLAB_FILE]
        return [name for name in names if (self.git_root / name).exists()]


def is_set_up(folder: Path) -> bool:
    """Whether a folder is a DVC project."""
    return (folder / DVC_FOLDER / "config").is_file()


def take_survey(
    git_root: Path,
    root: Path,
    scan: ScanReport,
    sorting: Sorting,
    *,
    remotes: dict[str, str] | None = None,
    default_remote: str | None = None,
) -> Survey:
    """Look at what tells how a repository is worked with; nothing is changed.

    Args:
        git_root: the top of the working tree, absolute.
        root: the folder of the DVC project, or of the one to be.
        scan: the inventory of models of ``git_root``.
        sorting: of the runs below ``root``.
        remotes: DVC's remotes, names to URLs.
        default_remote: the name of DVC's default one.
    """
    labels = [file.label for file in scan.files]
    tracked = (label for label in labels if scan.tracking.in_git.has(label))
    return Survey(
        git_root,
        root,
        scan,
        sorting,
        remotes or {},
        default_remote,
        tuple(_lfs_patterns(git_root, labels)),
        tuple(_mlflow(labels)),
        tuple(sorted(big_files(git_root, tracked), key=lambda item: (-item[1], item[0]))),
        _origin(git_root),
        _branch(git_root),
    )


def _lfs_patterns(git_root: Path, labels: list[str]) -> Iterator[str]:
    for label in labels:
        if label.rpartition("/")[2] == ".gitattributes":
            try:
                text = (git_root / label).read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            yield from (match["pattern"] for match in LFS_FILTER.finditer(text))


def _mlflow(labels: list[str]) -> list[str]:
    found = dict.fromkeys(label for label in labels if label.rpartition("/")[2] in MLFLOW_STORES)
    for label in labels:
        folders = label.split("/")[:-1]
        # each run, experiment and model of MLflow's has a meta.yaml
        if MLFLOW_FOLDER in folders and label.endswith("/meta.yaml"):
            found["/".join(folders[: folders.index(MLFLOW_FOLDER) + 1])] = None
    return sorted(found)


def _origin(git_root: Path) -> str:
    names = (run_git(git_root, "remote") or "").split()
    name = "origin" if "origin" in names else names[0] if len(names) == 1 else None
    return (run_git(git_root, "remote", "get-url", name) or "") if name else ""


def _branch(git_root: Path) -> str:
    """The branch of the origin that a clone gets, else the one that is checked out, else ``main``."""
    head = run_git(git_root, "symbolic-ref", "--quiet", "--short", "refs/remotes/origin/HEAD")
    return (head or "").partition("/")[2] or run_git(git_root, "symbolic-ref", "--quiet", "--short", "HEAD") or "main"
