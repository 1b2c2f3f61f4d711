"""From a checkpoint anywhere to the stable path and a registered version, where the gate lets it pass."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from holdfast.errors import UsageError
from holdfast.formats.digest import file_md5
from holdfast.registry.cards import Dataset, card_path
from holdfast.registry.cards_data import data_of, files_of, locked_oid
from holdfast.registry.cards_files import facts_in_use, texts_beside
from holdfast.registry.entries import CURRENT, Version, check_model_id
from holdfast.registry.gate import judge
from holdfast.registry.gate_rules import GateRules
from holdfast.registry.gate_verdict import Judgement
from holdfast.registry.history import RegistryHistory
from holdfast.registry.labels import check_protection
from holdfast.registry.objects import Stores
from holdfast.registry.promotion_drafts import bring_beside, drafts_of, drop_signatures, forget, labels_without
from holdfast.registry.promotion_evidence import is_there, judgement_of, of_candidate, of_champion
from holdfast.registry.promotion_files import (
    METRICS_FILE,
    StableFileError,
    Tracking,
    bring_current,
    config_of,
    hold_places,
    lock_files,
    look_up,
    paths_of,
    place,
)
from holdfast.registry.promotion_source import (
    MODELS_FOLDER,
    Candidate,
    Staged,
    config_path,
    moved_paths,
    open_source,
    predictions_path,
    stable_path,
    staged,
)
from holdfast.registry.rollback import CHAMPION, PREDICTIONS
from holdfast.registry.store import LockedModel, Registry
from holdfast.repo.dvc_outs import read_outs
from holdfast.repo.git import committed_files, head_revision, stage_files
from holdfast.repo.git_commands import add_to_index
from holdfast.repo.workspace import Project, find_git_root
from holdfast.runs.artifacts import write_json

__all__ = [
    "METRICS_FILE",
    "Candidate",
    "Promotion",
    "StableFileError",
    "config_path",
    "predictions_path",
    "promote_checkpoint",
    "stable_path",
]


@dataclass(frozen=True)
class Promotion:
    """What a promotion did, or would do.

    Attributes:
        model: ``app/name``.
        judgement: what the gate says; of weights that were registered before what it said then.
        version: the version that has the candidate's weights; None where the candidate was refused. Of a dry run the
            one that would be.
        registered: whether it is new; False where these weights were registered before.
        current: the version that the stable path holds; None where there is none.
        champion: the version that it was compared with; None where there was none.
        lost: the version that would have been the champion, had its bytes been anywhere.
        stable: the stable path.
        moves: old path → new path of what was copied, both from the project's root.
        paths: the files in git that belong to the promotion.
    """

    model: str
    judgement: Judgement
    version: Version | None
    registered: bool
    current: str | None
    champion: str | None
    lost: str | None
    stable: str
    moves: Mapping[str, str]
    paths: tuple[str, ...] = ()

    @property
    def refused(self) -> bool:
        """Whether the gate keeps the candidate out."""
        return self.version is None


def promote_checkpoint(
    root: Path,
    model_id: str,
    candidate: Candidate,
    *,
    today: date,
    rules: GateRules | None = None,
    stores: Stores | None = None,
    override: str | None = None,
    pipeline: bool = True,
    dry_run: bool = False,
) -> Promotion:
    """Judge a candidate; where it passes, put it at the stable path, register it and let the labels name it.

    ``current`` and ``production`` move together. Weights that are registered already are neither judged nor registered
    again: where another version is current, someone has rolled back, and that stands; where they are current, whatever
    is missing of their promotion is done, so that one that was killed is ended by running it again.

    In a pipeline a version is for ever once it is committed. What was promoted since the last commit is a draft: the
    next promotion takes its place and its number, so that a commit brings one version, whatever was tried before it. A
    draft that an alias of one's own names stays. Candidates are compared with what the commit has.

    The source is left untouched.

    Args:
        root: the project's folder.
        model_id: ``app/name``.
        candidate: what is to be promoted.
        today: the day to register under.
        rules: of the gate; None for none.
        stores: where bytes are: the champion's, its predictions. Outside of a pipeline it must be given.
        override: why to promote what the gate refuses.
        pipeline: whether a stage of DVC's does this, whose outs DVC tracks itself; else DVC is told here.
        dry_run: find out what would be done, and refuse what would be refused.

    Raises:
        UsageError: ``model_id`` is no ``app/name``, the source is unclear, or the stable path would be another one.
        EntryError: the registry is broken, or params or metrics hold what it cannot keep; nothing is written.
        PredictionsError: predictions are broken.
        CardError: the card or README that is there cannot be edited.
        IntegrityError: the checkpoint is torn, damaged, or asks for code to be run.
        NoWeightsError, NoWeightsDigestError: it holds no weights, or such as safetensors does not take.
        StableFileError: another version stays current, and its bytes are not at the stable path.
        StaleStageError: the stage that has the stable path as an out would run again.
        UnknownContentError: the stable path holds what is nowhere else.
        ProtectedAliasError: the gate refuses, and ``production`` is protected against an override.
        TorchMissingError: torch or safetensors is not installed.
        GitStageError: git does not take the files into its index.
        OSError: a file cannot be written.
    """
    check_model_id(model_id)
    if override is not None and (not override.strip() or "\n" in override):
        raise UsageError("an override needs a reason of one line", hint="--override REASON; the version keeps it")
    opened = open_source(candidate)
    registry = Registry(root)
    with registry.lock(model_id) as held, staged(root, model_id, opened) as copy:
        task = _Task(root, registry, held, candidate, copy, rules or GateRules(), stores, today, pipeline)
        task.check_path()
        known = next((version for version in held.versions if version.weights == copy.weights), None)
        if known is None:
            return task.decide(override, dry_run=dry_run)
        return task.end(known, dry_run=dry_run)


class _Task:
    """One promotion, under the model's lock."""

    def __init__(
        self,
        root: Path,
        registry: Registry,
        held: LockedModel,
        candidate: Candidate,
        copy: Staged,
        rules: GateRules,
        stores: Stores | None,
        today: date,
        pipeline: bool,
    ) -> None:
        self._root, self._registry, self._held = root, registry, held
        self._candidate, self._staged, self._rules, self._stores = candidate, copy, rules, stores
        self._today, self._pipeline = today, pipeline
        self._id = held.model_id
        self._model = held.model
        self._drafts = drafts_of(root, registry, self._model) if pipeline else frozenset()
        self._base = labels_without(root, self._model, self._drafts)
        self._config = None if candidate.config is None else config_of(self._id, candidate, copy.stable)

    def check_path(self) -> None:
        """Raise where the stable path would be another one: programs know the one that it has."""
        for version in self._model.versions:
            if version.name != self._model.current or version.path == self._staged.stable:
                continue
            if version.path.startswith(f"{MODELS_FOLDER}/{self._id}") and version.weights != self._staged.weights:
                raise UsageError(
                    f"the stable path of {self._id} is {version.path}, and this would be {self._staged.stable}",
                    hint="Promote it in the form of the versions before, with or without --no-convert",
                )

    def decide(self, override: str | None, *, dry_run: bool) -> Promotion:
        """Judge weights that nobody knows yet, and promote them where they pass."""
        champion, lost = self._champion()
        draft = self._draft()
        texts = self._texts(draft)
        predicted = self._from_root(self._candidate.predictions)
        judgement = judge(
            self._rules,
            of_candidate(self._rules, self._candidate, self._staged, texts[card_path(self._id).as_posix()]),
            None
            if champion is None
            else of_champion(self._root, self._rules, self._model, champion, self._stores, predicted),
        )
        name = None if champion is None else champion.name
        if not judgement.passed and override is None:
            if self._pipeline and (current := self._model.version(self._model.current or "")) is not None:
                bring_current(self._root, current, self._stores)
            elif self._pipeline:
                hold_places(self._root, self._id, self._candidate, self._staged, self._config)
            if not self._pipeline and not dry_run and METRICS_FILE not in read_outs(self._root, [METRICS_FILE]):
                write_json(self._root / METRICS_FILE, judgement.as_metrics())
            return self._result(judgement, None, False, self._model.current, name, lost)
        if not judgement.passed:
            check_protection(self._model, CHAMPION, force=False)
        draft = replace(draft, gate=judgement.as_record(), overridden=None if judgement.passed else override)
        tracking = self._tracking(texts)
        if dry_run:
            return self._result(judgement, draft, True, draft.name, name, lost)

        def begin() -> None:
            drop_signatures(self._root, self._registry, self._id, self._drafts)
            self._place(texts, judgement, tracking)

        version = self._held.add(
            draft,
            self._candidate.description,
            replaces=sorted(self._drafts),
            before=begin,
            aliases=[CHAMPION],
            name=draft.name,
        )
        others = sorted(self._drafts - {version.name})
        forget(self._root, [self._registry.files(self._id, other)[1] for other in others])
        paths = self._to_index(version, texts, tracking)
        return self._result(judgement, version, True, version.name, name, lost, paths)

    def end(self, known: Version, *, dry_run: bool) -> Promotion:
        """Weights that are registered: end their promotion, or leave in use what is in use."""
        judgement = judgement_of(known.gate)
        if judgement is None:  # registered without a gate: what can be said of it alone
            texts = self._texts(known)
            card = texts[card_path(self._id).as_posix()]
            judgement = judge(self._rules, of_candidate(self._rules, self._candidate, self._staged, card))
        target = known if known.name in self._drafts else self._model.version(self._base.get(CURRENT, ""))
        target = target or known
        if dry_run:
            return self._result(judgement, known, False, target.name, None, None)
        if target.name != known.name or not self._staged.is_version(known):
            if self._pipeline:
                bring_current(self._root, target, self._stores)
                if self._drafts:
                    bring_beside(self._root, self._registry, self._model, target, self._stores)
            self._relabel(target)
            return self._result(judgement, known, False, target.name, None, None)
        texts = self._texts(known)
        tracking = self._tracking(texts)
        # what is committed has been promoted whole, and the verdict may be another model's by now
        self._place(texts, None if self._is_committed(known) else judgement, tracking)
        self._relabel(target)
        paths = self._to_index(known, texts, tracking)
        return self._result(judgement, known, False, target.name, None, None, paths)

    def _relabel(self, target: Version) -> None:
        """Let the labels be where the commit has them, or on a draft that is current again; other drafts go."""
        gone = self._drafts - {target.name}
        changes: dict[str, object] = {}
        if self._model.current != target.name:
            changes[CURRENT] = target.name
        aliases = dict(self._model.aliases)
        if target.name in self._drafts:
            aliases[CHAMPION] = target.name
        elif aliases.get(CHAMPION) in gone:
            del aliases[CHAMPION]
            if CHAMPION in self._base:
                aliases[CHAMPION] = self._base[CHAMPION]
        if aliases != self._model.aliases:
            changes["aliases"] = aliases
        if changes:
            self._held.change(changes)
        drop_signatures(self._root, self._registry, self._id, gone)
        self._held.drop(sorted(gone))
        if gone:
            files = [self._held.file, *(self._registry.files(self._id, name)[1] for name in sorted(gone))]
            forget(self._root, files)

    def _texts(self, version: Version) -> dict[str, str]:
        """The card and the README once a version is current: of one that is committed as it was when it came."""
        root, description = self._root, self._candidate.description
        git_root = find_git_root(root)
        if git_root is not None and self._is_committed(version):
            history = RegistryHistory(Project(root.resolve(), git_root))
            data = facts_in_use(root, history, self._model, version).data
        else:
            data = self._data(version)
        return texts_beside(root, self._registry, self._model, version, self._config, description, data)

    def _data(self, version: Version) -> tuple[Dataset, ...]:
        """What the candidate was trained with, where DVC has written down these very weights."""
        read = files_of(self._root)
        source = self._from_root(self._candidate.source)
        if source is not None and self._candidate.source.is_file():
            locked = locked_oid(read, source)
            if locked is not None and locked != file_md5(self._candidate.source):
                return ()
        return data_of(version, read)

    def _champion(self) -> tuple[Version | None, str | None]:
        """The version to beat; and the one whose bytes are nowhere, which cannot stay in use."""
        champion = self._model.version(self._base.get(CHAMPION) or self._base.get(CURRENT, ""))
        if champion is not None and self._pipeline and self._stores is not None:
            stays = self._model.version(self._base.get(CURRENT, "")) or champion
            if not is_there(self._root, stays, self._stores):
                return None, champion.name
        return champion, None

    def _draft(self) -> Version:
        kept = tuple(version for version in self._model.versions if version.name not in self._drafts)
        candidate, copy = self._candidate, self._staged
        source = _source(self._root, candidate.source)
        if candidate.predictions is not None:
            source[PREDICTIONS] = file_md5(candidate.predictions)
        return Version(
            name=replace(self._model, versions=kept).next_name,
            path=copy.stable,
            oid=copy.oid,
            size=copy.size,
            weights=copy.weights,
            date=self._today.isoformat(),
            source=source,
            params=candidate.params,
            metrics=candidate.metrics,
            weights_file=copy.weights_file,
        )

    def _tracking(self, texts: Mapping[str, str]) -> Tracking | None:
        if self._pipeline:
            return None
        assert self._stores is not None
        beside = [predictions_path(self._id).as_posix(), *([self._config] if self._config else [])]
        paths = [self._staged.stable, METRICS_FILE, *beside, *texts]
        return look_up(self._root, self._id, self._model, self._staged, self._stores, paths)

    def _is_committed(self, version: Version) -> bool:
        names = committed_files(self._root, self._registry.folder / self._id)
        return names is not None and self._registry.files(self._id, version.name)[1].name in names

    def _place(self, texts: Mapping[str, str], judgement: Judgement | None, tracking: Tracking | None) -> None:
        files: dict[str, str | bytes] = dict(texts)
        if self._config is not None and self._candidate.config is not None:
            files[self._config] = self._candidate.config
        if tracking is not None and judgement is not None:
            metrics = tracking.outs.get(METRICS_FILE)
            stable = tracking.outs.get(self._staged.stable)
            if metrics is None or (stable is not None and metrics.stage == stable.stage):
                write_json(self._root / METRICS_FILE, judgement.as_metrics())
                files[METRICS_FILE] = (self._root / METRICS_FILE).read_bytes()
        place(self._root, self._id, self._candidate, self._staged, files, tracking)

    def _to_index(self, version: Version, texts: Mapping[str, str], tracking: Tracking | None) -> tuple[str, ...]:
        if self._pipeline:
            # an experiment of DVC's carries what git tracks: what is new would stay behind
            files = [*self._registry.files(self._id, version.name), *(self._root / path for path in texts)]
            stage_files(self._root, files)
            return ()
        others = [*texts, *([self._config] if self._config else []), METRICS_FILE, *lock_files(tracking)]
        paths = paths_of(self._root, self._registry, self._id, version.name, self._staged.stable, others)
        add_to_index(self._root, [self._root / path for path in paths])
        return tuple(paths)

    def _from_root(self, path: Path | None) -> str | None:
        if path is None or not path.resolve().is_relative_to(self._root.resolve()):
            return None
        return path.resolve().relative_to(self._root.resolve()).as_posix()

    def _result(
        self,
        judgement: Judgement,
        version: Version | None,
        registered: bool,
        current: str | None,
        champion: str | None,
        lost: str | None,
        paths: tuple[str, ...] = (),
    ) -> Promotion:
        copy = self._staged
        moves = moved_paths(self._root, self._candidate, copy.stable, copy.weights_file)
        return Promotion(self._id, judgement, version, registered, current, champion, lost, copy.stable, moves, paths)


def _source(root: Path, source: Path) -> dict[str, str]:
    folder = source.resolve() if source.is_dir() else source.resolve().parent
    run = folder.relative_to(root.resolve()).as_posix() if folder.is_relative_to(root.resolve()) else folder.name
    revision = head_revision(root)
    return {"run": run, **({"rev": revision} if revision else {})}
