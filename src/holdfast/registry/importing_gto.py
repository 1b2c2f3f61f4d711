"""GTO's registry: tags and ``artifacts:`` of ``dvc.yaml``, as versions and aliases of ours.

A version's file is what DVC, or git itself, has at the artifact's path in the tagged commit; the path is that of the
commit's own ``dvc.yaml``, else of the checked-out one. ``v3.0.0`` becomes ``v3`` where all versions of the model are of
that form; else they are numbered in their order.
"""

import re
from collections.abc import Iterator

import pygit2

from holdfast.errors import HoldfastError, IntegrityError, UsageError
from holdfast.formats.cache import DigestCache, digests_of
from holdfast.registry.entries import CURRENT, FOLDER_SUFFIX, Version
from holdfast.registry.importing_found import FoundVersion, can_be_alias, model_id_of
from holdfast.registry.objects import Stores, keep_listing
from holdfast.registry.registration import WEIGHTS_SUFFIXES, NoWeightsDigestError
from holdfast.registry.tags import TAG_SOURCE
from holdfast.registry.tags_gto import GtoTags, TaggedModel, TaggedVersion, version_tag
from holdfast.registry.tags_places import artifact_of, artifact_path, tracked_file
from holdfast.repo.cache import object_path, read_members
from holdfast.repo.dvcfiles import MD5
from holdfast.repo.refs import open_repository
from holdfast.repo.workspace import Project

_MAJOR = re.compile(r"(v[1-9][0-9]*)\.0\.0")


def read_tagged(project: Project, gto: GtoTags, app: str | None) -> list[FoundVersion]:
    """The versions that tags name, model by model, each model's in the order of its versions.

    Models of other folders, deprecated ones and versions that were taken back are not among them.

    Args:
        project: whose.
        gto: the repository's tags.
        app: the application of models that have none.

    Raises:
        UsageError: there is no such tag, or an application is missing.
        TagError: tags contradict each other.
    """
    models = {name: model for name, model in gto.read().items() if model.active}
    found: list[FoundVersion] = []
    for name, model in sorted(models.items()):
        folder, _, own = name.rpartition(":")
        if folder == project.prefix:
            found += _versions(project, model, own, model_id_of(own, app))
    if not found:
        told = f" of {project.prefix}/" if project.prefix else ""
        raise UsageError(
            f"no git tag names a version{told} in GTO's form", hint="`git fetch --tags` brings those of others"
        )
    return found


def draft_of_tagged(
    found: FoundVersion, project: Project, stores: Stores, digests: DigestCache, weights_file: str | None = None
) -> Version:
    """The version that a tag names; its bytes are in DVC's cache afterwards.

    Args:
        found: one of `read_tagged`.
        project: whose.
        stores: where bytes are.
        digests: what is known of files.
        weights_file: of folders with more than one checkpoint the file of weights.

    Raises:
        HoldfastError: the commit has no such file, or its bytes are nowhere.
        NoWeightsDigestError: it holds no weights.
        OSError: the cache cannot be written.
    """
    commit = _commit(project, found.source["rev"])
    file = tracked_file(commit, project.prefix, found.path)
    if file is None:
        raise HoldfastError(f"neither DVC nor git has {found.path} at the tagged commit {str(commit.id)[:7]}")
    if file.data is not None:
        keep_listing(stores.cache, file.data, file.oid)  # whose bytes are in memory, as a listing's are
    else:
        stores.bring(file.oid, found.place)
    cached = object_path(stores.cache, MD5, file.oid)
    if file.oid.endswith(FOLDER_SUFFIX):
        members = dict(read_members(stores.cache, MD5, file.oid) or ())
        names = [name for name in members if name.lower().endswith(WEIGHTS_SUFFIXES)]
        weights_file = weights_file or (names[0] if len(names) == 1 else None)
        if weights_file not in members:
            told = f"has no file {weights_file}" if weights_file else f"has {len(names)} checkpoints"
            raise UsageError(f"the folder {found.path} {told}", hint="Name its file of weights: --weights FILE")
        size = sum(object_path(stores.cache, MD5, member).stat().st_size for member in members.values())
        cached = object_path(stores.cache, MD5, members[weights_file])
    else:
        weights_file = None
        size = cached.stat().st_size
    read = digests_of(cached, digests, weights=True)
    if read.weights is None:
        raise NoWeightsDigestError(f"{found.path} has no weights digest: {read.no_weights}")
    return Version(
        "", found.path, file.oid, size, read.weights, found.date, source=found.source, weights_file=weights_file
    )


def _versions(project: Project, model: TaggedModel, own: str, model_id: str) -> Iterator[FoundVersion]:
    tagged = [version for version in model.versions if version.registered and version.active]
    kept = all(_MAJOR.fullmatch(version.name) for version in tagged)
    commits = [_commit(project, version.commit) for version in tagged]
    head = open_repository(project.git_root).head.peel(pygit2.Commit)
    current = _current(project, tagged, commits, head, own)
    described = artifact_of(head, project.prefix, own)
    for version, commit in zip(tagged, commits, strict=True):
        tag = version_tag(model.name, version.name)
        # tags may be older than the artifacts of dvc.yaml
        path = artifact_path(commit, project.prefix, own) or artifact_path(head, project.prefix, own)
        stages = [stage for stage, name in sorted(model.stages.items()) if name == version.name and can_be_alias(stage)]
        number = _MAJOR.fullmatch(version.name)
        yield FoundVersion(
            model_id,
            tag,
            name=number[1] if kept and number is not None else None,
            path=path or "",
            date=version.date.date().isoformat(),
            source={"rev": version.commit, TAG_SOURCE: tag},
            description=described.desc if described else "",
            labels=(*stages, *((CURRENT,) if version is current else ())),
            reason="" if path else f"neither its commit nor this one has an artifact {own} in dvc.yaml",
        )


def _current(
    project: Project, tagged: list[TaggedVersion], commits: list[pygit2.Commit], head: pygit2.Commit, own: str
) -> TaggedVersion | None:
    """The version whose file the checked-out commit has at the artifact's path, else the last."""

    def oid_of(commit: pygit2.Commit) -> str | None:
        path = artifact_path(commit, project.prefix, own) or artifact_path(head, project.prefix, own)
        file = tracked_file(commit, project.prefix, path) if path else None
        return file.oid if file else None

    now = oid_of(head)
    same = [item for item, commit in zip(tagged, commits, strict=True) if now is not None and oid_of(commit) == now]
    return next(reversed(same or tagged), None)


def _commit(project: Project, commit: str) -> pygit2.Commit:
    try:
        return open_repository(project.git_root)[commit].peel(pygit2.Commit)
    except (KeyError, ValueError, pygit2.GitError) as error:
        raise IntegrityError(f"git has no commit {commit}", hint="`git fetch --tags`") from error
