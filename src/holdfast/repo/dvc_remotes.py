"""DVC's remotes: their options in DVC's configuration, and a trial of the way that DVC itself takes.

With `repo.dvc` the only place that imports DVC.
"""

import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from holdfast.errors import HoldfastError
from holdfast.repo.dvc import CONFIG_HINT, DvcConfigError
from holdfast.repo.workspace import DVC_FOLDER

Level = Literal["repo", "local"]

PRIVATE_MODE = 0o600
TRIAL_BYTES = b"sent by the way that DVC takes\n" * 300


class DvcWayError(HoldfastError):
    """DVC's own way to a remote does not work."""


@dataclass(frozen=True)
class RemoteChange:
    """What is to be set of one remote.

    Attributes:
        name: of the remote.
        committed: options for ``.dvc/config``; None takes one away.
        private: options for ``.dvc/config.local``; never shown.
        default: whether it becomes DVC's default remote.
    """

    name: str
    committed: Mapping[str, str | None]
    private: Mapping[str, str] = field(default_factory=dict, repr=False)
    default: bool = False


def level_options(root: Path, name: str, level: Level) -> dict[str, str]:
    """A remote's options as one file has them: ``.dvc/config`` (``repo``) or ``.dvc/config.local`` (``local``).

    Paths are as written there.

    Raises:
        DvcConfigError: the file cannot be read.
    """
    # imported here: 60 ms, see repo.dvc
    from dvc.config import Config, ConfigError

    path = root / DVC_FOLDER / ("config" if level == "repo" else "config.local")
    try:
        section = Config.load_file(str(path)).get("remote", {}).get(name, {})
    except FileNotFoundError:
        return {}
    except (ConfigError, OSError) as error:
        raise DvcConfigError(f"{path}: {error}", hint=CONFIG_HINT) from error
    return {option: str(value) for option, value in section.items()}


def needed_changes(root: Path, change: RemoteChange) -> RemoteChange:
    """What of a change is not so already.

    Raises:
        DvcConfigError: the configuration cannot be read.
    """
    from holdfast.repo.dvc import default_remote

    there, private = level_options(root, change.name, "repo"), level_options(root, change.name, "local")
    return RemoteChange(
        change.name,
        {option: value for option, value in change.committed.items() if there.get(option) != value},
        {option: value for option, value in change.private.items() if private.get(option) != value},
        change.default and default_remote(root) != change.name,
    )


def write_remote(root: Path, change: RemoteChange) -> None:
    """Set a remote's options, by DVC's own means. What they leave open stays as it is; comments do not, as with DVC.

    ``.dvc/config.local`` can be read by its owner alone afterwards, before a secret is in it.

    Raises:
        DvcConfigError: the configuration cannot be read, or DVC refuses it.
        OSError: it cannot be written.
    """
    from dvc.config import Config, ConfigError

    folder = root / DVC_FOLDER
    try:
        config = Config(str(folder), validate=False)
        if change.committed or change.default:
            with config.edit("repo") as settings:
                _apply(settings["remote"].setdefault(change.name, {}), change.committed, folder)
                if change.default:
                    settings["core"]["remote"] = change.name
        if change.private:
            private = folder / "config.local"
            private.touch(mode=PRIVATE_MODE)
            private.chmod(PRIVATE_MODE)
            with config.edit("local") as settings:
                settings["remote"].setdefault(change.name, {}).update(change.private)
            private.chmod(PRIVATE_MODE)
    except ConfigError as error:
        raise DvcConfigError(f"{folder}: {_without(str(error), change.private.values())}", hint=CONFIG_HINT) from None


def try_dvc_way(root: Path, name: str, folder: str) -> tuple[float, str]:
    """Send an object to a remote by DVC's own file system, list it, read it, and delete it.

    The seconds that it took, and why it could not be deleted: `dvc push` and `dvc pull` do not need to.

    It is the way of ``dvc push``: DVC's configuration, s3fs, aiobotocore, and the variables that DVC sets for them.

    Args:
        root: of the project.
        name: of the remote.
        folder: below the remote, where nothing else lies.

    Raises:
        DvcWayError: it does not work; says at which step and why, without a secret.
    """
    from dvc.config import Config
    from dvc.fs import get_cloud_fs

    config: dict[str, Any] = Config(str(root / DVC_FOLDER))
    secrets = [str(value) for option, value in config["remote"].get(name, {}).items() if _is_secret(option)]
    step, start = "be opened", time.perf_counter()
    try:
        kind, options, place = get_cloud_fs(config, name=name)
        files = kind(**options)
        path = files.join(place, *folder.split("/"), "object")
        with tempfile.TemporaryDirectory(prefix="holdfast-doctor-") as temporary:
            sent, back = Path(temporary, "sent"), Path(temporary, "back")
            sent.write_bytes(TRIAL_BYTES)
            try:
                step = "be written to"
                files.makedirs(files.parent(path))
                files.put_file(str(sent), path)
                step = "be listed"
                if not files.exists(path) or path not in list(files.find(files.parent(path))):
                    raise DvcWayError(f"through DVC, {name} does not show what was just written")
                step = "be read"
                files.get_file(path, str(back))
            except BaseException:
                with suppress(Exception):
                    files.remove(path)
                raise
            if back.read_bytes() != TRIAL_BYTES:
                raise DvcWayError(f"through DVC, {name} gives other bytes than it was given")
            seconds = time.perf_counter() - start
            try:
                files.remove(path)
            except Exception as error:
                return seconds, _said(error, secrets)
    except HoldfastError:
        raise
    except Exception as error:
        # whatever it is, s3fs, aiobotocore and DVC have classes of their own for it
        raise DvcWayError(
            f"through DVC, {name} cannot {step}: {_said(error, secrets)}", hint="`dvc push -v` shows more"
        ) from None
    return seconds, ""


def _apply(section: dict[str, Any], options: Mapping[str, str | None], folder: Path) -> None:
    from dvc.config_schema import RelPath

    for option, value in options.items():
        if value is None:
            section.pop(option, None)
        elif option in ("configpath", "credentialpath", "url") and "://" not in value and not Path(value).is_absolute():
            section[option] = RelPath(str((folder / value).resolve()))
        else:
            section[option] = value


def _is_secret(option: str) -> bool:
    return any(word in option for word in ("secret", "token", "key", "password", "connection_string"))


def _said(error: Exception, secrets: Iterable[str]) -> str:
    # s3fs makes an OSError of each answer, whose number says less than the answer
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return _without(" ".join(text.split())[:300], secrets) or type(error).__name__


def _without(text: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, "…") if secret else text
    return text
