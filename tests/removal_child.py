"""A process that takes, restores and purges, for tests that end it: ``python removal_child.py``, one JSON object a line.

Each line is a verb that a process of its own does, forked from this one, which has imported everything already. It is
killed before the system step of a number that the line says: a call that changes names, or makes something durable; of
a bucket, a call of the store. It answers with ``done`` or ``ended``.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faults import FaultyStore, Rule
from holdfast.objectstore.opening import open_store
from holdfast.removal import trees
from holdfast.removal.bucket import BucketPlace
from holdfast.removal.folder import FolderPlace
from holdfast.removal.place import Place, Thing

STEPS = (
    "rename", "replace", "unlink", "rmdir", "mkdir", "link", "symlink", "fsync", "write", "pwrite", "utime", "chown",
    "fchmod", "ftruncate",
)  # fmt: skip


def dying(die_at: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    steps = 0

    def wrap(real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **named: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **named)

        return step

    return wrap


def main(task: dict[str, Any]) -> None:
    wrap = dying(task["die_at"])
    place: Place
    if task["kind"] == "folder":
        for name in STEPS:
            setattr(os, name, wrap(getattr(os, name)))
        rename = wrap(trees._exclusive_rename())
        trees._exclusive_rename = lambda: rename
        place = FolderPlace(Path(task["root"]), Path(task["quarantine"]))
    else:
        die = Rule("delay", at=task["die_at"])
        store = FaultyStore(open_store(task["root"]), [die], lambda: os.kill(os.getpid(), signal.SIGKILL))
        place = BucketPlace(store, task["quarantine"], jobs=1)
    if task["verb"] == "take":
        place.take(task["batch"], task["plan"].encode(), [Thing(*thing) for thing in task["things"]])
    elif task["verb"] == "restore":
        place.restore(task["batch"])
    else:
        place.purge(task["batch"])


if __name__ == "__main__":
    for line in sys.stdin:
        child = os.fork()
        if not child:
            try:
                main(json.loads(line))
            except BaseException:
                import traceback

                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        print("done" if status == 0 else "ended" if killed else "failed", flush=True)
