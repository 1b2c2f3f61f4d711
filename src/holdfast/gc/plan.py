"""The plan of a collection: what could be removed, what stays, and why.

A plan deletes nothing. Equal history, workspace, stores and time give an equal plan, byte for byte.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from functools import cached_property
from itertools import chain
from operator import attrgetter
from typing import Any

from blake3 import blake3

from holdfast.errors import StalePlanError, UsageError
from holdfast.gc.planned import Doubt, PlannedObject, Scope, Staying
from holdfast.gc.references import RANKS, Name

PLAN_FORMAT = "holdfast gc plan 2"
NEW_PLAN = "Make a new one: `holdfast gc plan -o FILE`"


@dataclass(frozen=True)
class Total:
    """Objects and bytes that one kind of reason decided, in one scope.

    Args:
        scope: see `holdfast.gc.planned.Scope`.
        place: the name of the remote; empty for what lies here.
        tier: what becomes of them.
        reason: as of `PlannedObject`.
        objects: how many.
        bytes: of these.
        frees: of these, what they alone take.
    """

    scope: Scope
    place: str
    tier: str
    reason: str
    objects: int
    bytes: int
    frees: int

    @property
    def kept(self) -> bool:
        """Whether they stay as they are."""
        return self.tier == "keep"


@dataclass(frozen=True)
class Request:
    """What a plan was asked for; asked again it gives the same answer, where nothing has changed.

    Args:
        scopes: where to look.
        folders: the runs below these, from the project's root.
        remotes: names of DVC remotes, for the scope ``remote``.
        vaults: for the scope ``vault`` the DVC remotes beside which they lie, or their URLs; empty for the project's.
        accept: patterns of paths whose removal needs a decision, and has it.
        ignore_run_cache: the run cache keeps nothing.
        offline: no other place is asked whether it has what would go, and no git remote what it has.
    """

    scopes: tuple[Scope, ...] = ("cache",)
    folders: tuple[str, ...] = (".",)
    remotes: tuple[str, ...] = ()
    vaults: tuple[str, ...] = ()
    accept: tuple[str, ...] = ()
    ignore_run_cache: bool = False
    offline: bool = False


@dataclass(frozen=True)
class Plan:
    """What would happen to each object, and why.

    Args:
        time: when it was made, ISO 8601, UTC.
        revision: the commit checked out; None before the first.
        request: what it was asked for.
        lines: what is to go, and what stays for another reason than that something needs it; ordered by size, largest
            first. A plan that was read from a file has only those that are not to stay.
        totals: by scope, place and reason; what stays first.
        doubts: what could not be known.
        notes: what was left out, and why.
        inputs: digests of what it rests on, by name.
        archive: what `holdfast registry consolidate` calls a plan: how runs go to the archive; None for none.
        staying: what something needs.
    """

    time: str
    revision: str | None
    request: Request
    lines: tuple[PlannedObject, ...]
    totals: tuple[Total, ...]
    doubts: tuple[Doubt, ...] = ()
    notes: tuple[str, ...] = ()
    inputs: Mapping[str, str] = field(default_factory=dict)
    archive: Mapping[str, Any] | None = None
    staying: tuple[Staying, ...] = ()

    @cached_property
    def objects(self) -> tuple[PlannedObject, ...]:
        """All that was looked at, ordered by size, largest first."""
        return tuple(_ordered(chain(self.lines, *self.staying))) if self.staying else self.lines

    @property
    def removed(self) -> list[PlannedObject]:
        """What is to go."""
        return [entry for entry in self.lines if entry.tier == "remove"]

    @property
    def archived(self) -> list[PlannedObject]:
        """What is to be archived."""
        return [entry for entry in self.lines if entry.tier == "archive"]

    @property
    def kept(self) -> list[PlannedObject]:
        """What stays."""
        return [entry for entry in self.objects if entry.kept]

    @property
    def last_copies(self) -> list[PlannedObject]:
        """What is to go and lies nowhere else, as far as is known."""
        return [entry for entry in self.removed if entry.last_copy]

    @cached_property
    def digest(self) -> str:
        """The plan's name: 32 hex digits over all that is to happen, and what that rests on."""
        known = blake3(json.dumps(self._head(), sort_keys=True).encode())
        # one by one: a million of them as dictionaries are a gigabyte
        for entry in self._going():
            known.update(b"\n" + json.dumps(_object_json(entry)).encode())
        return known.hexdigest(length=16)

    def to_json(self, objects: Sequence[PlannedObject] | None = None) -> dict[str, Any]:
        """The plan as JSON takes it; with ``objects`` those alone are listed, the totals stay those of the plan."""
        listed = self.objects if objects is None else objects
        return {**self._head(), "digest": self.digest, "objects": [_object_json(entry) for entry in listed]}

    def to_file(self) -> str:
        """The text of a plan that can be applied, a line for each object: what stays is in the totals alone."""
        head = json.dumps({**self._head(), "digest": self.digest}, indent=2).removesuffix("\n}")
        lines = ",\n".join(f"    {json.dumps(_object_json(entry))}" for entry in self._going())
        return f'{head},\n  "objects": [\n{lines}\n  ]\n}}\n'

    def _going(self) -> Iterator[PlannedObject]:
        return (entry for entry in self.lines if not entry.kept)

    def _head(self) -> dict[str, Any]:
        return {
            "format": PLAN_FORMAT,
            "time": self.time,
            "revision": self.revision,
            "request": asdict(self.request),
            "totals": [asdict(total) for total in self.totals],
            "doubts": [asdict(doubt) for doubt in self.doubts],
            "notes": list(self.notes),
            "inputs": dict(self.inputs),
            "archive": self.archive,
        }


def plan_of(
    lines: Iterable[PlannedObject],
    staying: Sequence[Staying] = (),
    *,
    time: float,
    revision: str | None,
    request: Request,
    **rest: Any,
) -> Plan:
    """A plan, with its objects ordered and summed up.

    Args:
        lines: in any order.
        staying: what something needs, for which no lines were made.
        time: seconds since the epoch.
        revision: the commit checked out.
        request: what it was asked for.
        rest: doubts, notes, inputs and archive, as of `Plan`.
    """
    ordered = _ordered(lines)
    return Plan(
        time=datetime.fromtimestamp(time, timezone.utc).isoformat(timespec="seconds"),
        revision=revision,
        request=request,
        lines=tuple(ordered),
        totals=_totals(ordered, staying),
        staying=tuple(staying),
        **rest,
    )


def read_plan(data: bytes, name: str = "it") -> Plan:
    """A plan out of its file.

    Args:
        data: the file's bytes.
        name: what to call it.

    Raises:
        UsageError: it is no plan.
        StalePlanError: it was changed since it was written.
    """
    try:
        values = json.loads(data)
        if values["format"] != PLAN_FORMAT:
            raise ValueError("another format")
        plan = Plan(
            time=values["time"],
            revision=values["revision"],
            request=Request(**{name: _frozen(value) for name, value in values["request"].items()}),
            lines=tuple(_object(entry) for entry in values["objects"]),
            totals=tuple(Total(**total) for total in values["totals"]),
            doubts=tuple(Doubt(**doubt) for doubt in values["doubts"]),
            notes=tuple(values["notes"]),
            inputs=values["inputs"],
            archive=values["archive"],
        )
        unchanged = plan.digest == values["digest"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f"{name} is no plan of a collection", hint="`holdfast gc plan -o FILE` writes one") from error
    if not unchanged:
        raise StalePlanError(f"{name} was changed since it was written", hint=NEW_PLAN)
    return plan


def _ordered(lines: Iterable[PlannedObject]) -> list[PlannedObject]:
    # two sorts by what needs no function take half the time of one with a function
    ordered = sorted(lines, key=attrgetter("scope", "place", "path"))
    ordered.sort(key=attrgetter("size"), reverse=True)
    return ordered


def _totals(lines: Iterable[PlannedObject], staying: Iterable[Staying]) -> tuple[Total, ...]:
    sums: dict[tuple[Scope, str, str, str], list[int]] = {}
    for one in staying:
        for kind, objects in one.objects.items():
            if objects:
                size = sum(map(attrgetter("size"), objects))
                sums[one.scope, one.place, "keep", kind] = [len(objects), size, size]
    for entry in lines:
        known = sums.setdefault((entry.scope, entry.place, entry.tier, entry.reason), [0, 0, 0])
        known[0] += 1
        known[1] += entry.size
        known[2] += entry.frees
    order = sorted(
        sums,
        key=lambda group: (group[0], group[1], group[2] != "keep", group[2], RANKS.get(group[3], len(RANKS)), group[3]),
    )
    return tuple(Total(*group, *sums[group]) for group in order)


def _object_json(entry: PlannedObject) -> dict[str, Any]:
    values = entry._asdict()
    values["names"] = [name._asdict() for name in entry.names]
    values["users"] = list(entry.users)
    return values


def _object(values: Mapping[str, Any]) -> PlannedObject:
    known: dict[str, Any] = {name: _frozen(value) for name, value in values.items()}
    known["names"] = tuple(Name(**name) for name in values["names"])
    return PlannedObject(**known)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
