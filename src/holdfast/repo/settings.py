"""DVC's configuration, read without DVC where it is plain.

DVC takes longer to start than most commands take. Its configuration is four small files, most often without anything
but remotes. What is read here is the form in which ``dvc config`` writes them, with the options that matter here;
whatever else there is, DVC is to be asked.
"""

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from holdfast.repo.workspace import DVC_FOLDER

_SECTION = re.compile(r"\[(?:(core|cache)|'remote \"([a-z0-9_.-]+)\"')\]")
_OPTION = re.compile(r" *([a-z_]+) = ([A-Za-z0-9_./:@+=-][A-Za-z0-9_./:@+=,~-]*)")
_LINK_TYPES = frozenset({"reflink", "hardlink", "symlink", "copy"})
_S3_OPTIONS = frozenset(
    {"url", "endpointurl", "profile", "region", "configpath", "credentialpath", "access_key_id", "secret_access_key"}
)
# paths that DVC takes from the file that names them
_PLACES = frozenset({"url", "dir", "configpath", "credentialpath"})
_S3_DEFAULTS = {"use_ssl": True, "verify": False, "allow_anonymous_login": False, "listobjects": False}
_LOCAL_DEFAULTS = {"protected": False, "verify": False, "slow_link_warning": True}
_FLAGS = frozenset({"autostage", "analytics", "check_update"})


def read_settings(root: Path, environment: Mapping[str, str]) -> dict[str, Any] | None:
    """The sections ``core``, ``cache`` and ``remote`` as DVC's `Config` has them; None where DVC must be asked.

    Of ``core`` and ``cache`` there is what was set, of a remote also what DVC sets where nobody did.

    Args:
        root: the folder with ``.dvc/``, absolute.
        environment: the process's variables, which say where the configuration of user and system is.
    """
    files = _files(root, environment)
    if files is None:
        return None
    found: dict[str, dict[str, Any]] = {"core": {}, "cache": {}, "remote": {}}
    for path in files:
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError):
            return None
        if not _read(text, path.parent, found):
            return None
    remotes = found["remote"]
    if not all(map(_is_plain, remotes.values())):
        return None
    found["remote"] = {name: {**_defaults(remote["url"]), **remote} for name, remote in remotes.items()}
    return found


def _files(root: Path, environment: Mapping[str, str]) -> list[Path] | None:
    """The files of all levels, later ones first to be believed; None where only DVC knows where they are."""
    home = environment.get("HOME", "")
    if sys.platform != "linux" or not home:
        return None
    places = []
    # as the library platformdirs has it, which DVC asks
    for own, common, fallback in (
        ("DVC_SYSTEM_CONFIG_DIR", "XDG_CONFIG_DIRS", "/etc/xdg"),
        ("DVC_GLOBAL_CONFIG_DIR", "XDG_CONFIG_HOME", f"{home}/.config"),
    ):
        place = environment.get(own) or f"{environment.get(common) or fallback}/dvc"
        if not place.startswith("/") or ":" in place or "~" in place:
            return None
        places.append(Path(place) / "config")
    return [*places, root / DVC_FOLDER / "config", root / DVC_FOLDER / "config.local"]


def _read(text: str, folder: Path, found: dict[str, dict[str, Any]]) -> bool:
    """Take in one file; whether it is plain."""
    section, named = "", ""
    met: set[tuple[str, str]] = set()
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if header := _SECTION.fullmatch(line):
            section, named = header[1] or "remote", header[2] or ""
            key = (section, f"[{named}]")
            if named:
                found["remote"].setdefault(named, {})
        elif (option := _OPTION.fullmatch(line)) and section:
            key = (f"{section} {named}", option[1])
            value = _absolute(option[2], folder) if option[1] in _PLACES else option[2]
            if named:
                found["remote"][named][option[1]] = value
            elif not _take(section, option[1], value, found[section]):
                return False
        else:
            return False
        if key in met:
            return False
        met.add(key)
    return True


def _absolute(value: str, folder: Path) -> str:
    return value if re.match(r"\w+://", value) else os.path.abspath(folder / value)  # noqa: PTH100 - links stay


def _take(section: str, option: str, value: str, found: dict[str, Any]) -> bool:
    if section == "core" and option == "remote" and re.fullmatch(r"[a-z0-9_.-]+", value):
        found["remote"] = value
        return True
    if section == "core":
        return option in _FLAGS and value in ("true", "false")
    if option == "dir" and not re.search(r"[,~:]", value):
        found["dir"] = value
        return True
    types = value.split(",")
    if option == "type" and _LINK_TYPES.issuperset(types):
        found["type"] = types
        return True
    return False


def _is_plain(remote: Mapping[str, str]) -> bool:
    """Whether DVC takes a remote as it is: it knows the options of every scheme, and we those of two."""
    url = remote.get("url", "")
    if any("," in value for value in remote.values()):
        return False
    return _S3_OPTIONS.issuperset(remote) if url.startswith("s3://") else set(remote) == {"url"} and "://" not in url


def _defaults(url: str) -> dict[str, bool]:
    return _S3_DEFAULTS if url.startswith("s3://") else _LOCAL_DEFAULTS
