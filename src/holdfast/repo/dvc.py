"""The adapter to DVC: the only module that imports it.

DVC's Python API is private, so what is used of it stands here, and the version range is pinned.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.errors import HoldfastError
from holdfast.repo.workspace import DVC_FOLDER

DEFAULT_LINK_TYPES = ("reflink", "copy")


class DvcConfigError(HoldfastError):
    """DVC's configuration cannot be read."""


@dataclass(frozen=True)
class LocalCache:
    """DVC's local cache as the project's configuration has it.

    Args:
        folder: absolute, links resolved; it need not exist.
        outside: it lies outside the project's folder, so that other projects may use it too.
        link_types: how DVC puts cached files in the workspace, in the order it tries them
            (``reflink``, ``hardlink``, ``symlink``, ``copy``).
    """

    folder: Path
    outside: bool
    link_types: tuple[str, ...]


def local_cache(root: Path) -> LocalCache:
    """The local cache of the DVC project at ``root``, from all levels of DVC's configuration (system to local).

    Raises:
        DvcConfigError: the configuration is not readable, or names a cache that is not a local folder.
    """
    config = _config(root)
    section = config["cache"]
    configured = section.get("dir")
    if named := section.get("local"):  # before DVC 1 the cache could be a named remote; DVC still honours it
        configured = config["remote"].get(named, {}).get("url")
        if not configured:
            raise DvcConfigError(f"{root}: cache.local names the remote {named!r}, which does not exist")
    if configured and "://" in str(configured):
        raise DvcConfigError(f"the cache {configured} is not a local folder", hint="See `dvc cache dir`")
    folder = Path(configured or root / DVC_FOLDER / "cache").expanduser().resolve()
    return LocalCache(
        folder=folder,
        outside=not folder.is_relative_to(root.resolve()),
        link_types=tuple(section.get("type") or DEFAULT_LINK_TYPES),
    )


def local_remotes(root: Path) -> dict[str, Path]:
    """The DVC remotes of the project at ``root`` that are local folders, by name; absolute.

    Raises:
        DvcConfigError: the configuration is not readable.
    """
    urls = {name: str(remote.get("url", "")) for name, remote in sorted(_config(root)["remote"].items())}
    return {name: Path(url).expanduser().resolve() for name, url in urls.items() if url and "://" not in url}


def _config(root: Path) -> dict[str, Any]:
    # imported here: 60 ms that commands which need no DVC must not pay; `dvc.config` is a third of `dvc.repo`, and
    # Repo makes its configuration with the same class and arguments
    from dvc.config import Config, ConfigError

    try:
        config: dict[str, Any] = Config(str(root / DVC_FOLDER))
    except ConfigError as error:
        raise DvcConfigError(f"{root}: {error}", hint="See `dvc config --list --show-origin`") from error
    return config
