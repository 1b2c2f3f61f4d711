"""The files of DVC: those that `dvc init` writes, and a first remote in its configuration."""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from holdfast.errors import UsageError
from holdfast.objectstore.location import R2_HOST, is_url, locate
from holdfast.objectstore.setup import (
    AWS_CONFIG,
    Jurisdiction,
    RemotePlan,
    plan_gcs,
    plan_local,
    plan_r2,
    plan_s3,
    quiet_config,
)
from holdfast.project.merging import NotMergedError, with_lines
from holdfast.project.proposals import Draft
from holdfast.project.survey import Survey
from holdfast.repo.workspace import DVC_FOLDER

STORAGE = "storage"
# as `dvc init` has them
IGNORED = ("/config.local", "/tmp", "/cache")
DVCIGNORE = """# Add patterns of files dvc should ignore, which could improve
# the performance. Learn more at
# https://dvc.org/doc/user-guide/dvcignore
"""
_CORE = re.compile(r"^\[core\][^\n]*\n", re.MULTILINE)
_PLAIN = re.compile(r"[A-Za-z0-9_./:@+=~-]+")


@dataclass(frozen=True)
class FirstRemote:
    """The remote that a project begins with.

    Attributes:
        name: as DVC is to have it.
        plan: what it is to be.
        why: the reason, for people.
    """

    name: str
    plan: RemotePlan
    why: str


def first_remote(root: Path, place: str | None) -> FirstRemote:
    """The remote at a place that the user named; without one a folder of the clone, so that pushing works at all.

    Args:
        root: the project's folder.
        place: a folder, from the working directory; or ``s3://``, ``r2://`` or ``gs://``.

    Raises:
        UsageError: the place cannot be one.
    """
    if place is None:
        why = "remote: a folder of this clone, until `holdfast remote setup` makes one"
        return FirstRemote(STORAGE, plan_local(STORAGE), why)
    if not is_url(place):
        folder = Path(place).expanduser().resolve()
        inside = folder.is_relative_to(root.resolve())
        # DVC takes paths from .dvc/; within the project they are the same for everybody
        written = os.path.relpath(folder, root.resolve() / DVC_FOLDER) if inside else str(folder)
        return FirstRemote(STORAGE, plan_local(written), f"remote: {place}")
    location = locate(place)
    why = f"remote: {place}"
    if location.scheme == "gs":
        return FirstRemote("gcs", plan_gcs(location.bucket, location.path), why)
    if location.scheme == "s3" and location.endpoint:
        account, _, where = location.endpoint.removeprefix("https://").removesuffix(R2_HOST).partition(".")
        jurisdiction: Jurisdiction | None = "eu" if where == "eu" else "fedramp" if where == "fedramp" else None
        plan = plan_r2(account, location.bucket, location.path, jurisdiction)
        return FirstRemote("r2", plan, why)
    if location.scheme == "s3":
        return FirstRemote("s3", plan_s3(location.bucket, location.path), why)
    raise UsageError(
        f"init sets up no remote at {place}",
        hint="It takes a folder, s3://BUCKET, r2://ACCOUNT/BUCKET or gs://BUCKET; `holdfast remote setup` knows others",
    )


def propose_dvc(draft: Draft, survey: Survey, remote: FirstRemote | None) -> None:
    """Propose what `dvc init` writes and is not there, and the first remote.

    Args:
        draft: takes the proposals.
        survey: what is there.
        remote: the remote to begin with; None where DVC has one.
    """
    folder = f"{survey.prefix}{DVC_FOLDER}"
    lines = [*IGNORED, *([f"/{remote.plan.url}"] if remote is not None and _below_dvc(remote) else [])]
    draft.change(
        f"{folder}/.gitignore",
        lambda data: with_lines(data, lines),
        "keeps DVC's cache and secrets out of git",
        f"the lines {', '.join(lines)}",
    )
    why = "makes this a DVC project" if not survey.has_dvc else ""
    if remote is None:
        draft.create(f"{folder}/config", "", why)
    else:
        draft.change(
            f"{folder}/config",
            lambda data: _with_remote(data, remote),
            f"{why}; {remote.why}" if why else remote.why,
            f"`dvc remote add -d {remote.name} {remote.plan.url}`",
        )
        if remote.plan.quiet:
            draft.change(
                f"{folder}/{AWS_CONFIG}",
                lambda data: quiet_config(data.decode()).encode(),
                "keeps boto from sending checksums that R2 refuses",
                "see docs/how-to/use-r2.md",
            )
    draft.create(f"{survey.prefix}.dvcignore", DVCIGNORE, "what DVC is not to look at")


def _below_dvc(remote: FirstRemote) -> bool:
    return remote.plan.kind == "local" and not remote.plan.url.startswith(("/", ".."))


def _with_remote(data: bytes, remote: FirstRemote) -> bytes:
    """DVC's configuration with a default remote, in the form in which DVC writes it; what is there stays."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise NotMergedError("it is no UTF-8") from error
    if re.search(r"^\s*remote\s*=", text, re.MULTILINE):  # a default that leads nowhere, which somebody has to mend
        return data
    options = {"url": remote.plan.url, **remote.plan.options}
    section = "".join(f"    {name} = {_quoted(value)}\n" for name, value in options.items() if value is not None)
    named = f"    remote = {remote.name}\n"
    header = _CORE.search(text)
    if header is not None:
        text = f"{text[: header.end()]}{named}{text[header.end() :]}"
    else:
        text = f"{text}{'' if not text or text.endswith(chr(10)) else chr(10)}[core]\n{named}"
    end = "" if text.endswith("\n") else "\n"
    return f"{text}{end}['remote \"{remote.name}\"']\n{section}".encode()


def _quoted(value: str) -> str:
    return value if _PLAIN.fullmatch(value) else json.dumps(value, ensure_ascii=False)
