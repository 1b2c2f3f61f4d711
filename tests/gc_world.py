"""Plans of worlds, made within this process as the command makes them, and what lies where afterwards."""

import hashlib
import json
import os
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from forks import ForkedWorld, Forks
from holdfast.cli.gc_world import world_of
from holdfast.cli.naming import open_objects
from holdfast.formats.source import MemorySource
from holdfast.gc.applying import Applied, apply_plan
from holdfast.gc.plan import Plan, Request, read_plan
from holdfast.gc.planned import PlannedObject, Scope
from holdfast.gc.planning import make_plan
from holdfast.gc.policy import find_policy
from holdfast.gc.quarantine import Held, Purged, Restored, list_held, purge_held, restore
from holdfast.gc.world import World as Places
from holdfast.repo.cache import object_path
from holdfast.repo.workspace import find_project
from holdfast.vault.check import check_vault
from holdfast.vault.repository import init_vault, open_vault
from worlds import World, make_repository

# long after all that a test writes
NOW = 2_000_000_000.0
NO_AGE = "gc:\n  minimum_age: 0d\n  quarantine: 0d\n"

USED_BY_DVC = """
import json
from dvc.repo import Repo
with Repo(".") as repo:
    used = repo.used_objs(all_branches=True, all_tags=True, all_commits=True, all_experiments=True, force=True)
    print(json.dumps(sorted({(info.name, info.value) for infos in used.values() for info in infos})))
"""


# fixtures: a module that wants one says ``forks = gc_world.forks``


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What DVC is told for all of this machine does not count within this process either."""
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("DVC_SYSTEM_CONFIG_DIR", str(tmp_path / "none"))


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    """The process of which a module's commands are forks."""
    with Forks() as server:
        yield server


def forked(folder: Path, forks: Forks) -> ForkedWorld:
    """A repository below ``folder``, as of `worlds.make_repository`, whose ``holdfast`` is a fork."""
    made = make_repository(folder)
    return ForkedWorld(made.root, made.home, forks=forks)


@contextmanager
def places(world: World) -> Iterator[Places]:
    """The project of a world with its stores."""
    with world_of(find_project(world.folder)) as found:
        yield found


def plan_of(world: World, *scopes: Scope, now: float = NOW, **asked: Any) -> Plan:
    """What could go of a world; of the cache where no scope is given."""
    with places(world) as found:
        return make_plan(found, Request(scopes or ("cache",), **asked), now=now)


def apply_of(world: World, plan: Plan, *, now: float = NOW, allow_last_copy: bool = True, **more: Any) -> Applied:
    """Do what a plan says, read back from its file first."""
    with places(world) as found:
        return apply_plan(found, read_plan(plan.to_file().encode()), now=now, allow_last_copy=allow_last_copy, **more)


def find(plan: Plan, oid: str, hash_name: str = "md5", scope: str = "cache", place: str = "") -> PlannedObject:
    """The line of an object."""
    wanted = (scope, place, hash_name, oid)
    return next(one for one in plan.objects if (one.scope, one.place, one.hash_name, one.oid) == wanted)


def keys(entries: Iterable[PlannedObject]) -> set[tuple[str, str]]:
    return {(entry.hash_name, entry.oid) for entry in entries}


def used_by_dvc(world: World) -> set[tuple[str, str]]:
    return {(name, oid) for name, oid in json.loads(world.python(USED_BY_DVC))}


def oid_of(text: str | bytes) -> str:
    return hashlib.md5(text.encode() if isinstance(text, str) else text, usedforsecurity=False).hexdigest()


def tree(folder: Path, *, apart: str = "holdfast") -> dict[str, tuple[str, int, int, int]]:
    """Every file below a folder but those of Holdfast's own: md5, size, mtime in ns, mode."""
    found = {}
    for top, names, files in os.walk(folder):
        if Path(top) == folder and apart in names:
            names.remove(apart)
        for name in files:
            path = Path(top) / name
            known = path.lstat()
            digest = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
            mode = stat.S_IMODE(known.st_mode)
            found[path.relative_to(folder).as_posix()] = (digest, known.st_size, known.st_mtime_ns, mode)
    return found


def bucket(url: str, *, apart: tuple[str, ...] = ("holdfast/",)) -> dict[str, bytes]:
    """Every object of a bucket's folder but Holdfast's own, with its bytes."""
    store = open_objects(url)
    return {info.key: store.get(info.key) for info in store.list_objects() if not info.key.startswith(apart)}


def bury(world: World, *texts: str) -> list[str]:
    """Objects in the cache that nothing names; their oids."""
    return [world.store(text) for text in texts]


def send(world: World, folder: Path, *oids: str, legacy: bool = False) -> None:
    """Put objects of the cache into a remote that is a folder, as `dvc push` leaves them."""
    name = "md5-dos2unix" if legacy else "md5"
    for oid in oids:
        target = object_path(folder, name, oid)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(object_path(world.cache, name, oid).read_bytes())
        target.chmod(0o444)


def add_remote(world: World, name: str, url: str, *, default: bool = False) -> None:
    """As `dvc remote add` writes it, which takes a second; committed nowhere."""
    core = f"[core]\n    remote = {name}\n" if default else ""
    path = world.folder / ".dvc" / "config"
    path.write_text(f"{core}{path.read_text()}['remote \"{name}\"']\n    url = {url}\n")


def vault_is_clean(url: str) -> None:
    """`vault check` of all bytes finds nothing but packs of pushes that never ended."""
    result = check_vault(open_objects(url), jobs=2, read_data=True)
    assert result.clean, result.findings


def make_vault(place: Path | str) -> None:
    """An empty vault."""
    init_vault(open_objects(str(place)), None).close()


def push_files(place: Path | str, *texts: str, listings: Iterable[str] = (), age_days: float = 40) -> None:
    """Put files into a vault in a session of their own; where it is a folder, so long ago."""
    before = set(Path(place).rglob("*"))
    with open_vault(open_objects(str(place)), None, jobs=1) as vault, vault.session() as session:
        for text, suffix in [*((text, "") for text in texts), *((text, ".dir") for text in listings)]:
            session.put(f"md5:{oid_of(text)}{suffix}", MemorySource(text.encode()))
        session.commit()
    age((path for path in Path(place).rglob("*") if path not in before), age_days)


def age(paths: Iterable[Path], days: float = 40) -> None:
    """Let files be written so long ago."""
    when = time.time() - days * 86400
    for path in paths:
        if path.is_file():
            os.utime(path, (when, when))


def held_of(world: World, remotes: tuple[str, ...] = (), vaults: tuple[str, ...] = ()) -> list[Held]:
    """What waits."""
    with places(world) as found:
        return list_held(found, remotes, vaults)


def restore_of(world: World, *targets: str, remotes: tuple[str, ...] = (), vaults: tuple[str, ...] = ()) -> Restored:
    """Bring things back."""
    with places(world) as found:
        return restore(found, targets, remotes, vaults)


def purge_of(
    world: World, *, remotes: tuple[str, ...] = (), vaults: tuple[str, ...] = (), days: float = 0, **more: Any
) -> Purged:
    """Delete what has waited so long."""
    with places(world) as found:
        policy = find_policy(found.project.root)
        return purge_held(found, policy, remotes, vaults, older_than=timedelta(days=days), now=NOW, **more)
