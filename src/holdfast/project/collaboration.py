"""What makes a repository's rules hold for everybody: hooks in pre-commit's form, owners of the registry."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from holdfast.project.git_state import hooks_folder
from holdfast.project.merging import NotMergedError, read_mapping, with_item, with_lines
from holdfast.project.proposals import Draft
from holdfast.project.survey import OWNERS_PLACES, PRE_COMMIT, Survey
from holdfast.registry import FOLDER

INSTALL_TYPES = "default_install_hook_types"
_OWNER = re.compile(r"@?[\w.+-]+(?:[/@][\w.-]+)*")
# pattern and owners of a line of CODEOWNERS; spaces in a pattern have a backslash
_OWNED = re.compile(r"^(?P<pattern>(?:\\.|[^\s#\\])+)\s+(?P<owners>[^#\s][^#]*)")


@dataclass(frozen=True)
class Hook:
    """A hook: its id, what it is called, its fields as YAML, and the words of another one that does the same."""

    id: str
    name: str
    fields: tuple[str, ...]
    same: str


def hooks_of(prefix: str, *, push: bool) -> list[Hook]:
    """The hooks of a project.

    Args:
        prefix: the project's folder from git's top, with a slash at its end; empty for the top itself.
        push: whether DVC has a remote to push to.
    """
    where = f" --cd {_shell(prefix.rstrip('/'))}" if prefix else ""
    inside = re.escape(prefix)
    # seen from the top, another holdfast.yaml would count: a project below it is checked as a whole
    checked = (f"files: ^{inside}", "pass_filenames: false") if prefix else ("types: [text]", "require_serial: true")
    touched = rf"files: ^{inside}({FOLDER}/|(.*/)?dvc\.lock$)"
    hooks = [
        Hook("holdfast-check", "holdfast check", (f"entry: holdfast{where} check", *checked), "holdfast check"),
        Hook(
            "holdfast-registry-verify",
            "holdfast registry verify",
            (f"entry: holdfast{where} registry verify --offline --quick", touched, "pass_filenames: false"),
            "holdfast registry verify",
        ),
    ]
    if push:
        entry = f"entry: dvc{where} git-hook pre-push"
        hooks.append(Hook("dvc-pre-push", "dvc push", (entry, "always_run: true", "pass_filenames: false"), "pre-push"))
    return hooks


def propose_hooks(draft: Draft, survey: Survey, *, push: bool) -> None:
    """Propose the hooks that ``.pre-commit-config.yaml`` does not have."""
    hooks = hooks_of(survey.prefix, push=push and not _pushes_already(survey))
    why = "hooks: check before a commit, `dvc push` before a push"
    names = ", ".join(hook.id for hook in hooks)
    draft.change(PRE_COMMIT, lambda data: _with_hooks(data, hooks), why, f"a local repo with the hooks {names}")


def propose_owners(draft: Draft, survey: Survey, owner: str | None, author: str | None) -> None:
    """Propose who has to approve what changes the registry, where nobody is named yet.

    Args:
        draft: takes the proposal.
        survey: what is there.
        owner: as the user says; without one whoever owns everything.
        author: where nobody does.
    """
    path = next((place for place in OWNERS_PLACES if draft.holds(place)), "CODEOWNERS")
    pattern = f"/{survey.prefix}{FOLDER}/".replace(" ", "\\ ")

    def edit(data: bytes) -> bytes:
        lines = data.decode(errors="replace").splitlines()
        rules = [match for line in lines if (match := _OWNED.match(line.strip()))]
        if any(rule["pattern"].strip("/") == pattern.strip("/") for rule in rules):
            return data
        everybody = next((rule["owners"].strip() for rule in rules if rule["pattern"] == "*"), None)
        named = owner or everybody or author
        if named is None:
            raise NotMergedError("nobody is known to own it")
        return with_lines(data, ["# who approves a change of the registry", f"{pattern} {named}"])

    why = "who approves changes of the registry"
    draft.change(path, edit, why, f"`{pattern} @team`; or run this with `--owner @team`")


def is_owner(text: str) -> bool:
    """Whether a text can be an owner: ``@user``, ``@group/team`` or an address."""
    return ("@" in text) and _OWNER.fullmatch(text) is not None


def _with_hooks(data: bytes, hooks: list[Hook]) -> bytes:
    there = list(_entries(read_mapping(data)))
    missing = [hook for hook in hooks if not any(hook.id == id_ or hook.same in entry for id_, entry in there)]
    if not missing:
        return data
    lines = ["repo: local", "hooks:"]
    for hook in missing:
        stage = "pre-push" if hook.id.endswith("pre-push") else "pre-commit"
        fields = (f"name: {hook.name}", *hook.fields, "language: system", f"stages: [{stage}]")
        lines += [f"  - id: {hook.id}", *(f"    {field}" for field in fields)]
    if not data.strip():
        first = f"# `pre-commit install` puts these into git's hooks\n{INSTALL_TYPES}: [pre-commit, pre-push]\n"
        data = first.encode()
    return with_item(data, "repos", "\n".join(lines))


def _entries(config: dict[Any, Any]) -> Iterator[tuple[str, str]]:
    """Id and entry of each hook that is there."""
    repos = config.get("repos")
    for repo in repos if isinstance(repos, list) else ():
        hooks = repo.get("hooks") if isinstance(repo, dict) else None
        for hook in hooks if isinstance(hooks, list) else ():
            if isinstance(hook, dict):
                yield str(hook.get("id", "")), str(hook.get("entry", ""))


def _pushes_already(survey: Survey) -> bool:
    """Whether `dvc install` put a hook of its own into git's folder, which would push a second time."""
    folder = hooks_folder(survey.git_root)
    if folder is None:
        return False
    try:
        return "dvc git-hook" in (folder / "pre-push").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def _shell(text: str) -> str:
    """A word of an entry, which pre-commit splits as a shell does."""
    return text if re.fullmatch(r"[\w./-]+", text) else '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'
