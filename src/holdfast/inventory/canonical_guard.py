"""Decides whether a text names what rules forbid, and nothing else: a `Matcher` whose targets are rules.

What a text with unknown parts can be is judged by the files that there are and by those that a forbidden family would
have beside them; where it can be none of these, by a name made up for it. A text that can be a file that counts, or
any other file, names no family alone.
"""

import posixpath
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import PurePosixPath

from holdfast.inventory.canonical_names import NamePattern, meet
from holdfast.inventory.canonical_rules import Canon, Deprecation, Rule, find_modules
from holdfast.inventory.canonical_tree import RuleTree
from holdfast.inventory.ref_pattern import (
    DISTINCT_STEM,
    Component,
    Form,
    How,
    Match,
    Matcher,
    Shape,
    has_letters,
    parse_form,
    suffix_of,
)

# of a family so many files, and so many beside them, say what a name with unknown parts can be
MAX_KNOWN = 500
LEAST_WORD_CHARACTERS = 2
MAX_ANSWERS = 100_000
GTO_ZEROS = ".0.0"  # the tag of v3 is v3.0.0


class ModelFamilies:
    """Judges texts by a rule on paths.

    Args:
        rule: of kind ``model`` or ``version``.
        tree: the files.
    """

    def __init__(self, rule: Rule, tree: RuleTree) -> None:
        self.rule = rule
        self._tree = tree
        self._root_name = tree.root.name

    @property
    def words(self) -> frozenset[str]:
        """Texts of which a source that names one of its files holds at least one.

        They are suffixes, and the words that the family which counts does not have: the name of a folder is in half of
        all programs, and would have each of them looked at closer.
        """
        counting = _words(self.rule.use.text) if self.rule.use is not None else frozenset()
        found: set[str] = set()
        for pattern in self.rule.nots:
            own = {suffix_of(pattern.components[-1]), *(_words(pattern.text) - counting)} - {""}
            found |= own or pattern.words
        return frozenset(found)

    def names(self, form: Form, shape: Shape, folder: str, *, listing: bool) -> bool:
        """Whether the form names forbidden files alone, seen from a source in ``folder``."""
        readings = self._readings(shape)
        if not any(
            meet(pattern.components[-1], reading[-1], "x") is not None
            for pattern in self.rule.nots
            for reading in readings
        ):
            return False
        matcher, forbidden = self._known
        match = matcher.match([form], folder, listing=listing)
        if match is not None:
            return match.targets <= forbidden and self._says_enough(shape, folder, sorted(match.targets))
        return self._says_enough(shape, folder, self._made_up_names(form, folder, readings, listing=listing))

    def can_name(self, text: str, folder: str) -> bool:
        """Whether a text can be a forbidden file, whatever else it can be."""
        if (shape := parse_form((text,))) is None:
            return False
        matcher, forbidden = self._known
        match = matcher.match([(text,)], folder)
        if match is not None:
            return not match.targets.isdisjoint(forbidden)
        readings = self._readings(shape)
        return any(pattern.share(reading) is not None for pattern in self.rule.nots for reading in readings)

    def _readings(self, shape: Shape) -> list[tuple[Component, ...]]:
        """A form as it stands, and with the suffixes that it may leave out."""
        components = _tracked(shape.components)
        if suffix_of(components[-1]):
            return [components]
        suffixes = sorted({suffix_of(pattern.components[-1]) for pattern in self.rule.nots} - {""})
        return [components, *((*components[:-1], (*components[-1], suffix)) for suffix in suffixes)]

    def _made_up_names(
        self, form: Form, folder: str, readings: Sequence[Sequence[Component]], *, listing: bool
    ) -> list[str]:
        """Forbidden names that the form can be; none where it can be one that counts."""

        def can_be(pattern: NamePattern) -> str | None:
            for reading in readings:
                name = pattern.share(reading)
                if name is not None and self._matcher([name]).match([form], folder, listing=listing) is not None:
                    return name
            return None

        bad = [name for pattern in self.rule.nots if (name := can_be(pattern)) is not None and self.rule.forbids(name)]
        good = can_be(self.rule.use) if bad and self.rule.use is not None else None
        return bad if good is None or self.rule.forbids(good) else []

    @cached_property
    def _known(self) -> tuple[Matcher, frozenset[str]]:
        rule = self.rule
        counting = [] if rule.use is None else self._tree.fitting(rule.use)[:MAX_KNOWN]
        forbidden = [path for pattern in rule.nots for path in self._tree.fitting(pattern)[:MAX_KNOWN]]
        for path in counting:
            captures = rule.use.captures(path) if rule.use is not None else None
            gone = [pattern.fill(captures) for pattern in rule.nots if captures is not None]
            forbidden += [name for name in gone if name is not None]
        forbidden = [path for path in forbidden if rule.forbids(path)]
        folders = dict.fromkeys(path.rpartition("/")[0] for path in (*counting, *forbidden))
        beside = [posixpath.join(folder, name) for folder in folders for name in self._tree.entries(folder)]
        return self._matcher([*counting, *forbidden, *beside[:MAX_KNOWN]]), frozenset(forbidden)

    def _matcher(self, paths: Iterable[str]) -> Matcher:
        return Matcher(paths, root_name=self._root_name, exists=self._tree.is_file)

    def _says_enough(self, shape: Shape, folder: str, names: Sequence[str]) -> bool:
        """Whether it says more of one of the names than others have, too: its folder, or a name that is distinct."""
        if not names:
            return False
        *above, last = shape.components
        if shape.literal and not shape.outside and suffix_of(last):
            path = "/".join(str(component[0]) for component in shape.components)
            if any(self.rule.forbids(posixpath.normpath(posixpath.join(base, path))) for base in ("", folder)):
                return True
        patterns = [pattern for name in names if (pattern := self.rule.fault(name)) is not None]
        if not any(pattern.is_telling for pattern in patterns):
            own = [part for pattern in patterns for part in pattern.components[:-1] if has_letters(part)]
            return any(meet(part, component, "x") is not None for part in own for component in above)
        if any(has_letters(component) for component in above):
            return True
        name = "".join(piece if isinstance(piece, str) else "x" for piece in last)
        if not DISTINCT_STEM.search(PurePosixPath(name).stem):
            return False
        return not shape.literal or bool(suffix_of(last)) or name not in self._tree.source_stems


class Modules:
    """Judges texts, and dotted names, by a rule on modules.

    Args:
        rule: of kind ``module``.
        tree: the files.
    """

    def __init__(self, rule: Rule, tree: RuleTree) -> None:
        self.rule = rule
        self._root_name = tree.root.name
        assert rule.use is not None  # a rule on modules is always written
        self.files = find_modules(rule.use, tree)
        self.bases = tuple(dict.fromkeys(self.files.values()))

    @property
    def words(self) -> frozenset[str]:
        """Texts of which a source that names one of its modules holds at least one."""
        return frozenset().union(*(pattern.words for pattern in self.rule.nots))

    def names(self, form: Form, shape: Shape, folder: str, *, listing: bool) -> bool:  # noqa: ARG002 - one signature
        """Whether a text is the dotted name of a forbidden module, or of something in it, or the path of its file."""
        if not shape.literal:
            return False
        parts = [str(component[0]) for component in shape.components]
        if len(parts) == 1 and not parts[0].endswith(".py"):
            return "." in parts[0] and self.find_dotted(parts[0]) is not None
        if shape.outside or not parts[-1].endswith(".py"):
            return False
        paths = {posixpath.normpath(posixpath.join(base, *parts)) for base in ("", folder)}
        return any(self.find_path(path) is not None for path in paths)

    def find_path(self, path: str) -> str | None:
        """The dotted name of a forbidden module that lies at ``path``; None where there is none."""
        for base in self.bases:
            if path.startswith(base) and path.endswith(".py"):
                name = path.removeprefix(base).removesuffix(".py").removesuffix("/__init__").replace("/", ".")
                if self.find(name) is not None:
                    return name
        return None

    def find_dotted(self, name: str) -> tuple[str, str] | None:
        """The forbidden module in a name as a program writes it, and what stands before it, such as ``src.``."""
        for prefix in ("", "src.", f"{self._root_name}.", *(base.replace("/", ".") for base in self.bases if base)):
            if name.startswith(prefix) and (found := self.find(name.removeprefix(prefix))) is not None:
                return prefix, found
        return None

    def find(self, name: str) -> str | None:
        """The forbidden module that a dotted name is, or begins with."""
        parts = name.split(".")
        if not all(part.isidentifier() for part in parts):
            return None
        heads = (".".join(parts[:length]) for length in range(1, len(parts) + 1))
        return next((head for head in heads if self.rule.forbids(head)), None)

    def file_of(self, module: str) -> str | None:
        """The file of a module that counts."""
        tail = module.replace(".", "/")
        ends = (f"{tail}.py", f"{tail}/__init__.py")
        return next((path for path, base in self.files.items() if path.removeprefix(base) in ends), None)


class Versions:
    """Judges texts such as ``app/name@v1``.

    Args:
        deprecation: of that version.
    """

    def __init__(self, deprecation: Deprecation) -> None:
        self.deprecation = deprecation
        self._name = f"{deprecation.model}@{deprecation.version}"

    @property
    def words(self) -> frozenset[str]:
        """A text that a source which names the version holds."""
        return frozenset({self._name.rpartition("/")[2]})

    def names(self, form: Form, shape: Shape, folder: str, *, listing: bool) -> bool:  # noqa: ARG002 - one signature
        """Whether the form is the version's name, or its tag."""
        if not shape.literal or shape.outside:
            return False
        return "/".join(str(component[0]) for component in shape.components).removesuffix(GTO_ZEROS) == self._name


class Archives:
    """Judges paths of models in folders of what is out of use.

    Args:
        folders: their names.
    """

    def __init__(self, folders: Sequence[str]) -> None:
        self.folders = frozenset(folders)

    @property
    def words(self) -> frozenset[str]:
        """Texts of which a source that names such a folder holds at least one."""
        return self.folders

    def holds(self, path: str) -> bool:
        """Whether a path is in such a folder."""
        return not self.folders.isdisjoint(path.split("/")[:-1])

    def names(self, form: Form, shape: Shape, folder: str, *, listing: bool) -> bool:  # noqa: ARG002 - one signature
        """Whether the form is the path of a model in one; what lies in the archive itself may name it."""
        above = [component[0] for component in shape.components[:-1] if len(component) == 1]
        if self.folders.isdisjoint(above) or self.holds(f"{folder}/"):
            return False
        # imported here: readers of checkpoints that only a path into an archive needs
        from holdfast.inventory.scan_files import MODEL_SUFFIXES

        return suffix_of(_tracked(shape.components)[-1]).removeprefix(".").lower() in MODEL_SUFFIXES


Judge = ModelFamilies | Modules | Versions | Archives


class Guard(Matcher):
    """Finds texts that name what is forbidden; the targets of a match are keys of ``judges``.

    Args:
        canon: the rules.
        deprecations: of registered versions.
        tree: the files.
    """

    def __init__(self, canon: Canon, deprecations: Sequence[Deprecation], tree: RuleTree) -> None:
        super().__init__(())
        judges: list[Judge] = [
            Modules(rule, tree) if rule.kind == "module" else ModelFamilies(rule, tree) for rule in canon.rules
        ]
        for item in deprecations:
            if item.path:
                judges.append(ModelFamilies(_path_rule(item), tree))
            judges.append(Versions(item))
        if canon.archives:
            judges.append(Archives(canon.archives))
        # the keys sort as the rules stand, and all of a place's come in that order
        self.judges: dict[str, Judge] = {f"{number:04}": judge for number, judge in enumerate(judges)}
        self._answers: dict[tuple[Form, str, bool], frozenset[str]] = {}

    @property
    def needles(self) -> list[str]:
        """Strings of which a line holds at least one where it names something forbidden."""
        return sorted(self.telling_needles)

    @property
    def telling_needles(self) -> frozenset[str]:
        """Strings of which a file holds at least one."""
        return frozenset().union(*(judge.words for judge in self.judges.values()))

    def match(self, forms: Iterable[Form], folder: str = "", *, listing: bool = False) -> Match | None:
        """The rules by which one of the forms is forbidden, whatever the others are; None for none."""
        keys: set[str] = set()
        kinds: set[How] = set()
        for form in forms:
            if (shape := parse_form(form)) is None:
                continue
            question = (form, folder, listing)
            if question not in self._answers:
                judged = self.judges.items()
                if len(self._answers) >= MAX_ANSWERS:
                    self._answers.clear()
                self._answers[question] = frozenset(
                    key for key, judge in judged if judge.names(form, shape, folder, listing=listing)
                )
            if found := self._answers[question]:
                keys |= found
                plain: How = "path" if len(shape.components) > 1 else "name"
                kinds.add(plain if shape.literal else "glob" if shape.globbing else "pattern")
        if not keys:
            return None
        return Match(next(how for how in ("pattern", "glob", "path", "name") if how in kinds), frozenset(keys))


def _path_rule(deprecation: Deprecation) -> Rule:
    path, current = deprecation.path, deprecation.current_path
    use = NamePattern(current, _components(current)) if current else None
    return Rule("version", use, (NamePattern(path, _components(path)),), deprecation.why)


def _words(text: str) -> frozenset[str]:
    return frozenset(word for word in re.split(r"[\W_]+", text) if len(word) >= LEAST_WORD_CHARACTERS)


def _components(path: str) -> tuple[Component, ...]:
    return tuple((part,) for part in path.split("/"))


def _tracked(components: tuple[Component, ...]) -> tuple[Component, ...]:
    """Without the suffix of the file with which DVC tracks a model."""
    last = components[-1]
    if len(last) == 1 and isinstance(last[0], str) and last[0].endswith(".dvc"):
        return (*components[:-1], (last[0].removesuffix(".dvc"),))
    return components
