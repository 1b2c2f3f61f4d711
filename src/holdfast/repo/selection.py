"""Which objects a selection of outs means: without DVC where the whole project is meant, else as DVC collects them."""

import posixpath
from collections.abc import Callable, Iterable, Iterator

from holdfast.errors import HoldfastError
from holdfast.repo.cache import object_path, read_members
from holdfast.repo.dvc import SelectedOut, Selection, UsedObject, UsedObjects, local_cache, selected_outs
from holdfast.repo.dvcfiles import LISTING_SUFFIX
from holdfast.repo.roots import Roots
from holdfast.repo.used import UsedOut, used_outs
from holdfast.repo.workspace import Project

Bring = Callable[[list[UsedObject]], None]


def used_objects(
    project: Project, selection: Selection, *, bring: Bring = lambda _: None, for_push: bool = False
) -> UsedObjects:
    """The objects of the outs that a selection means, as ``dvc push`` and ``dvc fetch`` choose them.

    Outs without a cache (``cache: false``), imports from other repositories and, for a push, those with ``push: false``
    are left out.

    Args:
        project: whose.
        selection: see there.
        bring: called with listings that the cache lacks, before it is read again.
        for_push: whether the objects are to be sent.

    Raises:
        UsageError: a target is none.
        LockedError: another DVC process works here.
        HoldfastError: DVC cannot read the project.
    """
    outs = _of_whole_project(project, selection)
    if outs is not None:
        return _used(project, (_selected(project, out) for out in outs if out.pushed or not for_push), bring, [])
    unread: list[str] = []
    with selected_outs(project.root, selection, for_push=for_push, unread=unread) as some:
        return _used(project, some, bring, unread)


def _of_whole_project(project: Project, selection: Selection) -> list[UsedOut] | None:
    """All outs; None where DVC has to say which.

    DVC takes half a second to start. It is asked where targets are given, and where anything is unusual: it goes on
    where a commit cannot be read.
    """
    if selection.targets or selection.with_deps or selection.recursive:
        return None
    roots = Roots(all_branches=selection.all_branches, all_tags=selection.all_tags, all_commits=selection.all_commits)
    try:
        outs = list(dict.fromkeys(out for out, _ in used_outs(project, roots)))
    except HoldfastError:
        return None
    return None if any(out.members is not None for out in outs) else outs


def _selected(project: Project, out: UsedOut) -> SelectedOut:
    path = posixpath.relpath(out.path, project.prefix) if project.prefix and not posixpath.isabs(out.path) else out.path
    return SelectedOut(UsedObject(*out.key, path), "", out.remote)


def _used(project: Project, outs: Iterable[SelectedOut], bring: Bring, unread: list[str]) -> UsedObjects:
    listings: dict[tuple[str, str], list[SelectedOut]] = {}
    found: dict[tuple[str, str], UsedObject] = {}
    result = UsedObjects(unread=unread)
    for out in outs:
        key = (out.used.hash_name, out.used.oid)
        if out.remote:
            result.elsewhere.append(out.used.path)
        elif out.used.oid.endswith(LISTING_SUFFIX):
            listings.setdefault(key, []).append(out)
        else:
            found.setdefault(key, out.used)
    cache = local_cache(project.root).folder
    absent = [some[0].used for key, some in listings.items() if not object_path(cache, *key).exists()]
    if absent:
        bring(absent)
    for key, some in listings.items():
        members = read_members(cache, *key)
        if members is None:
            result.missing.append(some[0].used)
            continue
        result.objects.append(some[0].used)
        for out in some:
            for member in _members(out, members):
                found.setdefault((member.hash_name, member.oid), member)
    result.objects += found.values()
    return result


def _members(out: SelectedOut, members: Iterable[tuple[str, str]]) -> Iterator[UsedObject]:
    """The files of a folder that are meant."""
    folder = f"{out.used.path}/"
    for name, oid in members:
        if not out.part or name == out.part or name.startswith(f"{out.part}/"):
            yield UsedObject(out.used.hash_name, oid, folder + name)
