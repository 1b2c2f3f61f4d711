"""DVC's command line without the half second that its imports take: a process that has them forks for each command.

What runs is DVC's own code in a process of its own, with the caller's arguments, folder, variables, umask and files. The
process that forks was started in an all but empty environment and remembers which variables the imports asked for. A
caller whose variables differ there gets a new process instead, as does one at a terminal: nothing that was read at import
is another's. One such process serves each process of the test run, and ends with it.

Tests that are about the process itself (kill it, start it beside others, take its time) start ``dvc`` as anyone does.
"""

import atexit
import contextlib
import gc
import importlib
import io
import json
import os
import pkgutil
import select
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

DVC = Path(sys.executable).parent / "dvc"
MESSAGE_BYTES = 1 << 20  # arguments and variables of one command
KEPT = ("PATH", "LANG", "LC_ALL", "LC_CTYPE")  # of the first caller's, while DVC is imported
HOMELESS = "/nonexistent"  # the home while DVC is imported
BEGINNINGS = ("PYTHON", "FSSPEC_", "TQDM_", "NETWORKX_")  # variables that are looked for by how they begin
# the paths that are made of HOME and XDG_CONFIG_HOME at import; where there is nothing, it makes no difference
BELOW_HOME = (".aws", ".config/fsspec", ".git-credentials")
BELOW_CONFIG = ("git/credentials",)
# imported by DVC inside its functions; pygit2 is not among them, since libgit2 reads HOME when it is loaded
LAZY = (
    "aiobotocore.session", "aiohttp", "asyncio", "configobj", "diskcache", "dulwich.porcelain", "dvc.analytics",
    "dvc.cachemgr", "dvc.data_cloud", "dvc.dependency", "dvc.output", "dvc.parsing", "dvc.repo.checkout", "dvc.repo.data",
    "dvc.repo.diff", "dvc.repo.experiments", "dvc.repo.fetch", "dvc.repo.index", "dvc.repo.metrics.show",
    "dvc.repo.params.show", "dvc.repo.push", "dvc.repo.reproduce", "dvc.repo.status", "dvc.repo.worktree", "dvc.rwlock",
    "dvc.stage.cache", "dvc.stage.loader", "dvc.stage.run", "dvc_data.index.checkout", "dvc_data.index.push", "dvc_s3",
    "networkx", "rich.table", "ruamel.yaml", "s3fs", "scmrepo.git", "tomlkit",
)  # fmt: skip


class WarmDvc:
    """The client of a process that has DVC imported."""

    def __init__(self, variables: dict[str, str]) -> None:
        self.owner = os.getpid()
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * MESSAGE_BYTES)
        kept = {name: text for name, text in variables.items() if name in KEPT or name.startswith(BEGINNINGS)}
        kept["HOME"] = HOMELESS
        command = [sys.executable, __file__, str(theirs.fileno())]
        null = subprocess.DEVNULL
        self.process = subprocess.Popen(
            command, env=kept, stdin=null, stdout=null, stderr=null, pass_fds=[theirs.fileno()]
        )
        theirs.close()

    def run(self, command: list[str], cwd: Path, variables: dict[str, str]) -> "subprocess.CompletedProcess[str]":
        """As ``subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True)``."""
        mask = os.umask(0)
        os.umask(mask)
        request = json.dumps({"argv": command, "cwd": str(cwd), "env": variables, "umask": mask}).encode()
        pipes = [os.pipe() for _ in range(3)]  # stdout, stderr, and the exit code
        try:
            files = [0, *(theirs for _, theirs in pipes)]
            socket.send_fds(self.control, [request], files)
        finally:
            for _, theirs in pipes:
                os.close(theirs)
        out, err, code = _read_all([ours for ours, _ in pipes])
        if not code:
            raise RuntimeError(f"the process with DVC in it has ended; {command} was not run")
        return subprocess.CompletedProcess(command, int(code), _text(out), _text(err))

    def end(self) -> None:
        """End the process; commands that run go on."""
        if os.getpid() == self.owner:
            self.control.shutdown(socket.SHUT_RDWR)  # whoever has forked from this process may have it open still
            self.control.close()
            self.process.wait()


_STARTING = threading.Lock()
_RUNNING: list[WarmDvc] = []


def run(command: list[str], cwd: Path, variables: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """Run ``dvc`` in a copy of a process that has imported it; the first call of a process starts that one.

    Args:
        command: the path of the ``dvc`` of this environment, and its arguments.
    """
    with _STARTING:
        if not _RUNNING or _RUNNING[-1].owner != os.getpid():  # what has forked from the tests starts its own
            _RUNNING.append(WarmDvc(variables))
            atexit.register(_RUNNING[-1].end)
    return _RUNNING[-1].run(command, cwd, variables)


def _read_all(files: list[int]) -> list[bytes]:
    """What comes from each of the files, to its end."""
    found: dict[int, bytearray] = {file: bytearray() for file in files}
    poll = select.poll()
    for file in files:
        poll.register(file, select.POLLIN)
    waiting = len(files)
    while waiting:
        for file, _ in poll.poll():
            data = os.read(file, 1 << 16)
            found[file] += data
            if not data:
                poll.unregister(file)
                os.close(file)
                waiting -= 1
    return [bytes(found[file]) for file in files]


def _text(data: bytes) -> str:
    return io.TextIOWrapper(io.BytesIO(data)).read()


def _import_dvc() -> set[str]:
    """Import all that commands need; the names of the variables that were asked for meanwhile."""
    asked: set[str] = set()
    kind = type(os.environ)
    ask = kind.__getitem__

    def note(self: "os._Environ[str]", name: str) -> str:
        asked.add(name)
        return ask(self, name)

    kind.__getitem__ = note  # type: ignore[method-assign]
    try:
        for name in ("dvc.cli", "dvc.cli.parser", "dvc.repo", "dvc.commands"):
            importlib.import_module(name)
        commands = pkgutil.walk_packages(sys.modules["dvc.commands"].__path__, "dvc.commands.")
        for name in (*LAZY, *(found.name for found in commands)):
            with contextlib.suppress(ImportError):  # what this DVC does not have, it does not need
                importlib.import_module(name)
    finally:
        kind.__getitem__ = ask  # type: ignore[method-assign]
    return asked


def _serve(control: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Fork for each request, and report each exit code. Returns in the children alone, with what they are to do."""
    running: dict[int, tuple[int, int]] = {}  # by the descriptor that tells of its end: the process, and whom to tell
    while True:
        ready, _, _ = select.select([control, *running], [], [])
        for ended in ready:
            if ended is control:
                continue
            child, reply = running.pop(ended)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            with contextlib.suppress(BrokenPipeError):  # who asked may be gone
                os.write(reply, str(code).encode())
            os.close(reply)
            os.close(ended)
        if control in ready:
            message, files, _, _ = socket.recv_fds(control, MESSAGE_BYTES, 4)
            if not message:
                os._exit(0)
            child = os.fork()
            if child == 0:
                control.close()
                for ended, (_, reply) in running.items():
                    os.close(ended)
                    os.close(reply)
                os.close(files.pop())
                return json.loads(message), files
            reply = files.pop()
            for file in files:
                os.close(file)
            running[os.pidfd_open(child)] = (child, reply)


def _become(request: dict[str, Any], files: list[int], asked: set[str]) -> None:
    """Be the process that was asked for; a new one where this one would not be the same."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(request["cwd"])
    os.umask(request["umask"])
    if any(map(os.isatty, range(3))) or _differs(request["env"], asked):
        os.execve(request["argv"][0], request["argv"], request["env"])
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    sys.argv = request["argv"]
    sys.modules["__main__"].__file__ = sys.argv[0]


def _differs(variables: dict[str, str], asked: set[str]) -> bool:
    """Whether what was imported could have been another with these variables."""
    names = asked | {name for name in (*os.environ, *variables) if name.startswith(BEGINNINGS)}
    if any(os.environ.get(name) != variables.get(name) for name in names - {"HOME", "XDG_CONFIG_HOME"}):
        return True
    home = Path(variables.get("HOME", "/"))
    config = Path(variables.get("XDG_CONFIG_HOME", home / ".config"))
    places = [*(home / name for name in BELOW_HOME), *(config / name for name in BELOW_CONFIG)]
    return any(map(os.path.lexists, places))


def _main() -> None:
    sys.path[0] = str(DVC.parent)  # as it is where the console script runs; the tests' modules are none of DVC's
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    asked = _import_dvc()
    assert threading.active_count() == 1, threading.enumerate()  # a thread would not be there after the fork
    gc.collect()
    gc.freeze()  # what was imported stays where it is, and the copies share it
    request, files = _serve(control)
    _become(request, files, asked)
    main = importlib.import_module("dvc.cli").main
    sys.exit(main())


if __name__ == "__main__":
    _main()
