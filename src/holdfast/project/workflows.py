"""Workflows for GitHub and GitLab: a report on each pull request, and the collection of garbage."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Literal

from holdfast.errors import UsageError

Service = Literal["github", "gitlab"]

# template → where it goes in the repository
PATHS: Mapping[Service, Mapping[str, str]] = {
    "github": {"model-report.yml": ".github/workflows/model-report.yml", "gc.yml": ".github/workflows/gc.yml"},
    "gitlab": {"holdfast.yml": ".gitlab/holdfast.yml", "gitlab-ci.yml": ".gitlab-ci.yml"},
}
COLLECTION = "gc.yml"
S3_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
INSTALL = "python -m pip install 'holdfast[report]'"

# a value alone on its line keeps the indentation for all of its lines, and an empty one takes the line away
_SLOT = re.compile(r"^(?P<indent> *)@@(?P<block>\w+)\n|@@(?P<word>\w+)", re.MULTILINE)
# lines between #[name] and #[/name] are there where the name holds; the innermost first
_SECTION = re.compile(r"^ *#\[(?P<name>\w+)\]\n(?P<body>(?:(?! *#\[).*\n)*)^ *#\[/(?P=name)\]\n", re.MULTILINE)

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# what may stand in the workflow's expressions and commands without quotes: nothing that YAML, a shell or GitHub reads
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+/-]*")


@dataclass(frozen=True)
class WorkflowOptions:
    """How a repository's workflows differ from another's.

    Args:
        install: the shell commands, a line each, that install Holdfast and all that the pipeline runs.
        python: the version of Python, as in ``3.12``.
        secrets: environment variable → the secret it is taken from; what opens the remote. Empty where it is open.
        pull: what brings the objects of the pull request: ``dvc`` or ``holdfast`` (from the vault); empty for nothing.
        repro: whether each pull request rebuilds what it changes with ``dvc repro``.
        branch: the branch whose collections count.
        folder: the project, from the top of the repository.
        scopes: where garbage is looked for, as of ``holdfast gc plan --scope``.
        remote: the DVC remote whose garbage it is; empty for DVC's default one.
    """

    install: str = INSTALL
    python: str = "3.12"
    secrets: Mapping[str, str] = field(default_factory=lambda: {name: name for name in S3_KEYS})
    pull: Literal["dvc", "holdfast", ""] = "dvc"
    repro: bool = False
    branch: str = "main"
    folder: str = "."
    scopes: tuple[str, ...] = ("remote",)
    remote: str = ""


def workflow_files(service: Service, options: WorkflowOptions | None = None) -> dict[str, str]:
    """The files that a service runs, by their path from the top of the repository.

    Equal options give equal bytes. GitHub gets ``.github/workflows/model-report.yml`` and ``gc.yml``; GitLab
    ``.gitlab/holdfast.yml`` and a ``.gitlab-ci.yml`` that includes it: where there is one, that line is what it needs.
    Where nothing is pulled and no secret opens anything a runner does not reach the remote, and nothing is collected.

    Args:
        service: who runs them.
        options: how this repository differs.

    Raises:
        UsageError: a value could not stand in a workflow as itself; names it.
    """
    options = options or WorkflowOptions()
    _check(options)
    folder = files("holdfast.project") / "templates" / service
    sections, values = _sections(options), _values(service, options)
    return {
        path: _rendered((folder / name).read_text(encoding="utf-8"), sections, values)
        for name, path in PATHS[service].items()
        if name != COLLECTION or sections["gc"]
    }


def _rendered(template: str, sections: Mapping[str, bool], values: Mapping[str, str]) -> str:
    """A template with the sections that hold, and its slots filled."""

    def fill(match: re.Match[str]) -> str:
        if match["word"]:
            return values[match["word"]]
        return "".join(f"{match['indent']}{line}".rstrip() + "\n" for line in values[match["block"]].splitlines())

    found = 1
    while found:
        template, found = _SECTION.subn(lambda match: match["body"] if sections[match["name"]] else "", template)
    return _SLOT.sub(fill, template)


def _sections(options: WorkflowOptions) -> dict[str, bool]:
    return {
        "gc": bool(options.pull or options.secrets),
        "pull": bool(options.pull),
        "repro": options.repro,
        "secrets": bool(options.secrets),
        "keys": bool(options.pull and options.secrets),
        "renamed": any(name != secret for name, secret in options.secrets.items()),
    }


def _values(service: Service, options: WorkflowOptions) -> dict[str, str]:
    where = f" -r {options.remote}" if options.remote else ""
    if service == "github":
        taken = [f"{name}: ${{{{ secrets.{secret} }}}}" for name, secret in options.secrets.items()]
        head = "$HEAD"
    else:
        # a variable of the project is there by its own name, and may not be set to itself
        taken = [f"{name}: ${secret}" for name, secret in options.secrets.items() if name != secret]
        # of a merged-results pipeline the commit is no one's: the head is the branch
        head = "${CI_MERGE_REQUEST_SOURCE_BRANCH_SHA:-$CI_COMMIT_SHA}"
    return {
        "install": options.install.strip(),
        "python": options.python,
        "branch": options.branch,
        "folder": options.folder,
        "fetch": f"{options.pull} fetch",
        # what `dvc repro` makes need not have been pushed
        "pull": f"{options.pull} pull{' --allow-missing' if options.repro else ''}",
        # what was rebuilt is not in the commit
        "head": "--workspace" if options.repro else f'--head "{head}"',
        "report": "model-report" if options.folder == "." else f"{options.folder}/model-report",
        "plan": f"holdfast gc plan --scope {','.join(options.scopes)}{where}",
        "purge": f"holdfast gc purge{where}",
        "names": " ".join(options.secrets),
        "secrets": "\n".join(taken),
        # what nothing is pulled from is not asked by the report
        "keys": "\n".join(taken) if options.pull else "",
    }


def _check(options: WorkflowOptions) -> None:
    """Refuse what would change the workflow around it.

    Raises:
        UsageError: names the option.
    """
    for name, value in (
        ("the version of Python", options.python),
        ("the branch", options.branch),
        ("the folder", "a" if options.folder == "." else options.folder),
        ("the remote", options.remote or "a"),
        *(("a scope", scope) for scope in options.scopes),
    ):
        if not _PLAIN.fullmatch(value):
            raise UsageError(f"{name} {value!r} cannot stand in a workflow", hint="Letters, digits and _.+/- can")
    for name in (*options.secrets, *options.secrets.values()):
        if not _VARIABLE.fullmatch(name):
            raise UsageError(f"{name!r} is no name of a variable or secret", hint="Letters, digits and _ make one")
    if options.pull not in ("", "dvc", "holdfast"):
        raise UsageError(f"{options.pull!r} pulls nothing", hint="dvc and holdfast do")
    if not options.install.strip():
        raise UsageError("no command installs Holdfast", hint=f"The usual one: {INSTALL}")
    if "${{" in options.install:
        raise UsageError("the install command has a ${{ … }}, which GitHub would fill in before the shell sees it")
