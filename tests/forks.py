"""Commands of ours in forks of one process that has imported everything: a fraction of the time, as easily killed.

For fault tests, which run the same command once a step. Each command is a real process with a working folder, variables
and output of its own; what it patches or leaves behind dies with it.
"""

import json
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from worlds import World, environment

_SERVER = textwrap.dedent("""
    import contextlib, importlib, json, os, signal, sys, tempfile, traceback

    import holdfast.cli.main

    def dying(real, calls, last):
        def step(*arguments, **named):
            calls[0] += 1
            if calls[0] == last:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **named)
        return step

    def run(asked, out, err):
        os.chdir(asked["cwd"])
        os.environ.clear()
        os.environ.update(asked["environment"])
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        calls = [0]
        for place in asked["steps"]:
            module, _, attribute = place.partition(":")
            owner = importlib.import_module(module)
            *outer, attribute = attribute.split(".")
            for part in outer:
                owner = getattr(owner, part)
            setattr(owner, attribute, dying(getattr(owner, attribute), calls, asked["last"]))
        from holdfast.cli.main import main
        try:
            main(asked["arguments"])
            return 0
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        except BaseException:
            traceback.print_exc()
            return 70
        finally:
            sys.stdout.flush()
            sys.stderr.flush()

    for line in sys.stdin:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as learnt:
            child = os.fork()
            if child == 0:
                code = run(json.loads(line), out, err)
                os.write(learnt.fileno(), json.dumps(list(sys.modules)).encode())
                os._exit(code)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            told = []
            for stream in (out, err, learnt):
                stream.seek(0)
                told.append(stream.read().decode())
        # what a command imported, the next one finds imported
        for name in json.loads(told.pop() or "[]"):
            if name not in sys.modules and not name.startswith("_"):
                with contextlib.suppress(Exception):
                    importlib.import_module(name)
        sys.stdout.write(json.dumps([code, *told]) + "\\n")
        sys.stdout.flush()
""")


@dataclass(frozen=True)
class Done:
    """How a command ended; a negative code is the signal that killed it."""

    code: int
    stdout: str
    stderr: str


class Forks:
    """The process that forks; ``with Forks(...) as forks: …``.

    Args:
        steps: what counts as a step, as ``module:name``, in the module that calls it.
    """

    def __init__(self, steps: Sequence[str] = ()) -> None:
        self._steps = list(steps)

    def __enter__(self) -> "Forks":
        self._server = subprocess.Popen(
            [sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait()
        self._server.stdout.close()

    def holdfast(self, world: World, *arguments: str, kill_at: int | None = None, code: int = 0) -> Done:
        """Run a command in a world's project.

        Args:
            world: where.
            arguments: of ``holdfast``.
            kill_at: the step, counted from 1, before which it is killed; None for none.
            code: how it must end; looked at where nothing kills it.
        """
        asked = {
            "cwd": str(world.folder),
            "environment": environment(world.home),
            "arguments": list(arguments),
            "steps": self._steps if kill_at is not None else [],
            "last": kill_at,
        }
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(asked) + "\n")
        self._server.stdin.flush()
        done = Done(*json.loads(self._server.stdout.readline()))
        if kill_at is None:
            assert done.code == code, f"{arguments} ended with {done.code}:\n{done.stdout}\n{done.stderr}"
        return done


@dataclass(frozen=True)
class ForkedWorld(World):
    """A world whose ``holdfast`` is a fork.

    Args:
        forks: of which process.
    """

    forks: Forks | None = None

    def holdfast(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        assert self.forks is not None
        done = self.forks.holdfast(self, *arguments, code=code)
        return subprocess.CompletedProcess(arguments, done.code, done.stdout, done.stderr)
