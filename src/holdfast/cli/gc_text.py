"""How a plan of a collection reads."""

import sys
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from holdfast.cli.output import Table, human_age, human_bytes, plural
from holdfast.errors import UsageError
from holdfast.gc.plan import Plan, Total
from holdfast.gc.planned import PlannedObject
from holdfast.repo.dvcfiles import LISTING_SUFFIX

OID_SHOWN_CHARACTERS = 8
# columns of a terminal that the rest of a row takes, and what a name gets at least
ROW_CHARACTERS = 62
NAME_MIN_CHARACTERS = 20
OBJECTS_SHOWN = 200
USERS_SHOWN = 5
NAMES_SHOWN = 20
SCOPES = {
    "cache": "DVC's cache",
    "remote": "the remote {}",
    "vault": "the vault {}",
    "runs": "the runs",
    "workspace": "the workspace",
}
# what decided, for people; other words stand for themselves
REASONS = {
    "workspace": "in the workspace",
    "registry": "registered version",
    "branch": "at the tip of a branch",
    "tag": "tagged",
    "experiment": "experiment",
    "stash": "stashed",
    "ref": "another ref",
    "history": "in the history of a ref",
    "run cache": "run cache alone",
    "undecided": "undecided",
    "young": "too young",
    "clone": "another clone needs it",
    "policy": "the policy lets it go",
    "reflog": "only the reflog has it",
    "nothing": "nothing refers to it",
    "abandoned": "of pushes that never ended",
    "decision": "needs a decision",
    "class": "runs of a class that stays",
    "running": "a run at work",
    "used": "in use",
    "archived": "archived already",
    "nested": "inside another one",
    "copies": "copies of others",
    "cache": "made again by tools",
    "duplicate": "lies twice",
    "orphan": "orphaned copies",
    "secondary": "the family used less",
    "unreferenced": "nothing refers to it",
    "declared": "holdfast.yaml says so",
    "changed": "changed meanwhile",
    "dvc": "tracked by DVC",
}


def plan_blocks(plan: Plan, only: str | None, output: Path | None) -> Iterator[str | Table]:
    """The whole plan, or what goes, stays or is archived alone."""
    yield _sentence(plan)
    if any(total.reason == "undecided" for total in plan.totals):  # else the doubts keep nothing
        yield from (f"In doubt: {doubt.text}.\nWay out: {doubt.way_out}." for doubt in plan.doubts)
    if only in (None, "removed") and plan.removed:
        yield _objects("Could be removed", plan.removed)
    if only in (None, "archived") and plan.archived:
        yield _objects("Could be archived", plan.archived)
    decisions = [entry for entry in plan.lines if entry.kept and entry.reason == "decision"]
    if only is None and decisions:
        yield _objects("Need a decision: --accept PATTERN", decisions)
    if only == "kept" and plan.kept:
        yield _objects("Kept", plan.kept)
    if only is None and any(total.kept for total in plan.totals):
        yield _totals(plan)
    if only is None:
        yield from _hints(plan, output)


def chosen_objects(plan: Plan, name: str) -> list[PlannedObject]:
    """The objects of an oid, which may be cut short, or of a path or a pattern of paths.

    Raises:
        UsageError: there is none in the plan.
    """
    found = [
        entry
        for entry in plan.objects
        if (entry.oid and entry.oid.startswith(name))
        or any(path == name or fnmatchcase(path, name) for path in (entry.path, *(one.path for one in entry.names)))
    ]
    if not found:
        raise UsageError(
            f"the plan has no object called {name}",
            hint="It looks at DVC's cache alone, unless told otherwise: --scope cache,remote,vault,runs,workspace",
        )
    return found


def explained(objects: Sequence[PlannedObject], name: str) -> Iterator[str | Table]:
    """All that is known of objects."""
    yield f"{plural(len(objects), 'object')} for {name}."
    for entry in objects:
        fate = {"keep": "stays", "remove": "could be removed", "archive": "could be archived"}[entry.tier]
        lines = [
            f"{entry.path} in {_where(entry.scope, entry.place)}: {fate}, {entry.why}.",
            f"  {human_bytes(entry.size)}, {human_age(entry.age_days)} old{_stored(entry)}{_last(entry)}",
        ]
        lines += [
            f"  {name.path}: {name.source}{f' ({name.commit[:8]})' if name.commit else ''}"
            for name in entry.names[:NAMES_SHOWN]
        ]
        lines += [f"  … and {len(entry.names) - NAMES_SHOWN} more names"] if len(entry.names) > NAMES_SHOWN else []
        lines += [f"  would break: {user}" for user in entry.users]
        yield "\n".join(lines)


def dollars(count: int) -> str:
    """What bytes cost a month on R2."""
    from holdfast.objectstore.usage import R2_PRICES  # imported here: a plan that frees nothing has no price

    cost = R2_PRICES.month(count)
    return f"${cost:,.2f}" if cost >= 0.005 else "less than $0.01"


def _sentence(plan: Plan) -> str:
    if not plan.totals:
        scopes = " and ".join(sorted({_where(scope, "").strip() for scope in plan.request.scopes}))
        empty = "the local cache is empty" if scopes == SCOPES["cache"] else f"nothing was found in {scopes}"
        return f"There is nothing to remove: {empty}."
    count, going = sum(total.objects for total in plan.totals), [*plan.removed, *plan.archived]
    everything = f"{plural(count, 'object')} ({human_bytes(sum(total.bytes for total in plan.totals))})"
    if not going:
        undecided = any(total.reason == "undecided" for total in plan.totals)
        return f"Nothing to remove: {'no object of' if undecided else 'something keeps all of'} the {everything}" + (
            " is surely unused." if undecided else "."
        )
    size = sum(entry.frees for entry in going)
    stored = sum(entry.frees for entry in going if entry.scope in ("remote", "vault"))
    cost = f" That is {dollars(stored)} a month on R2." if stored else ""
    whole, verb = human_bytes(sum(total.frees for total in plan.totals)), "is" if len(going) == 1 else "are"
    return (
        f"{len(going):,} of {plural(count, 'object')} ({human_bytes(size)} of {whole}) {verb} needed by nothing "
        f"and could go.{cost}"
    )


def _objects(title: str, entries: Sequence[PlannedObject]) -> Table:
    several = len({(entry.scope, entry.place) for entry in entries}) > 1
    rows = [
        (
            _short(entry),
            *((f"{entry.scope} {entry.place}".rstrip(),) if several else ()),
            human_bytes(entry.frees),
            human_age(entry.age_days),
            _names(entry),
            _why(entry),
        )
        for entry in entries[:OBJECTS_SHOWN]
    ]
    if len(entries) > OBJECTS_SHOWN:
        rest = entries[OBJECTS_SHOWN:]
        size = human_bytes(sum(entry.frees for entry in rest))
        rows.append(("…", *(("",) if several else ()), size, "", f"{len(rest):,} more", "`--json` lists all"))
    where = ("where",) if several else ()
    return Table(("object", *where, "size", "age", "name", "why"), rows, title, frozenset({"size", "age"}))


def _totals(plan: Plan) -> Table:
    kept = [total for total in plan.totals if total.kept]
    several = len({(total.scope, total.place) for total in plan.totals}) > 1
    rows = [
        (
            *((_where(total.scope, total.place),) if several else ()),
            _reason(total),
            f"{total.objects:,}",
            human_bytes(total.bytes),
        )
        for total in kept
    ]
    return Table(
        (*(("where",) if several else ()), "why", "objects", "size"), rows, "Kept", frozenset({"objects", "size"})
    )


def _hints(plan: Plan, output: Path | None) -> Iterator[str]:
    yield from plan.notes
    alone = [total for total in plan.totals if total.reason == "run cache" and total.kept]
    if alone:
        size, count = sum(total.bytes for total in alone), sum(total.objects for total in alone)
        yield (
            f"DVC's run cache alone keeps {human_bytes(size)} in {plural(count, 'object')}:\n"
            "`holdfast gc plan --ignore-run-cache` shows them."
        )
    if last := plan.last_copies:
        verb = "is the last copy known" if len(last) == 1 else "are the last copies known"
        yield (
            f"{len(last):,} of what could go ({human_bytes(_bytes(last))}) {verb}: `holdfast gc apply` wants "
            "--allow-last-copy."
        )
    if plan.removed or plan.archived:
        yield (
            f"Do it: `holdfast gc apply {output}`"
            if output is not None
            else "Nothing was deleted. Write the plan with `-o plan.json`, then `holdfast gc apply plan.json`."
        )


def _where(scope: str, place: str) -> str:
    return SCOPES[scope].format(place).rstrip()


def _reason(total: Total) -> str:
    if total.reason == "cache" and total.scope != "workspace":
        return total.reason
    return REASONS.get(total.reason, total.reason)


def _short(entry: PlannedObject) -> str:
    if not entry.oid:
        return entry.scope
    suffix = LISTING_SUFFIX if entry.oid.endswith(LISTING_SUFFIX) else ""
    return entry.oid[:OID_SHOWN_CHARACTERS] + suffix


def _names(entry: PlannedObject) -> str:
    if not entry.names:
        return "–" if entry.oid else _cut(entry.path)
    first = _cut(entry.names[0].path)
    return first if len(entry.names) == 1 else f"{first} (+{len(entry.names) - 1})"


def _why(entry: PlannedObject) -> str:
    why = "undecided, see the doubt above" if entry.reason == "undecided" else entry.why
    users = ", ".join(entry.users[:USERS_SHOWN])
    more = f" and {len(entry.users) - USERS_SHOWN} more" if len(entry.users) > USERS_SHOWN else ""
    return f"{why}; would break: {users}{more}" if users else why


def _stored(entry: PlannedObject) -> str:
    return f", {human_bytes(entry.stored)} of its own in the vault" if entry.stored is not None else ""


def _last(entry: PlannedObject) -> str:
    return "" if entry.last_copy is None else ", the last copy known" if entry.last_copy else ", elsewhere, too"


def _cut(path: str) -> str:
    if not sys.stdout.isatty():
        return path
    import shutil  # imported here: it takes 1 ms, and most plans list nothing

    limit = max(NAME_MIN_CHARACTERS, shutil.get_terminal_size().columns - ROW_CHARACTERS)
    if len(path) <= limit:
        return path
    tail = path[-(limit - 1) :]
    # the end says most; from a slash on where there is one
    return f"…{tail[tail.index('/') :] if '/' in tail[:-1] else tail}"


def _bytes(entries: Sequence[PlannedObject]) -> int:
    return sum(entry.size for entry in entries)
