"""Can what is in use be used: does it load, does it keep the gate's contract, and does what refers to it find it."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from holdfast.errors import HoldfastError
from holdfast.formats.opening import open_checkpoint
from holdfast.inventory.references import SCRIPT_KINDS, find_references
from holdfast.inventory.sources import walk_sources
from holdfast.registry import FOLDER
from holdfast.registry.cards import card_path, readme_path
from holdfast.registry.cards_data import files_of, locked_oid
from holdfast.registry.cards_files import texts_in_step
from holdfast.registry.cards_markdown import escape
from holdfast.registry.entries import Model, Version
from holdfast.registry.gate import judge
from holdfast.registry.gate_contract import file_facts
from holdfast.registry.gate_evidence import Evidence
from holdfast.registry.gate_rules import SECTION, GateRules, GateRulesError, read_rules
from holdfast.registry.history import RegistryHistory
from holdfast.registry.objects import Stores
from holdfast.registry.promotion_evidence import interface_of
from holdfast.registry.promotion_source import CONVERTED, MODELS_FOLDER
from holdfast.registry.registration import WEIGHTS_SUFFIXES
from holdfast.registry.rollback import CHAMPION, config_to_restore
from holdfast.registry.store import Registry
from holdfast.registry.verification_findings import Finding
from holdfast.repo.dvcfiles import UnreadableFileError, load_yaml
from holdfast.repo.workspace import Project, find_git_root

PARAMS = "params.yaml"
PROBE_BYTES = 1024
# a process of its own: torch is half a second and hundreds of megabytes, which a registry of safetensors never needs
_LOADER = """\
import json, sys
from pathlib import Path
from holdfast.errors import HoldfastError
from holdfast.runs.checkpoint import load_checkpoint, weights_of
faults = {}
for path in json.load(sys.stdin):
    try:
        weights_of(load_checkpoint(Path(path)))
    except HoldfastError as error:
        faults[path] = error.message
    except Exception as error:
        faults[path] = f"{type(error).__name__}: {error}"
json.dump(faults, sys.stdout)
"""


def load_faults(stores: Stores, versions: Iterable[tuple[str, Version]]) -> Iterator[Finding]:
    """Which versions do not load, of those in the cache.

    Of safetensors, NumPy and ONNX the header is read, and that it describes the file; torch's files are loaded by torch
    with ``weights_only=True``, in another process, where torch is installed. Nothing is unpickled otherwise.

    Args:
        stores: where bytes are.
        versions: each with what to call it.
    """
    of_torch: dict[str, list[str]] = {}
    for name, version in versions:
        try:
            path = stores.weights(version)
            source, checkpoint = open_checkpoint(path)
        except (HoldfastError, OSError) as error:
            yield Finding(name, f"it does not load: {error}")
            continue
        with source:
            if checkpoint.format in CONVERTED:
                of_torch.setdefault(str(path), []).append(name)
            elif not checkpoint.weights:
                told = checkpoint.no_digest or "it holds no tensors"
                yield Finding(name, f"it does not load: {told}")
    if not of_torch:
        return
    if importlib.util.find_spec("torch") is None:
        hint = "`pip install 'holdfast[train]'` brings it"
        for name in sorted(name for names in of_torch.values() for name in names):
            yield Finding(name, "it was not loaded: torch is not installed", hint, certain=False)
        return
    hint = "Promote it again as safetensors, which any program loads"
    for file, told in _loaded_by_torch(sorted(of_torch)).items():
        for name in of_torch[file]:
            yield Finding(name, f"it does not load: {told.replace(file, 'its file')}", hint)


def _loaded_by_torch(paths: Sequence[str]) -> dict[str, str]:
    """Why torch does not load files, by their paths; those that it loads are not in it."""
    # -P: nothing that lies in the working folder is imported in a library's place
    flags = ["-P"] if sys.version_info >= (3, 11) else []
    done = subprocess.run(
        [sys.executable, *flags, "-c", _LOADER], input=json.dumps(paths), capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        faults: dict[str, str] = json.loads(done.stdout)
        return faults
    if len(paths) > 1:  # one of them ended the process: each alone, to say which
        return {path: told for each in paths for path, told in _loaded_by_torch([each]).items()}
    last = done.stderr.strip().splitlines()[-1:] or [f"the process ended with {done.returncode}"]
    return {paths[0]: f"torch failed on it: {last[0]}"}


def contract_faults(stores: Stores, model: Model, current: Version) -> Iterator[Finding]:
    """Where the current version, in the cache, breaks the contract that ``params.yaml`` asks for."""
    try:
        rules = _rules(stores.root, model.id, current)
    except GateRulesError as error:
        yield Finding(PARAMS, f"the gate's contract was not checked: {error.message}", error.hint or "", certain=False)
        return
    if rules is None or rules.contract is None:
        return
    try:
        source, checkpoint = open_checkpoint(stores.weights(current))
    except (HoldfastError, OSError):
        return  # `load_faults` says so
    with source:
        facts = file_facts(checkpoint)
    config = None if current.is_folder else stores.root / PurePosixPath(current.path).with_suffix(".yaml")
    told = config.read_bytes() if config is not None and config.is_file() else None
    evidence = Evidence(current.name, file=facts, interface=interface_of(told))
    for finding in judge(GateRules(contract=rules.contract), evidence).findings:
        if finding.verdict != "pass":
            hint = f"`{SECTION}.contract` in {PARAMS} says what must hold; the configuration beside it what it takes"
            broken = finding.verdict == "fail"
            yield Finding(f"{model.id}@{current.name}", f"{finding.rule}: {finding.reason}", hint, certain=broken)


def _rules(root: Path, model_id: str, current: Version) -> GateRules | None:
    """The project's gate, where it names the model, or names none and has judged the version by a contract."""
    file = root / PARAMS
    if not file.is_file():
        return None
    try:
        params = load_yaml(file.read_bytes())
    except UnreadableFileError:
        params = None
    section = params.get(SECTION) if isinstance(params, Mapping) else None
    named = section.get("model") if isinstance(section, Mapping) else None
    judged = current.gate.get("rules")
    by_contract = isinstance(judged, Mapping) and any(str(name).startswith("contract.") for name in judged)
    return read_rules(file) if named == model_id or (named is None and by_contract) else None


def beside_faults(root: Path, registry: Registry, models: Sequence[Model]) -> Iterator[Finding]:
    """What lies beside stable paths and speaks of another version than the current one; nothing outside of git."""
    git_root = find_git_root(root)
    history = None if git_root is None else RegistryHistory(Project(root.resolve(), git_root))
    for model in models:
        current = model.version(model.current or "")
        # most models of a large registry were never promoted, and history is long
        if current is not None and history is not None and (root / card_path(model.id)).is_file():
            yield from _beside(root, registry, history, model, current)


def _beside(
    root: Path, registry: Registry, history: RegistryHistory, model: Model, current: Version
) -> Iterator[Finding]:
    name = f"{model.id}@{current.name}"
    # where production is on another version, this would move it
    alone = model.aliases.get(CHAMPION) in (None, current.name)
    hint = f"`holdfast registry rollback {model.id} --to {current.name}` makes it so" if alone else ""
    config = config_to_restore(root, history, model.id, current, {})
    if config is not None:
        yield Finding(name, f"{config[0]} is not what it was when the version came", hint, certain=False)
    try:
        texts = texts_in_step(root, registry, history, model, current)
    except HoldfastError as error:
        yield Finding(name, f"its card cannot be made anew: {error.message}", error.hint or "", certain=False)
        return
    # of the README this model's own line: others are registered without a word in it
    begins = f"| [{escape(model.id.partition('/')[2])}]("
    for path, text in texts.items():
        there = (root / path).read_bytes().decode("utf-8", "replace").splitlines()
        said, right = ([line for line in lines if line.startswith(begins)] for lines in (there, text.splitlines()))
        if path == readme_path(model.id).as_posix() and (not said or said == right):
            continue
        yield Finding(name, f"{path} does not say what the registry says", hint, certain=False)


def reference_faults(root: Path, models: Sequence[Model]) -> Iterator[Finding]:
    """Places that name a model by a path at which there is none, and configurations that still name the run's file.

    Raises:
        OSError: a source cannot be read.
    """
    gone: dict[str, tuple[str, str]] = {}
    old: dict[str, tuple[str, str]] = {}
    read = files_of(root)
    for model in models:
        current = model.version(model.current or "")
        if current is None:
            continue
        told = (f"{model.id}@{current.name}", current.path)
        stem = f"{MODELS_FOLDER}/{model.id}"
        if current.path in (stem, *(f"{stem}{suffix}" for suffix in WEIGHTS_SUFFIXES)):
            places = [f"{stem}{suffix}" for suffix in WEIGHTS_SUFFIXES]
            gone |= {path: told for path in places if path != current.path and not (root / path).exists()}
        run = root / current.source.get("run", "")
        if current.source.get("run") and run.is_dir() and run.resolve().is_relative_to(root.resolve()):
            weights = [path for path in run.iterdir() if path.suffix in WEIGHTS_SUFFIXES and path.is_file()]
            names = [path.relative_to(root).as_posix() for path in weights]
            # what a stage makes is read by the stages after it
            old |= {path: told for path in names if path != current.path and locked_oid(read, path) is None}
    if not gone and not old:
        return
    stems = {PurePosixPath(path).stem.encode() for path in (*gone, *old)}
    sources = [
        source
        for source in walk_sources(root, [])
        if not source.label.startswith(f"{FOLDER}/") and _may_name(source.path, stems)
    ]
    for reference in find_references(root, [*gone, *old], sources=sources).references:
        if reference.how != "path":
            continue
        for target in reference.targets:
            if target in gone:
                name, path = gone[target]
                fault = f"{reference.text} is not there: {name} is at {path}"
                yield Finding(reference.place, fault)
            elif target in old and reference.kind not in SCRIPT_KINDS:
                name, path = old[target]
                hint = "`holdfast registry promote … --rewrite-refs` leads it to the stable path"
                fault = f"{reference.text} is the file of the run that {name} came from, and not {path}"
                yield Finding(reference.place, fault, hint, certain=False)


def _may_name(path: Path, stems: Iterable[bytes]) -> bool:
    """Whether a source has a file's name in it, or is in an encoding that would hide one: most need not be parsed."""
    try:
        data = path.read_bytes()
    except OSError:
        return True  # who reads it says so
    return b"\0" in data[:PROBE_BYTES] or any(stem in data for stem in stems)
