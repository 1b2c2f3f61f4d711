"""``holdfast.yaml`` for a repository: what was found in it, where that differs from the defaults."""

import json
import re
from collections import Counter
from collections.abc import Iterator

from holdfast.inventory.canonical_names import parse_pattern
from holdfast.inventory.models import ModelFamily, ScanReport
from holdfast.inventory.run_record import HIGHER_IS_BETTER, LOWER_IS_BETTER, base_of
from holdfast.inventory.run_rules import Rules
from holdfast.inventory.run_verdicts import Sorting
from holdfast.project.survey import Survey

HEADER = """# Settings of Holdfast. What is not here has its default; `holdfast doctor` says whether this file is right.
# scan:, runs:, gc:, workspace:, canonical:, vault:, remote:, repos: are explained in docs/reference and docs/how-to.
"""
_PLAIN = re.compile(r"[A-Za-z0-9_/][A-Za-z0-9_./*-]*")


def configuration_text(survey: Survey) -> str:
    """The file: which family of models counts, and what runs are compared by, where the defaults do not fit."""
    sections = [*_canonical(survey.scan), *_runs(survey.sorting)]
    return HEADER + "".join(f"\n{section}" for section in sections)


def rules_of_families(scan: ScanReport) -> list[tuple[ModelFamily, list[ModelFamily]]]:
    """Of each group of rival families the one that the scripts use, and those that they use less or not at all."""
    families = {family.name: family for family in scan.families}
    result = []
    for group in scan.rivalries:
        first, *others = (families[name] for name in group)
        least = first.used.references
        behind = [other for other in others if other.used.references < least and _is_pattern(other)]
        if behind and _is_pattern(first) and ("primary" in first.statuses or "registered" in first.statuses):
            result.append((first, behind))
    return result


def _canonical(scan: ScanReport) -> Iterator[str]:
    rules = rules_of_families(scan)
    if not rules:
        return
    lines = ["# which models count: `holdfast check` names each use of another one", "canonical:", "  models:"]
    for first, others in rules:
        names = ", ".join(_text(other.name) for other in others)
        lines += [
            f"    - use: {_text(first.name)}  # {_used(first)}",
            f"      not: [{names}]  # {'; '.join(_used(other) for other in others)}",
        ]
    if scan.copies:
        # a copy of a script is right as long as the script is
        lines += [
            "  allow:  # second copies",
            *(f"    - {_text(f'/{_escaped(folder.path)}/')}" for folder in scan.copies),
        ]
    yield "\n".join(lines) + "\n"


def _runs(sorting: Sorting) -> Iterator[str]:
    """The metric that most runs have, where no default one fits them."""
    known = set(Rules().metrics)
    plain = [{base_of(name) for name in (*item.run.final, *item.run.best)} for item in sorting.runs]
    without = [names for names in plain if names and not names & known]
    count = Counter(name for names in without for name in names if name in HIGHER_IS_BETTER | LOWER_IS_BETTER)
    if not count:
        return
    metric, runs = min(count.items(), key=lambda item: (-item[1], item[0]))
    metrics = ", ".join((metric, *Rules().metrics))
    yield f"runs:\n  # {runs} of {len(sorting.runs)} runs have no metric of the default list\n  metrics: [{metrics}]\n"


def _is_pattern(family: ModelFamily) -> bool:
    if family.name.count("*") != 1:
        return False
    try:
        parse_pattern(family.name, "/")
    except ValueError:
        return False
    return True


def _used(family: ModelFamily) -> str:
    scripts = family.used.scripts
    references = family.used.references
    return f"{references} reference{'s' * (references != 1)} in {scripts} script{'s' * (scripts != 1)}"


def _escaped(path: str) -> str:
    """A path in the form of ``.gitignore``, where some characters stand for others."""
    return re.sub(r"([\\*?\[])", r"\\\1", path)


def _text(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)
