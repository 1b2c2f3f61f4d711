"""Making a plan: every scope is asked, once all that keeps objects is known."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from itertools import chain, groupby
from operator import attrgetter
from types import ModuleType
from typing import Any

from holdfast.errors import HoldfastError
from holdfast.gc.evidence import Evidence, gather
from holdfast.gc.objects import find_cache
from holdfast.gc.plan import Plan, Request, plan_of
from holdfast.gc.planned import Found, PlannedObject
from holdfast.gc.policy import Policy, find_policy
from holdfast.gc.world import World
from holdfast.repo.cache import CacheObject, list_objects
from holdfast.repo.dvcfiles import LISTING_SUFFIX
from holdfast.repo.gitfolder import find_git_folder
from holdfast.vault.periods import GRACE


def make_plan(
    world: World, request: Request, *, now: float, grace: timedelta = GRACE, ask_for_copies: bool = True
) -> Plan:
    """Decide for everything that a request looks at whether it stays, and why.

    Args:
        world: the project and its stores.
        request: what to look at.
        now: seconds since the epoch; remotes and vaults are judged by their own clocks.
        grace: pushes to a vault that were announced longer ago are given up.
        ask_for_copies: say of what is to go whether it lies elsewhere, too.

    Raises:
        ConfigError: ``holdfast.yaml`` says something that Holdfast does not know.
        ShallowCloneError, UnreadableRefError, UnreadableDvcFileError, UnreadableRunCacheError: what objects are needed
            cannot be known; see `holdfast.gc.evidence.gather`.
        DvcConfigError: DVC's configuration cannot be read.
        UnknownCommitsError, UnreachableRemoteError: what a git remote has is not here, or not known; not offline.
        DamagedVaultError: what a vault needs cannot be known.
        StoreError: a remote cannot be read.
    """
    policy = find_policy(world.project.root)
    found: list[Found] = []
    if {"cache", "remote", "vault"} & set(request.scopes):
        found += _find_objects(world, request, policy, now, grace, ask_for_copies)
    archive: dict[str, Any] | None = None
    if {"runs", "workspace"} & set(request.scopes):
        some, archive = _find_files(world, request, policy, now)
        found += some
    return plan_of(
        _stamped(world, chain.from_iterable(one.objects for one in found)),
        [staying for one in found for staying in one.staying],
        time=now,
        revision=find_git_folder(world.project.git_root).head()[1],
        request=request,
        doubts=tuple(dict.fromkeys(doubt for one in found for doubt in one.doubts)),
        notes=tuple(dict.fromkeys(note for one in found for note in one.notes)),
        inputs=dict(pair for one in found for pair in one.inputs),
        archive=archive,
    )


def gather_for(
    world: World, request: Request, policy: Policy, *, now: float, cache: Sequence[CacheObject] | None = None
) -> Evidence:
    """All that is known of who needs the objects that a request looks at.

    Args:
        world, request, policy, now: as of `make_plan`.
        cache: the objects of DVC's cache, where they were listed already.

    Raises:
        HoldfastError: as of `make_plan`.
    """
    far = _stores(request)
    cache = list_objects(world.cache.folder) if cache is None and "cache" in request.scopes else cache or ()
    evidence = gather(
        world.project,
        world.cache,
        policy,
        now=now,
        ignore_run_cache=request.ignore_run_cache,
        members=far.members_of(world, request) if far else None,
        listings=[(entry[0], entry[1]) for entry in cache if entry[1].endswith(LISTING_SUFFIX)],
        runs=far.runs_of(world, request) if far and policy.run_cache and not request.ignore_run_cache else (),
    )
    if far and not request.offline:
        far.check_git_remotes(world.project.git_root, evidence.reached)
    return evidence


def _find_objects(
    world: World, request: Request, policy: Policy, now: float, grace: timedelta, ask_for_copies: bool
) -> list[Found]:
    # listed before anything is read: an object that is added meanwhile is not in the plan, and cannot be called unused
    cache = list_objects(world.cache.folder) if "cache" in request.scopes else []
    far = _stores(request)
    listed = far.list_remotes(world, request) if far else {}
    evidence = gather_for(world, request, policy, now=now, cache=cache)
    found = []
    if "cache" in request.scopes:
        found.append(find_cache(evidence, cache, policy, now=now, shared=policy.repos is not None))
    if far:
        found += far.find_in_stores(world, request, evidence, policy, listed, now=now, grace=grace)
    notes = list(evidence.notes)
    if ask_for_copies and any(entry.tier == "remove" for one in found for entry in one.objects):
        from holdfast.gc.copies import places_of, tell_last_copies  # imported here: see above

        places = places_of(world, request, notes)
        staying = [some for one in found for some in one.staying]
        told = tell_last_copies(chain.from_iterable(one.objects for one in found), places, notes, staying)
        found = [Found(tuple(told)), *(replace(one, objects=()) for one in found)]
    return [*found, Found((), notes=tuple(notes), inputs=tuple(sorted(evidence.inputs.items())))]


def _find_files(
    world: World, request: Request, policy: Policy, now: float
) -> tuple[list[Found], dict[str, Any] | None]:
    # imported here: what finds runs and models costs 200 ms that a plan for objects need not pay
    from holdfast.gc.runs import find_runs, settle
    from holdfast.gc.runs_archive import archive_steps
    from holdfast.gc.workspace import find_workspace

    when = datetime.fromtimestamp(now, timezone.utc)
    workspace, runs, archive = Found(()), Found(()), None
    if "workspace" in request.scopes:
        workspace = find_workspace(
            world.project, policy, world.digests, now=when, accept=request.accept, memory=world.memory
        )
    if "runs" in request.scopes:
        vault, no_vault = _vault_url(world)
        runs = find_runs(
            world.project,
            request.folders,
            policy,
            world.digests,
            now=when,
            vault=vault,
            no_vault=no_vault,
            accept=request.accept,
            memory=world.memory,
        )
        if any(entry.tier == "archive" for entry in runs.objects):
            steps = archive_steps(
                world.project, request.folders, runs, world.digests, now=when, vault=vault, no_vault=no_vault
            )
            archive = json.loads(steps.as_bytes())
    return list(settle(workspace, runs)), archive


def _vault_url(world: World) -> tuple[str | None, str]:
    try:
        return world.vault("").url, ""
    except HoldfastError as error:
        return None, error.message


def _stores(request: Request) -> ModuleType | None:
    """What knows of remotes and vaults, where a request looks at any; it takes as long to load as a plan to make."""
    if not (_remotes(request) or _vaults(request)):
        return None
    from holdfast.gc import stores

    return stores


def _remotes(request: Request) -> Sequence[str]:
    return request.remotes if "remote" in request.scopes else ()


def _vaults(request: Request) -> Sequence[str]:
    return request.vaults if "vault" in request.scopes else ()


def _stamped(world: World, objects: Iterable[PlannedObject]) -> list[PlannedObject]:
    """What is to go gets the state in which it was found; what has gone meanwhile is left out.

    Of a bucket the listing told it already: a million objects are not asked for one by one.
    """
    result = []
    for place, some in groupby(sorted(objects, key=attrgetter("scope", "place")), attrgetter("scope", "place")):
        entries = list(some)
        going = [entry.path for entry in entries if entry.tier == "remove"]
        looked = going and place[0] != "vault" and not (place[0] == "remote" and world.remote(place[1]).folder is None)
        things = world.place(*place).look(going) if looked else {}
        for entry in entries:
            if not looked or entry.tier != "remove":
                result.append(entry)
            elif (thing := things.get(entry.path)) is not None:
                result.append(entry._replace(stamp=thing.stamp))
    return result
