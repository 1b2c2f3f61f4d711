"""A plan of replacing copies by links: what it says, and its file, which nobody may edit."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

from blake3 import blake3

from holdfast.errors import StalePlanError, UsageError

PLAN_FORMAT = "holdfast dedup plan 1"
NEW_PLAN = "Make a new plan: `holdfast dedup plan -o FILE`"

LinkKind = Literal["reflink", "hardlink", "symlink"]
LINK_KINDS: tuple[LinkKind, ...] = ("reflink", "hardlink", "symlink")


@dataclass(frozen=True)
class Stamp:
    """Names a state of a file: it is not replaced, or linked to, in another one.

    Args:
        size: bytes.
        modified: mtime in ns.
        inode: of its file system.
        mode: type and permissions.
    """

    size: int
    modified: int
    inode: int
    mode: int

    def same_bytes(self, other: "Stamp") -> bool:
        """Whether they name the same state, whatever may be done with the file: DVC protects what it links to."""
        return (self.size, self.modified, self.inode) == (other.size, other.modified, other.inode)


@dataclass(frozen=True)
class Replacement:
    """A copy that becomes a link.

    Args:
        path: of the copy, from the folder, with slashes.
        kind: what it becomes: ``reflink``, or for a file that DVC tracks and protects ``hardlink`` or ``symlink``.
        source: the file that it is to share the blocks of, from the folder; empty where that is an object.
        hash_name: of the object that it becomes a link to; empty where that is a file.
        oid: likewise.
        digest: ``blake3:<hex>`` of the bytes of both.
        stamp: the copy's state.
        source_stamp: the source's state.
        tracked: whether DVC tracks the file as this object, so that DVC makes the link.
        why: why the source is the one that stays.
    """

    path: str
    kind: LinkKind
    source: str
    hash_name: str
    oid: str
    digest: str
    stamp: Stamp
    source_stamp: Stamp
    tracked: bool
    why: str

    @property
    def size(self) -> int:
        """Bytes that are freed."""
        return self.stamp.size


@dataclass(frozen=True)
class LeftFile:
    """A copy that stays one, and why."""

    path: str
    size: int
    why: str


@dataclass(frozen=True)
class DedupPlan:
    """What would be replaced by what.

    Args:
        steps: ordered by path.
        left: copies that stay.
        link_types: how DVC was set to link when the plan was made.
        cache: the cache's folder, from the folder where it lies in it, else absolute; empty without DVC.
    """

    steps: tuple[Replacement, ...]
    left: tuple[LeftFile, ...]
    link_types: tuple[str, ...]
    cache: str

    @property
    def freed(self) -> int:
        """Bytes that are free once the quarantine is purged."""
        return sum(step.size for step in self.steps)

    def to_json(self) -> dict[str, Any]:
        """For ``json.dump``; `read_plan` reads it."""
        body = {"format": PLAN_FORMAT, "freed": self.freed} | asdict(self)
        return body | {"digest": digest_of(body)}

    def as_bytes(self) -> bytes:
        """The plan's file: the same plan has the same bytes."""
        return f"{json.dumps(self.to_json(), indent=2)}\n".encode()


def digest_of(body: Mapping[str, Any]) -> str:
    """``blake3:<hex>`` over all that a plan says, in whatever way it is spaced."""
    text = json.dumps({key: value for key, value in body.items() if key != "digest"}, sort_keys=True)
    return f"blake3:{blake3(text.encode()).hexdigest()}"


def read_plan(data: bytes) -> DedupPlan:
    """A plan that was saved.

    Raises:
        StalePlanError: it was edited.
        UsageError: it is none, or names what lies outside of the folder.
    """
    hint = "Write one with `holdfast dedup plan -o FILE`"
    try:
        saved = json.loads(data)
        if not isinstance(saved, dict) or saved.get("format") != PLAN_FORMAT:
            raise ValueError("it is another kind of file")
        if saved.get("digest") != digest_of(saved):
            raise StalePlanError("the plan was changed by hand since it was made", hint=NEW_PLAN)
        plan = DedupPlan(
            tuple(_step(step) for step in saved["steps"]),
            tuple(LeftFile(**item) for item in saved["left"]),
            tuple(saved["link_types"]),
            str(saved["cache"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f"the plan cannot be read: {error}", hint=hint) from error
    paths = [step.path for step in plan.steps]
    for place in [*paths, *(step.source for step in plan.steps if step.source)]:
        parts = PurePosixPath(place).parts
        if not parts or PurePosixPath(place).is_absolute() or ".." in parts:
            raise UsageError(f"the plan cannot be read: it names {place!r}, which is outside of the folder", hint=hint)
    if len(set(paths)) != len(paths):
        raise UsageError("the plan cannot be read: it names a file twice", hint=hint)
    return plan


def _step(saved: Mapping[str, Any]) -> Replacement:
    stamps = {name: Stamp(**saved[name]) for name in ("stamp", "source_stamp")}
    step = Replacement(**{**saved, **stamps})
    if (
        step.kind not in LINK_KINDS
        or (step.kind != "reflink" and not step.tracked)
        or bool(step.source) == bool(step.oid)
    ):
        raise ValueError(f"{step.path} cannot become a {step.kind}")
    return step
