"""``dvc`` and ``holdfast`` without the half second that imports take: a process that has done them forks for each command.

What runs is the tool's own code in a process of its own, with the caller's arguments, folder, variables, umask and files.
The process that forks was started in an all but empty environment and remembers which variables the imports asked for. A
caller whose variables differ there gets a new process instead, as does one at a terminal: nothing that was read at import
is another's. One such process for each tool serves each process of the test run, and ends with it.

Of Holdfast itself nothing is imported before the fork, only what it uses of others: what its modules do when they are
imported, and in which order, is what the tests are about. Tests that are about the process (kill it, start it beside
others, take its time) start it as anyone does.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(sys.executable).parent
MESSAGE_BYTES = 1 << 20  # arguments and variables of one command
# of the first caller's, while modules are imported
KEPT = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "NO_COLOR", "COLUMNS", "LINES")
HOMELESS = "/nonexistent"  # the home meanwhile
BEGINNINGS = ("PYTHON", "FSSPEC_", "TQDM_", "NETWORKX_")  # variables that are looked for by how they begin
# the paths that are made of these variables at import; where there is nothing, it makes no difference
FOLDERS = ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")
BELOW_HOME = (".aws", ".config/fsspec", ".git-credentials")
BELOW_CONFIG = ("git/credentials",)
BELOW_CACHE = ("huggingface",)
THREADS = "OPENBLAS_NUM_THREADS"  # set for the imports alone: a thread would not be there after a fork


@dataclass(frozen=True)
class Tool:
    """What is imported for a command line before it is needed.

    Attributes:
        main: the module with its ``main``.
        first: modules that are imported first, in this order; what is not there is not needed.
        below: a package all of whose modules are.
        cold: first arguments of commands that get a new process.
    """

    main: str
    first: tuple[str, ...]
    below: str = ""
    cold: frozenset[str] = frozenset()


# imported by DVC inside its functions; pygit2 is not among them, since libgit2 reads HOME when it is loaded
LAZY = (
    "aiobotocore.session", "aiohttp", "asyncio", "configobj", "diskcache", "dulwich.porcelain", "dvc.analytics",
    "dvc.cachemgr", "dvc.data_cloud", "dvc.dependency", "dvc.output", "dvc.parsing", "dvc.repo.checkout", "dvc.repo.data",
    "dvc.repo.diff", "dvc.repo.experiments", "dvc.repo.fetch", "dvc.repo.index", "dvc.repo.metrics.show",
    "dvc.repo.params.show", "dvc.repo.push", "dvc.repo.reproduce", "dvc.repo.status", "dvc.repo.worktree", "dvc.rwlock",
    "dvc.stage.cache", "dvc.stage.loader", "dvc.stage.run", "dvc_data.index.checkout", "dvc_data.index.push", "dvc_s3",
    "networkx", "rich.table", "ruamel.yaml", "s3fs", "scmrepo.git", "tomlkit",
)  # fmt: skip
TOOLS = {
    "dvc": Tool("dvc.cli", ("dvc.cli.parser", "dvc.repo", "dvc.commands", *LAZY), "dvc.commands"),
    "holdfast": Tool(
        "holdfast.cli.main",
        (
            "aiohttp.web", "ahocorasick_rs", "asyncio", "blake3", "botocore.session", "click", "concurrent.futures",
            "dulwich.porcelain", "dvc.api", "dvc.repo", "dvc_data.index", "email.message", "git", "grimp",
            "gto.api", "gto.index", "http.client", "huggingface_hub.repocard", "jinja2", "networkx", "numpy",
            "obstore.store", "pyfastcdc", "rich.console", "rich.table", "ruamel.yaml", "scipy.stats", "scmrepo.git",
            "sqlite3", "tarfile", "tomlkit", "yaml", "zipfile", "zstandard",
        ),
        # linear algebra that takes as many threads as it likes; they would not be there after a fork
        cold=frozenset({"equivalence"}),
    ),
}  # fmt: skip


class Warm:
    """The client of a process that has imported what a tool needs."""

    def __init__(self, tool: str, variables: dict[str, str]) -> None:
        self.owner = os.getpid()
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * MESSAGE_BYTES)
        kept = {name: text for name, text in variables.items() if name in KEPT or name.startswith(BEGINNINGS)}
        kept |= {"HOME": HOMELESS, THREADS: "1"}
        command = [sys.executable, __file__, tool, str(theirs.fileno())]
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
            raise RuntimeError(f"the process that forks has ended; {command} was not run")
        return subprocess.CompletedProcess(command, int(code), _text(out), _text(err))

    def end(self) -> None:
        """End the process; commands that run go on."""
        if os.getpid() == self.owner:
            self.control.shutdown(socket.SHUT_RDWR)  # whoever has forked from this process may have it open still
            self.control.close()
            self.process.wait()


_STARTING = threading.Lock()
_RUNNING: dict[str, Warm] = {}


def run(command: list[str], cwd: Path, variables: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """Run a tool in a copy of a process that has its imports; the first call of a process starts that one.

    Args:
        command: the path of one of `TOOLS` in this environment, and its arguments.
    """
    tool = Path(command[0]).name
    with _STARTING:
        if tool not in _RUNNING or _RUNNING[tool].owner != os.getpid():  # what has forked from the tests starts its own
            _RUNNING[tool] = Warm(tool, variables)
            atexit.register(_RUNNING[tool].end)
    return _RUNNING[tool].run(command, cwd, variables)


def warms(command: list[str]) -> bool:
    """Whether `run` is for it."""
    path = Path(command[0])
    tool = TOOLS.get(path.name) if path.parent == FOLDER else None
    return tool is not None and not tool.cold.intersection(command[1:2])


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


def _import(tool: Tool) -> set[str]:
    """Import all that commands need; the names of the variables that were asked for meanwhile."""
    asked: set[str] = set()
    kind = type(os.environ)
    ask = kind.__getitem__

    def note(self: "os._Environ[str]", name: str) -> str:
        asked.add(name)
        return ask(self, name)

    kind.__getitem__ = note  # type: ignore[method-assign]
    try:
        for name in tool.first:
            with contextlib.suppress(ImportError):  # what is not there is not needed
                importlib.import_module(name)
        if tool.below:
            for found in pkgutil.walk_packages(sys.modules[tool.below].__path__, f"{tool.below}."):
                with contextlib.suppress(ImportError):
                    importlib.import_module(found.name)
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
    if any(os.environ.get(name) != variables.get(name) for name in names.difference(FOLDERS, [THREADS])):
        return True
    home = Path(variables.get("HOME", "/"))
    config = Path(variables.get("XDG_CONFIG_HOME", home / ".config"))
    cache = Path(variables.get("XDG_CACHE_HOME", home / ".cache"))
    below = ((home, BELOW_HOME), (config, BELOW_CONFIG), (cache, BELOW_CACHE))
    places = [folder / name for folder, names in below for name in names]
    return any(map(os.path.lexists, places))


def _main() -> None:
    sys.path[0] = str(FOLDER)  # as it is where the console script runs; the tests' modules are none of the tool's
    tool = TOOLS[sys.argv[1]]
    control = socket.socket(fileno=int(sys.argv[2]))
    control.set_inheritable(False)
    asked = _import(tool)
    threads = list(Path("/proc/self/task").iterdir())
    assert len(threads) == 1, threads  # another thread would not be there after the fork
    gc.collect()
    gc.freeze()  # what was imported stays where it is, and the copies share it
    request, files = _serve(control)
    _become(request, files, asked)
    try:
        code = importlib.import_module(tool.main).main()
    except SystemExit as ended:
        code = ended.code
    if not isinstance(code, int | None):
        sys.exit(code)
    # all that an interpreter does at its end, but for taking hundreds of modules apart
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


if __name__ == "__main__":
    _main()
