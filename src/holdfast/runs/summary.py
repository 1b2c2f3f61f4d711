"""``training_summary.txt``: what a person wants to know of a run, without a time in it."""

from collections.abc import Mapping, Sequence

from holdfast.runs.artifacts import IntArray, class_scores


def summary_text(
    epochs: Sequence[Mapping[str, float]],
    monitor: str,
    mode: str,
    best_epoch: int | None,
    matrices: Mapping[str, IntArray],
    distributions: Mapping[str, IntArray],
    classes: Sequence[str],
) -> str:
    """The text: epochs and the best one's metrics, the scores of each class, the distribution of each split.

    Args:
        epochs: a row an epoch, as the recorder keeps them.
        monitor: the metric that decides which epoch is best.
        mode: ``min`` or ``max``.
        best_epoch: its number, if any.
        matrices: named confusion matrices of shape (classes, classes).
        distributions: for each split, the counts of shape (classes,).
        classes: the classes' names.
    """
    lines = ["Training summary", "================", "", f"Epochs: {len(epochs)}"]
    for row in epochs:
        if row["epoch"] == best_epoch:
            lines.append(f"Best epoch: {best_epoch} ({'lowest' if mode == 'min' else 'highest'} {monitor})")
            lines += [f"  {name}: {value:.6g}" for name, value in row.items() if name != "epoch"]
    for name, matrix in matrices.items():
        total = int(matrix.sum())
        right = int(matrix.trace())
        lines += ["", f"Confusion matrix {name}: {right} of {total} right ({right / max(total, 1):.2%})"]
        lines += _aligned(
            ["class", "precision", "recall", "f1", "samples"],
            [
                [score.name, f"{score.precision:.4f}", f"{score.recall:.4f}", f"{score.f1:.4f}", str(score.support)]
                for score in class_scores(matrix, classes)
            ],
        )
    if distributions:
        lines += ["", "Class distribution"]
        lines += _aligned(
            ["class", *distributions],
            [[name, *(str(counts[index]) for counts in distributions.values())] for index, name in enumerate(classes)],
        )
    return "\n".join(lines) + "\n"


def _aligned(header: list[str], rows: list[list[str]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
    return [
        "  " + "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in [header, *rows]
    ]
