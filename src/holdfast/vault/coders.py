"""Processes that encode. Threads of one process wait for Python's lock between the many short steps of a small tensor.

A process is this module run as a program, or a copy of a process that has only one thread: it reads requests from a
pipe and answers on another, and ends with the first, however the parent ended. Where none is ready, or one has died,
the caller encodes by itself, to the same bytes.

At first a process is told how many bytes it is likely to be given (a `_LENGTH`), and answers with one byte when it is
ready. A request is its `_HEAD` (the codes of the dtypes of data and base, 0 for none; the length of the data; 1 + that
of the base, 0 for none), the data, the base. An answer is its `_ANSWER` (0, or 1 for an error; a length), and a blob
or a message. Where the code of the dtype is `_FILES`, the data is a request of `holdfast.vault.small_files`, and so is
the answer.
"""

import contextlib
import fcntl
import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import BinaryIO, NoReturn

import numpy as np

from holdfast.vault.codec import EncodingError, encode
from holdfast.vault.codec_elements import CODES, DTYPES
from holdfast.vault.codec_kernels import fastest_loops
from holdfast.vault.codec_loops import Loops
from holdfast.vault.codec_numpy import NumpyLoops
from holdfast.vault.small_files import Answer, Asked, answer_of, answer_to, none_of, request_of

# a process is started in 0.2 s, and takes 90 MB
WORTH_BYTES = 48 << 20
# of so many bytes numba saves the time that it takes to be imported
FAST_BYTES = 512 << 20
# what a pipe holds: 16 times what Linux gives it
PIPE_BYTES = 1 << 20
_LENGTH, _HEAD, _ANSWER = struct.Struct("<Q"), struct.Struct("<BBQQ"), struct.Struct("<BQ")
_READY = b"\1"
_FILES = 255
_SOON_SECONDS = 1.0  # so long one waits for a process that is to read: it is busy, or none will come


class Coders:
    """Processes that encode; may be used by many threads.

    Args:
        count: how many.
        forked: as copies of this process, which has one thread; else as new ones.
    """

    def __init__(self, count: int, *, forked: bool = False) -> None:
        self._free: SimpleQueue[_Coder] = SimpleQueue()
        self._all: list[_Coder] = []
        self._begun = False
        for _ in range(count):
            self._all.append(_fork(self._all) if forked else _start())

    def begin(self, nbytes: int) -> None:
        """Have them made ready for so many bytes each, meanwhile; the first call counts."""
        if not self._begun:
            self._begun = True
            for coder in self._all:
                threading.Thread(target=self._begin, args=(coder, nbytes), name="holdfast-coder", daemon=True).start()

    def encode(
        self, data: bytes, dtype: str, base: bytes | None = None, base_dtype: str | None = None
    ) -> bytes | memoryview:
        """As of `holdfast.vault.codec.encode`.

        Raises:
            ValueError, EncodingError: as there.
        """
        try:
            coder = self._free.get_nowait()
        except Empty:
            return encode(data, dtype, base, base_dtype=base_dtype)
        try:
            failed, answer = coder.ask(data, dtype, base, base_dtype)
        except OSError:  # it has died, and is not asked again
            return encode(data, dtype, base, base_dtype=base_dtype)
        self._free.put(coder)
        if failed:
            raise EncodingError(bytes(answer).decode())
        return answer

    def read(self, files: Sequence[Asked], begun: int) -> Answer:
        """Small files, read and put together by one of them; none is taken where that is not to be had.

        Args:
            files: as of `holdfast.vault.small_files.request_of`.
            begun: how many bytes the blob has that is begun.

        Raises:
            EncodingError: as of `encode`.
        """
        try:
            coder = self._free.get(timeout=_SOON_SECONDS)
            failed, answer = coder.read(request_of(files, begun))
        except (Empty, OSError):
            return none_of(files)
        self._free.put(coder)
        if failed:
            raise EncodingError(bytes(answer).decode())
        return answer_of(answer)

    def close(self) -> None:
        """End them."""
        for coder in self._all:
            coder.close()

    def _begin(self, coder: "_Coder", nbytes: int) -> None:
        if coder.ready(nbytes):
            self._free.put(coder)


def coder_count(jobs: int) -> int:
    """How many processes are worth having for so many threads that give them work."""
    return min(jobs, os.cpu_count() or 1)


@contextlib.contextmanager
def forked_coders(jobs: int) -> Iterator[Coders | None]:
    """Processes that are there at once, as copies of this one: to be had before anything starts a thread.

    None where this process has several threads, or a system without Linux's way of telling, and where there is only
    one processor.
    """
    tasks = Path("/proc/self/task")
    if coder_count(jobs) < 2 or not tasks.is_dir() or len(list(tasks.iterdir())) > 1:
        yield None
        return
    coders = Coders(coder_count(jobs), forked=True)
    try:
        yield coders
    finally:
        coders.close()


class _Coder:
    """One process.

    Args:
        process: ends it, and takes note of its end.
        requests, answers: the pipes to and from it.
    """

    def __init__(self, process: "subprocess.Popen[bytes] | _Fork", requests: int, answers: int) -> None:
        self.process, self._requests, self._answers = process, requests, answers
        for pipe in self.pipes:
            with contextlib.suppress(AttributeError, OSError):  # not on every system, and not without limit
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    @property
    def pipes(self) -> tuple[int, int]:
        """This end of both."""
        return self._requests, self._answers

    def ready(self, nbytes: int) -> bool:
        """Wait until it is, for so many bytes; whether it is."""
        try:
            os.write(self._requests, _LENGTH.pack(nbytes))
            return os.read(self._answers, 1) == _READY
        except OSError:
            return False

    def ask(self, data: bytes, dtype: str, base: bytes | None, base_dtype: str | None) -> tuple[int, memoryview]:
        """Have it encode; whether that failed, and the blob or why.

        Raises:
            OSError: it has died.
        """
        codes = CODES[dtype], CODES[base_dtype] if base_dtype is not None else 0
        return self._ask(_HEAD.pack(*codes, len(data), 0 if base is None else 1 + len(base)), data, base or b"")

    def read(self, request: bytes) -> tuple[int, memoryview]:
        """Have it read small files; whether that failed, and the answer or why.

        Raises:
            OSError: it has died.
        """
        return self._ask(_HEAD.pack(_FILES, 0, len(request), 0), request)

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        for pipe in self.pipes:
            os.close(pipe)

    def _ask(self, *parts: bytes) -> tuple[int, memoryview]:
        for part in parts:
            view = memoryview(part)
            while view:
                view = view[os.write(self._requests, view) :]
        failed, length = _ANSWER.unpack(self._read(_ANSWER.size))
        return failed, self._read(length)

    def _read(self, count: int) -> memoryview:
        # an array, for which NumPy asks the system for huge pages
        found = rest = np.empty(count, np.uint8).data
        while rest:
            length = os.readv(self._answers, [rest])
            if not length:
                raise BrokenPipeError("a process that encodes has ended")
            rest = rest[length:]
        return found.toreadonly()


class _Fork:
    """A copy of this process."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def kill(self) -> None:
        """End it."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> None:
        """Take note of its end, once."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def _start() -> _Coder:
    (requests, to_it), (from_it, answers) = os.pipe(), os.pipe()
    # in a session of its own, so that Ctrl-C on the terminal reaches the parent alone
    process = subprocess.Popen(
        [sys.executable, "-m", "holdfast.vault.coders"],
        # numpy's OpenBLAS would start threads, which spin for 0.1 s of processor each, for nothing
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},  # noqa: TID251 - handed on, and not read
        stdin=requests,
        stdout=answers,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(requests)
    os.close(answers)
    return _Coder(process, to_it, from_it)


def _fork(others: Iterable[_Coder]) -> _Coder:
    (requests, to_it), (from_it, answers) = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        # an end of a pipe that stays open here would keep its other end from finding the parent gone
        _be_one(requests, answers, [to_it, from_it, *(pipe for other in others for pipe in other.pipes)])
    os.close(requests)
    os.close(answers)
    return _Coder(_Fork(pid), to_it, from_it)


def _be_one(requests: int, answers: int, parents: Iterable[int]) -> NoReturn:
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        for pipe in parents:
            os.close(pipe)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(nowhere, standard)
        with open(requests, "rb") as asked, open(answers, "wb") as answered:
            _encode_for(asked, answered)
    finally:
        os._exit(0)  # what this process was in the middle of is the parent's


def _encode_for(requests: BinaryIO, answers: BinaryIO) -> None:
    length = requests.read(_LENGTH.size)
    if len(length) == _LENGTH.size:  # else it was never needed
        few = _LENGTH.unpack(length)[0] < FAST_BYTES
        serve(requests, answers, NumpyLoops() if few else fastest_loops())


def serve(requests: BinaryIO, answers: BinaryIO, loops: Loops) -> None:
    """Encode until there are no more requests."""
    answers.write(_READY)
    answers.flush()
    while head := requests.read(_HEAD.size):
        dtype, base_dtype, length, based = _HEAD.unpack(head)
        data = requests.read(length)
        base = requests.read(based - 1) if based else None
        parts: Sequence[bytes]
        try:
            if dtype == _FILES:
                failed, parts = 0, answer_to(data, loops)
            else:
                base_name = DTYPES[base_dtype] if base_dtype else None
                failed, parts = 0, [encode(data, DTYPES[dtype], base, base_dtype=base_name, loops=loops)]
        except EncodingError as error:
            failed, parts = 1, [error.message.encode()]
        answers.write(_ANSWER.pack(failed, sum(map(len, parts))))
        answers.writelines(parts)
        answers.flush()


if __name__ == "__main__":
    _encode_for(sys.stdin.buffer, sys.stdout.buffer)
