"""What the registry's verbs share: the project's registry, where bytes are, what day it is."""

import contextlib
import json
import os
import time
from collections.abc import Callable
from datetime import date, datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.atomic import write_atomically
from holdfast.cli.caches import PROJECT_PLACE
from holdfast.registry.cache import RegistryCache, file_states, is_settled
from holdfast.registry.store import Registry
from holdfast.repo.workspace import Project, find_project

if TYPE_CHECKING:
    from holdfast.formats.cache import DigestCache
    from holdfast.registry.objects import Stores
    from holdfast.vault.repository import Vault


def here() -> tuple[Project, Registry]:
    """The project around the working directory, and its registry.

    Raises:
        NotARepositoryError: there is none.
    """
    project = find_project(Path.cwd())
    return project, Registry(project.root, RegistryCache(project.root / PROJECT_PLACE / "registry.sqlite"))


def today() -> date:
    """The day in UTC, which is the same everywhere."""
    return datetime.now(timezone.utc).date()


def digests_of_project(project: Project, *, fresh: bool = False) -> "DigestCache":
    """What is known of the project's files; nothing where ``fresh``."""
    from holdfast.formats.cache import DigestCache  # 20 ms that most verbs need not pay

    return DigestCache(None if fresh else project.root / PROJECT_PLACE / "digests.sqlite")


def stores_of_project(project: Project, *, remote: str | None = None, offline: bool = False, jobs: int = 4) -> "Stores":
    """Where the project's objects are."""
    from holdfast.registry.objects import Stores  # see digests_of_project

    def opened() -> "Vault | None":
        return project_vault(project, jobs=jobs)

    return Stores(project.root, cache_of_project(project), opened, remote, offline)


def cache_of_project(project: Project) -> Path:
    """The folder of DVC's cache.

    DVC takes 0.2 s to say so, as long as all else that `registry register` does.
    """

    def ask() -> str:
        from holdfast.repo.dvc import local_cache

        return str(local_cache(project.root).folder)

    return Path(of_configuration(project, "cache-folder", ask))


def of_configuration(project: Project, name: str, ask: Callable[[], str]) -> str:
    """An answer that follows from the configuration of DVC and Holdfast alone.

    It holds while the files of the configuration, and what names their places, stay as they are.

    Args:
        project: whose.
        name: of the question.
        ask: answers it; takes long.

    Raises:
        DvcConfigError: DVC's configuration is not readable.
    """
    place = project.root / PROJECT_PLACE / f"{name}.json"
    names = sorted(name for name in os.environ if name == "HOME" or name.startswith(("DVC_", "XDG_")))
    environment = [[name, os.environ[name]] for name in names]
    try:
        known = json.loads(place.read_bytes())
        before = [tuple(state) for state in known["files"]]
        if known["environment"] == environment and before == list(file_states([str(state[0]) for state in before])):
            return str(known["answer"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not asked yet, or torn
    from holdfast.repo.dvc import default_remote
    from holdfast.repo.dvc_outs import config_files
    from holdfast.repo.workspace import CONFIG_FILE  # with YAML, and DVC's configuration, see above

    default_remote(project.root)  # where the configuration is broken, this one says so in a line
    own = [folder / CONFIG_FILE for folder in (project.root, *project.root.parents)]
    own = own[: own.index(project.git_root / CONFIG_FILE) + 1]
    states = file_states([str(path) for path in (*config_files(project.root), *own)])
    answer = ask()
    if is_settled(states, time.time_ns()):
        content = {"environment": environment, "files": states, "answer": answer}
        with contextlib.suppress(OSError):  # a project that cannot be written is asked each time
            write_atomically(place, json.dumps(content))
    return answer


def project_vault(project: Project, *, jobs: int = 4) -> "Vault | None":
    """The project's vault; None where it has none."""
    from holdfast.cli.vaults import open_project_vault  # 200 ms for what is not in the cache alone
    from holdfast.errors import UsageError
    from holdfast.vault.repository import NoVaultError

    try:
        return open_project_vault(project, jobs=jobs)
    except (UsageError, NoVaultError):
        return None


def place_name(place: str) -> str:
    """A place of `Stores.whereabouts`, for people."""
    words = {"cache": "DVC's cache", "vault": "the vault", "nowhere": "nowhere"}
    return words.get(place, f"the remote {place}")
