"""Experiments for the page: DVC's refs, each beside the commit that it started from."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from holdfast.registry.selection import Direction, better_is
from holdfast.repo.gitfolder import GitFolder
from holdfast.repo.refs import list_tips
from holdfast.report.html_states import Key, State, States, columns_of

COLUMNS_SHOWN = 5  # of metrics, and of params, before anybody chooses
REVISION_DIGITS = 8


@dataclass(frozen=True)
class Experiment:
    """A row: an experiment, or a commit that experiments started from.

    Attributes:
        name: DVC's name of it; of a baseline its branch, else the first digits of its commit.
        commit: 40 hex digits.
        baseline: the commit that it started from; empty for a baseline.
        date: of the commit, ISO 8601 in UTC.
        state: what its commit says.
    """

    name: str
    commit: str
    baseline: str
    date: str
    state: State


def read_experiments(folder: GitFolder, states: States) -> list[Experiment]:
    """All experiments that refs name, those of the newest baseline first, each baseline before its own.

    The commit that is checked out comes first, whether or not something started from it.

    Raises:
        UnreadableRefError: a ref or an object of git's cannot be read.
    """
    tips = list_tips(folder, states.objects)
    found = {(tip.origin.ref, tip.origin.commit): tip for tip in tips if tip.baseline}
    if not found:
        return []
    branches: dict[str, str] = {}
    for tip in tips:
        if tip.origin.kind == "branch":
            branches.setdefault(tip.origin.commit, tip.origin.ref)
    head = folder.head()[1]
    grouped: dict[str, list[Experiment]] = {head: []} if head else {}
    for (name, commit), tip in found.items():
        one = Experiment(name, commit, tip.baseline, _date(states, commit), states.read(commit))
        grouped.setdefault(tip.baseline, []).append(one)
    order = sorted(grouped, key=lambda commit: (commit != head, _reversed(_date(states, commit)), commit))
    rows: list[Experiment] = []
    for commit in order:
        name = branches.get(commit, commit[:REVISION_DIGITS])
        rows.append(Experiment(name, commit, "", _date(states, commit), states.read(commit)))
        rows += sorted(grouped[commit], key=lambda one: (_reversed(one.date), one.name, one.commit))
    return rows


def experiments_json(rows: list[Experiment], directions: Mapping[str, Direction]) -> dict[str, Any]:
    """The table as the page reads it: columns, and rows with a cell for each of them.

    Args:
        rows: from `read_experiments`.
        directions: which way metrics are better, as far as a gate says so.
    """
    metrics = columns_of(key for row in rows for key in row.state.metrics)
    params = columns_of(key for row in rows for key in row.state.params)
    varying = [key for key in params if len({repr(row.state.params.get(key)) for row in rows}) > 1]
    # what never changes tells experiments apart from nothing
    ordered = [*varying, *(key for key in params if key not in set(varying))]
    named = sorted(metrics, key=lambda key: (_rank(key, directions), list(metrics).index(key)))
    columns = [_column(metrics[key], "metric", place < COLUMNS_SHOWN, directions) for place, key in enumerate(named)]
    columns += [
        _column(params[key], "param", place < min(COLUMNS_SHOWN, len(varying)), {}) for place, key in enumerate(ordered)
    ]
    return {
        "columns": columns,
        "rows": [
            {
                "name": row.name,
                "commit": row.commit[:REVISION_DIGITS],
                "baseline": row.baseline[:REVISION_DIGITS],
                "date": row.date,
                "cells": [
                    *(row.state.metrics.get(key) for key in named),
                    *(row.state.params.get(key) for key in ordered),
                ],
            }
            for row in rows
        ],
    }


def _column(name: str, kind: str, shown: bool, directions: Mapping[str, Direction]) -> dict[str, Any]:
    plain = name.rpartition(":")[2]
    return {
        "name": name,
        "kind": kind,
        "shown": shown,
        "better": (directions.get(plain) or better_is(plain)) if kind == "metric" else None,
    }


def _rank(key: Key, directions: Mapping[str, Direction]) -> int:
    """The gate's metrics first, as the gate has them."""
    names = list(directions)
    return names.index(key[1]) if key[1] in names else len(names)


def _date(states: States, commit: str) -> str:
    found = states.objects.find_commit(commit)
    return "" if found is None else f"{datetime.fromtimestamp(found.time, timezone.utc):%Y-%m-%dT%H:%M:%SZ}"


def _reversed(text: str) -> tuple[int, ...]:
    """Sorts texts of one length the other way round."""
    return tuple(-ord(character) for character in text)
