"""Where DVC's cache is and what its default remote is called, read without DVC where the configuration is plain.

DVC takes longer to start than a plan takes to make. Its configuration is four small files, most often without anything
but remotes. What is read here is the form in which ``dvc config`` writes them, with the options that matter here;
whatever else there is, DVC is to be asked.
"""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from holdfast.repo.dvc import DEFAULT_LINK_TYPES, LocalCache
from holdfast.repo.workspace import DVC_FOLDER

_SECTION = re.compile(r"\[(?:(core|cache)|'remote \"([a-z0-9_.-]+)\"')\]")
_OPTION = re.compile(r" *([a-z_]+) = ([A-Za-z0-9_./:@+=-][A-Za-z0-9_./:@+=,~-]*)")
_LINK_TYPES = frozenset({"reflink", "hardlink", "symlink", "copy"})
_S3_OPTIONS = frozenset(
    {"url", "endpointurl", "profile", "region", "configpath", "credentialpath", "access_key_id", "secret_access_key"}
)
_FLAGS = frozenset({"autostage", "analytics", "check_update"})


@dataclass(frozen=True)
class Settings:
    """What the configuration says.

    Args:
        cache: see there.
        default_remote: its name; None where none is set.
        remotes: the names of all remotes.
    """

    cache: LocalCache
    default_remote: str | None
    remotes: tuple[str, ...]


@dataclass
class _Found:
    folder: Path | None = None
    link_types: tuple[str, ...] | None = None
    remote: str | None = None
    remotes: dict[str, dict[str, str]] = field(default_factory=dict)


def read_settings(root: Path, environment: Mapping[str, str]) -> Settings | None:
    """The configuration of the DVC project at ``root``; None where DVC must be asked.

    Args:
        root: the folder with ``.dvc/``, absolute.
        environment: the process's variables, which say where the configuration of user and system is.
    """
    files = _files(root, environment)
    if files is None:
        return None
    found = _Found()
    for path in files:
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError):
            return None
        if not _read(text, path.parent, found):
            return None
    if not all(map(_is_plain, found.remotes.values())):
        return None
    folder = (found.folder or root / DVC_FOLDER / "cache").resolve()
    return Settings(
        LocalCache(folder, not folder.is_relative_to(root.resolve()), found.link_types or DEFAULT_LINK_TYPES),
        found.remote,
        tuple(sorted(found.remotes)),
    )


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


def _read(text: str, folder: Path, found: _Found) -> bool:
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
                found.remotes.setdefault(named, {})
        elif (option := _OPTION.fullmatch(line)) and section:
            key = (f"{section} {named}", option[1])
            if named:
                found.remotes[named][option[1]] = option[2]
            elif not _take(section, option[1], option[2], folder, found):
                return False
        else:
            return False
        if key in met:
            return False
        met.add(key)
    return True


def _take(section: str, option: str, value: str, folder: Path, found: _Found) -> bool:
    if section == "core" and option == "remote" and re.fullmatch(r"[a-z0-9_.-]+", value):
        found.remote = value
        return True
    if section == "core":
        return option in _FLAGS and value in ("true", "false")
    if option == "dir" and not re.search(r"[,~:]", value):
        found.folder = folder / value
        return True
    types = value.split(",")
    if option == "type" and _LINK_TYPES.issuperset(types):
        found.link_types = tuple(types)
        return True
    return False


def _is_plain(remote: Mapping[str, str]) -> bool:
    """Whether DVC takes a remote as it is: it knows the options of every scheme, and we those of two."""
    url = remote.get("url", "")
    if any("," in value for value in remote.values()):
        return False
    return _S3_OPTIONS.issuperset(remote) if url.startswith("s3://") else set(remote) == {"url"} and "://" not in url
