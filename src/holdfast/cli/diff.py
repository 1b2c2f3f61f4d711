"""``holdfast diff``."""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import click

from holdfast.cli import completion_values
from holdfast.cli.groups import Verb
from holdfast.cli.naming import open_named
from holdfast.cli.output import Form, Table, emit, form_options
from holdfast.compare.checkpoints import Comparison, PartBytes, compare_checkpoints
from holdfast.compare.tensors import TensorComparison
from holdfast.formats.checkpoint import SEPARATOR
from holdfast.formats.opening import read_checkpoint
from holdfast.formats.source import FileSource

FOLDED = 12
PART_NAMES = {
    "weights": "weights",
    "optimizer": "optimizer state",
    "other": "other tensors",
    "file": "headers, metadata",
}


@click.command("diff", cls=Verb)
@click.argument("a", shell_complete=completion_values.checkpoints)
@click.argument("b", shell_complete=completion_values.checkpoints)
@click.option("--all", "everything", is_flag=True, help="Fold nothing: every tensor and value that differs.")
@form_options
def command(a: str, b: str, everything: bool, form: Form) -> None:
    """Say how two checkpoints differ, in words, in figures and in bytes.

    A and B are files, registered models (app/name@v3, app/name@alias) or files of a commit (REV:path), tracked by git
    or by DVC. Weights are matched by their names inside of the container that holds them, so that a training
    checkpoint and the safetensors file made from it match. Nothing in the files is run.

    \b
    Examples:
      holdfast diff models/digits/classifier.safetensors outputs/train/best_model.pt
      holdfast diff HEAD~1:models/digits/classifier.safetensors digits/classifier@v3
    """
    with ExitStack() as stack:
        opened = []
        for name in (a, b):
            source = open_named(name)
            if isinstance(source, FileSource):
                stack.enter_context(source)
            opened.append(read_checkpoint(source))
        result = compare_checkpoints(*opened)
        sizes = (opened[0].size, opened[1].size)
    limit = None if everything else FOLDED
    blocks: list[str | Table] = [f"{result.verdict[0].upper()}{result.verdict[1:]}.", _sizes(result.parts, sizes)]
    blocks += _names("Only in the first", result.only_a, limit)
    blocks += _names("Only in the second", result.only_b, limit)
    if result.changed:
        blocks += _tensors(result.changed, limit)
    if result.metadata:
        # the outermost values first: the epoch before each group's settings
        changes = sorted(result.metadata, key=lambda change: change.name.count(SEPARATOR))
        rows = [(change.name, _short(change.a), _short(change.b)) for change in changes[:limit]]
        blocks.append(Table(("value", "first", "second"), rows, "Values beside the tensors"))
        blocks += _more(len(result.metadata), limit)
    emit(form, _payload(a, b, sizes, result), blocks)


def _sizes(parts: Sequence[PartBytes], sizes: tuple[int, int]) -> Table:
    rows = [(PART_NAMES[part.part], f"{part.a:,}", f"{part.b:,}", f"{part.difference:+,}") for part in parts]
    rows.append(("file", f"{sizes[0]:,}", f"{sizes[1]:,}", f"{sizes[1] - sizes[0]:+,}"))
    return Table(
        ("bytes of", "first", "second", "difference"), rows, right=frozenset({"first", "second", "difference"})
    )


def _tensors(changed: Sequence[TensorComparison], limit: int | None) -> list[str | Table]:
    """The tensors that lie furthest apart first; those without figures before them."""

    def distance(tensor: TensorComparison) -> float:
        norm = tensor.figures.relative_norm if tensor.figures else None
        return math.inf if norm is None else norm

    rows = [_tensor_row(tensor) for tensor in sorted(changed, key=distance, reverse=True)[:limit]]
    columns = ("tensor", "what", "changed", "max |a-b|", "mean |a-b|", "relative", "cosine")
    right = frozenset(columns[2:])
    spare = ("mean |a-b|", "cosine", "changed", "what")
    return [Table(columns, rows, "Tensors that differ", right, spare), *_more(len(changed), limit)]


def _tensor_row(tensor: TensorComparison) -> tuple[str, ...]:
    (shape_a, shape_b), (dtype_a, dtype_b), figures = tensor.shapes, tensor.dtypes, tensor.figures
    what = "cast" if tensor.cast else "values"
    if shape_a != shape_b:
        what = f"{_shape(shape_a)} → {_shape(shape_b)}"
    elif dtype_a != dtype_b:
        what = f"{dtype_a} → {dtype_b}" + (", cast" if tensor.cast else "")
    if figures is None:
        return (tensor.name, what, "", "", "", "", "")
    numbers = (figures.max_abs, figures.mean_abs, figures.relative_norm, figures.cosine)
    return (tensor.name, what, f"{figures.changed_share:.1%}", *("" if n is None else f"{n:.3g}" for n in numbers))


def _names(title: str, names: Sequence[str], limit: int | None) -> list[str | Table]:
    if not names:
        return []
    return ["\n".join([f"{title}:", *(f"  {name}" for name in names[:limit])]), *_more(len(names), limit)]


def _more(count: int, limit: int | None) -> list[str | Table]:
    return [] if limit is None or count <= limit else [f"… and {count - limit:,} more: `--all` shows them."]


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "scalar"


def _short(value: Any) -> str:
    text = "–" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:39]}…"


def _payload(a: str, b: str, sizes: tuple[int, int], result: Comparison) -> dict[str, Any]:
    return {
        "format": "holdfast diff 1",
        "names": [a, b],
        "sizes": list(sizes),
        "kind": result.kind,
        "verdict": result.verdict,
        "parts": [{"part": part.part, "bytes": [part.a, part.b]} for part in result.parts],
        "only_first": list(result.only_a),
        "only_second": list(result.only_b),
        "tensors": [
            {
                "name": tensor.name,
                "dtypes": list(tensor.dtypes),
                "shapes": [list(shape) for shape in tensor.shapes],
                "equal": tensor.equal,
                "cast": tensor.cast,
                "figures": None if tensor.figures is None else dict(vars(tensor.figures)),
            }
            for tensor in result.tensors
        ],
        "metadata": [{"name": change.name, "values": [change.a, change.b]} for change in result.metadata],
    }
