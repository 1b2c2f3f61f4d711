"""``promote:`` in params.yaml: what it may say, and that everything else is refused with file, line and field."""

import io
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from holdfast.errors import UsageError
from holdfast.registry.gate_contract import Contract, TensorSpec, parse_spec
from holdfast.registry.gate_fields import Amount
from holdfast.registry.gate_rules import (
    BootstrapRule,
    ClassRule,
    GateRules,
    GateRulesError,
    MetricRule,
    parse_rules,
    read_rules,
)

FILE = Path("params.yaml")
FULL = """\
train:
  lr: 0.004
promote:
  model: digits/classifier
  metrics:
    accuracy: {direction: max, floor: 0.95, tolerance: 0.005}
    test.loss:
      direction: min
      ceiling: .2
      improvement: 1.5%
      required: true
  classes:
    recall:
      floor: 0.8
      floors: {3: 0.9}
      tolerance: 5 %
      minimum_samples: 10
  bootstrap:
    accuracy: {tolerance: 0.01, confidence: 0.9, seed: 7}
    loss: {}
    squared_error:
      direction: min
      improvement: 0.1
      minimum_samples: 100
      minimum_differing: 20
      resamples: 1999
      required: true
  max_size: 20 MB
  max_latency: 1.5 ms
  card: [license, datasets]
  pickle_safe: true
  contract:
    inputs:
      images: F32[*, 8, 8]
    tensors:
      head.weight: float16[10, 64]
      scale: I64[]
"""


def rules(text: str) -> GateRules:
    return parse_rules(text.encode(), FILE)


def test_everything_that_can_be_said(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(FULL)

    read = read_rules(tmp_path / "params.yaml")
    assert read == GateRules(
        metrics=(
            MetricRule("accuracy", "max", floor=0.95, tolerance=Amount(0.005)),
            MetricRule("test.loss", "min", ceiling=0.2, improvement=Amount(1.5, relative=True), required=True),
        ),
        classes=(ClassRule("recall", 0.8, {"3": 0.9}, Amount(5, relative=True), 10),),
        bootstrap=(
            BootstrapRule("accuracy", "max", tolerance=Amount(0.01), confidence=0.9, seed=7),
            BootstrapRule("loss", "min"),
            BootstrapRule(
                "squared_error",
                "min",
                Amount(0.1),
                minimum_samples=100,
                minimum_differing=20,
                resamples=1999,
                required=True,
            ),
        ),
        max_size=20_000_000,
        max_latency=0.0015,
        card=("license", "datasets"),
        contract=Contract(
            inputs={"images": TensorSpec("F32", ("*", 8, 8))},
            tensors={"head.weight": TensorSpec("F16", (10, 64)), "scale": TensorSpec("I64", ())},
        ),
        pickle_safe=True,
    )
    assert read.columns == ("squared_error",)


@pytest.mark.parametrize("text", ["", "train: {lr: 1}", "promote:", "promote: {model: a/b}"])
def test_no_rules(text: str) -> None:
    assert rules(text) == GateRules()


def test_the_projects_own_params() -> None:
    read_rules(Path(__file__).parent.parent / "params.yaml")


@pytest.mark.parametrize("number", [1e-05, 0.001, 1e22, 5, 0.0])
def test_numbers_as_dvc_writes_them(number: float) -> None:
    # `dvc exp run -S` writes params.yaml with ruamel.yaml, as YAML 1.2: PyYAML would read 1e-05 as text
    stream = io.StringIO()
    YAML().dump({"promote": {"metrics": {"m": {"direction": "max", "floor": number}}}}, stream)

    assert rules(stream.getvalue()).metrics[0].floor == number


@pytest.mark.parametrize(
    ("size", "count"),
    [("20 MB", 20_000_000), ("20MiB", 20 * 2**20), ("1.5 kB", 1500), ("7", 7), ("0.1 GB", 10**8), ("3 B", 3)],
)
def test_sizes(size: str, count: int) -> None:
    assert rules(f"promote: {{max_size: {size}}}").max_size == count


@pytest.mark.parametrize(
    ("time", "seconds"), [("20 ms", 0.02), ("1.5s", 1.5), ("250 us", 0.00025), ("250 µs", 0.00025)]
)
def test_times(time: str, seconds: float) -> None:
    assert rules(f"promote: {{max_latency: {time}}}").max_latency == seconds


REFUSED = [
    # what stands under `promote:`, the line that is named, and words of the message
    ("metric: {}", 2, "promote.metric is no setting of Holdfast. Did you mean metrics?"),
    ("metrics:\n    a: {direction: max, flor: 1}", 3, "promote.metrics.a.flor is no setting of Holdfast. Did you mean floor"),
    ("metrics:\n    a: {floor: 1}", 3, "promote.metrics.a says no direction"),
    ("metrics:\n    a: {direction: up, floor: 1}", 3, "promote.metrics.a.direction is 'up', and must be max or min"),
    ("metrics:\n    a: {direction: max}", 3, "promote.metrics.a asks for nothing"),
    ("metrics:\n    a: {direction: max, required: false}", 3, "promote.metrics.a asks for nothing"),
    ("metrics:\n    a:\n      direction: max\n      floor: high", 5, "floor is 'high', and must be a number"),
    ("metrics:\n    a: {direction: max, floor: '0.5'}", 3, "floor is '0.5', and must be a number"),
    ("metrics:\n    a: {direction: max, floor: .nan}", 3, "floor is '.nan', and must be a number"),
    ("metrics:\n    a: {direction: max, floor: .inf}", 3, "floor is '.inf', and must be a number"),
    ("metrics:\n    a: {direction: max, floor: 1e999}", 3, "floor is '1e999', and must be a number"),
    ("metrics:\n    a: {direction: max, floor: true}", 3, "floor is 'true', and must be a number"),
    ("metrics:\n    a: {direction: max, floor: }", 3, "floor is empty, and must be a number"),
    ("metrics:\n    a: {direction: max, floor: [1]}", 3, "floor is a list, and must be a number"),
    ("metrics:\n    a: {direction: min, floor: 1}", 3, "floor belongs to a metric of which more is better"),
    ("metrics:\n    a: {direction: max, ceiling: 1}", 3, "ceiling belongs to a metric of which less is better"),
    ("metrics:\n    a: {direction: max, improvement: 0}", 3, "improvement is 0: tolerance: 0 asks for no loss"),
    ("metrics:\n    a: {direction: max, improvement: 0%}", 3, "improvement is 0"),
    ("metrics:\n    a: {direction: max, tolerance: -1}", 3, "tolerance is '-1', and must not be negative"),
    ("metrics:\n    a: {direction: max, tolerance: 1 percent}", 3, "or a share of the champion's value as in 1%"),
    ("metrics:\n    a: {direction: max, tolerance: 1, improvement: 1}", 3, "tolerance contradicts improvement"),
    ("metrics:\n    a: {direction: max, floor: 1, required: 1}", 3, "required is '1', and must be true or false"),
    ("metrics: [accuracy]", 2, "promote.metrics is a list, and must be a mapping"),
    ("metrics:\n    a: {direction: max, floor: 1}\n    a: {direction: max, floor: 2}", 4, "promote.metrics.a is there twice, first in line 3"),
    ("classes:\n    accuracy: {floor: 1}", 3, "promote.classes.accuracy is no score of classes; these are precision"),
    ("classes:\n    recall: {}", 3, "promote.classes.recall asks for nothing"),
    ("classes:\n    recall: {floor: 1.1}", 3, "floor is 1.1, and must be a number from 0 to 1"),
    ("classes:\n    recall:\n      floors:\n        cat: 2", 5, "promote.classes.recall.floors.cat is 2, and must be a number from 0"),
    ("classes:\n    recall:\n      floors:\n        cat: ", 5, "floors.cat is empty"),
    ("classes:\n    recall: {floor: 1, minimum_samples: 0}", 3, "minimum_samples is 0, and must be at least 1"),
    ("bootstrap:\n    acuracy: {}", 3, "promote.bootstrap.acuracy is none of accuracy, macro_f1, loss"),
    ("bootstrap:\n    accuracy: {direction: max}", 3, "promote.bootstrap.accuracy.direction is no setting"),
    ("bootstrap:\n    accuracy: {confidence: 95}", 3, "confidence is 95, and must be at least 0.5 and below 1"),
    ("bootstrap:\n    accuracy: {confidence: 1}", 3, "confidence is 1"),
    ("bootstrap:\n    accuracy: {resamples: 10}", 3, "resamples is 10, and must be at least 999"),
    ("bootstrap:\n    accuracy: {resamples: 1000000}", 3, "resamples is 1000000, and must be at most 100000"),
    ("bootstrap:\n    accuracy: {minimum_samples: 1}", 3, "minimum_samples is 1, and must be at least 2"),
    ("bootstrap:\n    accuracy: {minimum_differing: 0}", 3, "minimum_differing is 0, and must be at least 1"),
    ("bootstrap:\n    accuracy: {improvement: 1, tolerance: 0}", 3, "tolerance contradicts improvement"),
    ("max_size: 20 MX", 2, "promote.max_size is '20 MX', and must be a size such as 20 MB"),
    ("max_size: -1", 2, "promote.max_size is '-1'"),
    ("max_size:", 2, "promote.max_size is empty"),
    ("max_latency: 20", 2, "promote.max_latency is '20', and must be a time with its unit"),
    ("max_latency: 0 ms", 2, "promote.max_latency is '0 ms'"),
    ("card: license", 2, "promote.card is 'license', and must be a list of texts"),
    ("pickle_safe: yes please", 2, "promote.pickle_safe is 'yes please', and must be true or false"),
    ("contract:\n    input: {}", 3, "promote.contract.input is no setting of Holdfast. Did you mean inputs?"),
    ("contract:\n    inputs:\n      x: F32", 4, "promote.contract.inputs.x is 'F32', and must be a dtype and a shape"),
    ("contract:\n    inputs:\n      x: F33[1]", 4, "x is 'F33[1]', and has the dtype F33, which is none"),
    ("contract:\n    inputs:\n      x: F32[1.5]", 4, "must have whole numbers as its dimensions"),
    ("contract:\n    inputs:\n      x: F32[-1]", 4, "must have whole numbers as its dimensions"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "words"), REFUSED, ids=[words[:40] for _, _, words in REFUSED])
def test_what_does_not_belong_is_refused(text: str, line: int, words: str) -> None:
    with pytest.raises(GateRulesError) as caught:
        rules(f"promote:\n  {text}\n")
    assert str(caught.value).startswith(f"params.yaml:{line}: ")
    assert words in str(caught.value)
    assert caught.value.exit_code == UsageError.exit_code == 2


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"promote: {a: [", "params.yaml:1: is no YAML"),
        (b"promote: \xff\xfe", "is no YAML"),
        (b"- promote", "the file is a list, and must be a mapping"),
        (b"promote: " + b"[" * 5000, "nests deeper than 200 levels"),
        (b"a: 1\n" * 2**18, "larger than 1 MiB"),
        (b"promote: 5", "promote is '5', and must be a mapping"),
    ],
)
def test_what_is_no_params_file(data: bytes, words: str) -> None:
    with pytest.raises(GateRulesError, match=r"params\.yaml") as caught:
        parse_rules(data, FILE)
    assert words in str(caught.value)


def test_keys_of_others_are_left_alone() -> None:
    text = b"promote: {model: a/b, description: {deep: 1}}"

    assert parse_rules(text, FILE, others=("model", "description")) == GateRules()
    with pytest.raises(GateRulesError, match=r"promote\.description is no setting"):
        parse_rules(text, FILE)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(
    ["max", "min", "1%", "20 MB", "5 ms", "F32[*]", "x"]
)  # fmt: skip
KEYS = st.sampled_from(
    ["a", "metrics", "classes", "bootstrap", "recall", "accuracy", "direction", "floor", "ceiling", "tolerance",
     "floors", "improvement", "required", "confidence", "max_size", "max_latency", "card", "contract", "inputs"]
)  # fmt: skip
TREES = st.recursive(LEAVES, lambda inner: st.dictionaries(KEYS, inner, max_size=4) | st.lists(inner, max_size=3))


@given(TREES)
def test_any_tree_is_rules_or_one_error(tree: object) -> None:
    text = yaml.safe_dump({"promote": tree})
    try:
        assert isinstance(rules(text), GateRules)
    except GateRulesError as error:
        assert error.message.startswith("params.yaml:")  # noqa: PT017 - either of the two is right


@given(st.text(alphabet="F32[]*, 8x-\n", max_size=12))
def test_any_text_is_a_shape_or_an_error(text: str) -> None:
    try:
        spec = parse_spec(text)
    except ValueError:
        return
    assert parse_spec(str(spec)) == spec
