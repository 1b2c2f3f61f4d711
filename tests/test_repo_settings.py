"""The configuration is read as DVC reads it, or not at all."""

import os
from pathlib import Path
from typing import Any

import pytest
from dvc.config import Config, ConfigError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.repo.dvc import LocalCache, default_remote, local_cache, remotes
from holdfast.repo.settings import read_settings
from worlds import make_repository

PLAIN = "[core]\n    remote = near\n    autostage = true\n['remote \"near\"']\n    url = ../near\n"
LINES = [
    "[core]",
    "[cache]",
    "['remote \"near\"']",
    "['remote \"far\"']",
    "['REMOTE \"Far\"']",
    '[remote "near"]',
    "[feature]",
    "    remote = near",
    "    remote = Near",
    "    remote = 'near'",
    "    autostage = maybe",
    "    url = s3://bucket/prefix",
    "    url = ../near",
    "    url = magic://x",
    "    region = auto",
    "    configpath = aws",
    "    credentialpath = ../../secret",
    "    endpointurl = https://x.example:9000",
    "    colour = red",
    "    dir = ../shared",
    "    dir = /absolute/place",
    "    dir = ~/home",
    "    dir = a b",
    "    dir = here # comment",
    "    DIR = upper",
    "    type = hardlink",
    "    type = reflink,copy",
    "    type = symlink, copy",
    "    type = magic",
    "    local = near",
    "# a comment",
    "",
    "no option",
]
LEVELS = ("system", "global", "repo", "local")


@pytest.fixture
def levels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """A project, and where its configuration is."""
    root = make_repository(tmp_path).root
    monkeypatch.setenv("DVC_SYSTEM_CONFIG_DIR", str(tmp_path / "system"))
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(tmp_path / "global"))
    for name in ("system", "global"):
        (tmp_path / name).mkdir()
    files = [tmp_path / "system/config", tmp_path / "global/config", root / ".dvc/config", root / ".dvc/config.local"]
    return {"root": root, **dict(zip(LEVELS, files, strict=True))}


def as_dvc(root: Path) -> dict[str, Any] | None:
    try:
        config = Config(str(root / ".dvc"))
    except ConfigError:
        return None
    known = {"core": {"remote"}, "cache": {"dir", "type"}}
    some = {name: {key: config[name][key] for key in keys & config[name].keys()} for name, keys in known.items()}
    return some | {"remote": config["remote"]}


def test_plain_configuration_needs_no_dvc(levels: dict[str, Path]) -> None:
    root = levels["root"]
    assert read_settings(root, os.environ) == as_dvc(root)
    levels["repo"].write_text(PLAIN)
    levels["local"].write_text("[cache]\n    dir = ../../shared\n    type = hardlink,copy\n")
    found = read_settings(root, os.environ)
    assert found == as_dvc(root)
    assert found is not None
    assert default_remote(root) == "near"
    assert local_cache(root) == LocalCache(root.parent / "shared", True, ("hardlink", "copy"))
    assert remotes(root)["near"]["url"] == str(root / "near")


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.fixed_dictionaries({}, optional={level: st.lists(st.sampled_from(LINES), max_size=6) for level in LEVELS}))
def test_any_configuration(levels: dict[str, Path], written: dict[str, list[str]]) -> None:
    for level in LEVELS:
        levels[level].unlink(missing_ok=True)
        if level in written:
            levels[level].write_text("\n".join(written[level]) + "\n")
    found = read_settings(levels["root"], os.environ)
    assert found is None or found == as_dvc(levels["root"])


@pytest.mark.parametrize(
    "variables",
    [
        {"HOME": "/home/ada"},
        {"HOME": "/home/ada", "XDG_CONFIG_HOME": "/elsewhere", "XDG_CONFIG_DIRS": "/etc/one"},
        {"HOME": "/home/ada", "XDG_CONFIG_HOME": ""},
    ],
)
def test_the_files_are_where_dvc_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    from holdfast.repo import settings as module

    for name in ("DVC_SYSTEM_CONFIG_DIR", "DVC_GLOBAL_CONFIG_DIR", "XDG_CONFIG_HOME", "XDG_CONFIG_DIRS", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    (tmp_path / ".dvc").mkdir()
    expected = Config(str(tmp_path / ".dvc")).files
    assert module._files(tmp_path, variables) == [Path(expected[level]) for level in LEVELS]


def test_places_that_only_dvc_knows(tmp_path: Path) -> None:
    for variables in (
        {},
        {"HOME": "/x", "XDG_CONFIG_DIRS": "/a:/b"},
        {"HOME": "/x", "DVC_GLOBAL_CONFIG_DIR": "relative"},
    ):
        assert read_settings(tmp_path, variables) is None


@pytest.mark.parametrize("damage", [b"\xff\xfe", b"[core\n", b"remote = x\n", b"[core]\nremote = a\nremote = b\n"])
def test_what_is_not_plain_is_left_to_dvc(levels: dict[str, Path], damage: bytes) -> None:
    levels["repo"].write_bytes(damage)
    assert read_settings(levels["root"], os.environ) is None
