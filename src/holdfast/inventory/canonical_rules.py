"""The rules under ``canonical:`` in ``holdfast.yaml``: which family of models or module counts, and which does not."""

from dataclasses import dataclass, field
from typing import Literal

import yaml

from holdfast.errors import UsageError
from holdfast.inventory.canonical_names import NamePattern, parse_pattern
from holdfast.inventory.canonical_tree import RuleTree
from holdfast.inventory.config import ConfigError, Section
from holdfast.inventory.tree import Excludes

RuleKind = Literal["model", "module", "version"]

ARCHIVES = ("archive", "archived")
# in place of a wildcard where a name is made up: no file has it in its name
UNUSED = "\ue000"
SEPARATORS: dict[RuleKind, str] = {"model": "/", "module": "."}


@dataclass(frozen=True)
class Rule:
    """What counts, and what does not.

    Attributes:
        kind: ``model`` for paths, ``module`` for dotted names, ``version`` for the path of a deprecated version.
        use: what counts; None where nothing takes the place of the others.
        nots: what does not, unless it is among ``use`` and ``use`` is the narrower of the two.
        why: shown with each finding.
        place: file, line and key.
    """

    kind: RuleKind
    use: NamePattern | None
    nots: tuple[NamePattern, ...]
    why: str = ""
    place: str = ""

    def forbids(self, name: str) -> bool:
        """Whether ``name`` is one of those that do not count."""
        return self.fault(name) is not None

    def fault(self, name: str) -> NamePattern | None:
        """The pattern by which ``name`` does not count."""
        for pattern in self.nots:
            if pattern.captures(name) is not None and not (self._is_wider(pattern) and self._uses(name)):
                return pattern
        return None

    def right_name(self, name: str) -> str | None:
        """What counts in place of ``name``, with the same varying part; None where no one name does."""
        pattern = self.fault(name)
        captures = pattern.captures(name) if pattern is not None else None
        return self.use.fill(captures) if self.use is not None and captures is not None else None

    def _uses(self, name: str) -> bool:
        return self.use is not None and self.use.captures(name) is not None

    def _is_wider(self, pattern: NamePattern) -> bool:
        return self.use is not None and pattern.captures(self.use.example(UNUSED)) is not None


@dataclass(frozen=True)
class Deprecation:
    """A registered version that is not to be used any more.

    Attributes:
        model: ``app/name``.
        version: ``v1``.
        path: its path, from the folder of the rules; empty where a version that counts has the same.
        current: the version that counts; empty where there is none.
        current_path: the path of that.
        why: shown with each finding.
    """

    model: str
    version: str
    path: str
    current: str = ""
    current_path: str = ""
    why: str = ""


@dataclass(frozen=True)
class Canon:
    """All rules.

    Attributes:
        rules: in the order of the file, models first.
        allowed: the files that may refer to anything.
        archives: the names of folders whose models are out of use.
    """

    rules: tuple[Rule, ...] = ()
    allowed: Excludes = field(default_factory=Excludes)
    archives: tuple[str, ...] = ARCHIVES


def canon_of(section: Section) -> Canon:
    """The rules of a section ``canonical:``.

    Raises:
        ConfigError: a key is unknown, a value has the wrong type, or a pattern is none.
    """
    models = _rules(section, "models", "model")
    modules = _rules(section, "modules", "module")
    patterns = section.texts("allow", ())
    archives = section.texts("archives", ARCHIVES)
    try:
        allowed = Excludes(patterns)
    except UsageError as error:
        raise section.wrong("allow", str(error.message)) from error
    if wrong := [name for name in archives if "/" in name or "*" in name]:
        raise section.wrong("archives", f"holds {wrong[0]!r}, and must be names of folders")
    section.close()
    return Canon((*models, *modules), allowed, archives)


def check_rules(canon: Canon, tree: RuleTree) -> None:
    """Refuse rules that cannot be kept: that name nothing, or what another one forbids.

    Raises:
        ConfigError: names the rule's file, line and key.
    """
    for rule in canon.rules:
        use = rule.use
        assert use is not None  # of a rule that was written
        if any(pattern.components == use.components for pattern in rule.nots):
            raise ConfigError(f"{rule.place} says to use {use.text} and not to")
        for other in canon.rules:
            if other is not rule and other.kind == rule.kind and other.forbids(use.example(UNUSED)):
                hint = "Each name is either to be used or not to be"
                raise ConfigError(f"{rule.place} says to use {use.text}, which {other.place} says not to", hint=hint)
        if rule.kind == "model":
            _check_files(rule, use, tree)
        elif not find_modules(use, tree):
            hint = "Name it as it is imported from the folder of the rules, or from src"
            raise ConfigError(f"{rule.place} says to use {use.text}, and there is no such module", hint=hint)


def find_modules(pattern: NamePattern, tree: RuleTree) -> dict[str, str]:
    """The files of the modules that a dotted pattern fits, and for each the folder that its name begins in.

    They are looked for from the root and from ``src``; else anywhere, since programs change their path.
    """
    for base in ("", "src/"):
        found = {path: base for tail in _files_of(pattern) for path in tree.fitting(_below(base, tail))}
        if found:
            return found
    found = {}
    for path in tree.files:
        parts = path.split("/")
        for start in range(1, len(parts)):
            tail = "/".join(parts[start:])
            if any(pattern_.captures(tail) is not None for pattern_ in _files_of(pattern)):
                found[path] = "/".join(parts[:start]) + "/"
    return found


def _check_files(rule: Rule, use: NamePattern, tree: RuleTree) -> None:
    if not tree.may_fit(use):
        hint = "Paths are seen from the folder of the rules; what DVC tracks counts, whether it is here or not"
        raise ConfigError(f"{rule.place} says to use {use.text}, and there is no such file", hint=hint)
    found = tree.fitting(use)
    if found and all(rule.forbids(path) for path in found):
        raise ConfigError(f"{rule.place} says to use {use.text}, of which it forbids every file that there is")


def _files_of(pattern: NamePattern) -> tuple[NamePattern, NamePattern]:
    *folders, last = pattern.components
    return (
        NamePattern(pattern.text, (*folders, (*last, ".py"))),
        NamePattern(pattern.text, (*folders, last, ("__init__.py",))),
    )


def _below(base: str, pattern: NamePattern) -> NamePattern:
    return NamePattern(pattern.text, (*((part,) for part in base.split("/") if part), *pattern.components))


def _rules(section: Section, key: str, kind: RuleKind) -> list[Rule]:
    node = section.take(key)
    if node is None:
        return []
    if not isinstance(node, yaml.SequenceNode):
        raise section.wrong(key, "must be a list of rules, each with `use` and `not`")
    return [
        _rule(Section(section.path, (*section.keys, f"{key}[{index}]"), item), item, kind)
        for index, item in enumerate(node.value)
    ]


def _rule(section: Section, node: yaml.Node, kind: RuleKind) -> Rule:
    place = f"{section.path}:{node.start_mark.line + 1}: {'.'.join(section.keys)}"
    for key in ("use", "not"):
        if section.take(key) is None:
            hint = "A rule has `use`, `not` and, if you like, `why`"
            raise ConfigError(f"{place} has no `{key}`", hint=hint)
    single = isinstance(section.take("not"), yaml.ScalarNode)
    texts = (section.text("not", ""),) if single else section.texts("not", ())
    if not texts:
        raise section.wrong("not", "is empty, and must say what is not to be used")
    use = _pattern(section, "use", section.text("use", ""), kind)
    nots = tuple(_pattern(section, "not", text, kind) for text in texts)
    why = section.text("why", "")
    section.close()
    return Rule(kind, use, nots, why, place)


def _pattern(section: Section, key: str, text: str, kind: RuleKind) -> NamePattern:
    try:
        return parse_pattern(text, SEPARATORS[kind])
    except ValueError as error:
        raise section.wrong(key, f"names {text!r}, which {error}") from error
