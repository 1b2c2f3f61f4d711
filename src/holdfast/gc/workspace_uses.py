"""What would break without a file or folder: lines that name it, links that lead to it, stages of DVC that need it."""

import os
import posixpath
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from holdfast.gc.workspace_tree import Tree, parents_of
from holdfast.inventory.copies import is_cache
from holdfast.inventory.ref_memory import ReferenceMemory
from holdfast.inventory.references import SCRIPT_KINDS, Reference, find_references
from holdfast.inventory.sources import Source, read_source, source_kind, split_lines
from holdfast.repo.dvcfiles import DVC_SUFFIX, LOCK_FILE, PIPELINE_FILE, UnreadableFileError, load_yaml
from holdfast.repo.history import UnreadableDvcFileError
from holdfast.repo.workspace import CONFIG_FILE

_OUTS = ("outs", "metrics", "plots")
PARAMS_FILE = "params.yaml"
# a name goes on after these, so that it is another one
_GOES_ON = frozenset("-_")
_GOES_IN = re.compile(r"[/\\]+[\w.*?{<$%~+-]")


@dataclass
class Pipelines:
    """What the DVC files of a tree name, from its root.

    Attributes:
        files: the DVC files themselves.
        outs: what DVC tracks or a stage makes, and the file that says so.
        deps: what a stage needs, and the places that say so.
    """

    files: set[str] = field(default_factory=set)
    outs: dict[str, str] = field(default_factory=dict)
    deps: dict[str, list[str]] = field(default_factory=dict)

    def owner(self, label: str) -> str | None:
        """The DVC file that has a say over a file: which tracks it, or which it is; None for none."""
        if label in self.files:
            return label
        return next((self.outs[place] for place in parents_of(label) if place in self.outs), None)


def read_pipelines(tree: Tree) -> Pipelines:
    """What all DVC files of the workspace name, whether their stages ran or not.

    Raises:
        UnreadableDvcFileError: one cannot be read, so that nobody knows what it needs.
    """
    result = Pipelines()
    for label in sorted(tree.files):
        name = label.rpartition("/")[2]
        if name not in (LOCK_FILE, PIPELINE_FILE) and not name.endswith(DVC_SUFFIX):
            continue
        try:
            text = (tree.root / label).read_bytes()
            document = load_yaml(text)
        except (OSError, UnreadableFileError) as error:
            told = error.strerror if isinstance(error, OSError) else error
            hint = f"Mend it, or `git checkout -- {label}`"
            raise UnreadableDvcFileError(f"{label} cannot be read: {told}", hint=hint) from error
        result.files.add(label)
        for kind, path in _named(document, name, label.rpartition("/")[0]):
            if kind == "out":
                result.outs.setdefault(path, label)
            else:
                result.deps.setdefault(path, []).append(f"{label}:{_line_of(text, path)}")
    return result


def _named(document: Any, name: str, folder: str) -> Iterator[tuple[str, str]]:
    if not isinstance(document, dict):
        return
    if name == PIPELINE_FILE:
        stages = document.get("stages")
        for section in ("metrics", "plots"):
            yield from (("dep", path) for path in _paths(document, section, folder))
        artifacts = document.get("artifacts")
        for artifact in artifacts.values() if isinstance(artifacts, dict) else ():
            if isinstance(artifact, dict) and isinstance(artifact.get("path"), str):
                yield "dep", posixpath.normpath(posixpath.join(folder, artifact["path"]))
    elif name == LOCK_FILE:
        stages = document.get("stages") if "stages" in document or "schema" in document else document
    else:
        stages = {"": document}
    for stage in stages.values() if isinstance(stages, dict) else ():
        inner = stage.get("do", stage) if isinstance(stage, dict) else None
        if not isinstance(inner, dict):
            continue
        wdir = inner.get("wdir")
        base = posixpath.join(folder, wdir) if isinstance(wdir, str) and "${" not in wdir else folder
        yield from (("out", path) for section in _OUTS for path in _paths(inner, section, base))
        yield from (("dep", path) for path in _paths(inner, "deps", base))
        params = inner.get("params")
        for entry in params if isinstance(params, list) else ():
            for path in entry if isinstance(entry, dict) else [PARAMS_FILE]:
                yield "dep", posixpath.normpath(posixpath.join(base, str(path)))


def _paths(holder: Mapping[str, Any], section: str, base: str) -> Iterator[str]:
    entries = holder.get(section)
    for entry in entries if isinstance(entries, list) else ():
        # the lock and `*.dvc` have entries with a path, the pipeline texts or texts with options
        paths = [entry.get("path")] if isinstance(entry, dict) and "path" in entry else entry
        for path in paths if isinstance(paths, list | dict) else [paths]:
            if isinstance(path, str) and "${" not in path and "://" not in path and not posixpath.isabs(path):
                yield posixpath.normpath(posixpath.join(base, path))


def _line_of(text: bytes, path: str) -> int:
    """The first line that has the path, or the end of it that the file may write; the first where none has."""
    lines = text.splitlines()
    for ending in (path, path.rpartition("/")[2]):
        for number, line in enumerate(lines, 1):
            if os.fsencode(ending) in line:
                return number
    return 1


def links_into(tree: Tree) -> dict[str, list[str]]:
    """Where the symbolic links of a tree lead within it, by what they lead to; links that lead nowhere are left out."""
    root = os.path.realpath(tree.root)
    result: dict[str, list[str]] = {}
    for link in tree.links:
        target = os.path.realpath(tree.root / link)
        if target.startswith(f"{root}/") and os.path.lexists(target):
            result.setdefault(target[len(root) + 1 :], []).append(link)
    return result


@dataclass(frozen=True)
class Uses:
    """Who needs what.

    Attributes:
        pipelines: what DVC's files name.
        links: what links lead to.
        places: by file or folder, the lines that name it by its path; with a slash behind it the lines that go on to
            something in the folder.
    """

    pipelines: Pipelines
    links: Mapping[str, Sequence[str]]
    places: Mapping[str, Sequence[str]]

    def of(self, path: str, files: Collection[str]) -> list[str]:
        """Places outside of a file or folder that would break without it, ordered.

        Args:
            path: the file or folder.
            files: what is in it, or itself.
        """
        folders = {place for file in files for place in folders_between(file, path)} - set(files)
        wanted = [*files, *folders, *(f"{folder}/" for folder in folders)]
        found = [place for one in wanted for place in (*self.places.get(one, ()), *self.pipelines.deps.get(one, ()))]
        found += [link for one in wanted for link in self.links.get(one, ())]
        return sorted({place for place in found if not is_within(place, path)}, key=_place_order)


def find_uses(
    tree: Tree,
    pipelines: Pipelines,
    files: Collection[str],
    folders: Collection[str],
    *,
    prefix: str,
    memory: ReferenceMemory | None,
    names: Collection[str] = (),
) -> Uses:
    """Who needs some files and folders.

    Args:
        tree: all that there is; every text source in it counts.
        pipelines: of the same tree.
        files: what may go, from the tree's root.
        folders: those that may go as a whole.
        prefix: the project's folder, from which scripts may see them.
        memory: what is known of sources.
        names: those of the folders whose last name alone tells scripts which one it is.
    """
    named = ((label, label.rpartition("/")[2]) for label in sorted(tree.files) if not is_cache(label))
    # the rules that say what may go need nothing of it
    kinds = ((label, source_kind(name)) for label, name in named if name != CONFIG_FILE)
    sources = [Source(tree.root / label, label, kind) for label, kind in kinds if kind is not None]
    places: dict[str, list[str]] = {}
    if files:
        report = find_references(tree.root, files, families={}, sources=sources, memory=memory)
        for reference in report.references:
            for target in reference.targets:
                if _is_path(reference, target):
                    places.setdefault(target, []).append(reference.place)
    if folders:
        needles = [(folder, folder, False) for folder in folders]
        needles += [(seen_from(folder, prefix), folder, False) for folder in folders if prefix]
        needles += [(folder.rpartition("/")[2], folder, True) for folder in names]
        _find_folders(sources, sorted(needles), places)
    return Uses(pipelines, links_into(tree), places)


def _is_path(reference: Reference, target: str) -> bool:
    """Whether a place says where a file is: a name alone is that of its original, too; a glob takes what there is."""
    beside = posixpath.join(posixpath.dirname(reference.file), reference.text)
    return reference.how == "path" or (reference.how == "name" and target in (reference.text, beside))


def _find_folders(
    sources: Iterable[Source], needles: Sequence[tuple[str, str, bool]], places: dict[str, list[str]]
) -> None:
    """Lines that have one of the texts, as places of its folder; some count in scripts alone."""
    from ahocorasick_rs import AhoCorasick  # imported here: a compiled library that only a search needs

    finder = AhoCorasick([text for text, _, _ in needles])
    for source in sources:
        if source.kind == "docs" or (text := read_source(source, [])) is None:
            continue
        if not finder.find_matches_as_indexes(text):
            continue
        for number, line in enumerate(split_lines(text), 1):
            for index, start, end in finder.find_matches_as_indexes(line, overlapping=True):
                _, folder, in_scripts = needles[index]
                if (source.kind in SCRIPT_KINDS or not in_scripts) and _is_whole(line, start, end):
                    named = f"{folder}/" if _GOES_IN.match(line, end) else folder
                    places.setdefault(named, []).append(f"{source.label}:{number}")


def _is_whole(line: str, start: int, end: int) -> bool:
    """Whether a name neither begins before a place of a line nor goes on after it."""
    before, after = line[start - 1 : start], line[end : end + 1]
    return not (before.isalnum() or before in {*_GOES_ON, "."} or after.isalnum() or after in _GOES_ON)


def folders_between(file: str, top: str) -> Iterator[str]:
    """The folders around a file, up to ``top``; nothing where the file is ``top`` itself."""
    for place in parents_of(file.rpartition("/")[0]):
        if not is_within(place, top):
            return
        yield place


def is_within(path: str, folder: str) -> bool:
    """Whether a path, or the file of a place ``file:line``, is a folder or lies in it."""
    return path == folder or path.startswith((f"{folder}/", f"{folder}:", f"{folder}["))


def seen_from(path: str, prefix: str) -> str:
    """A path or ``file:line`` of the git repository as seen from the project in it."""
    return posixpath.relpath(path, prefix) if prefix else path


def _place_order(place: str) -> tuple[str, int]:
    file, _, line = place.rpartition(":")
    return (file, int(line)) if line.isdigit() and file else (place, 0)
