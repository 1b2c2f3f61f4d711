"""``holdfast show``."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click

from holdfast.cli import completion_values
from holdfast.cli.groups import Verb
from holdfast.cli.naming import open_named
from holdfast.cli.output import Form, Table, emit, form_options, human_bytes, plural
from holdfast.cli.progress import bar
from holdfast.formats.cache import DigestCache, digests_of
from holdfast.formats.checkpoint import SEPARATOR, Checkpoint, Part, Tensor, storage_bytes
from holdfast.formats.content import NoDigestError, digest_of, tensor_digests
from holdfast.formats.opening import read_checkpoint
from holdfast.formats.safety import UNKNOWN, Safety, pickle_safety
from holdfast.formats.source import FileSource, Source
from holdfast.formats.summary import Summary, summary_of
from holdfast.objectstore.source import ObjectSource

PARTS: tuple[Part, ...] = ("weights", "optimizer", "other")
FOLDED_ROWS = 40
FOLDED_LINES = 12
MIXED = 4  # dtypes in the first line
VALUE_CHARACTERS = 60
PROGRESS_FROM_BYTES = 500_000_000
CACHE_PLACE = Path(".dvc") / "tmp" / "holdfast" / "digests.sqlite"
INDENT = "  "


@click.command("show", cls=Verb)
@click.argument("name", shell_complete=completion_values.checkpoints)
@click.option("--all", "everything", is_flag=True, help="Fold nothing: every tensor, value and tie.")
@click.option(
    "--digest/--no-digest",
    default=None,
    help="Whether to take the weights digest, for which all weights are read. By default of all but objects.",
)
@form_options
def command(name: str, everything: bool, digest: bool | None, form: Form) -> None:
    """Show what a checkpoint holds, without running anything in it.

    NAME is a file, an object of a bucket, a registered model (app/name@v3, app/name@alias) or a file of a commit
    (REV:path), tracked by git or by DVC. Reads safetensors, torch (zip, TorchScript, before 1.6), NumPy and ONNX files;
    tells them by their content. Of an object only the headers are fetched.

    \b
    Examples:
      holdfast show models/digits/classifier.safetensors
      holdfast show digits/classifier@v1
      holdfast show s3://models/checkpoints/classifier.safetensors
    """
    with ExitStack() as stack:
        source = open_named(name)
        if isinstance(source, FileSource):
            stack.enter_context(source)
        checkpoint = read_checkpoint(source)
        summary = summary_of(checkpoint)
        safety = pickle_safety(checkpoint) if checkpoint.pickles else None
        value, reason = None, "it was not asked for"
        if digest or (digest is None and not isinstance(source, ObjectSource)):
            value, reason = _weights_digest(source, checkpoint, summary)
        elif digest is None:
            reason = f"`--digest` reads {human_bytes(summary.weight_nbytes)} for it"
    payload = _payload(name, checkpoint, summary, safety, value, reason)
    blocks = _blocks(name, checkpoint, summary, safety, value, reason, everything)
    emit(form, payload, [_printable(block) for block in blocks])


def digest_cache(start: Path) -> DigestCache:
    """The cache of digests: that of the DVC project around ``start``, else the user's."""
    for folder in (start.resolve(), *start.resolve().parents):
        if (folder / ".dvc").is_dir():
            return DigestCache(folder / CACHE_PLACE)
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return DigestCache(Path(home) / "holdfast" / CACHE_PLACE.name)


def _printable(block: str | Table) -> str | Table:
    """What a file calls its tensors may hold the escape codes of terminals."""
    if isinstance(block, Table):
        return replace(block, rows=[[_plain(cell) for cell in row] for row in block.rows])
    return "\n".join(_plain(line) for line in block.split("\n"))


def _plain(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _weights_digest(source: Source, checkpoint: Checkpoint, summary: Summary) -> tuple[str | None, str]:
    if checkpoint.no_digest:
        return None, checkpoint.no_digest
    with _progress(summary.weight_nbytes) as progress:
        if not isinstance(source, FileSource):
            try:
                return digest_of(checkpoint.weights, tensor_digests(checkpoint, checkpoint.weights, progress)), ""
            except NoDigestError as error:
                return None, error.message
        with digest_cache(Path.cwd()) as cache:
            digests = digests_of(source.path, cache, weights=True, progress=progress)
    return digests.weights, digests.no_weights or ""


@contextmanager
def _progress(nbytes: int) -> Iterator[Callable[[int], None]]:
    done = 0
    with bar("Hashing the weights", least=PROGRESS_FROM_BYTES) as update:

        def advance(step: int) -> None:
            nonlocal done
            done += step
            update(done, nbytes)

        yield advance


def _blocks(
    name: str,
    checkpoint: Checkpoint,
    summary: Summary,
    safety: Safety | None,
    digest: str | None,
    reason: str,
    everything: bool,
) -> list[str | Table]:
    blocks: list[str | Table] = [_sentence(name, checkpoint, summary)]
    if checkpoint.opaque:
        blocks += _listed("not read", [_opaque_line(item.name, item.reason) for item in checkpoint.opaque], everything)
    if checkpoint.tensors:
        blocks += [_parts(checkpoint), _tree(checkpoint, everything)]
    # the outermost values first: the epoch before each group's settings
    metadata = sorted(checkpoint.metadata.items(), key=lambda item: item[0].count(SEPARATOR))
    values = [f"{name} = {_short(value, everything)}" for name, value in metadata]
    blocks += _listed("value", values, everything)
    blocks += _listed("tie", [" = ".join(names) for names in checkpoint.ties], everything)
    if safety is not None:
        blocks += _safety_lines(safety)
    blocks.append(f"Weights digest:\n{INDENT}{digest}" if digest else f"No weights digest: {reason}.")
    return blocks


def _sentence(name: str, checkpoint: Checkpoint, summary: Summary) -> str:
    if not checkpoint.tensors:
        return f"{name}: {checkpoint.format}, opaque, {human_bytes(checkpoint.size)}."
    mix = _mix(summary)
    return (
        f"{name}: {checkpoint.format}, {plural(summary.tensors, 'tensor')}, "
        f"{plural(summary.parameters, 'parameter')}, {human_bytes(checkpoint.size)}{mix and ', ' + mix}."
    )


def _mix(summary: Summary) -> str:
    """``F32``, or the shares of the elements: ``F32 99 %, I64 1 %``."""
    total = sum(summary.dtypes.values())
    if len(summary.dtypes) == 1 or not total:
        return ", ".join(summary.dtypes)
    shares = [(name, 100 * count / total) for name, count in summary.dtypes.items()]
    return ", ".join(f"{name} {_share(share)}" for name, share in shares[:MIXED]) + (
        ", …" if len(shares) > MIXED else ""
    )


def _share(share: float) -> str:
    return "< 1 %" if share < 1 else "> 99 %" if 99 < share < 100 else f"{share:.0f} %"


def _parts(checkpoint: Checkpoint) -> Table:
    rows = []
    for part in PARTS:
        tensors = [tensor for tensor in checkpoint.tensors if tensor.part == part]
        if tensors:
            elements = sum(tensor.elements for tensor in tensors)
            rows.append([part, f"{len(tensors):,}", f"{elements:,}", human_bytes(storage_bytes(tensors))])
    rest = sum(span.nbytes for span in checkpoint.literal)
    rows.append(["headers, padding", "", "", human_bytes(rest)])
    return Table(["part", "tensors", "elements", "bytes"], rows, right=frozenset({"tensors", "elements", "bytes"}))


@dataclass
class _Node:
    label: str
    tensor: Tensor | None = None
    children: dict[str, "_Node"] = field(default_factory=dict)
    tensors: int = 0
    elements: int = 0
    nbytes: int = 0
    open: bool = False


def _tree(checkpoint: Checkpoint, everything: bool) -> Table:
    root = _Node("")
    for tensor in checkpoint.tensors:
        node = root
        for label in _labels(tensor):
            node = node.children.setdefault(label, _Node(label))
        while node.tensor is not None:  # two names that differ in their separators alone
            node = node.children.setdefault("~", _Node("~"))
        node.tensor = tensor
    _count(root)
    _open(root, sys.maxsize if everything else FOLDED_ROWS)
    rows: list[list[str]] = []
    _rows(root, 0, rows)
    return Table(
        ["tensor", "shape", "dtype", "bytes"], rows, right=frozenset({"bytes"}), spare=("bytes", "dtype", "shape")
    )


def _labels(tensor: Tensor) -> list[str]:
    return [label for label in tensor.name.replace("/", ".").split(".") if label] or [tensor.name]


def _count(root: _Node) -> None:
    # without recursion: a file may nest two hundred deep, and a name may have a thousand dots
    order, waiting = [], [root]
    while waiting:
        node = waiting.pop()
        order.append(node)
        waiting += node.children.values()
    for node in reversed(order):
        own = node.tensor
        node.tensors = (own is not None) + sum(child.tensors for child in node.children.values())
        node.elements = (own.elements if own else 0) + sum(child.elements for child in node.children.values())
        node.nbytes = (own.nbytes if own else 0) + sum(child.nbytes for child in node.children.values())


def _open(root: _Node, rows: int) -> None:
    """Open nodes from the top down, the largest first, while their children fit into ``rows``."""
    root.open = True
    shown = len(root.children)
    level = list(root.children.values())
    while level:
        deeper: list[_Node] = []
        for node in sorted(level, key=lambda item: -item.nbytes):
            if node.children and shown + len(node.children) <= max(rows, shown if len(node.children) == 1 else 0) + 1:
                node.open = True
                shown += len(node.children)
                deeper += node.children.values()
        level = deeper


def _rows(root: _Node, depth: int, rows: list[list[str]]) -> None:
    waiting = [(child, depth, child.label) for child in reversed(root.children.values())]
    while waiting:
        node, depth, label = waiting.pop()
        if node.open and node.tensor is None and len(node.children) == 1:
            (child,) = node.children.values()
            waiting.append((child, depth, f"{label}.{child.label}"))
            continue
        indented = INDENT * depth + label
        if node.tensor is not None:
            shape = " × ".join(map(str, node.tensor.shape)) or "scalar"
            rows.append([indented, shape, node.tensor.dtype, human_bytes(node.tensor.nbytes)])
        if node.children and node.open:
            if node.tensor is None:
                rows.append([indented, "", "", human_bytes(node.nbytes)])
            waiting += [(child, depth + 1, child.label) for child in reversed(node.children.values())]
        elif node.children:
            rows.append([f"{indented} …", plural(node.tensors, "tensor"), "", human_bytes(node.nbytes)])


def _listed(noun: str, lines: list[str], everything: bool) -> list[str | Table]:
    if not lines:
        return []
    shown = lines if everything else lines[:FOLDED_LINES]
    head = "Not read:" if noun == "not read" else f"{plural(len(lines), noun)}:"
    more = [f"{INDENT}… and {len(lines) - len(shown):,} more: `--all` shows them"] if len(lines) > len(shown) else []
    return ["\n".join([head, *(INDENT + line for line in shown), *more, ""])]


def _opaque_line(name: str, reason: str) -> str:
    return f"{name}: {reason}" if name else reason


def _short(value: Any, everything: bool) -> str:
    text = value if isinstance(value, str) else repr(value)
    text = " ".join(text.split())
    return text if everything or len(text) <= VALUE_CHARACTERS else text[: VALUE_CHARACTERS - 1] + "…"


def _safety_lines(safety: Safety) -> list[str | Table]:
    noun = plural(safety.pickles, "pickle")
    if safety.foreign:
        names = ", ".join(safety.foreign[:FOLDED_LINES]) + (", …" if len(safety.foreign) > FOLDED_LINES else "")
        first = f"Unpickling it would call what rebuilds no tensor: {names}."
    else:
        first = f"Its {noun} only {'rebuilds' if safety.pickles == 1 else 'rebuild'} tensors and plain values."
    if safety.verdict == UNKNOWN:
        second = f"fickling says: unknown ({', '.join(safety.findings) or 'no answer'})."
    else:
        second = f"fickling, to which every import from torch is suspect, says: {safety.verdict}."
    return [first, second]


def _payload(
    name: str, checkpoint: Checkpoint, summary: Summary, safety: Safety | None, digest: str | None, reason: str
) -> dict[str, Any]:
    return {
        "format": "holdfast show 1",
        "path": name,
        "checkpoint": checkpoint.format,
        "size": checkpoint.size,
        "parameters": summary.parameters,
        "dtypes": dict(summary.dtypes),
        "bytes": {
            part: storage_bytes([tensor for tensor in checkpoint.tensors if tensor.part == part]) for part in PARTS
        },
        "literal": [[span.offset, span.nbytes] for span in checkpoint.literal],
        "container": checkpoint.container,
        "weights_digest": digest,
        "no_weights_digest": None if digest else reason,
        "tensors": [
            {
                "name": tensor.name,
                "path": list(tensor.path),
                "part": tensor.part,
                "weight_name": tensor.weight_name,
                "dtype": tensor.dtype,
                "shape": list(tensor.shape),
                "strides": list(tensor.strides),
                "start": tensor.start,
                "bytes": tensor.nbytes,
                "storage": {
                    "offset": tensor.storage.offset,
                    "bytes": tensor.storage.nbytes,
                    "codec": tensor.storage.codec,
                    "file": tensor.storage.external,
                },
            }
            for tensor in checkpoint.tensors
        ],
        "metadata": dict(checkpoint.metadata),
        "ties": [list(names) for names in checkpoint.ties],
        "opaque": [{"name": item.name, "reason": item.reason} for item in checkpoint.opaque],
        "pickles": None
        if safety is None
        else {
            "count": safety.pickles,
            "foreign": list(safety.foreign),
            "fickling": safety.verdict,
            "findings": list(safety.findings),
        },
    }
