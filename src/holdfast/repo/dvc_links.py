"""Links from the workspace to DVC's cache, made and written down as DVC does it.

Another part of the adapter to DVC; see `holdfast.repo.dvc`.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from holdfast.repo.dvc import _opened as opened
from holdfast.repo.dvcfiles import LEGACY_MD5


class Linker:
    """Makes links while DVC's project is locked.

    Args:
        repo: DVC's.
    """

    def __init__(self, repo: Any) -> None:
        self._repo = repo

    def link(self, hash_name: str, oid: str, kind: str, target: Path) -> None:
        """Make ``target``, which must not be there, a link to an object of the cache, which is protected after it.

        Args:
            hash_name: ``md5`` or ``md5-dos2unix``.
            oid: the object.
            kind: ``reflink``, ``hardlink`` or ``symlink``.
            target: absolute.

        Raises:
            OSError: the file system cannot, or the object is not there.
        """
        from dvc_objects.fs.generic import transfer  # imported here: see holdfast.repo.dvc
        from dvc_objects.fs.local import localfs

        odb = self._odb(hash_name)
        source = odb.oid_to_path(oid)
        # a link to nowhere is a link as well
        Path(source).stat()
        transfer(odb.fs, source, localfs, str(target), links=[kind])
        odb.protect(source)

    def record(self, links: Collection[tuple[Path, str, str]]) -> None:
        """Write down what was linked, so that DVC need not read it, and knows its own links again.

        Args:
            links: path, hash name and oid of each file.
        """
        from dvc_data.hashfile.hash_info import HashInfo
        from dvc_objects.fs.local import localfs

        outs = {str(out.fs_path) for out in self._repo.index.outs if out.use_cache}
        changed = set()
        for path, hash_name, oid in links:
            self._repo.state.save(str(path), localfs, HashInfo(hash_name, oid))
            changed |= {str(place) for place in (path, *path.parents)} & outs
        for place in sorted(changed):
            self._repo.state.save_link(place, localfs)

    def _odb(self, hash_name: str) -> Any:
        return self._repo.cache.legacy if hash_name == LEGACY_MD5 else self._repo.cache.local


@contextmanager
def linking(root: Path) -> Iterator[Linker]:
    """DVC's project at ``root``, locked as DVC's own commands lock it.

    Raises:
        LockedError: another DVC process works here.
        HoldfastError: DVC cannot read the project.
    """
    with opened(root) as repo:
        yield Linker(repo)
