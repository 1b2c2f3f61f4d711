"""What is said of two models that ran on the same samples."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from holdfast.compare.checkpoints import Comparison
from holdfast.compare.equivalence_data import Field
from holdfast.compare.equivalence_figures import OutputFigures
from holdfast.compare.equivalence_predictions import Predictions

Kind = Literal[
    "bit-identical", "equivalent", "same predictions", "predictions differ", "different outputs", "different shape",
    "not deterministic", "not comparable",
]  # fmt: skip


@dataclass(frozen=True)
class Equivalence:
    """What two models do with the same samples.

    Attributes:
        kind: the verdict's kind.
        verdict: the verdict in words.
        samples: how many were compared.
        rows: samples a batch.
        inputs: what the models were given.
        outputs: those that both have, in the first one's order.
        predictions: of each output that predictions are made of.
        faults: how the outputs differ in number, name, shape or kind of number.
        weights: how the two files' weights differ.
        notes: what a reader should know of how it was done.
    """

    kind: Kind
    verdict: str
    samples: int
    rows: int
    inputs: tuple[Field, ...]
    outputs: tuple[OutputFigures, ...]
    predictions: tuple[Predictions, ...]
    faults: tuple[str, ...]
    weights: Comparison
    notes: tuple[str, ...]

    @property
    def equivalent(self) -> bool:
        """The outputs are the same, bit by bit or within tolerance."""
        return self.kind in ("bit-identical", "equivalent")

    @property
    def agreement(self) -> float | None:
        """The share of equal predictions, of the output that has the lowest; None where there are no predictions."""
        return min((found.agreement for found in self.predictions), default=None)


def share_text(part: int, whole: int) -> str:
    """``97.5 %``; never 100 % of what is not all, nor 0 % of what is not nothing."""
    if not whole:
        return "none"
    share = part / whole
    if part < whole and share >= 0.9995:
        return "> 99.9 %"
    if 0 < share < 0.0005:
        return "< 0.1 %"
    return f"{share:.0%}".replace("%", " %") if part in (0, whole) else f"{share * 100:.1f} %"


def verdict_of(
    outputs: Sequence[OutputFigures], predictions: Sequence[Predictions], faults: Sequence[str]
) -> tuple[Kind, str]:
    """The verdict's kind, and the verdict in words."""
    if faults:
        return "different shape", f"different outputs: {'; '.join(faults)}"
    if all(output.max_abs is None and output.equivalent for output in outputs):
        return "not comparable", "not comparable: no output holds a finite number"
    if all(output.identical for output in outputs):
        return "bit-identical", "bit-identical outputs"
    difference = _difference(outputs)
    if all(output.equivalent for output in outputs):
        return "equivalent", f"equivalent within tolerance ({difference})"
    if predictions and all(found.agreeing == found.total for found in predictions):
        return "same predictions", f"same predictions, other outputs ({difference})"
    if predictions:
        worst = min(predictions, key=lambda found: found.agreement)
        of_what = f" of {worst.names[0]}" if len(predictions) > 1 else ""
        return (
            "predictions differ",
            f"predictions{of_what} agree on {share_text(worst.agreeing, worst.total)} of {worst.total:,} "
            + ("samples" if worst.one_a_sample else "places"),
        )
    near, values = sum(output.within for output in outputs), sum(output.values for output in outputs)
    return (
        "different outputs",
        f"different outputs ({difference}; {share_text(near, values)} of the values within tolerance)",
    )


def _difference(outputs: Sequence[OutputFigures]) -> str:
    known = [output.max_abs for output in outputs if output.max_abs is not None]
    text = f"max difference {max(known):.3g}" if known else "no finite difference"
    if any(output.nan[0] != output.nan[1] or output.infinite[0] != output.infinite[1] for output in outputs):
        text += ", NaN or infinite in one alone"
    return text if not known or math.isfinite(max(known)) else "infinitely far apart"
