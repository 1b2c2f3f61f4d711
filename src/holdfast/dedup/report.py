"""The report of everything that is stored twice in the workspace and the cache."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from holdfast.dedup.advice import with_advice
from holdfast.dedup.contents import Contents, read_contents
from holdfast.dedup.duplicates import JOBS, collect, compare, exact_groups
from holdfast.dedup.estimate import SAMPLE_BLOCKS
from holdfast.dedup.groups import (
    EXACT_KINDS,
    KINDS,
    MIN_SIZE_BYTES,
    DuplicateGroup,
    DuplicateReport,
    Kind,
    Scope,
    ranked,
)
from holdfast.dedup.names import read_names
from holdfast.dedup.similar import MAX_PAIRS, similar_groups
from holdfast.dedup.tensors import cast_groups, shared_groups, weights_groups
from holdfast.formats.cache import DigestCache
from holdfast.repo.lineage import Lineage
from holdfast.repo.workspace import Project

# what is being done, how much of it is done, and how much there is
Progress = Callable[[str, int, int], object]
COMPARING, READING, SAMPLING = "Comparing files", "Reading checkpoints", "Sampling pairs"


def report_duplicates(
    folder: Path,
    digests: DigestCache,
    *,
    project: Project | None = None,
    scopes: Sequence[Scope] = ("workspace", "cache"),
    kinds: Collection[Kind] = (),
    min_size: int = MIN_SIZE_BYTES,
    jobs: int = JOBS,
    max_pairs: int = MAX_PAIRS,
    blocks: int = SAMPLE_BLOCKS,
    progress: Progress = lambda _what, _done, _total: None,
) -> DuplicateReport:
    """Everything that is stored twice: files, weights, tensors, casts, and checkpoints that are close to others.

    Args:
        folder: whose files count for the workspace.
        digests: what is known of files; what is read is remembered.
        project: whose cache and history count; None where there is none.
        scopes: ``workspace`` and ``cache``, or one of them.
        kinds: those wanted; all if none. Checkpoints are looked into only for kinds that need it.
        min_size: smaller files, and groups that waste less, are left out.
        jobs: threads that read whole files.
        max_pairs: of similar checkpoints.
        blocks: sampled for each pair.
        progress: see `Progress`.

    Raises:
        DvcConfigError: DVC's configuration cannot be read.
        OSError: the cache cannot be listed.
    """
    wanted = frozenset(kinds or KINDS)
    collected = collect(folder, project=project, min_size=min_size, scopes=scopes)
    compare(collected, jobs=jobs, digests=digests, progress=lambda done, total: progress(COMPARING, done, total))
    groups = [group for group in exact_groups(collected) if group.kind in wanted]
    notes = collected.notes
    lineage = Lineage()
    if project is not None and collected.cache is not None and collected.objects:
        lineage = read_names(project, collected.cache, notes)
    contents = Contents()
    if wanted - EXACT_KINDS:
        contents = read_contents(
            collected, digests, min_size=min_size, progress=lambda done, total: progress(READING, done, total)
        )
        groups += inner_groups(
            contents, digests, lineage, wanted, min_size=min_size, max_pairs=max_pairs, blocks=blocks, progress=progress
        )
        notes += contents.notes
    return DuplicateReport(
        groups=ranked(with_advice(groups, collected, names_of(lineage))),
        files=len(collected.files),
        objects=len(collected.objects),
        bytes=collected.bytes,
        link_types=collected.link_types,
        notes=tuple(dict.fromkeys(notes)),
        scopes=tuple(scopes),
        checkpoints=len(contents.bodies),
        tensors=len(contents.tensors),
    )


def inner_groups(
    contents: Contents,
    digests: DigestCache,
    lineage: Lineage,
    wanted: Collection[Kind],
    *,
    min_size: int,
    max_pairs: int,
    blocks: int,
    progress: Progress,
) -> list[DuplicateGroup]:
    """The groups of the wanted kinds that are told by looking into checkpoints; notes go to ``contents``."""
    groups: list[DuplicateGroup] = []
    if "weights" in wanted:
        groups += weights_groups(contents)
    if "tensors" in wanted:
        groups += shared_groups(contents)
    if "cast" in wanted:
        groups += cast_groups(contents, digests)
    if "similar" in wanted:
        groups += similar_groups(
            contents.bodies,
            lineage,
            contents.notes,
            max_pairs=max_pairs,
            blocks=blocks,
            progress=lambda done, total: progress(SAMPLING, done, total),
        )
    return [group for group in groups if group.wasted >= max(1, min_size)]


def names_of(lineage: Lineage) -> dict[str, str]:
    """The best known path of each object, by oid."""
    return {oid: paths[0] for (_, oid), paths in reversed(lineage.paths.items()) if paths}
