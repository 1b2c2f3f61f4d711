"""The files of run folders: what a name says a file is, and bounded reading that never fails and runs nothing.

Every reader returns what it could read or raises `UnreadableError` with a few words; whoever calls turns them into a
note. YAML tags that name Python objects, as Lightning writes them, become plain mappings and lists.
"""

import csv
import io
import json
import os
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from holdfast.inventory.run_record import Role
from holdfast.nesting import check_nesting
from holdfast.runs import artifacts

TREE_MAX_BYTES = 16 * 2**20  # a trainer_state.json of 50,000 logged steps has 10 MB
YAML_MAX_BYTES = 2 * 2**20
TABLE_MAX_BYTES = 32 * 2**20
LOG_TAIL_BYTES = 64 * 2**10
LEAVES_MAX = 200_000
DEPTH_MAX = 24

_WEIGHTS = r"\.(pt|pth|ckpt|safetensors|bin|h5|hdf5|keras|onnx|gguf|tflite|msgpack)"
_VOCABULARY = (
    "vocab|vocabulary|word2idx|token2id|tokenizer|tokenizer_config|merges|spiece|sentencepiece|label_encoder|label_map"
    "|labels|special_tokens_map|added_tokens|encoder|scaler|vectorizer"
)
_HISTORY = "epoch_statistics|metrics|history|log|progress|results|learning_curves?|losses"
_PART = r"(.*[_\-.])?"
_TREE = r"\.(json|ya?ml)"
# first match wins; matched against the path within the run in lower case, without a `.dvc` at its end
_ROLE_PATTERNS: tuple[tuple[Role, str], ...] = (
    ("matrices", rf"(.*/)?{re.escape(artifacts.MATRICES)}"),
    ("predictions", rf"(.*/)?{_PART}predictions?([_\-.].*)?\.(csv|jsonl?|npz|npy|parquet)"),
    (
        "vocabulary",
        rf"(.*/)?(.*[_\-])?({_VOCABULARY})\.(pkl|pickle|joblib|json|txt|model|npy|ya?ml)",
    ),
    ("state", r"(.*/)?(optimizer|scheduler|scaler|rng_state.*|training_args|sampler)\.(pt|pth|bin)"),
    ("shard", rf"(.*/)?.*\d{{5}}-of-\d{{5}}{_WEIGHTS}"),
    ("checkpoint", r"(.*/)?(.*\.ckpt|.*(checkpoint|ckpt|epoch|step|last).*" + _WEIGHTS + ")"),
    ("checkpoint", r"(.*/)?(checkpoints?|checkpoint-\d+)/[^/]*" + _WEIGHTS),
    ("model", r"(.*/)?.*" + _WEIGHTS),
    ("model", r"(.*/)?.*(model|classifier|clf|estimator|regressor|pipeline|weights).*\.(pkl|pickle|joblib|npz|pb)"),
    ("history", r"(.*/)?dvclive/plots/metrics/.*\.tsv|plots/metrics/.*\.tsv"),
    (
        "history",
        rf"(.*/)?{_PART}({_HISTORY})\.(csv|tsv|jsonl)",
    ),
    ("history", rf"(.*/)?{_PART}(history|trainer_state|losses|learning_curves?)\.json"),
    ("other", r"(.*/)?(generation_config|preprocessor_config|all_files|.*\.index)\.json"),
    ("config", rf"(.*/)?{_PART}(config|params|hparams|hyperparam(eter)?s|args|arguments|settings|flags){_TREE}"),
    ("info", rf"(.*/)?{_PART}(info|metadata|meta|status|model_card){_TREE}"),
    ("metrics", rf"(.*/)?{_PART}(metrics?|results?|eval|evaluation|scores?|report|summary){_TREE}"),
    ("log", r"(.*/)?(.*\.(log|err|out)|events\.out\.tfevents.*)"),
    ("log", rf"(.*/)?{_PART}(log|stderr|stdout|output|errors?|traceback|nohup|console)\.txt"),
    ("plot", r"(.*/)?.*\.(png|jpe?g|svg|pdf|html)"),
)
_ROLES = [(role, re.compile(pattern)) for role, pattern in _ROLE_PATTERNS]


class UnreadableError(Exception):
    """A file of a run cannot be read; the message says why in a few words. Becomes a note, never a failure."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """A safe loader that reads unknown tags as the plain data that they stand on."""


def _plain(loader: Any, _suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return loader.construct_scalar(node)


_Loader.add_multi_constructor("", _plain)


@lru_cache(maxsize=1 << 16)
def role_of(path: str) -> Role:
    """What a file is, from its path within the run (with ``/``)."""
    text = path.lower().removesuffix(".dvc")
    return next((role for role, pattern in _ROLES if pattern.fullmatch(text)), "other")


def read_tree(path: Path) -> Any:
    """A JSON or YAML document.

    Raises:
        UnreadableError: it is too large, or broken.
    """
    is_yaml = path.suffix in (".yaml", ".yml")
    data = _read(path, YAML_MAX_BYTES if is_yaml else TREE_MAX_BYTES)
    try:
        return _load_yaml(data) if is_yaml else json.loads(data)
    except (ValueError, RecursionError, yaml.YAMLError, TypeError, AttributeError) as error:
        kind = "YAML" if is_yaml else "JSON"
        raise UnreadableError(f"is no {kind} that can be read{_where(error)}") from error


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a CSV, TSV or JSON Lines file as mappings; blank cells and cells beyond the header are left out.

    Raises:
        UnreadableError: it is too large, or broken.
    """
    text = _read(path, TABLE_MAX_BYTES).decode("utf-8", errors="replace")
    try:
        if path.suffix == ".jsonl":
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
            return [row for row in rows if isinstance(row, dict)]
        reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t" if path.suffix == ".tsv" else ",")
        header = [cell.strip() for cell in next(reader, [])]
        # a row that is not as long as the header is torn: a kill leaves one at the end
        return [
            {key: cell for key, cell in zip(header, row, strict=True) if cell.strip()}
            for row in reader
            if len(row) == len(header)
        ]
    except (ValueError, RecursionError, csv.Error) as error:
        raise UnreadableError(f"is no table that can be read ({type(error).__name__})") from error


def read_tail(path: Path) -> str:
    """The last `LOG_TAIL_BYTES` of a text file.

    Raises:
        UnreadableError: it cannot be read.
    """
    try:
        with open(path, "rb") as stream:
            stream.seek(max(0, path.stat().st_size - LOG_TAIL_BYTES))
            return stream.read(LOG_TAIL_BYTES).decode("utf-8", errors="replace")
    except OSError as error:
        raise UnreadableError(f"cannot be read ({error.strerror})") from error


def leaves(tree: Any, keys: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The scalars and lists of scalars of a document, with the keys that lead to each.

    At most `LEAVES_MAX`, `DEPTH_MAX` deep: a few lines of YAML with aliases can stand for billions of values.
    """
    budget = [LEAVES_MAX]
    yield from _leaves(tree, keys, budget)


def _leaves(tree: Any, keys: tuple[str, ...], budget: list[int]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if budget[0] <= 0 or len(keys) > DEPTH_MAX:
        return
    budget[0] -= 1
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _leaves(value, (*keys, str(key)), budget)
    elif isinstance(tree, list) and any(isinstance(value, dict | list) for value in tree):
        for number, value in enumerate(tree):
            yield from _leaves(value, (*keys, str(number)), budget)
    else:
        yield keys, tree


def _load_yaml(data: bytes) -> Any:
    check_nesting(data)
    return yaml.load(data, _Loader)


def _read(path: Path, limit: int) -> bytes:
    try:
        with open(path, "rb") as stream:
            # not `limit`, for which a buffer of that size would be made; what grows meanwhile is read up to here
            data = stream.read(min(limit, os.fstat(stream.fileno()).st_size) + 1)
    except OSError as error:
        raise UnreadableError(f"cannot be read ({error.strerror})") from error
    if len(data) > limit:
        raise UnreadableError(f"is larger than {limit // 2**20} MiB and was not read")
    return data


def _where(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f" (line {error.lineno})"
    mark = getattr(error, "problem_mark", None)
    return f" (line {mark.line + 1})" if mark is not None else ""
