"""The diff of two array stores, against numpy's own figures."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from holdfast.errors import IntegrityError
from holdfast.runs.array_diff import BLOCK_ELEMENTS, DiffTotals, SampleDiff, diff_stores, total
from holdfast.runs.arrays import ArrayContract, ArrayStore


def store(folder, arrays, *, dtype="float32", dimensions=1, file_format="npz", **scalars):
    contract = ArrayContract("x", (None,) * dimensions, dtype, scalars=tuple(scalars))
    with ArrayStore(folder, contract, file_format=file_format, jobs=1) as opened:
        for file_id, array in arrays.items():
            opened.save(file_id, np.asarray(array, dtype), **scalars)
    return folder


def one(tmp_path, a, b, **options) -> SampleDiff:
    (diff,) = diff_stores(store(tmp_path / "a", {"id": a}, **options), store(tmp_path / "b", {"id": b}, **options))
    return diff


def test_each_sample_gets_its_status_in_the_order_of_the_stores(tmp_path):
    a = store(tmp_path / "a", {"z": [1, 2, 3], "gone": [1], "same": [4, 5], "longer": [1]})
    b = store(tmp_path / "b", {"new": [1, 2], "same": [4, 5], "z": [1, 2, 5], "longer": [1, 2]}, file_format="hdf5")
    diffs = list(diff_stores(a, ArrayStore.open(b)))
    assert [(diff.file_id, diff.status) for diff in diffs] == [
        ("z", "differs"),
        ("gone", "only_a"),
        ("same", "same"),
        ("longer", "shape"),
        ("new", "only_b"),
    ]
    by_id = {diff.file_id: diff for diff in diffs}
    assert (by_id["z"].max_abs, by_id["z"].mean_abs) == (2.0, 2 / 3)
    assert by_id["z"].correlation == pytest.approx(np.corrcoef([1, 2, 3], [1, 2, 5])[0, 1], abs=1e-15)
    assert (by_id["same"].max_abs, by_id["same"].correlation) == (0.0, 1.0)
    assert (by_id["longer"].shape_a, by_id["longer"].shape_b, by_id["longer"].max_abs) == ((1,), (2,), None)
    assert (by_id["gone"].shape_a, by_id["gone"].shape_b) == ((1,), None)
    assert (by_id["new"].shape_a, by_id["new"].shape_b) == (None, (2,))
    assert total(diffs) == DiffTotals(
        same=1,
        differs=1,
        shape=1,
        only_a=1,
        only_b=1,
        max_abs=2.0,
        max_abs_id="z",
        mean_abs=pytest.approx(2 / 5),
        mean_correlation=pytest.approx((1 + by_id["z"].correlation) / 2),
        min_correlation=by_id["z"].correlation,
        min_correlation_id="z",
    )
    assert total([]) == DiffTotals()


@settings(derandomize=True, deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pair=st.integers(0, 400).flatmap(
        lambda n: st.tuples(*[hnp.arrays("f4", n, elements=st.floats(-4, 4, width=32))] * 2)
    )
)
def test_it_agrees_with_numpy(tmp_path_factory, pair):
    a, b = pair
    diff = one(tmp_path_factory.mktemp("d"), a, b)
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    assert diff.status == ("same" if np.array_equal(a, b) else "differs")
    assert diff.elements == a.size
    if a.size == 0:
        assert (diff.max_abs, diff.mean_abs, diff.correlation) == (None, None, None)
        return
    assert diff.max_abs == np.abs(wide_a - wide_b).max()
    assert diff.mean_abs == pytest.approx(np.abs(wide_a - wide_b).mean())
    if a.size < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        assert diff.correlation is None
    elif diff.correlation is not None:
        with np.errstate(all="ignore"):
            expected = np.corrcoef(wide_a, wide_b)[0, 1]
        assert math.isnan(expected) or diff.correlation == pytest.approx(expected, abs=1e-9)
    assert diff.correlation is None or -1 <= diff.correlation <= 1


def test_many_blocks_and_a_large_mean_lose_no_accuracy(tmp_path):
    random = np.random.default_rng(0)
    a = 1e6 + random.standard_normal(2 * BLOCK_ELEMENTS + 7)
    b = a + random.standard_normal(a.size)
    diff = one(tmp_path, a, b, dtype="float64")
    assert diff.correlation == pytest.approx(np.corrcoef(a, b)[0, 1], rel=1e-12)
    assert diff.mean_abs == pytest.approx(np.abs(a - b).mean(), rel=1e-12)
    assert diff.max_abs == np.abs(a - b).max()


def test_nan_is_left_out_and_counted_where_it_is_on_one_side(tmp_path):
    diff = one(tmp_path, [np.nan, np.nan, 1, 2, 3], [np.nan, 5, 1, 2, 4])
    assert (diff.status, diff.nan_mismatches, diff.elements, diff.max_abs) == ("differs", 1, 3, 1.0)
    (tmp_path / "all").mkdir()
    diff = one(tmp_path / "all", [np.nan, 1], [np.nan, 1])
    assert (diff.status, diff.nan_mismatches, diff.elements) == ("same", 0, 1)


def test_infinities_differ_by_nothing_from_themselves(tmp_path):
    diff = one(tmp_path, [np.inf, -np.inf, 1], [np.inf, -np.inf, 1])
    assert (diff.status, diff.max_abs, diff.mean_abs, diff.correlation) == ("same", 0.0, 0.0, None)
    (tmp_path / "b2").mkdir()
    assert one(tmp_path / "b2", [np.inf, 1], [-np.inf, 1]).max_abs == math.inf


@pytest.mark.parametrize(
    ("dtype", "a", "b", "largest"),
    [
        ("bool", [True, False, False], [True, True, False], 1.0),
        ("uint8", [0, 255], [255, 0], 255.0),
        ("int64", [2**53, 0], [2**53 + 1, 0], 0.0),  # beyond float64, and yet not the same
        ("complex64", [1 + 1j, 0], [1, 0], 1.0),
        ("float16", [1, 2], [1, 2.5], 0.5),
    ],
)
def test_other_dtypes(tmp_path, dtype, a, b, largest):
    diff = one(tmp_path, a, b, dtype=dtype)
    assert (diff.status, diff.max_abs) == ("differs", largest)
    assert (diff.correlation is None) == (dtype == "complex64")


def test_scalars_that_differ_are_named(tmp_path):
    a = store(tmp_path / "a", {"id": [1, 2]}, rate=250, kind="eeg")
    b = store(tmp_path / "b", {"id": [1, 2]}, rate=500, kind="eeg", more=1)
    (diff,) = diff_stores(a, b)
    assert (diff.status, diff.scalars, diff.max_abs) == ("differs", ("more", "rate"), 0.0)


def test_it_is_lazy_and_damage_is_raised_at_its_sample(tmp_path):
    arrays = {f"s{number}": [number, 1] for number in range(5)}
    a, b = store(tmp_path / "a", arrays), store(tmp_path / "b", arrays)
    (b / "s3_x.npz").write_bytes(b"")
    diffs = diff_stores(a, b)
    assert [diff.file_id for diff in itertools.islice(diffs, 3)] == ["s0", "s1", "s2"]
    with pytest.raises(IntegrityError, match="s3_x"):
        next(diffs)
