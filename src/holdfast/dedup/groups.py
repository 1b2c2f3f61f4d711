"""What is stored more than once: a group of files, objects or tensors, and a report of all groups."""

from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

REPORT_FORMAT = "holdfast dedup report 2"
# below one block of the usual file systems a duplicate costs no more than its name
MIN_SIZE_BYTES = 4096

Kind = Literal["checkout", "duplicate", "weights", "tensors", "cast", "similar"]
KINDS: tuple[Kind, ...] = ("checkout", "duplicate", "weights", "tensors", "cast", "similar")
# told by comparing whole files; the others look into checkpoints
EXACT_KINDS = frozenset({"checkout", "duplicate"})
Scope = Literal["workspace", "cache", "remote", "history"]
SCOPES: tuple[Scope, ...] = ("workspace", "cache", "remote", "history")


@dataclass(frozen=True)
class Estimate:
    """What the vault's codec makes of bytes, told from a sample of them: an estimate, no promise.

    Args:
        ratio: stored bytes for each raw one that changed, the mean of the sampled blocks.
        spread: the standard deviation of that from block to block.
        low: the lower end of the saving's 95 % interval, in bytes.
        high: its upper end.
        blocks: how many blocks were sampled.
        all_blocks: how many there are.
        sampled: bytes of the blocks.
        same: the share of the sampled bytes that are equal in both, and not part of the saving.
    """

    ratio: float
    spread: float
    low: int
    high: int
    blocks: int
    all_blocks: int
    sampled: int
    same: float


@dataclass(frozen=True)
class DuplicateGroup:
    """Bytes that are stored more than once, and where.

    Args:
        digest: ``blake3:<hex>`` of the files' bytes; of ``weights`` the weights digest; else over what the group is.
        size: bytes of one copy of what is shared.
        copies: how many times it may lie on the disk: files that share their blocks count once.
        wasted: bytes that would not be needed if it were stored once; of ``similar`` an estimate.
        kind: ``checkout`` where all there is are a cache object and the workspace files that DVC made from it,
            ``duplicate`` for other files of equal bytes, ``weights`` for the same weights in different files,
            ``tensors`` for tensors that several checkpoints have, ``cast`` for floats of two bytes that were cast from
            stored ones of four, ``similar`` for a checkpoint that is close to another one.
        paths: files of the workspace, from the folder that was looked at.
        oids: DVC's names of the cache objects, or of those in a remote.
        names: for each of ``oids`` a path that it has or had in git's history; empty where none is known.
        tensors: how many tensors are shared.
        estimate: how the saving was told, where it is an estimate.
        base: of ``similar`` the path or object that the first one would be stored against.
        advice: the command that does something about it, or what to do.
    """

    digest: str
    size: int
    copies: int
    wasted: int
    kind: Kind
    paths: tuple[str, ...]
    oids: tuple[str, ...]
    names: tuple[str, ...] = ()
    tensors: int = 0
    estimate: Estimate | None = None
    base: str = ""
    advice: str = ""


@dataclass(frozen=True)
class DuplicateReport:
    """All groups, those that waste most first.

    Args:
        groups: see `DuplicateGroup`.
        files: files of the workspace that were looked at.
        objects: cache or remote objects that were looked at.
        bytes: what they occupy together, hard links counted once.
        link_types: how DVC links cached files into the workspace; empty without DVC.
        notes: what was left out or is not known, and why.
        scopes: where it was looked.
        checkpoints: how many different ones were looked into.
        tensors: how many these have.
    """

    groups: tuple[DuplicateGroup, ...]
    files: int
    objects: int
    bytes: int
    link_types: tuple[str, ...]
    notes: tuple[str, ...]
    scopes: tuple[Scope, ...] = ("workspace", "cache")
    checkpoints: int = 0
    tensors: int = 0

    @property
    def wasted(self) -> int:
        """Bytes that equal files waste: measured, and no estimate."""
        return sum(group.wasted for group in self.groups if group.kind in EXACT_KINDS)

    @property
    def totals(self) -> dict[Kind, int]:
        """Bytes wasted by kind."""
        return {kind: sum(group.wasted for group in self.groups if group.kind == kind) for kind in KINDS}

    def chosen(self, kinds: Collection[Kind], top: int | None = None) -> "DuplicateReport":
        """The report with groups of these kinds alone (all where none is named), and no more than ``top`` of them."""
        groups = [group for group in self.groups if not kinds or group.kind in kinds]
        return replace(self, groups=tuple(groups[:top]))

    def to_json(self) -> dict[str, Any]:
        """The report as JSON takes it."""
        return {"format": REPORT_FORMAT, "wasted": self.wasted, "totals": self.totals, **asdict(self)}


def ranked(groups: Collection[DuplicateGroup]) -> tuple[DuplicateGroup, ...]:
    """Groups that waste most first; the same groups always in the same order."""
    return tuple(sorted(groups, key=lambda group: (-group.wasted, KINDS.index(group.kind), group.digest)))
