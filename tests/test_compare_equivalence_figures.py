"""What two models gave, laid side by side: figures against NumPy's own, predictions counted by hand."""

import math
from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch.testing._comparison import default_tolerances

from holdfast.compare.equivalence_figures import CHUNK_ELEMENTS, OutputFigures, OutputSums, tolerances
from holdfast.compare.equivalence_outputs import Output, flatten, match
from holdfast.compare.equivalence_predictions import (
    Accuracy,
    LabelsError,
    PredictionSums,
    prediction_rule,
)
from holdfast.compare.equivalence_verdict import share_text
from holdfast.formats.dtypes import TORCH


def output(array: Any, name: str = "output") -> Output:
    (made,) = flatten({name: np.asarray(array)}).arrays
    return made


def figures(a: Any, b: Any, *, batch: int = 3, atol: float | None = None, rtol: float | None = None) -> OutputFigures:
    """The figures of two arrays by sample, given in batches."""
    a, b = np.asarray(a), np.asarray(b)
    sums = OutputSums(output(a[:batch]), output(b[:batch]), len(a[:batch]), atol=atol, rtol=rtol)
    for start in range(0, len(a), batch):
        rows = len(a[start : start + batch])
        sums.add(output(a[start : start + batch]), output(b[start : start + batch]), start, rows)
    return sums.figures()


def pairs() -> st.SearchStrategy[tuple[np.ndarray, np.ndarray]]:
    shapes = hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=7)
    dtypes = st.sampled_from(["f2", "f4", "f8", "i1", "i4", "u2", "?"])

    def both(shape: tuple[int, ...], dtype: str) -> st.SearchStrategy[tuple[np.ndarray, np.ndarray]]:
        # few different values, so that equal and nearly equal ones are frequent
        floats = st.sampled_from([0.0, -0.0, 1.0, 1.0 + 2**-9, -3.5, 1e-3, math.nan, math.inf, -math.inf])
        elements = {"f": floats, "i": st.integers(-3, 3), "u": st.integers(0, 3), "b": st.booleans()}
        one = hnp.arrays(dtype, shape, elements=elements[np.dtype(dtype).kind])
        return st.tuples(one, one)

    return st.tuples(shapes, dtypes).flatmap(lambda drawn: both(*drawn))


@settings(max_examples=200, deadline=None)
@given(pairs(), st.sampled_from([(0.0, 0.0), (1e-3, 0.0), (0.0, 2e-3), (0.5, 0.1)]), st.integers(1, 4))
def test_figures_are_numpys(drawn: tuple[np.ndarray, np.ndarray], limits: tuple[float, float], batch: int) -> None:
    a, b = drawn
    atol, rtol = limits
    found = figures(a, b, batch=batch, atol=atol, rtol=rtol)
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)

    assert found.values == a.size
    assert found.within == np.isclose(wide_a, wide_b, atol=atol, rtol=rtol, equal_nan=True).sum()
    assert found.equivalent == np.allclose(wide_a, wide_b, atol=atol, rtol=rtol, equal_nan=True)
    assert found.identical == (a.tobytes() == b.tobytes())
    assert found.nan == (np.isnan(wide_a).sum(), np.isnan(wide_b).sum())
    assert found.infinite == (np.isinf(wide_a).sum(), np.isinf(wide_b).sum())
    finite = np.isfinite(wide_a) & np.isfinite(wide_b)
    apart = np.abs(wide_a[finite] - wide_b[finite])
    assert found.max_abs == (apart.max() if apart.size else None)
    assert found.mean_abs == (pytest.approx(apart.mean()) if apart.size else None)
    nonzero = finite & (wide_b != 0)
    relative = np.abs(wide_a[nonzero] - wide_b[nonzero]) / np.abs(wide_b[nonzero])
    assert found.max_relative == (relative.max() if relative.size else None)
    if apart.size and apart.max() > 0:
        by_sample = np.where(finite, np.abs(np.where(finite, wide_a, 0) - np.where(finite, wide_b, 0)), 0)
        largest = by_sample.reshape(len(a), -1).max(axis=1)
        assert largest[found.furthest] == apart.max()
    else:
        assert found.furthest is None


def test_the_tolerance_is_relative_to_the_second_and_includes_its_bound() -> None:
    a, b = np.array([10.0, 8.0, 8.0]), np.array([8.0, 10.0, 8.0])
    assert figures(a[:1], b[:1], atol=0, rtol=0.2).within == 0
    assert figures(b[:1], a[:1], atol=0, rtol=0.2).within == 1
    assert figures(a, b, atol=2, rtol=0).within == 3
    assert figures(a, b, atol=1.999, rtol=0).within == 1


def test_the_furthest_sample_lies_beyond_a_chunk() -> None:
    a = np.zeros((4, CHUNK_ELEMENTS // 2 + 7), np.float32)
    b = a.copy()
    b[1, 3], b[2, -1], b[3, 0] = 1, 5, 4
    found = figures(a, b, batch=4)
    assert (found.furthest, found.max_abs, found.within) == (2, 5.0, a.size - 3)
    assert figures(np.repeat(a, 2, 0), np.repeat(b, 2, 0), batch=3).furthest == 4


def test_cosine() -> None:
    generator = np.random.default_rng(0)
    a, b = generator.standard_normal((2, 50, 9))
    expected = (a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b)
    assert figures(a, b, batch=7).cosine == pytest.approx(expected, abs=1e-12)
    assert figures(a * 0, b).cosine is None


@pytest.mark.parametrize("other", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64])
@pytest.mark.parametrize(
    "one", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128, torch.int8]
)
def test_default_tolerances_are_those_of_torch(one: torch.dtype, other: torch.dtype) -> None:
    dtypes = (TORCH[str(one).removeprefix("torch.")], TORCH[str(other).removeprefix("torch.")])
    rtol, atol = default_tolerances(one, other)
    assert tolerances(dtypes, None, None) == (atol, rtol)
    assert tolerances(dtypes, 0.5, None) == (0.5, rtol)
    assert tolerances(dtypes, None, 0.0) == (atol, 0.0)


def test_long_integers_are_not_rounded_into_agreement() -> None:
    a = np.array([[2**60, 5]], np.int64)
    assert figures(a, a + np.array([[1, 0]])).within == 1
    assert figures(a, a).equivalent


def test_complex_numbers_count_as_two() -> None:
    a = np.array([[1 + 2j, 3 + 4j]], np.complex64)
    found = figures(a, a + np.array([[0, 0.5j]], np.complex64))
    assert (found.values, found.within, found.max_abs, found.furthest) == (4, 3, 0.5, 0)


def test_two_types_are_never_identical() -> None:
    a = np.ones((2, 2), np.float32)
    found = figures(a, a.astype(np.float64))
    assert (found.identical, found.equivalent, found.dtypes) == (False, True, ("F32", "F64"))


def test_flat_names() -> None:
    Pair = namedtuple("Pair", ["mean", "spread"])

    @dataclass
    class Answer:
        logits: Any
        hidden: Any

    one = np.ones(2, np.float32)
    assert flatten(one).names == ("output",)
    assert flatten((one, one)).names == ("0", "1")
    assert flatten({"a": one, "b": [one, {"c": one}], "d": None}).names == ("a", "b.0", "b.1.c")
    assert flatten(Pair(one, (one,))).names == ("mean", "spread.0")
    assert flatten(Answer(one, {"x": 3})).names == ("logits", "hidden.x")
    # names that two ways lead to stay apart
    assert flatten({"a.b": one, "a": {"b": one}}).names == ("a.b", "a.b~2")
    found = flatten({"a": one, "text": "no", "names": np.array(["no"])})
    assert (found.names, found.left_out) == (("a",), ("text (str)", "names (ndarray)"))


def test_an_output_is_a_copy() -> None:
    array = np.ones(2, np.float32)
    found = output(array)
    array[0] = 5
    assert np.frombuffer(found.data, "<f4").tolist() == [1, 1]
    assert output(np.array([1.5], ">f4")).data == np.array([1.5], "<f4").tobytes()


def test_outputs_are_matched_by_name_then_by_place() -> None:
    one, two = np.ones(2, np.float32), np.zeros(3, np.float32)
    found = match(flatten({"a": one, "b": two}), flatten({"b": two, "a": one}))
    assert [(x.name, y.name) for x, y in found.pairs] == [("a", "a"), ("b", "b")]
    assert not found.by_position
    found = match(flatten((one, two)), flatten({"logits": one, "aux": two}))
    assert [(x.name, y.name) for x, y in found.pairs] == [("0", "logits"), ("1", "aux")]
    assert found.by_position
    found = match(flatten({"a": one, "b": two}), flatten({"a": one, "c": two}))
    assert ([x.name for x, _ in found.pairs], found.only_a, found.only_b) == (["a"], ("b",), ("c",))
    found = match(flatten((one, two)), flatten({"logits": one}))
    assert (found.pairs, found.only_a, found.only_b) == ((), ("0", "1"), ("logits",))


def test_what_looks_like_class_scores() -> None:
    scores, column = output(np.ones((4, 3), np.float32)), output(np.ones((4, 1), np.float32))
    pixels, numbers = output(np.ones((4, 5, 3), np.float32)), output(np.ones((4, 3), np.int64))
    rules = {
        wanted: [prediction_rule(one, 4, wanted) for one in (scores, column, pixels, numbers)]
        for wanted in ("auto", "argmax", "sign", "none")
    }
    assert rules == {
        "auto": ["argmax", "none", "none", "none"],
        "argmax": ["argmax", "none", "argmax", "argmax"],
        "sign": ["sign"] * 4,
        "none": ["none"] * 4,
    }
    # what is not by sample predicts nothing
    assert prediction_rule(scores, 5, "auto") == "none"
    assert prediction_rule(output(np.float32(3)), 1, "sign") == "none"


def test_predictions_agree_and_disagree() -> None:
    a = np.array([[1, 2, 3], [3, 2, 1], [5, 5, 1], [math.nan, 1, 2], [0, 1, 0]], np.float32)
    b = np.array([[0, 0, 1], [1, 2, 1], [9, 5, 1], [3, 1, 2], [0, 1, 0]], np.float32)
    sums = PredictionSums(("x", "x"), "argmax", labelled=True)
    for start in range(0, 5, 2):
        part = slice(start, start + 2)
        sums.add(output(a[part]), output(b[part]), start, np.array([2, 1, 1, 0, 1])[part])
    found = sums.predictions()

    assert (found.total, found.agreeing, found.agreement, found.one_a_sample) == (5, 3, 0.6, True)
    assert [(item.sample, item.place, item.a, item.b, item.label) for item in found.disagreements] == [
        (1, (), 0, 1, 1),
        (3, (), None, 0, 0),
    ]
    assert found.accuracy == Accuracy(both=2, only_a=0, only_b=2, neither=1)
    assert found.accuracy.shares == (0.4, 0.8)


def test_predictions_by_sign_and_by_place() -> None:
    a = output(np.array([[0.5, -1], [0, 2]], np.float32))
    b = output(np.array([[0.1, 1], [-3, 2]], np.float32))
    sums = PredictionSums(("x", "x"), "sign", labelled=True)
    sums.add(a, b, 10, np.array([[1, 1], [0, 1]]))
    found = sums.predictions()
    assert (found.total, found.agreeing, found.one_a_sample) == (4, 3, False)
    assert [(item.sample, item.place, item.a, item.b) for item in found.disagreements] == [(10, (1,), 0, 1)]
    assert found.accuracy == Accuracy(both=3, only_a=0, only_b=1, neither=0)


def test_disagreements_are_counted_all_and_listed_some() -> None:
    a, b = np.eye(40, 2, dtype=np.float32), np.zeros((40, 2), np.float32)
    a[:, 0], b[:, 1] = 1, 1
    sums = PredictionSums(("x", "x"), "argmax", labelled=False)
    for start in range(0, 40, 8):
        sums.add(output(a[start : start + 8]), output(b[start : start + 8]), start, None)
    found = sums.predictions()
    assert (found.total, found.agreeing, found.accuracy) == (40, 0, None)
    assert [item.sample for item in found.disagreements] == list(range(10))


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.array([0, 3]), "sample 7 has the label 3, and the classes of x are 0 to 2"),
        (np.array([-1, 0]), "sample 6 has the label -1"),
        (np.eye(2, 3, dtype=np.int64), "the labels are 3 a sample, the predictions of x 1"),
    ],
)
def test_labels_that_are_no_classes(labels: np.ndarray, said: str) -> None:
    sums = PredictionSums(("x", "x"), "argmax", labelled=True)
    one = output(np.ones((2, 3), np.float32))
    with pytest.raises(LabelsError, match=said):
        sums.add(one, one, 6, labels)


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (1, 0), (10, 9), (3, 20), (300, 340), (4000, 3800)])
def test_mcnemars_exact_test(only_a: int, only_b: int) -> None:
    expected = scipy.stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert Accuracy(5, only_a, only_b, 2).p_value == pytest.approx(expected, rel=1e-9)


def test_shares_never_round_to_all_or_nothing() -> None:
    assert share_text(400, 400) == "100 %"
    assert share_text(399_999, 400_000) == "> 99.9 %"
    assert share_text(390, 400) == "97.5 %"
    assert share_text(1, 400_000) == "< 0.1 %"
    assert share_text(0, 400) == "0 %"
    assert share_text(9994, 10000) == "99.9 %"
    assert share_text(0, 0) == "none"
