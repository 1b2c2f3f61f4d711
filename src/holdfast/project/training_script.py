"""What a training script reads and writes, as its text tells: nothing is run."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from holdfast.inventory.code_imports import Resolver
from holdfast.inventory.code_modules import find_imports
from holdfast.inventory.ref_evaluate import Evaluator
from holdfast.inventory.ref_scope import Scope
from holdfast.inventory.sources import parse_python
from holdfast.registry.registration import WEIGHTS_SUFFIXES

SAVES = frozenset({"save", "savez", "savez_compressed", "save_file", "save_model", "save_checkpoint", "dump", "export"})
METRIC_WORDS = ("metric", "result", "score", "eval", "summary", "report")
MAX_BYTES = 2**20


@dataclass(frozen=True)
class TrainingScript:
    """A script that writes checkpoints; all paths are from the project's root.

    Attributes:
        path: of the script.
        checkpoints: files of weights that it saves; those that stand in a call that saves, where there are any.
        metrics: JSON files that are named like metrics.
        predictions: CSV files that are named like predictions.
        inputs: files that it names and that are there.
        modules: the project's modules that it imports, and what these import.
    """

    path: str
    checkpoints: tuple[str, ...]
    metrics: tuple[str, ...]
    predictions: tuple[str, ...]
    inputs: tuple[str, ...]
    modules: tuple[str, ...]


def find_scripts(root: Path, paths: list[str]) -> list[TrainingScript]:
    """The scripts among Python files that save weights, those called after training first.

    Args:
        root: the project's folder.
        paths: of the files, from the root.
    """
    found = []
    for path in paths:
        parts = PurePosixPath(path).parts
        if not path.endswith(".py") or parts[0] == "stages" or any(part.startswith("test") for part in parts):
            continue
        script = read_script(root, path, paths)
        if script is not None and script.checkpoints:
            found.append(script)
    return sorted(found, key=lambda item: ("train" not in PurePosixPath(item.path).name, item.path))


def read_script(root: Path, path: str, paths: list[str]) -> TrainingScript | None:
    """A script as it stands there; None where it is no Python that can be read.

    Args:
        root: the project's folder.
        path: of the script, from the root.
        paths: all files of the project, from the root.
    """
    tree = _parsed(root / path)
    if tree is None:
        return None
    texts, saved = _texts(tree)
    weights = [text for text in saved if text.lower().endswith(WEIGHTS_SUFFIXES)]
    weights = weights or [text for text in texts if text.lower().endswith(WEIGHTS_SUFFIXES)]
    metrics = [text for text in texts if text.endswith(".json") and _is_named(text, METRIC_WORDS)]
    predictions = [text for text in texts if text.endswith(".csv") and _is_named(text, ("prediction",))]
    made = {*weights, *metrics, *predictions}
    there = set(paths)
    inputs = sorted(text for text in texts if text in there and text not in made and text != path)
    return TrainingScript(
        path,
        tuple(dict.fromkeys(weights)),
        tuple(dict.fromkeys(metrics)),
        tuple(dict.fromkeys(predictions)),
        tuple(text for text in inputs if not text.endswith(".py") and not _is_params(text)),
        tuple(sorted(_modules(root, path, tree, paths))),
    )


def _parsed(path: Path) -> ast.Module | None:
    try:
        with open(path, "rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError:
        return None
    return parse_python(data.decode(errors="replace")) if len(data) <= MAX_BYTES else None


def _texts(tree: ast.Module) -> tuple[list[str], list[str]]:
    """The paths that a program has in its text, and those of them that it gives to a call that saves."""
    evaluator, scope = Evaluator({}), Scope()
    for statement in tree.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        for target in targets:
            evaluator.bind(target, evaluator.value(statement.value, scope), scope)  # type: ignore[attr-defined]
    texts: dict[str, None] = {}
    saved: dict[str, None] = {}
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Call) and _called(node) in SAVES:
            for argument in (*node.args, *(item.value for item in node.keywords)):
                saved.update(dict.fromkeys(_known(evaluator, argument, scope)))
        found = list(_known(evaluator, node, scope)) if isinstance(node, ast.expr) else []
        texts.update(dict.fromkeys(found))
        if not found:  # what a longer path is made of is no path of its own
            waiting += reversed(list(ast.iter_child_nodes(node)))
    return list(texts), list(saved)


def _known(evaluator: Evaluator, node: ast.expr, scope: Scope) -> Iterator[str]:
    """The paths that an expression is known to be, from the root and within it."""
    try:
        forms = evaluator.text(node, scope).forms
    except RecursionError:
        return
    for form in forms:
        if any(part is None for part in form):
            continue
        text = "".join(part or "" for part in form)
        path = PurePosixPath(text.replace("\\", "/"))
        if path.suffix and len(text) < 300 and "\n" not in text and not path.is_absolute() and ".." not in path.parts:
            yield path.as_posix()


def _called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _is_named(path: str, words: tuple[str, ...]) -> bool:
    return any(word in PurePosixPath(path).name.lower() for word in words)


def _is_params(path: str) -> bool:
    return PurePosixPath(path).name in ("params.yaml", "params.yml")


def _modules(root: Path, script: str, tree: ast.Module, paths: list[str]) -> set[str]:
    resolver = Resolver((path for path in paths if path.endswith(".py")), root.name)
    found: set[str] = set()
    waiting: list[tuple[str, ast.Module]] = [(script, tree)]
    while waiting:
        file, parsed = waiting.pop()
        for item in find_imports(parsed, file):
            dotted = [item.module, *(f"{item.module}.{name}".lstrip(".") for name in item.names if name != "*")]
            for name in dotted:
                module = resolver.resolve(file, item.level, name)
                if module is None or module in found or module == script:
                    continue
                found.add(module)
                below = _parsed(root / module)
                if below is not None:
                    waiting.append((module, below))
    return found
