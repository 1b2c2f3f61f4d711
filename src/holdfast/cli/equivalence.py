"""``holdfast equivalence``: whether two models do the same."""

import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import click

from holdfast.cli import completion_values
from holdfast.cli.groups import Verb
from holdfast.cli.naming import open_named
from holdfast.cli.output import Form, Table, emit, form_options, one_line, plural
from holdfast.compare.equivalence import Progress, Settings, compare_models
from holdfast.compare.equivalence_data import Data, Field, open_data
from holdfast.compare.equivalence_figures import OutputFigures
from holdfast.compare.equivalence_models import MAX_SEED, ModelFile
from holdfast.compare.equivalence_predictions import Predictions
from holdfast.compare.equivalence_verdict import Equivalence, share_text
from holdfast.errors import GateRefusedError, UsageError
from holdfast.formats.opening import read_checkpoint
from holdfast.formats.source import READ_BYTES, FileSource, Source, chunks

PROGRESS_FROM_SECONDS = 1
NOTES_SHOWN = 8
# what the loaders of frameworks go by; files in DVC's cache have no suffix
SUFFIXES = {
    "safetensors": ".safetensors", "torch zip": ".pt", "torch legacy": ".pt", "torchscript": ".pt", "onnx": ".onnx",
    "npz": ".npz", "npy": ".npy",
}  # fmt: skip


@click.command("equivalence", cls=Verb)
@click.argument("a", shell_complete=completion_values.checkpoints)
@click.argument("b", shell_complete=completion_values.checkpoints)
@click.option("--data", required=True, metavar="FILE", help="The samples: .npz, .npy, .safetensors, .pt, .csv or .tsv.")
@click.option("--loader", metavar="MODULE:FUNCTION", help="Your function that makes the model; ONNX needs none.")
@click.option("--loader-b", metavar="MODULE:FUNCTION", help="That of B, where it is another architecture.")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="KEY[=NAME]",
    help="Take this array of FILE, as NAME; may be given again.",
)
@click.option("--labels", metavar="KEY", help="The array of FILE that says which class is right.")
@click.option(
    "--predictions",
    type=click.Choice(["auto", "argmax", "sign", "none"]),
    default="auto",
    show_default=True,
    help="How outputs predict; auto: argmax of floats of shape (samples, 2 or more).",
)
@click.option(
    "--atol", type=click.FloatRange(min=0), metavar="N", help="Absolute tolerance; default by the outputs' type."
)
@click.option(
    "--rtol", type=click.FloatRange(min=0), metavar="N", help="Relative tolerance; default by the outputs' type."
)
@click.option("--batch-size", type=click.IntRange(min=1), metavar="N", help="Samples at a time; default 32.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Compare the first N samples alone.")
@click.option("--seed", type=click.IntRange(0, MAX_SEED), default=0, metavar="N", help="Seed of every run; default 0.")
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="Threads of both; default the runtime's own.")
@click.option("--trust", is_flag=True, help="Run the code that a TorchScript file holds.")
@click.option("--check", is_flag=True, help="Exit with 12 unless the outputs are identical or within tolerance.")
@click.option(
    "--min-agreement",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="Let --check pass, too, where this share of the predictions agrees.",
)
@form_options
def command(
    a: str,
    b: str,
    data: str,
    inputs: tuple[str, ...],
    labels: str | None,
    check: bool,
    min_agreement: float | None,
    form: Form,
    batch_size: int | None,
    **options: Any,
) -> None:
    """Run two models on the same samples and compare what they give.

    A, B and FILE are files, objects (s3://bucket/key), registered models (app/name@v3, app/name@alias) or files of a
    commit (REV:path). ONNX models run as they are. For all others, --loader names a function of yours, which is run:
    module:function or file.py:function. It takes what its parameters are called, `state` (the weights), `metadata`,
    `checkpoint` or `path`, and returns the model; a class or function that takes none of these makes a fresh model,
    into which the weights go. Nothing is unpickled, but a `checkpoint` by torch with weights_only.

    \b
    Examples:
      holdfast equivalence outputs/train/best_model.pt digits/classifier@v3 --loader net.py:Net --data samples.npz
      holdfast equivalence digits/classifier@v1 net.onnx --loader net.py:load --data test.csv --labels class
    """
    if min_agreement is not None and not check:
        raise UsageError("--min-agreement says when --check passes", hint="Give --check, too")
    settings = Settings(rows=batch_size, folder=Path.cwd(), **options)
    with ExitStack() as stack:
        opened = open_data(_open(data, stack), _pairs(inputs), labels)
        files = [_model_file(name, letter, stack) for name, letter in ((a, "a"), (b, "b"))]
        progress = stack.enter_context(_progress())
        # what the user's code prints is no part of the result
        stack.enter_context(redirect_stdout(sys.stderr))
        result = compare_models(files[0], files[1], opened, settings, progress=progress)
    emit(form, _payload((a, b), data, settings, result), _blocks(result, opened))
    if check and not result.equivalent and not _agrees(result, min_agreement):
        raise GateRefusedError(f"{a} and {b} are not equivalent: {result.verdict}")


def _agrees(result: Equivalence, least: float | None) -> bool:
    comparable = result.kind in ("same predictions", "predictions differ")
    return comparable and least is not None and result.agreement is not None and result.agreement >= least


def _open(name: str, stack: ExitStack) -> Source:
    source = open_named(name)
    if isinstance(source, FileSource):
        stack.enter_context(source)
    return source


def _pairs(inputs: Sequence[str]) -> dict[str, str] | None:
    pairs = [text.rpartition("=") if "=" in text else (text, "", text) for text in inputs]
    return {key: name for key, _, name in pairs} or None


def _model_file(name: str, letter: str, stack: ExitStack) -> ModelFile:
    source = _open(name, stack)
    checkpoint = read_checkpoint(source)
    if isinstance(source, FileSource) and (source.path.suffix or source.path == Path(name)):
        return ModelFile(name, source.path.absolute(), checkpoint)
    # runtimes and loaders want a path, and go by its suffix
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="holdfast-")))
    path = folder / f"{letter}{SUFFIXES.get(checkpoint.format, Path(name).suffix)}"
    if isinstance(source, FileSource):
        path.symlink_to(source.path.absolute())  # a read-only object of DVC's cache
        return ModelFile(name, path, checkpoint)
    with path.open("wb") as stream:
        stream.writelines(chunks(source, 0, source.size, READ_BYTES))
    return ModelFile(name, path, read_checkpoint(stack.enter_context(_Copy(path, name))))


class _Copy(FileSource):
    """A file under the name of what it is a copy of: an object is fetched once, and read here."""

    def __init__(self, path: Path, name: str) -> None:
        super().__init__(path)
        self._name = name

    @property
    def name(self) -> str:
        return self._name


@contextmanager
def _progress() -> Iterator[Progress | None]:
    """A bar for each thing that is done, from the moment on at which it promises to take longer than a second."""
    if not sys.stderr.isatty():
        yield None
        return
    bars = _Bars()
    try:
        yield bars.advance
    finally:
        bars.close()


class _Bars:
    def __init__(self) -> None:
        self._what = ""
        self._bar: Any = None
        self._lock = threading.Lock()

    def advance(self, what: str, step: int, total: int) -> None:
        with self._lock:
            if what != self._what:
                self.close()
                # what the first step took includes what is done once
                self._what, self._done, self._first, self._started = what, step, step, time.monotonic()
                return
            self._done += step
            since = self._done - self._first
            if self._bar is not None:
                self._bar.update(step)
            elif since and (time.monotonic() - self._started) / since * total > PROGRESS_FROM_SECONDS:
                self._bar = click.progressbar(length=total, label=what, file=sys.stderr)
                self._bar.__enter__()
                self._bar.update(self._done)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None


def _blocks(result: Equivalence, data: Data) -> list[str | Table]:
    blocks: list[str | Table] = [f"{result.verdict[0].upper()}{result.verdict[1:]}."]
    given = ", ".join(_field(field) for field in data.fields)
    if result.samples:
        blocks.append(f"{plural(result.samples, 'sample')} of {given}, in batches of {result.rows:,}.")
    blocks.append(f"The files: {result.weights.verdict}.")
    if result.outputs:
        blocks += [_outputs(result.outputs), *_tolerances(result.outputs), *_not_finite(result.outputs)]
    for found in result.predictions:
        blocks += _predictions(found)
    notes = [f"Note: {note}." for note in result.notes]
    blocks += notes[:NOTES_SHOWN]
    if len(notes) > NOTES_SHOWN:
        blocks.append(f"… and {plural(len(notes) - NOTES_SHOWN, 'note')} more; `--json` lists all.")
    return blocks


def _outputs(outputs: Sequence[OutputFigures]) -> Table:
    columns = ("output", "type", "shape", "within", "max |a-b|", "at sample", "mean |a-b|", "max relative", "cosine")
    rows = [
        (
            _either(found.names),
            _either(found.dtypes),
            "×".join("N" if length is None else str(length) for length in found.shape) or "a number",
            "identical" if found.identical else share_text(found.within, found.values),
            _number(found.max_abs),
            "" if found.furthest is None else str(found.furthest),
            _number(found.mean_abs),
            _number(found.max_relative),
            "" if found.cosine is None else f"{found.cosine:.6f}",
        )
        for found in outputs
    ]
    spare = ("max relative", "mean |a-b|", "shape", "at sample", "type")
    return Table(columns, rows, right=frozenset(columns[3:]), spare=spare)


def _tolerances(outputs: Sequence[OutputFigures]) -> list[str]:
    """What *within* means; outputs of one tolerance in one line."""
    groups: dict[tuple[float, float], list[str]] = {}
    for found in (one for one in outputs if not one.identical):
        groups.setdefault((found.atol, found.rtol), []).append(_either(found.names))
    return [
        f"Within: |a-b| <= {atol:g} + {rtol:g} * |b|" + ("." if len(groups) == 1 else f" for {', '.join(names)}.")
        for (atol, rtol), names in groups.items()
    ]


def _not_finite(outputs: Sequence[OutputFigures]) -> list[str]:
    return [
        f"{_either(found.names)} has {what} in {counts[0]:,} of the first's values and {counts[1]:,} of the second's."
        for found in outputs
        for what, counts in (("NaN", found.nan), ("infinities", found.infinite))
        if any(counts)
    ]


def _predictions(found: Predictions) -> list[str | Table]:
    what = "sample" if found.one_a_sample else "prediction"
    agree = f"{found.agreeing:,} of {plural(found.total, what)} agree ({share_text(found.agreeing, found.total)})"
    blocks: list[str | Table] = [f"Predictions, {found.rule} of {_either(found.names)}: {agree}."]
    if found.disagreements:
        columns = ["sample", *(["place"] if not found.one_a_sample else []), "first", "second"]
        columns += ["label"] if found.accuracy is not None else []
        rows = []
        for item in found.disagreements:
            place = [] if found.one_a_sample else [", ".join(map(str, item.place))]
            label = [] if found.accuracy is None else [str(item.label)]
            rows.append((str(item.sample), *place, _class(item.a), _class(item.b), *label))
        more = found.total - found.agreeing - len(rows)
        title = "Where they disagree" + (f": the first {len(rows)}, {more:,} more follow" if more else "")
        blocks.append(Table(columns, rows, title, frozenset(columns)))
    if found.accuracy is not None:
        counts = found.accuracy
        first, second = (share_text(counts.both + alone, counts.total) for alone in (counts.only_a, counts.only_b))
        blocks.append(
            f"Accuracy {first} and {second}: both are right on {counts.both:,}, only the first on "
            f"{counts.only_a:,}, only the second on {counts.only_b:,}, neither on {counts.neither:,}"
            + (f"; McNemar's exact test p = {counts.p_value:.3g}." if counts.only_a or counts.only_b else ".")
        )
    return blocks


def _field(field: Field) -> str:
    shape = "×".join(map(str, field.shape)) or "a number"
    return f"{one_line(field.key)} ({field.dtype}, {shape})"


def _either(pair: tuple[str, str]) -> str:
    return one_line(pair[0] if pair[0] == pair[1] else f"{pair[0]}, {pair[1]}")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _class(prediction: int | None) -> str:
    return "none" if prediction is None else str(prediction)


def _payload(names: tuple[str, str], data: str, settings: Settings, result: Equivalence) -> dict[str, Any]:
    return {
        "format": "holdfast equivalence 1",
        "names": list(names),
        "kind": result.kind,
        "verdict": result.verdict,
        "equivalent": result.equivalent,
        "agreement": result.agreement,
        "data": data,
        "inputs": [{**vars(field), "shape": list(field.shape)} for field in result.inputs],
        "samples": result.samples,
        "batch_size": result.rows,
        "seed": settings.seed,
        "outputs": [dict(vars(found)) for found in result.outputs],
        "predictions": [_prediction_payload(found) for found in result.predictions],
        "differences": list(result.faults),
        "files": {"kind": result.weights.kind, "verdict": result.weights.verdict},
        "notes": list(result.notes),
    }


def _prediction_payload(found: Predictions) -> dict[str, Any]:
    counts = found.accuracy
    return {
        "names": list(found.names),
        "rule": found.rule,
        "total": found.total,
        "agreeing": found.agreeing,
        "agreement": found.agreement,
        "disagreements": [dict(vars(item)) for item in found.disagreements],
        "accuracy": None
        if counts is None
        else {**vars(counts), "shares": list(counts.shares), "p_value": counts.p_value},
    }
