"""A project whose remote `holdfast remote setup r2` has set up, behind a proxy that is as strict as R2."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from holdfast.objectstore.opening import open_store
from holdfast.objectstore.store import ObjectStore
from proxy import Proxy, R2Rules, proxy
from servers import ACCESS_KEY, BUCKET, SECRET_KEY, S3Server
from worlds import TOOLS, World, environment, make_repository

ACCOUNT = "0123456789abcdef" * 2
QUICK = ("--rounds", "2", "--sizes", "1KB")
VERDICTS = ("ok", "note", "warning", "fault")
HEALTH = {0: "healthy", 3: "impaired", 1: "broken"}


@dataclass(frozen=True)
class Remote:
    """The project, its remote and what lies between.

    Args:
        world: the project.
        link: to the server.
        rules: R2's.
        folder: of the bucket, where the remote is.
        server: behind the link.
        keys: a file of credentials.
    """

    world: World
    link: Proxy
    rules: R2Rules
    folder: str
    server: S3Server
    keys: Path

    @property
    def setup(self) -> tuple[str, ...]:
        """The command that set the remote up, without what says yes."""
        return (
            "remote", "setup", "r2", "--account-id", ACCOUNT, "--bucket", BUCKET, "--prefix", self.folder, "--endpoint",
            self.link.endpoint, "--credentials", str(self.keys),
        )  # fmt: skip

    @property
    def store(self) -> ObjectStore:
        """The remote's folder, past the link."""
        return open_store(f"s3://{BUCKET}/{self.folder}", self.server.options())

    def doctor(self, *arguments: str, code: int) -> dict[str, Any]:
        done = self.world.holdfast("remote", "doctor", "--json", *arguments, code=code)
        payload: dict[str, Any] = json.loads(done.stdout)
        assert payload["health"] == HEALTH[code]
        return payload

    def start_doctor(self, *arguments: str) -> "subprocess.Popen[str]":
        """The doctor in a process of its own."""
        command = [str(TOOLS / "holdfast"), "remote", "doctor", *arguments]
        return subprocess.Popen(
            command,
            cwd=self.world.folder,
            env=environment(self.world.home),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def left(self) -> list[str]:
        """All keys of the remote and its unfinished uploads, past the link."""
        page = self.server.client().list_multipart_uploads(Bucket=BUCKET, Prefix=self.folder)
        return [info.key for info in self.store.list_objects()] + [upload["Key"] for upload in page.get("Uploads", [])]


def forget_variables(variables: pytest.MonkeyPatch) -> None:
    """Nothing of the environment leads to a server, or changes how it is asked."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "AZURE_", "CLOUDFLARE_"))]:
        variables.delenv(name)


def write_keys(folder: Path) -> Path:
    """A file of the server's keys, as `remote setup` takes it."""
    keys = folder / "keys"
    keys.write_text(f"AWS_ACCESS_KEY_ID={ACCESS_KEY}\nAWS_SECRET_ACCESS_KEY={SECRET_KEY}\n")
    return keys


@contextmanager
def strict_remote(folder: Path, server: S3Server, variables: pytest.MonkeyPatch) -> Iterator[Remote]:
    """A remote that is set up; nothing of the environment leads to the server."""
    forget_variables(variables)
    world, keys = make_repository(folder), write_keys(folder)
    with proxy(server.port) as link:
        rules = R2Rules()
        link.rules, link.noted = rules, rules.noted
        remote = Remote(world, link, rules, server.make_folder().rpartition("/")[2], server, keys)
        world.holdfast(*remote.setup, "--offline", "--yes")
        yield remote


def lose(world: World, *paths: str) -> None:
    """Delete these of the workspace, and all of DVC's cache."""
    for path in paths:
        place = world.root / path
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    shutil.rmtree(world.cache / "files")


def found(payload: dict[str, Any], check: str) -> dict[str, str]:
    """The worst finding of a check."""
    those = [finding for finding in payload["findings"] if finding["check"] == check]
    assert those, f"{check} is not among {[finding['check'] for finding in payload['findings']]}"
    return max(those, key=lambda finding: VERDICTS.index(finding["verdict"]))


def faults(payload: dict[str, Any]) -> set[str]:
    return {finding["check"] for finding in payload["findings"] if finding["verdict"] == "fault"}
