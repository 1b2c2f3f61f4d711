"""A process that pushes to a vault, for tests that end it: ``python vault_child.py`` and one JSON object a line.

Each line is a push that a process of its own does, forked from this one, which has imported everything already. It
answers with the process's number at once, and with ``done`` or ``ended`` when that is over.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from faults import FaultyStore, Rule
from holdfast.objectstore.opening import open_store
from holdfast.objectstore.options import StoreOptions
from holdfast.vault.repository import open_vault
from holdfast.vault.session import FileToPut


def push(task: dict[str, Any]) -> None:
    """Push the files that a task names; with ``die_at`` end before that call of the store, as by ``kill -9``."""
    options = StoreOptions(**task.get("options", {}))
    store = FaultyStore(open_store(task["url"], options))
    if task.get("die_at"):
        store.rules = [Rule("delay", at=task["die_at"])]
        store.wait = lambda: os.kill(os.getpid(), signal.SIGKILL)
    with open_vault(store, Path(task["cache"]), jobs=2) as vault, vault.session() as session:
        session.put_many(FileToPut(oid, path, base) for oid, path, base in task["files"])
        statistics = session.commit()
    if task.get("report"):
        Path(task["report"]).write_text(json.dumps({"calls": len(store.calls), "new_blobs": statistics.new_blobs}))


def main() -> None:
    import holdfast.vault.codec_kernels

    holdfast.vault.codec_kernels.fastest_loops()  # a process that forks must not load libraries in a thread meanwhile
    child = 0
    for line in sys.stdin:
        if child:  # only now, so that nobody else has had its number
            os.waitpid(child, 0)
        task = json.loads(line)
        begin = time.monotonic()
        child = os.fork()
        if not child:
            code = 1
            try:
                push(task)
                code = 0
            finally:
                sys.stderr.flush()
                os._exit(code)
        print(child, flush=True)
        ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        good = ended is not None and ended.si_status == 0
        print(f"done {time.monotonic() - begin:.3f}" if good else f"ended: {ended}", flush=True)


if __name__ == "__main__":
    main()
