"""The right name for a place: what stands there with the varying part kept, written as the place writes it."""

import ast
import posixpath
import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from holdfast.inventory.canonical_guard import Archives, Guard, ModelFamilies, Modules, Versions
from holdfast.inventory.canonical_names import NamePattern
from holdfast.inventory.canonical_tree import RuleTree
from holdfast.inventory.ref_pattern import Component, parse_form, suffix_of
from holdfast.inventory.ref_text import tokens
from holdfast.inventory.references import Reference
from holdfast.inventory.sources import Kind, parse_python

About = Literal["model", "module", "version", "archived"]

SHOWN_CHARACTERS = 120
NAMES_SHOWN = 3
DVC_SUFFIX = ".dvc"


class Answer(NamedTuple):
    """What is wrong with a place.

    Attributes:
        about: ``model``, ``module``, ``version`` (deprecated in the registry) or ``archived``.
        text: what stands there, ``{}`` for unknown parts.
        right: what should; empty where nothing takes its place.
        note: what to know about that; empty for nothing.
        why: what the rule says.
    """

    about: About
    text: str
    right: str = ""
    note: str = ""
    why: str = ""


class Answers:
    """Knows the right name of what rules forbid.

    Args:
        guard: found the places.
        tree: the files.
    """

    def __init__(self, guard: Guard, tree: RuleTree) -> None:
        self._guard = guard
        self._tree = tree
        self._paths = [judge.rule for judge in guard.judges.values() if isinstance(judge, ModelFamilies)]
        self._archives = next((judge for judge in guard.judges.values() if isinstance(judge, Archives)), Archives(()))

    def why(self, key: str) -> str:
        """What the rule of that key says about its reason."""
        judge = self._guard.judges[key]
        if isinstance(judge, Versions):
            return judge.deprecation.why
        return "" if isinstance(judge, Archives) else judge.rule.why

    def answer(self, key: str, reference: Reference, lines: Sequence[str]) -> Answer:
        """What is wrong with a place, by one rule.

        Args:
            key: of the rule.
            reference: the place.
            lines: of the file, or of the cell.
        """
        judge, text, why = self._guard.judges[key], reference.text, self.why(key)
        if isinstance(judge, Versions):
            current = judge.deprecation.current
            return Answer("version", text, f"{judge.deprecation.model}@{current}" if current else "", why=why)
        named = self._named(key, reference)
        if isinstance(judge, Modules):
            return Answer("module", named or text, self._module(judge, named or text, reference.file), why=why)
        if isinstance(judge, Archives):
            paths = self._outside(named or text)
            note = f"outside of the archive there are {', '.join(paths)}" if len(paths) > 1 else ""
            return Answer("archived", named or text, paths[0] if len(paths) == 1 else "", note, why)
        about: About = "version" if judge.rule.kind == "version" else "model"
        if named is None:
            # of several names that the place may be, the first is not the wrong one
            wrong = ", ".join(pattern.text for pattern in judge.rule.nots)
            return Answer(about, wrong, judge.rule.use.text if judge.rule.use is not None else "", why=why)
        return Answer(about, named, *self._path(judge, named, reference, lines), why=why)

    def _named(self, key: str, reference: Reference) -> str | None:
        """What the place says against the rule: the whole of it, or a word of a command or a message."""
        for text in (reference.text, *(word for _, word in tokens(reference.text))):
            match = self._guard.match([(text,)], posixpath.dirname(reference.file))
            if match is not None and key in match.targets:
                return text
        return None

    def _path(self, judge: ModelFamilies, text: str, reference: Reference, lines: Sequence[str]) -> tuple[str, str]:
        rule = judge.rule
        if rule.use is None:
            return "", ""
        shape = parse_form((text,))
        if shape is None:
            return rule.use.text, ""
        names = [name for name in re.split(r"[\\/]+", text.removesuffix(DVC_SUFFIX)) if name not in ("", ".")]
        names = names[-len(shape.components) :]  # a folder that is not known at all says nothing
        is_built = reference.how in ("pattern", "glob")
        segment = _segment(lines, reference)
        for pattern in rule.nots:
            for suffix in ("", suffix_of(pattern.components[-1])):  # it may be left out
                parts: list[Component] = [(name,) for name in (*names[:-1], names[-1] + suffix)]
                whole = pattern.share(parts, "*")
                right = rule.right_name(whole) if whole is not None else None
                if right is None:
                    continue
                last = self._last(right)
                written = _rewritten(segment, pattern, rule.use, reference.kind) if is_built and last == right else None
                if written is None and shape.literal and "*" not in last:
                    return last.removesuffix(suffix), "" if self._tree.has(last) else "there is no such file yet"
                return written or last.removesuffix(suffix), ""
        for pattern in rule.nots if is_built else ():  # it says less than the pattern: `*_old*`
            short = _rewritten(text, pattern, rule.use, "docs")
            written = _rewritten(segment, pattern, rule.use, reference.kind)
            if short and written and not judge.can_name(short, posixpath.dirname(reference.file)):
                return written, ""
        return rule.use.text, ""

    def _last(self, name: str) -> str:
        """What counts in the end, where one rule's right name is forbidden by another."""
        seen = {name}
        while True:
            right = next((found for rule in self._paths if (found := rule.right_name(name)) is not None), None)
            if right is None or right in seen:
                return name
            seen.add(right)
            name = right

    def _module(self, judge: Modules, text: str, file: str) -> str:
        if text.endswith(".py"):
            for base in ("", posixpath.dirname(file)):
                name = judge.find_path(posixpath.normpath(posixpath.join(base, text)))
                right = judge.rule.right_name(name) if name is not None else None
                if right is not None:
                    return judge.file_of(right) or right
            return ""
        found = judge.find_dotted(text)
        right = judge.rule.right_name(found[1]) if found is not None else None
        return text.replace(found[1], right, 1) if found is not None and right is not None else ""

    def _outside(self, text: str) -> list[str]:
        """The files of that name that are in no archive."""
        name = re.split(r"[\\/]+", text.removesuffix(DVC_SUFFIX))[-1]
        found = (path.removesuffix(DVC_SUFFIX) for path in self._tree.files)
        paths = {path for path in found if posixpath.basename(path) == name and not self._archives.holds(path)}
        return sorted(paths)[:NAMES_SHOWN]


def _segment(lines: Sequence[str], reference: Reference) -> str:
    part = list(lines[reference.line - 1 : reference.end_line])
    part[-1] = part[-1][: reference.end_column - 1]
    part[0] = part[0][reference.column - 1 :]
    return " ".join(line.strip() for line in part)


def _rewritten(segment: str, pattern: NamePattern, use: NamePattern, kind: Kind) -> str | None:
    """A piece of a source with the word in which the families differ changed; None where that is not plain."""
    words = _difference(pattern.text, use.text)
    if words is None:
        return None
    old, new = words
    start, end = (r"(?<![^\W_])" if old[0].isalnum() else ""), (r"(?![^\W_])" if old[-1].isalnum() else "")
    expression = start + re.escape(old) + end
    if len(segment) > SHOWN_CHARACTERS or len(re.findall(expression, segment)) != 1:
        return None
    if kind in ("python", "notebook"):
        tree = parse_python(segment)
        said = [node.value for node in ast.walk(tree or ast.Module([], [])) if isinstance(node, ast.Constant)]
        if not any(isinstance(text, str) and re.search(expression, text) for text in said):
            return None  # it is the name of a variable
    return re.sub(expression, lambda _: new, segment)


def _difference(wrong: str, right: str) -> tuple[str, str] | None:
    """The words in which two patterns differ; None where they differ in more than words."""
    start = 0
    while start < min(len(wrong), len(right)) and wrong[start] == right[start]:
        start += 1
    end = 0
    while end < min(len(wrong), len(right)) - start and wrong[-end - 1] == right[-end - 1]:
        end += 1

    def parted() -> tuple[str, str]:
        return wrong[start : len(wrong) - end], right[start : len(right) - end]

    # whole words
    while start and wrong[start - 1].isalnum() and any(text[:1].isalnum() for text in parted()):
        start -= 1
    while end and wrong[len(wrong) - end].isalnum() and any(text[-1:].isalnum() for text in parted()):
        end -= 1
    old, new = parted()
    return (old, new) if any(map(str.isalnum, old)) and not set("*?[]") & set(old + new) else None
