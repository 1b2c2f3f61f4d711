"""Predictions files: read, refused where they are broken, paired by id, and scored by class."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import HoldfastError
from holdfast.registry.gate_predictions import (
    PairingError,
    Predictions,
    PredictionsError,
    class_scores,
    pair,
    read_predictions,
)
from holdfast.runs import artifacts

NAMES = ("cat", "dog, wild", "3")
GOOD = "id,label,prediction,probability_a,probability_b,error\ns1,a,a,0.9,0.1,0.5\ns2,b,a,0.6,0.4,1e-3\n"


def of(ids: str, labels: str, said: str) -> Predictions:
    return Predictions(tuple(ids), tuple(labels), tuple(said))


def test_reads_what_runs_record(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 40)
    logits = generator.normal(size=(40, 3)).astype(np.float32)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    ids = [f"größe {number}" for number in range(40)]
    artifacts.write_predictions(
        tmp_path / "predictions.csv", ids, labels, probabilities.argmax(axis=1), probabilities, NAMES
    )

    read = read_predictions(tmp_path / "predictions.csv")
    assert read.ids == tuple(ids)
    assert read.labels == tuple(NAMES[label] for label in labels)
    assert read.predictions == tuple(NAMES[best] for best in probabilities.argmax(axis=1))
    assert read.classes == NAMES
    assert read.truth is not None
    assert np.array_equal(read.truth.astype(np.float32), probabilities[np.arange(40), labels])
    assert read.columns == {}

    matrix = artifacts.confusion_matrix(labels, probabilities.argmax(axis=1), 3)
    expected = [(s.name, s.precision, s.recall, s.f1, s.support) for s in artifacts.class_scores(matrix, NAMES)]
    found = [(s.name, s.precision, s.recall, s.f1, s.support) for s in class_scores(read)]
    assert found == [pytest.approx(row) for row in expected]


def test_columns_that_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())

    read = read_predictions(path, ("error", "absent"))
    assert list(read.columns) == ["error"]
    assert read.columns["error"].tolist() == [0.5, 0.001]
    assert read.truth is not None
    assert read.truth.tolist() == [0.9, 0.4]
    assert read_predictions(path).columns == {}


def test_labels_without_a_probability(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("id,label,prediction,probability_a\n1,a,a,1\n2,z,a,1\n")
    (tmp_path / "q.csv").write_text("prediction,id,label\na,1,a\n")

    truth = read_predictions(tmp_path / "p.csv").truth
    assert truth is not None
    assert np.array_equal(truth, [1, np.nan], equal_nan=True)
    assert read_predictions(tmp_path / "q.csv").truth is None
    assert read_predictions(tmp_path / "q.csv").labels == ("a",)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", ":1: has no column id, label, prediction"),
        (b"id,label\n", ":1: has no column prediction"),
        (b"id,label,prediction,id\n", ":1: has the column 'id' twice"),
        (b"id,label,prediction\na,b\n", ":2: has 2 fields, and the header has 3"),
        (b"id,label,prediction\na,b,c,d\n", ":2: has 4 fields"),
        (b"id,label,prediction\n1,b,c\n2,b,c\n1,b,c\n", ":4: the id '1' was in line 2 already"),
        (b"id,label,prediction\n1,b,\xff\n", ":2: is no UTF-8"),
        (b'id,label,prediction\n1,"b"x,c\n', ":2: is no CSV"),
        (b'id,label,prediction\n1,b,"c\n', "is no CSV"),
        (b"id,label,prediction\n1,b," + b"c" * 200_000 + b"\n", ":2: is no CSV (field larger"),
        (GOOD.replace("0.9", "much").encode(), ":2: probability_a is 'much', and must be a number"),
        (GOOD.replace("0.9", "1.5").encode(), ":2: probability_a is 1.5, no probability"),
        (GOOD.replace("0.4", "-0.1").encode(), ":3: probability_b is -0.1, no probability"),
        (GOOD.replace("1e-3", "").encode(), ":3: error is '', and must be a number"),
    ],
)
def test_a_broken_file_is_refused(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "p.csv").write_bytes(data)

    with pytest.raises(PredictionsError) as caught:
        read_predictions(tmp_path / "p.csv", ("error",), name="v2's predictions")
    assert caught.value.message.startswith("v2's predictions:")
    assert words in caught.value.message
    assert caught.value.exit_code == 13


@given(st.binary(max_size=60) | st.text('id,label,prediction\n"x1', max_size=80).map(str.encode))
def test_any_bytes_are_predictions_or_one_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(b"id,label,prediction\n" + data)
    try:
        read = read_predictions(path)
    except HoldfastError as error:
        assert str(path) in error.message  # noqa: PT017 - either of the two is right
    else:
        assert len(read.ids) == len(read.labels) == len(read.predictions) == len(set(read.ids))


def test_pairs_by_id() -> None:
    ours, theirs = of("cab", "xyz", "xxx"), of("abc", "yzx", "zzz")

    pairs = pair(ours, theirs)
    assert len(pairs) == 3
    assert [pairs.classes[code] for code in pairs.labels] == ["y", "z", "x"]
    assert [[pairs.classes[code] for code in said] for said in pairs.predictions] == [["x"] * 3, ["z"] * 3]
    assert pairs.truth is None


def test_pairs_carry_numbers_in_the_same_order() -> None:
    def with_numbers(ids: str, numbers: list[float]) -> Predictions:
        array = np.array(numbers)
        return Predictions(tuple(ids), tuple("x" * 3), tuple("x" * 3), ("x",), array / 10, {"e": array, ids: array})

    pairs = pair(with_numbers("cab", [3.0, 1.0, 2.0]), with_numbers("bca", [5.0, 6.0, 4.0]))
    assert list(pairs.columns) == ["e"]
    assert [values.tolist() for values in pairs.columns["e"]] == [[1, 2, 3], [4, 5, 6]]
    assert pairs.truth is not None
    assert [values.tolist() for values in pairs.truth] == [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        (("abcd", "xxxx"), ("ab", "xx"), "2 of the candidate's 4 samples are not among v2's, and 0 of v2's 2 are not"),
        (("ab", "xx"), ("abcdef", "xxxxxx"), "0 of the candidate's 2 samples are not among v2's, and 4 of v2's 6"),
        (("ab", "xx"), ("abcdef", "xxxxxx"), "(c, d, e and 1 more)"),
        (("ab", "xx"), ("cd", "xx"), "2 of the candidate's 2 samples are not among v2's, and 2 of v2's 2"),
        (("abc", "xyz"), ("abc", "xxz"), "1 of 3 samples have another label with v2 (b)"),
    ],
)
def test_what_does_not_pair_is_refused(ours: tuple[str, str], theirs: tuple[str, str], words: str) -> None:
    with pytest.raises(PairingError) as caught:
        pair(of(*ours, "x" * len(ours[0])), of(*theirs, "x" * len(theirs[0])), "v2")
    assert words in caught.value.message


def test_class_scores_of_all_that_occur() -> None:
    predictions = Predictions(tuple("12345"), tuple("aabbb"), tuple("aacab"), ("z", "a"))

    scores = {score.name: score for score in class_scores(predictions)}
    assert list(scores) == ["z", "a", "b", "c"]
    assert (scores["a"].precision, scores["a"].recall, scores["a"].f1, scores["a"].support) == (2 / 3, 1, 0.8, 2)
    assert (scores["b"].precision, scores["b"].recall, scores["b"].support) == (1, 1 / 3, 3)
    assert (scores["c"].precision, scores["c"].recall, scores["c"].support) == (0, 0, 0)
    assert (scores["z"].precision, scores["z"].f1, scores["z"].support) == (0, 0, 0)
