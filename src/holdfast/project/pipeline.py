"""The stages train, evaluate and promote around a training script of the user's own."""

import json
import re
import shlex
from collections.abc import Collection
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template

from holdfast.errors import HoldfastError
from holdfast.inventory.run_metrics import metric_name, number_of
from holdfast.inventory.run_record import HIGHER_IS_BETTER, LOWER_IS_BETTER, base_of
from holdfast.project.merging import NotMergedError, read_mapping, with_keys
from holdfast.project.proposals import Draft, Left
from holdfast.project.survey import Survey
from holdfast.project.training_script import TrainingScript
from holdfast.registry.gate_predictions import read_predictions
from holdfast.registry.promotion import METRICS_FILE, predictions_path, stable_path
from holdfast.repo.dvcfiles import DVC_SUFFIX, PIPELINE_FILE

PARAMS_FILE = "params.yaml"
SECTION = "promote"
STAGES = ("train", "evaluate", "promote")
EVALUATE, PROMOTE = "stages/evaluate.py", "stages/promote.py"
SCORES_FILE, CLASS_SCORES = "metrics/evaluate.json", "outputs/evaluate/class_scores.csv"
# what promotion writes as safetensors, which nothing has to be unpickled for
TORCH_SUFFIXES = (".pt", ".pth", ".ckpt")
# a difference that a metric may have from run to run
TOLERANCE = "1%"
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]*")


@dataclass(frozen=True)
class Pipeline:
    """What the stages are made of; paths are from the project's root.

    Attributes:
        script: the training script.
        checkpoint: the weights that it writes.
        metrics: the JSON file of metrics that it writes.
        model: ``app/name``, what the registry is to call it.
        predictions: a CSV of ``id``, ``label`` and ``prediction`` that it writes; None for none.
    """

    script: TrainingScript
    checkpoint: str
    metrics: str
    model: str
    predictions: str | None = None

    @property
    def saved(self) -> list[str]:
        """What training leaves for DVC to keep."""
        return [self.checkpoint, *([self.predictions] if self.predictions else [])]

    @property
    def stable(self) -> str:
        """Where a promoted model lies."""
        suffix = Path(self.checkpoint).suffix
        kept = ".safetensors" if suffix.lower() in TORCH_SUFFIXES else suffix
        return stable_path(self.model, kept).as_posix()


def is_scaffolded(root: Path) -> bool:
    """Whether a project has the stages."""
    try:
        return all(name in _stages_of((root / PIPELINE_FILE).read_bytes()) for name in STAGES)
    except (OSError, NotMergedError):
        return False


def propose_pipeline(draft: Draft, survey: Survey, pipeline: Pipeline) -> None:
    """Propose the stages, their scripts and their gate; nothing of it where a stage of such a name is there.

    Args:
        draft: takes the proposals.
        survey: what is there.
        pipeline: see there.
    """
    prefix = survey.prefix
    stages = f"{prefix}{PIPELINE_FILE}"
    texts = {f"{prefix}{EVALUATE}": _script("evaluate", pipeline), f"{prefix}{PROMOTE}": _script("promote", pipeline)}
    try:
        there = _stages_of(draft.read(stages) or b"")
        known = next((name for name in STAGES if name in there), None)
        if known is not None:
            add = "rename it, or write the other stages as docs/how-to/prepare-a-repository.md shows them"
            draft.left.append(Left(stages, f"it has a stage {known} of its own", add))
            return
        foreign = [path for path, text in texts.items() if draft.read(path) not in (None, text.encode())]
    except NotMergedError as error:
        draft.left.append(Left(stages, error.message, "mend it, and run this again"))
        return
    if foreign:
        draft.left.append(Left(foreign[0], "it is there already, and is another one", "move it, and run this again"))
        return
    params = f"{prefix}{PARAMS_FILE}"
    before = len(draft.proposals)
    draft.change(
        params,
        lambda data: data if SECTION in read_mapping(data) else with_keys(data, (), _gate(survey.root, pipeline)),
        "gate that a candidate has to pass",
        f"a section `{SECTION}:`, as docs/reference/gates.md has it",
    )
    for path, text in texts.items():
        draft.create(path, text, "scores the checkpoint" if path.endswith(EVALUATE) else "promotes it")
    draft.change(
        stages,
        lambda data: with_keys(data, ("stages",), _stages(draft, params, pipeline)),
        f"`dvc repro` runs {pipeline.script.path} and the rest",
        "the stages train, evaluate and promote, as docs/how-to/prepare-a-repository.md shows them",
    )
    # stages without their scripts, or without the gate, would fail: all of it or nothing
    if any(item.path == stages for item in draft.left):
        del draft.proposals[before:]
    for path in pipeline.saved:
        if survey.scan.tracking.in_git.has(f"{prefix}{path}"):
            why = "git tracks it, and DVC is to: `dvc repro` refuses"
            draft.left.append(Left(f"{prefix}{path}", why, f"`git rm --cached {shlex.quote(path)}`"))
        elif (survey.root / f"{path}{DVC_SUFFIX}").exists():
            why = "a .dvc file tracks it, and the stage is to: `dvc repro` refuses"
            draft.left.append(Left(f"{prefix}{path}", why, f"`dvc remove {shlex.quote(path + DVC_SUFFIX)}`"))


def _stages_of(data: bytes) -> Collection[str]:
    stages = read_mapping(data).get("stages")
    return stages if isinstance(stages, dict) else ()


def is_predictions(path: Path) -> bool:
    """Whether a file is a CSV of predictions that a gate can read: with the columns id, label and prediction."""
    try:
        read_predictions(path)
    except (HoldfastError, OSError):
        return False
    return True


def _script(name: str, pipeline: Pipeline) -> str:
    text = (files("holdfast.project") / "templates" / "pipeline" / f"{name}.py.template").read_text(encoding="utf-8")
    return Template(text).substitute(
        checkpoint=_literal(pipeline.checkpoint),
        metrics=_literal(pipeline.metrics),
        predictions=f"Path({_literal(pipeline.predictions)})" if pipeline.predictions else "None",
        script=pipeline.script.path.replace("\n", " "),
    )


def _stages(draft: Draft, params: str, pipeline: Pipeline) -> str:
    """The stages as YAML, from column 0."""
    keys = [str(key) for key in read_mapping(draft.read(params) or b"") if key != SECTION]
    script, saved = pipeline.script, pipeline.saved
    lines = [
        "train:",
        f"  cmd: {_text(f'python {shlex.quote(script.path)}')}",
        *_list("deps", sorted({script.path, *script.inputs, *script.modules})),
        *_list("params", keys),
        *_list("outs", saved),
        *_list("metrics", [pipeline.metrics], "cache: false"),
        "",
        "evaluate:",
        f"  cmd: python {EVALUATE}",
        *_list("deps", sorted([*saved, pipeline.metrics, EVALUATE])),
        *_list("outs", [CLASS_SCORES] if pipeline.predictions else []),
        *_list("metrics", [SCORES_FILE], "cache: false"),
        "",
        "promote:",
        f"  cmd: python {PROMOTE}",
        *_list("deps", sorted([*saved, SCORES_FILE, PROMOTE])),
        *_list("params", [*keys, SECTION]),
        "  # persist: DVC leaves the champion where it is. The files of registry/ belong to git and are no outs.",
        *_list(
            "outs",
            [pipeline.stable, *([predictions_path(pipeline.model).as_posix()] if pipeline.predictions else [])],
            "persist: true",
        ),
        *_list("metrics", [METRICS_FILE], "cache: false"),
    ]
    return "\n".join(lines)


def _gate(root: Path, pipeline: Pipeline) -> str:
    """The section ``promote:``: metrics that a run has left already, with the direction in which they are better."""
    lines = [f"{SECTION}:  # the gate: what a candidate must reach, and what it may lose against the one in use"]
    lines.append(f"  model: {pipeline.model}")
    rules = [
        f"    {_text(name)}: {{direction: {direction}, tolerance: {TOLERANCE}, required: true}}"
        for name, direction in _directions(root / pipeline.metrics)
    ]
    if pipeline.predictions and not any(rule.strip().startswith("accuracy:") for rule in rules):
        rules.append(f"    accuracy: {{direction: max, tolerance: {TOLERANCE}, required: true}}")
    if rules:
        lines += ["  metrics:", *rules]
    else:
        lines.append("  # metrics: {accuracy: {direction: max, floor: 0.9, tolerance: 1%}}")
    if pipeline.predictions:
        lines += ["  classes:", "    recall: {tolerance: 0.1, minimum_samples: 10}"]
    lines.append("  pickle_safe: true")
    return "\n".join(lines)


def _directions(path: Path) -> list[tuple[str, str]]:
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return []
    found = []
    for key, value in values.items() if isinstance(values, dict) else ():
        named = metric_name((str(key),)) if number_of(value) is not None else None
        base = base_of(named.text) if named is not None else ""
        if base in HIGHER_IS_BETTER | LOWER_IS_BETTER and "train" not in str(key).lower():
            found.append((str(key), "max" if base in HIGHER_IS_BETTER else "min"))
    return found


def _list(key: str, items: list[str], option: str = "") -> list[str]:
    if not items:
        return []
    lines = [f"  {key}:"]
    for item in items:
        lines += [f"    - {_text(item)}{':' if option else ''}", *([f"        {option}"] if option else [])]
    return lines


def _text(text: str) -> str:
    return text if _PLAIN.fullmatch(text.replace(" ", "")) and not text.endswith(" ") else _literal(text)


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
