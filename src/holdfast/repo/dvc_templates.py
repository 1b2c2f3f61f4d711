"""``dvc.yaml`` with templates, ``foreach`` or ``matrix``, resolved by DVC's own resolver over files that are given.

The third part of the adapter to DVC; see `holdfast.repo.dvc`.
"""

import io
import posixpath
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from holdfast.repo.dvcfiles import UnreadableFileError


def resolve_stages(data: bytes, folder: str, read: Callable[[str], bytes | None]) -> dict[str, dict[str, Any]]:
    """Every stage that a ``dvc.yaml`` defines, by name, with what it says filled in.

    Args:
        data: the file.
        folder: where it lies, from the git root.
        read: gives the content of another file (``params.yaml``, what ``vars`` names), from the git root; None where
            there is none.

    Raises:
        UnreadableFileError: it is no such file, or a value is missing.
    """
    # imported here: see holdfast.repo.dvc
    from dvc.exceptions import DvcException
    from dvc.parsing import DataResolver
    from dvc.utils.serialize import parse_yaml

    path = posixpath.join(folder, "dvc.yaml")
    try:
        document = parse_yaml(data.decode(), path)
        resolver = DataResolver(SimpleNamespace(fs=_Files(read), config={}), folder, document)
        stages: dict[str, dict[str, Any]] = {}
        for name in resolver.get_keys():
            stages.update(resolver.resolve_one(name))
        return stages
    except (DvcException, UnicodeDecodeError, ValueError, TypeError, AttributeError, AssertionError) as error:
        raise UnreadableFileError(" ".join(str(error).split()) or type(error).__name__) from error


class _Files:
    """As much of a file system as the resolver asks for."""

    def __init__(self, read: Callable[[str], bytes | None]) -> None:
        self._read = read

    join = staticmethod(posixpath.join)
    normpath = staticmethod(posixpath.normpath)
    relpath = staticmethod(posixpath.relpath)

    def exists(self, path: str) -> bool:
        return self._read(path) is not None

    def isdir(self, _: str) -> bool:
        return False  # a folder has no content, so it does not exist here

    def suffix(self, path: str) -> str:
        return posixpath.splitext(path)[1]

    def open(self, path: str, mode: str = "r", **_: Any) -> io.IOBase:
        data = self._read(path)
        if data is None:
            raise FileNotFoundError(path)
        return io.BytesIO(data) if "b" in mode else io.StringIO(data.decode())
