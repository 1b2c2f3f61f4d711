"""Model cards in Hugging Face's format, and the README of an application's models.

Both are made from what the registry knows, between marks; everything outside of the marks is people's and stays.
"""

import math
import posixpath
import re
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from holdfast.nesting import check_nesting
from holdfast.registry.cards_markdown import CardError, code, escape, put_part, sections, table, visible
from holdfast.registry.entries import Version

PART = "model"
README_PART = "models"
README = "README.md"
MODELS_FOLDER = "models"
TAGS = ("holdfast",)
# of the README's table: what does not fit is in the card
SHOWN_METRICS = 6
MAX_DEPTH = 8

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # with libyaml ten times faster
_FRONT = re.compile(r"---[ \t]*\n(?P<data>.*?)(?:(?<=\n)|\n)---[ \t]*(?:\n|\Z)", re.DOTALL)
_EMPTY = re.compile(
    r"(?:\[?\s*(?:more information needed|todo|tbd|n/?a|none|unknown|\.{3}|…)\s*\]?[.:]?\s*)*", re.IGNORECASE
)
_UNITS = ("B", "kB", "MB", "GB", "TB")
_INVITATIONS = (
    ("Intended use", "What it is for, and what it is not for."),
    ("Limitations", "Where it is known to fail, and for whom."),
)


@dataclass(frozen=True, slots=True)
class Dataset:
    """Data that a model was trained or evaluated with.

    Args:
        name: for people.
        path: from the project's root; empty where it is not there.
        oid: DVC's name for its state; empty where it is not tracked.
        role: ``training`` or ``evaluation``.
        size: bytes; None where nobody said.
    """

    name: str
    path: str = ""
    oid: str = ""
    role: str = "training"
    size: int | None = None


@dataclass(frozen=True)
class CardFacts:
    """What a card says.

    Args:
        model_id: ``app/name``.
        version: the one that the stable path holds.
        description: one line.
        config: path of what the weights must be loaded into, from the root; empty for none.
        data: what it was trained and evaluated with.
        contract: its inputs and outputs: name → shape and dtype, in words or as a mapping.
        task: what it does, as Hugging Face calls it (``image-classification``); empty where nobody said.
    """

    model_id: str
    version: Version
    description: str = ""
    config: str = ""
    data: tuple[Dataset, ...] = ()
    contract: Mapping[str, Any] = field(default_factory=dict)
    task: str = ""


def card_path(model_id: str) -> Path:
    """``models/<app>/<name>.md``, relative to the project's root."""
    return Path(MODELS_FOLDER, f"{model_id}.md")


def readme_path(model_id: str) -> Path:
    """``models/<app>/README.md``, relative to the project's root."""
    return Path(MODELS_FOLDER, model_id.partition("/")[0], README)


def render_card(facts: CardFacts, existing: str | None = None) -> str:
    """A model card: metadata for machines, then text. The same facts give the same text.

    Args:
        facts: what the registry knows.
        existing: the card that is there. Of its metadata ``model-index`` is made anew, and keys that it lacks are
            added; of its text the part between the marks. All else stays, and so do its line ends.

    Raises:
        CardError: the card that is there has metadata that is no YAML mapping, or broken marks.
    """
    what = card_path(facts.model_id).as_posix()
    newline, text = _normal(existing)
    front, body = _split(text)
    if not body.strip():
        invitations = "".join(f"\n## {title}\n\n<!-- {words} -->\n" for title, words in _INVITATIONS)
        body = f"# {escape(facts.model_id)}\n\n{put_part('', PART, _card_body(facts), what)}{invitations}"
    else:
        body = put_part(body, PART, _card_body(facts), what, lines_before=text[: -len(body)].count("\n"))
    front = _front(facts, front, what)
    card = f"---\n{front}---\n{body if text else chr(10) + body}"
    _check(card, what)
    return card.replace("\n", newline)


def render_readme(app: str, models: Sequence[CardFacts], existing: str | None = None) -> str:
    """The README of an application's models: a table with each one's version, date, file and metrics.

    Args:
        app: the application.
        models: its models; they are ordered by their names.
        existing: the README that is there; only the part between the marks changes, or it is added at the end.

    Raises:
        CardError: the marks are broken.
    """
    newline, text = _normal(existing)
    rows = []
    for facts in sorted(models, key=lambda item: item.model_id):
        version = facts.version
        name = facts.model_id.partition("/")[2]
        link = urllib.parse.quote(card_path(name).name)
        shown = [f"{escape(key)} {escape(value)}" for key, value in metric_values(version.metrics)]
        more = ["…"] if len(shown) > SHOWN_METRICS else []
        rows.append(
            [
                f"[{escape(name)}]({link})",
                escape(facts.description),
                escape(version.name),
                escape(version.date),
                code(version.path),
                _size(version.size),
                ", ".join(shown[:SHOWN_METRICS] + more),
            ]
        )
    header = ["model", "description", "version", "date", "file", "size", "metrics"]
    content = table(header, rows, right={5}) if rows else "No model is registered."
    if not text.strip():
        text = f"# {escape(app)}\n"
    made = put_part(text, README_PART, content, f"{MODELS_FOLDER}/{app}/{README}")
    return made.replace("\n", newline)


def missing_fields(card_text: str, required: Sequence[str]) -> list[str]:
    """Those of the required fields that a card does not have, in their order.

    A field is a key of the metadata (``license``, ``model-index``, with dots for keys in keys) or a heading
    (``Intended use``, also written ``intended_use``) under which something stands. Comments, ``TODO`` and
    ``[More Information Needed]`` are nothing.

    Raises:
        CardError: the metadata is no YAML mapping.
    """
    _, text = _normal(card_text)
    front, body = _split(text)
    data = _parse(front, "the model card") if front is not None else {}
    said: dict[str, bool] = {}
    for words, content in sections(body):
        said[_plain(words)] = said.get(_plain(words), False) or _EMPTY.fullmatch(content) is None
    return [name for name in required if not (_says(data, name) or said.get(_plain(name), False))]


def metric_values(metrics: Mapping[str, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """The numbers of metrics, names in names joined with dots, as text; lists and what is no number are left out."""
    for key, value in metrics.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and depth < MAX_DEPTH:
            yield from metric_values(value, f"{name}.", depth + 1)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield name, f"{value:.6g}" if isinstance(value, float) else str(value)


def _numbers(metrics: Mapping[str, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, float]]:
    for key, value in metrics.items():
        if isinstance(value, Mapping) and depth < MAX_DEPTH:
            yield from _numbers(value, f"{prefix}{key}.", depth + 1)
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            yield f"{prefix}{key}", value


# the text


def _card_body(facts: CardFacts) -> str:
    version = facts.version
    rows = [
        ("version", code(version.name)),
        ("date", escape(version.date)),
        ("file", code(version.path)),
        ("size", f"{_size(version.size)} ({version.size:,} bytes)"),
        ("md5", code(version.oid)),
        ("weights", code(version.weights)),
        ("config", code(facts.config)),
        ("run", code(version.source.get("run", ""))),
        ("commit", code(version.source.get("rev", ""))),
    ]
    parts = [escape(facts.description)] if facts.description else []
    parts.append(table(["", escape(facts.model_id)], [row for row in rows if row[1]]))
    metrics = list(metric_values(version.metrics))
    if metrics:
        rows = [(escape(name), value) for name, value in metrics]
        parts.append("## Metrics\n\n" + table(["metric", "value"], rows, right={1}))
    if facts.data:
        data = [
            (
                escape(item.name),
                escape(item.role),
                code(item.path),
                "" if item.size is None else _size(item.size),
                code(item.oid),
            )
            for item in facts.data
        ]
        parts.append("## Data\n\n" + table(["data", "used for", "path", "size", "md5"], data, right={3}))
    if facts.contract:
        rows = [(code(str(name)), code(_inline(spec))) for name, spec in facts.contract.items()]
        parts.append("## Contract\n\n" + table(["name", "shape and dtype"], rows))
    if version.params:
        rows = [(code(name), code(value)) for name, value in _flat(version.params)]
        parts.append("## Parameters\n\n" + table(["parameter", "value"], rows))
    return "\n\n".join(parts)


def _flat(values: Mapping[str, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value and depth < MAX_DEPTH:
            yield from _flat(value, f"{prefix}{key}.", depth + 1)
        else:
            yield f"{prefix}{key}", _inline(value)


def _inline(value: Any) -> str:
    """A value as YAML writes it in one line; text as it is."""
    if isinstance(value, str):
        return value
    dumped = yaml.safe_dump(
        _plain_value(value), default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6
    )
    return str(dumped).removesuffix("\n").removesuffix("\n...")


def _plain_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_value(item) for item in value]
    return value if isinstance(value, int | float | bool | str) or value is None else str(value)


def _size(count: int) -> str:
    size = float(count)
    unit = _UNITS[0]
    for unit in _UNITS:
        if size < 1000 or unit == _UNITS[-1]:
            break
        size /= 1000
    return f"{count} B" if unit == "B" else f"{size:.1f} {unit}"


# the metadata


def _front(facts: CardFacts, front: str | None, what: str) -> str:
    """The metadata's text: ``model-index`` made anew, ``tags`` and ``pipeline_tag`` where they are missing."""
    # imported here: 0.13 s, and only who writes a card needs it
    from huggingface_hub import EvalResult, ModelCardData

    data = _parse(front, what) if front is not None else {}
    evaluated = next((item.name for item in facts.data if item.role == "evaluation"), "evaluation data")
    results = [
        EvalResult(
            task_type=facts.task or "other",
            dataset_type=_slug(evaluated),
            dataset_name=visible(evaluated),
            metric_type=_slug(name),
            metric_name=visible(name),
            metric_value=value,
        )
        for name, value in _numbers(facts.version.metrics)
    ]
    made: dict[str, str] = {}
    if "tags" not in data:
        tags = [*TAGS, posixpath.splitext(facts.version.weights_path)[1].lstrip(".")]
        made["tags"] = ModelCardData(tags=[tag for tag in tags if tag]).to_yaml()
    if facts.task and "pipeline_tag" not in data:
        made["pipeline_tag"] = ModelCardData(pipeline_tag=facts.task).to_yaml()
    name = visible(facts.model_id)
    made["model-index"] = ModelCardData(model_name=name, eval_results=results).to_yaml() if results else ""
    text = f"{front.rstrip()}\n" if front and front.strip() else ""
    for key, block in made.items():
        text = _with_block(text, key, f"{block.strip()}\n" if block else "")
    expected = {key: value for key, value in data.items() if key not in made}
    try:
        kept = {key: value for key, value in _parse(text, what).items() if key not in made}
    except CardError:
        kept = None
    if kept != expected:
        raise CardError(f"{what}: its metadata is written in a way that is not edited", hint="Write one key a line")
    return text


def _with_block(text: str, key: str, block: str) -> str:
    """The metadata with the lines of one key replaced, or added; every other line stays."""
    pattern = re.compile(rf"^(?:{re.escape(key)}|\"{re.escape(key)}\"|'{re.escape(key)}')[ \t]*:[^\n]*\n", re.MULTILINE)
    found = pattern.search(text)
    if found is None:
        return text + block
    end = found.end()
    while end < len(text) and re.match(r"[ \t]+\S|-[ \t]|-\n|[ \t]*\n", text[end:]):
        end = text.find("\n", end) + 1
    return text[: found.start()] + block + text[end:]


def _parse(front: str, what: str) -> dict[str, Any]:
    try:
        check_nesting(front.encode(errors="surrogatepass"))
        data = yaml.load(front, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 2}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise CardError(f"{what}{where}: the metadata is no YAML: {problem}", hint="Mend it by hand") from error
    if not isinstance(data, dict | None):
        raise CardError(f"{what}: the metadata is no mapping of keys to values", hint="Mend it by hand")
    return data or {}


def _check(card: str, what: str) -> None:
    """Raise unless Hugging Face's own reader takes the card."""
    from huggingface_hub import ModelCard  # imported here: see _front

    try:
        ModelCard(card)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise CardError(
            f"{what}: Hugging Face would not take its metadata: {reason}", hint="Mend it by hand"
        ) from error


def _split(text: str) -> tuple[str | None, str]:
    """The metadata (None where there is none) and the rest."""
    found = _FRONT.match(text)
    return (found["data"], text[found.end() :]) if found else (None, text)


def _normal(existing: str | None) -> tuple[str, str]:
    """How lines end, and the text with ``\\n``; a byte order mark, which would hide the metadata, goes."""
    text = (existing or "").removeprefix("\ufeff")
    newline = "\r\n" if "\r\n" in text else "\n"
    return newline, text.replace("\r\n", "\n")


def _says(data: Mapping[str, Any], name: str) -> bool:
    value: Any = data
    if name in data:
        value = data[name]
    else:
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
    if isinstance(value, str):
        return _EMPTY.fullmatch(value.strip()) is None
    return value not in (None, [], {})


def _plain(words: str) -> str:
    return " ".join(re.sub(r"[_\-]+", " ", words).split()).casefold().rstrip(":")


def _slug(text: str) -> str:
    return re.sub(r"[^\w.\-/]+", "-", text.strip()).strip("-").lower() or "other"
