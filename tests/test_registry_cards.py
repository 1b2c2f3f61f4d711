"""Model cards and READMEs: what they say, what people wrote in them, and names that would break them."""

import re
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from holdfast.registry.cards import (
    CardFacts,
    Dataset,
    card_path,
    missing_fields,
    readme_path,
    render_card,
    render_readme,
)
from holdfast.registry.cards_markdown import CardError, code, escape, sections
from holdfast.registry.entries import Version

AVA = "album_app/ava_aesthetic_model"
SIAMESE = "album_app/siamese_comparison_model"
# lone surrogates cannot be written to a file
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)


def facts(model_id: str = AVA, **changes: Any) -> CardFacts:
    fields: dict[str, Any] = {
        "name": "v1",
        "path": f"models/{model_id}.safetensors",
        "oid": "d" * 32,
        "size": 96_000_000,
        "weights": "blake3:" + "e" * 64,
        "date": "2026-01-18",
        "source": {"run": "outputs/ava/gpu_run_regression_18_01", "rev": "f" * 40},
        "params": {"model": {"backbone": "resnet50"}, "epochs": 18},
        "metrics": {"val_mse": 0.4, "per_class": {"cat": {"recall": 0.0}, "dog": {"recall": 1}}},
    }
    version = Version(**fields | changes.pop("version", {}))
    return CardFacts(
        model_id,
        version,
        **{
            "description": "Aesthetic scores from 1 to 10",
            "config": f"models/{model_id}.yaml",
            "data": (Dataset("AVA", "data/ava", "1" * 32, size=32_000_000_000), Dataset("AVA test", role="evaluation")),
            "contract": {"image": {"shape": ["batch", 3, 224, 224], "dtype": "float32"}},
            "task": "image-classification",
            **changes,
        },
    )


def tables(text: str) -> list[list[list[str]]]:
    """The cells of each table, as a renderer of GitHub's Markdown reads them: text, entities resolved."""
    found: list[list[list[str]]] = []
    for token in MarkdownIt("commonmark", {"html": True}).enable("table").parse(text):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type == "inline" and found and token.level > 2:
            found[-1][-1].append(
                "".join(child.content for child in token.children or () if child.type != "html_inline")
            )
    return found


def test_card_is_hugging_face_s() -> None:
    text = render_card(facts())
    card = ModelCard(text)
    assert card.data.model_name == AVA
    assert card.data.pipeline_tag == "image-classification"
    assert card.data.tags == ["holdfast", "safetensors"]
    results = {result.metric_name: result for result in card.data.eval_results}
    assert {name: result.metric_value for name, result in results.items()} == {
        "val_mse": 0.4,
        "per_class.cat.recall": 0.0,
        "per_class.dog.recall": 1,
    }
    assert results["val_mse"].dataset_name == "AVA test"
    assert results["val_mse"].task_type == "image-classification"
    assert ModelCard(str(card)).data.to_dict() == card.data.to_dict()

    general, metrics, data, contract, params = tables(card.text)
    assert dict(general[1:])["commit"] == "f" * 40
    assert dict(general[1:])["run"] == "outputs/ava/gpu_run_regression_18_01"
    assert dict(general[1:])["size"] == "96.0 MB (96,000,000 bytes)"
    assert metrics[1:] == [["val_mse", "0.4"], ["per_class.cat.recall", "0"], ["per_class.dog.recall", "1"]]
    assert data[1:] == [
        ["AVA", "training", "data/ava", "32.0 GB", "1" * 32],
        ["AVA test", "evaluation", "", "", ""],
    ]
    assert contract[1:] == [["image", "{shape: [batch, 3, 224, 224], dtype: float32}"]]
    assert params[1:] == [["model.backbone", "resnet50"], ["epochs", "18"]]


def test_card_of_little() -> None:
    bare = CardFacts(AVA, facts(version={"metrics": {}, "params": {}, "source": {}}).version)
    text = render_card(bare)
    assert ModelCard(text).data.eval_results is None
    assert "Metrics" not in text
    assert "commit" not in text
    assert "Contract" not in text


def test_numbers_that_are_none() -> None:
    metrics = {"nan": float("nan"), "inf": float("inf"), "flag": True, "list": [1], "word": "good", "mse": 0.25}
    card = ModelCard(render_card(facts(version={"metrics": metrics})))
    assert [(r.metric_name, r.metric_value) for r in card.data.eval_results] == [("mse", 0.25)]
    assert tables(card.text)[1][1:] == [["nan", "nan"], ["inf", "inf"], ["mse", "0.25"]]


def outside(text: str) -> str:
    """The card without its generated parts: what is between the marks, and the last key of its metadata."""
    text = re.sub(r"(?s)<!-- holdfast: model begins.*ends -->", "", text)
    return re.sub(r"(?s)\nmodel-index:\n.*?\n---\n", "\n---\n", text, count=1)


def test_what_people_wrote_stays() -> None:
    first = render_card(facts())
    people = first.replace("---\ntags:\n", "---\nlicense: mit   # ours\ntags:\n- portraits\n", 1)
    people = people.replace(
        "<!-- What it is for, and what it is not for. -->", "Albums.\n\n| no | table |\nof ours | here"
    )
    people += "\n## History\n\nMade in *January*.   \n"
    again = render_card(facts(version={"name": "v2", "metrics": {"val_mse": 0.35}}), people)
    assert outside(again) == outside(people)
    assert again.endswith(people[people.index("## Intended use") :])
    assert "license: mit   # ours\ntags:\n- portraits\n- holdfast\n" in again
    data = ModelCard(again).data
    assert [(r.metric_name, r.metric_value) for r in data.eval_results] == [("val_mse", 0.35)]
    assert "`v2`" in again
    assert "`v1`" not in again
    assert render_card(facts(version={"name": "v2", "metrics": {"val_mse": 0.35}}), again) == again


def test_model_index_in_the_middle_is_replaced_alone() -> None:
    people = (
        '---\n# ours\n"model-index":\n- name: x\n\n  results: []\n# about the licence\nlicense: mit\n---\n\n# Mine\n'
    )
    made = render_card(facts(), people)
    assert made.startswith("---\n# ours\nmodel-index:\n- name: album_app/ava_aesthetic_model\n")
    assert "\n# about the licence\nlicense: mit\n" in made
    assert made.count("model-index") == 1
    without = render_card(facts(version={"metrics": {}}), made)
    assert "model-index" not in without
    assert "# ours\n# about the licence\nlicense: mit\n" in without


def test_text_without_marks_or_metadata_is_added_to() -> None:
    made = render_card(facts(), "# My model\n\nIt is good.\n")
    assert "---\n# My model\n\nIt is good.\n\n<!-- holdfast: model begins" in made
    assert render_card(facts(), made) == made
    assert render_readme("album_app", [facts()], "Notes\n").startswith("Notes\n\n<!-- holdfast: models begins")


def test_line_ends_are_kept() -> None:
    made = render_card(facts())
    crlf = made.replace("\n", "\r\n")
    assert render_card(facts(), crlf) == crlf
    assert render_card(facts(), "\ufeff" + made) == made
    readme = render_readme("album_app", [facts()])
    assert render_readme("album_app", [facts()], readme.replace("\n", "\r\n")) == readme.replace("\n", "\r\n")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda t: t.replace("<!-- holdfast: model ends -->", ""), r"line 6: the marks of the generated part 'model'"),
        (lambda t: t + "<!-- holdfast: model ends -->\n", "the marks of"),
        (
            lambda t: t.replace("---\n", "---\nlicense: [mit\n", 1),
            r"ava_aesthetic_model\.md, line \d+: the metadata is no YAML",
        ),
        (lambda t: re.sub(r"(?s)^---\n.*?\n---", "---\n- a\n---", t), "no mapping"),
        (lambda t: t.replace("license: mit", "{license: mit,\n model-index: []}", 1), "not edited"),
    ],
)
def test_damage_is_refused(damage: Any, said: str) -> None:
    text = "---\nlicense: mit\n---\n" + render_card(facts(), "# x\n").split("---\n", 2)[2]
    with pytest.raises(CardError, match=said):
        render_card(facts(), damage(text))


def test_metadata_that_hugging_face_refuses() -> None:
    broken = "---\neval_results: 3\nmodel_name: x\n---\n\n# x\n"
    with pytest.raises(CardError, match="Hugging Face would not take"):
        render_card(facts(version={"metrics": {}}), broken)


def test_readme_lists_the_app_s_models() -> None:
    siamese = facts(SIAMESE, description="Which of two", version={"metrics": {f"m{n}": n / 3 for n in range(8)}})
    text = render_readme("album_app", [siamese, facts()])
    (rows,) = tables(text)
    assert rows[0] == ["model", "description", "version", "date", "file", "size", "metrics"]
    assert [row[0] for row in rows[1:]] == ["ava_aesthetic_model", "siamese_comparison_model"]
    assert rows[1][2:5] == ["v1", "2026-01-18", "models/album_app/ava_aesthetic_model.safetensors"]
    assert rows[1][6] == "val_mse 0.4, per_class.cat.recall 0, per_class.dog.recall 1"
    assert rows[2][6] == "m0 0, m1 0.333333, m2 0.666667, m3 1, m4 1.33333, m5 1.66667, …"
    assert f"]({card_path(AVA).name})" in text
    assert text == render_readme("album_app", [facts(), siamese])
    assert readme_path(AVA).as_posix() == "models/album_app/README.md"
    people = text.replace("# album_app\n", "# Albums\n\nOurs.\n") + "\nTail\n"
    assert render_readme("album_app", [facts()], people).startswith("# Albums\n\nOurs.\n")
    assert render_readme("album_app", [facts()], people).endswith("\nTail\n")
    assert "No model is registered." in render_readme("album_app", [])


HOSTILE = ["a|b", "`x`", "``", "\\|", "a\\", "<img src=x onerror=1>", "-->", "<!-- holdfast: model ends -->", "---", "\n---\n",
           "a\nb", "*b*", "[x](y)", "# h", "1. x", "&lt;", "$x$", "~~s~~", "__b__", " lead", "\x1b[31m", "x: y", "'\"", "{{x}}"]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names(name: str) -> None:
    check_names(name)


@settings(max_examples=60, deadline=None)
@given(TEXT)
def test_any_name(name: str) -> None:
    check_names(name)


def check_names(name: str) -> None:
    """Every cell reads as the name, every table keeps its form, and the metadata stays what it is."""
    hostile = facts(
        description=name,
        data=(Dataset(name, name, name), Dataset(name, role="evaluation")),
        contract={name: name},
        version={
            "path": name,
            "metrics": {name: 0.5},
            "params": {name: name},
            "source": {"run": name, "rev": "f" * 40},
        },
    )
    text = render_card(hostile)
    card = ModelCard(text)
    said = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    assert [result.metric_name for result in card.data.eval_results] == [said]
    words = " ".join(said.split())
    general, metrics, data, contract, params = tables(card.text)
    assert metrics[1:] == [[words, "0.5"]]
    assert [row[0] for row in data[1:]] == [words, words]
    assert same(data[1][2], said)
    assert all(same(row[0], said) and same(row[1], said) for row in (*contract[1:], *params[1:]))
    if said.strip():
        assert same(dict(general[1:])["file"], said)
    assert [words for words, _ in sections(card.text)] == [
        AVA,
        "Metrics",
        "Data",
        "Contract",
        "Parameters",
        "Intended use",
        "Limitations",
    ]
    assert render_card(hostile, text) == text
    (rows,) = tables(render_readme("album_app", [hostile]))
    assert [len(row) for row in rows] == [7, 7]
    assert rows[1][1] == words
    assert same(rows[1][4], said)


def same(cell: str, said: str) -> bool:
    # a cell is stripped, and blanks within <code> run together when they are shown
    return cell.split() == said.split()


@settings(max_examples=200, deadline=None)
@given(TEXT)
def test_text_and_code_read_as_what_they_are(text: str) -> None:
    reader = MarkdownIt("commonmark", {"html": True}).enable("table").enable("strikethrough")
    said = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    for written in (escape(text), code(text)):
        inline = [token for token in reader.parse(f"x {written} x\n") if token.type == "inline"]
        shown = "".join(c.content for c in inline[0].children or () if c.type != "html_inline")
        assert shown.split() == ["x", *said.split(), "x"]
        assert [token.type for token in reader.parse(f"{escape(text)}\n")] in (
            [],
            ["paragraph_open", "inline", "paragraph_close"],
        )


CARD = """---
license: mit
language: []
base_model: "[More Information Needed]"
info: {owner: Ada, since: 2026-01-01}
---
# Model

## Intended use

Albums.

## Limitations

<!-- nothing
yet -->

## Bias

TODO

## Training data
### Photos
AVA, of 2012.

Evaluation
----------
On the rest.

```
## Fenced
text
```

## Empty
"""


def test_missing_fields() -> None:
    assert (
        missing_fields(CARD, ["license", "info.owner", "Intended use", "intended_use", "training-data", "photos"]) == []
    )
    assert missing_fields(CARD, ["evaluation", "EVALUATION"]) == []
    lacking = ["language", "base_model", "info.mail", "limitations", "bias", "fenced", "empty", "datasets", "license.x"]
    assert missing_fields(CARD, ["license", *lacking]) == lacking
    assert missing_fields(CARD.replace("\n", "\r\n"), lacking) == lacking
    assert missing_fields("", ["license"]) == ["license"]
    assert missing_fields("# Only text\n\nwords\n", ["only text", "license"]) == ["license"]
    with pytest.raises(CardError, match="no YAML"):
        missing_fields("---\na: [\n---\n", ["a"])


def test_a_fresh_card_lacks_what_people_must_say() -> None:
    required = ["license", "metrics", "data", "contract", "parameters", "model-index", "Intended use", "Limitations"]
    assert missing_fields(render_card(facts()), required) == ["license", "Intended use", "Limitations"]


def test_front_matter_is_plain_yaml() -> None:
    text = render_card(facts())
    front = text.split("---\n")[1]
    assert list(yaml.safe_load(front)) == ["tags", "pipeline_tag", "model-index"]
    assert "&id" not in front
