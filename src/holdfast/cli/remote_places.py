"""Which remote a command means, and how it is reached."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from holdfast.errors import NotARepositoryError, UsageError
from holdfast.objectstore.doctor_configuration import Subject, checksum_setting
from holdfast.objectstore.location import is_url, locate
from holdfast.objectstore.opening import open_store
from holdfast.objectstore.options import StoreOptions, from_dvc, from_environment
from holdfast.objectstore.retry import Retry
from holdfast.objectstore.store import ObjectStore
from holdfast.repo.dvc import default_remote, remotes
from holdfast.repo.dvc_remotes import level_options
from holdfast.repo.workspace import find_project


@dataclass(frozen=True)
class RemotePlace:
    """A remote that a command was given.

    Attributes:
        name: as DVC has it; empty for a bare URL.
        url: where it is.
        section: its options.
        options: what opens it.
        root: of the project; None outside of one.
    """

    name: str
    url: str
    section: dict[str, Any]
    options: StoreOptions
    root: Path | None

    def open(self, retry: Retry | None = None) -> ObjectStore:
        """Open it."""
        return open_store(self.url, self.options, retry=retry)

    @property
    def label(self) -> str:
        """What messages call it."""
        return f"{self.name} ({self.url})" if self.name else self.url

    def subject(self) -> Subject:
        """It, as a doctor looks at it."""
        location = locate(self.url)
        committed = level_options(self.root, self.name, "repo") if self.root and self.name else {}
        checksums = checksum_setting(self.section, os.environ) if location.scheme == "s3" else None
        if checksums is not None and self.root is not None and Path(checksums.origin).is_relative_to(self.root):
            checksums = replace(checksums, origin=str(Path(checksums.origin).relative_to(self.root)))
        endpoint = location.endpoint or self.options.endpoint or ""
        if not endpoint and location.scheme == "s3":
            endpoint = f"https://s3.{self.options.region or 'us-east-1'}.amazonaws.com"
        elif location.scheme == "gs":
            endpoint = "https://storage.googleapis.com"
        elif location.scheme == "az" and self.options.account_name:
            endpoint = f"https://{self.options.account_name}.blob.core.windows.net"
        return Subject(self.name, location, self.section, set(committed), endpoint, checksums)


def find_remote(named: str | None) -> RemotePlace:
    """The remote of that name, or at that URL; DVC's default one where none is named.

    Raises:
        UsageError: there is none, or it is no bucket and no folder.
        NotARepositoryError: none is named, and this is no project.
    """
    environment = from_environment(os.environ)
    try:
        root = find_project(Path.cwd()).root
    except NotARepositoryError:
        if named is None or not is_url(named):
            raise
        return RemotePlace("", named, {}, environment, None)
    sections = remotes(root)
    name = named or default_remote(root)
    if name is None:
        hint = "`holdfast remote setup r2 …` makes one; `dvc remote default NAME` chooses one"
        raise UsageError("DVC has no default remote, and none is named", hint=hint)
    if name not in sections:
        if is_url(name):
            return RemotePlace("", name, {}, environment, root)
        raise UsageError(f"there is no DVC remote {name}", hint="`dvc remote list` names them")
    section = sections[name]
    url = str(section.get("url", ""))
    if url.startswith(("http://", "https://", "ssh://", "webdav", "gdrive", "hdfs", "oss")):
        kind = url.partition("://")[0]
        raise UsageError(f"{name} is no bucket and no folder, but {kind}://…", hint="Name another remote")
    return RemotePlace(name, url, section, from_dvc(section).or_else(environment), root)
