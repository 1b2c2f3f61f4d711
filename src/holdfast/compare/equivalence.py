"""Two models run on the same samples: how far their outputs lie apart, and what they predict.

Both get the same batches, with the same seeds and threads, in evaluation mode. Before anything is compared, each model
has to give the same outputs twice for the first batch, the second time with another seed; and the first one has to give
them still after the second was loaded, because a loader that keeps one model for both would make any two look equal.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from holdfast.compare.checkpoints import Comparison, compare_checkpoints
from holdfast.compare.equivalence_data import Batch, Data, DataError
from holdfast.compare.equivalence_figures import OutputSums
from holdfast.compare.equivalence_loader import Loader, Loaders
from holdfast.compare.equivalence_models import MAX_SEED, Model, ModelFile, seed_all, steady
from holdfast.compare.equivalence_onnx import OnnxModel
from holdfast.compare.equivalence_outputs import Output, Outputs, match
from holdfast.compare.equivalence_predictions import PredictionSums, Rule, prediction_rule
from holdfast.compare.equivalence_torch import open_torch
from holdfast.compare.equivalence_verdict import Equivalence, Kind, verdict_of
from holdfast.errors import HoldfastError, UsageError
from holdfast.formats.dtypes import COMPLEX
from holdfast.runs.checkpoint import import_torch

DEFAULT_ROWS = 32  # samples a batch
# models of such files that give the same bits are suspicious
OTHER_WEIGHTS = ("fine-tuned", "other weights", "different architecture")

# what is done, how much of it just now, and how much there is: bytes of weights, then samples
Progress = Callable[[str, int, int], None]
COMPARING, RUNNING = "Comparing the weights", "Running both models"


class SharedModelError(HoldfastError):
    """The loader gives one model for both checkpoints, so that comparing them says nothing."""


@dataclass(frozen=True)
class Settings:
    """How two models are compared.

    Attributes:
        loader: names the function that makes a model, as of `holdfast.compare.equivalence_loader`; ONNX needs none.
        loader_b: that of the second model, where it is another one.
        trust: run the code in TorchScript files.
        atol: absolute tolerance; None for the default of the outputs' types.
        rtol: relative tolerance, to the second model; None for the default of the outputs' types.
        predictions: how predictions are made of outputs.
        rows: samples a batch; None for an ONNX model's fixed number, else `DEFAULT_ROWS`.
        limit: compare so many samples from the front; None for all.
        seed: of every random generator, before each run; below 2**32.
        threads: for each operator; None for as many as the runtime takes itself.
        folder: where loaders are looked up.
    """

    loader: str | None = None
    loader_b: str | None = None
    trust: bool = False
    atol: float | None = None
    rtol: float | None = None
    predictions: Rule = "auto"
    rows: int | None = None
    limit: int | None = None
    seed: int = 0
    threads: int | None = None
    folder: Path = Path()


def compare_models(
    a: ModelFile, b: ModelFile, data: Data, settings: Settings, *, progress: Progress | None = None
) -> Equivalence:
    """Run both models on the same samples and compare what they give, batch by batch, in bounded memory.

    Args:
        a: the one.
        b: the other, which relative differences are relative to.
        data: the samples.
        settings: loaders, tolerances, batches.
        progress: told of each pair of tensors and of each batch when it is done; from several threads.

    Raises:
        UsageError: the settings do not fit the files or the data.
        LoaderError: a loader fails.
        SharedModelError: the loader gives one model for both.
        ModelRunError: a model does not take the data.
        DataError: there are no samples, or not enough for a batch.
        LabelsError: the labels are no classes.
        IntegrityError: a file is damaged.
        TorchMissingError: a model needs torch, which is not installed.
        RuntimeMissingError: a model needs onnxruntime, which is not installed.
    """
    texts = (settings.loader, settings.loader_b or settings.loader)
    if a.is_onnx and b.is_onnx and settings.loader:
        raise UsageError("both are ONNX models, which onnxruntime runs: they take no loader")
    if b.is_onnx and settings.loader_b:
        raise UsageError(f"{b.name} is an ONNX model, which onnxruntime runs: it takes no loader")
    with Loaders(settings.folder) as loaders:
        found = [
            loaders.find(text) if text is not None and not file.is_onnx else None
            for text, file in zip(texts, (a, b), strict=True)
        ]
        if not (a.is_onnx and b.is_onnx):
            import_torch()  # now, so that `steady` finds it
        weights = _weights(a, b, progress)
        with steady(settings.threads):
            return _Comparing((a, found[0]), (b, found[1]), data, settings, weights).compare(progress)


class _Comparing:
    """One comparison under way."""

    def __init__(
        self,
        a: tuple[ModelFile, Loader | None],
        b: tuple[ModelFile, Loader | None],
        data: Data,
        settings: Settings,
        weights: Comparison,
    ) -> None:
        self._a, self._b = a, b
        self._data = data
        self._settings = settings
        self._weights = weights
        self._rows = 0
        self._samples = 0
        self._sums: dict[tuple[str, str], OutputSums] = {}
        self._predictions: dict[tuple[str, str], PredictionSums] = {}
        self._faults: dict[str, None] = {}
        self._notes: dict[str, None] = {}

    def compare(self, progress: Progress | None) -> Equivalence:
        # an ONNX model's fixed batch size has to be known before the other one runs, and it shares nothing with that
        model_b = self._open(*self._b) if self._b[0].is_onnx else None
        model_a = self._open(*self._a)
        batches = self._batches(self._batch_size([model_a] if model_b is None else [model_a, model_b]))
        first = next(batches, None)
        if first is None:
            raise DataError(f"there are fewer samples than a batch of {self._rows} takes")
        seed = self._settings.seed
        before = model_a.run(first, seed)
        unsteady = self._unsteady(model_a, first, before)
        if unsteady is None:
            model_b = model_b or self._open(*self._b)
            if model_a.run(first, seed) != before:
                raise SharedModelError(
                    f"loading {model_b.name} changed what {model_a.name} gives: the loader keeps one model for both",
                    hint="Let it make a new model each time it is called",
                )
            unsteady = self._unsteady(model_b, first, model_b.run(first, seed))
        if unsteady is not None or model_b is None:
            return self._result("not deterministic", f"not deterministic: {unsteady}")
        for batch in chain([first], batches):
            self._add(model_a.run(batch, seed), model_b.run(batch, seed), batch)
            if progress is not None:
                progress(RUNNING, batch.rows, self._expected())
            if not self._sums:
                break  # nothing fits together, and more samples would not say more
        self._notes |= model_a.notes | model_b.notes
        result = self._result()
        if result.kind == "bit-identical" and self._weights.kind in OTHER_WEIGHTS:
            doubt = "the weights differ and no output does: the loader may not use what it is given, or not all of it"
            return replace(result, notes=(doubt, *result.notes))
        return result

    def _open(self, file: ModelFile, loader: Loader | None) -> Model:
        seed_all(self._settings.seed)  # what a loader leaves to chance is the same in both
        if file.is_onnx:
            return OnnxModel(file, self._settings.threads)
        return open_torch(file, loader, trust=self._settings.trust, folder=self._settings.folder.resolve())

    def _batch_size(self, models: list[Model]) -> int | None:
        """The number that an ONNX model is bound to; None where they take any."""
        fixed = {model.fixed_rows: model.name for model in models if model.fixed_rows}
        wanted = self._settings.rows
        if len(fixed) > 1 or (fixed and wanted is not None and wanted not in fixed):
            told = ", ".join(f"{name} takes batches of {rows}" for rows, name in fixed.items())
            raise UsageError(
                f"{told} and nothing else" + (f", not of {wanted}" if len(fixed) == 1 else ""),
                hint="An export with a dynamic first dimension takes batches of any size",
            )
        return next(iter(fixed), None)

    def _expected(self) -> int:
        samples, limit = self._data.samples, self._settings.limit
        return samples if limit is None else min(samples, limit)

    def _batches(self, fixed: int | None) -> Iterator[Batch]:
        self._rows = fixed or self._settings.rows or DEFAULT_ROWS
        for batch in self._data.batches(self._rows, self._settings.limit):
            if fixed is not None and batch.rows < fixed:
                self._notes[f"the last {batch.rows} samples do not fill a batch of {fixed}, and were left out"] = None
                return
            yield batch

    def _unsteady(self, model: Model, batch: Batch, before: Outputs) -> str | None:
        """Why a model's outputs cannot be compared with another's, if it has other ones each time."""
        seed = self._settings.seed
        again = model.run(batch, (seed + 1) % (MAX_SEED + 1))
        if again == before:
            return None
        pairs = [pair for pair in match(before, again).pairs if _fault(*pair, batch.rows) is None]
        sums = [OutputSums(*pair, batch.rows, atol=0, rtol=0) for pair in pairs]
        for pair, one in zip(pairs, sums, strict=True):
            one.add(*pair, batch.first, batch.rows)
        known = [figures.max_abs for figures in (one.figures() for one in sums) if figures.max_abs is not None]
        difference = f" (max difference {max(known):.3g})" if known else ""
        if model.run(batch, seed) == before:
            return (
                f"{model.name} gives other outputs for the same samples with another random seed{difference}: dropout "
                "or another random operation is at work in evaluation mode"
            )
        return f"{model.name} gives other outputs each time it runs on the same samples{difference}"

    def _add(self, a: Outputs, b: Outputs, batch: Batch) -> None:
        for model, outputs in ((self._a, a), (self._b, b)):
            for name in outputs.left_out:
                self._notes[f"{model[0].name} also gives {name}, which is not compared"] = None
        found = match(a, b)
        if found.by_position and any(one.name != other.name for one, other in found.pairs):
            told = ", ".join(f"{one.name} with {other.name}" for one, other in found.pairs)
            if len(found.pairs) > 1:
                self._notes[f"outputs are compared by their places: {told}"] = None
        for which, names in (("first", found.only_a), ("second", found.only_b)):
            if names:
                self._faults[f"only the {which} gives {', '.join(names)}"] = None
        for one, other in found.pairs:
            fault = _fault(one, other, batch.rows)
            if fault is None:
                self._add_pair(one, other, batch)
            else:
                self._faults[fault] = None
        if batch.labels is not None and not self._predictions and not self._faults:
            raise UsageError(
                f"there are labels, and no output predicts classes: {_described(a, batch.rows)}",
                hint="--predictions argmax takes the place of the largest value, --predictions sign values above 0",
            )
        self._samples += batch.rows

    def _add_pair(self, a: Output, b: Output, batch: Batch) -> None:
        key = (a.name, b.name)
        settings = self._settings
        if key not in self._sums:
            self._sums[key] = OutputSums(a, b, batch.rows, atol=settings.atol, rtol=settings.rtol)
            rule = prediction_rule(a, batch.rows, settings.predictions)
            if rule != "none" and rule == prediction_rule(b, batch.rows, settings.predictions):
                # labels are for one output, and that is the first
                labelled = batch.labels is not None and not self._predictions
                self._predictions[key] = PredictionSums(key, rule, labelled=labelled)
        self._sums[key].add(a, b, batch.first, batch.rows)
        if key in self._predictions:
            self._predictions[key].add(a, b, batch.first, batch.labels)

    def _result(self, kind: Kind | None = None, verdict: str = "") -> Equivalence:
        outputs = tuple(sums.figures() for sums in self._sums.values())
        predictions = tuple(sums.predictions() for sums in self._predictions.values())
        faults = tuple(self._faults)
        if kind is None:
            kind, verdict = verdict_of(outputs, predictions, faults)
        return Equivalence(
            kind=kind,
            verdict=verdict,
            samples=self._samples,
            rows=self._rows,
            inputs=tuple(self._data.fields),
            outputs=outputs,
            predictions=predictions,
            faults=faults,
            weights=self._weights,
            notes=tuple(self._notes),
        )


def _weights(a: ModelFile, b: ModelFile, progress: Progress | None) -> Comparison:
    if progress is None:
        return compare_checkpoints(a.checkpoint, b.checkpoint)
    told = progress
    total = sum(tensor.nbytes for tensor in (*a.checkpoint.weights, *b.checkpoint.weights))
    return compare_checkpoints(a.checkpoint, b.checkpoint, progress=lambda nbytes: told(COMPARING, nbytes, total))


def _fault(a: Output, b: Output, rows: int) -> str | None:
    """Why two outputs cannot be laid on one another, if they cannot."""
    if a.shape != b.shape:
        return f"{a.name} is {_shape(a, rows)} in the first and {_shape(b, rows)} in the second"
    if (a.dtype in COMPLEX) != (b.dtype in COMPLEX):
        return f"{a.name} is {a.dtype} in the first and {b.dtype} in the second"
    return None


def _described(outputs: Outputs, rows: int) -> str:
    return ", ".join(f"{output.name} ({output.dtype}, {_shape(output, rows)})" for output in outputs.arrays)


def _shape(output: Output, rows: int) -> str:
    """``N×10`` for ten values a sample."""
    if not output.shape:
        return "a number"
    first = "N" if output.shape[0] == rows else str(output.shape[0])
    return "×".join((first, *map(str, output.shape[1:])))
