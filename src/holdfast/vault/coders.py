"""Processes that encode. Threads of one process wait for Python's lock between the many short steps of a small tensor.

A process is this module run as a program: it reads requests from its input and answers on its output, and ends with
its input, however the parent ended. Where none is ready, or one has died, the caller encodes by itself, to the same
bytes.

A request is its `_HEAD` (the codes of the dtypes of data and base, 0 for none; the length of the data; 1 + that of the
base, 0 for none), the data, the base. An answer is its `_ANSWER` (0, or 1 for an error; a length), and a blob or a
message. Before the first answer comes one byte.
"""

import contextlib
import fcntl
import os
import struct
import subprocess
import sys
import threading
from queue import Empty, SimpleQueue
from typing import BinaryIO

from holdfast.vault.codec import EncodingError, encode
from holdfast.vault.codec_elements import CODES, DTYPES
from holdfast.vault.codec_kernels import fastest_loops
from holdfast.vault.codec_loops import Loops
from holdfast.vault.codec_numpy import NumpyLoops

# a process is started in 0.2 s, and takes 90 MB
WORTH_BYTES = 48 << 20
# of so many bytes numba saves the time that it takes to be imported
FAST_BYTES = 512 << 20
# what a pipe holds: 16 times what Linux gives it
PIPE_BYTES = 1 << 20
_HEAD, _ANSWER = struct.Struct("<BBQQ"), struct.Struct("<BQ")
_READY = b"\1"


class Coders:
    """Processes that encode; may be used by many threads.

    Args:
        count: how many.
        nbytes: what each is likely to be given.
    """

    def __init__(self, count: int, nbytes: int) -> None:
        self._free: SimpleQueue[_Coder] = SimpleQueue()
        self._all = [_Coder(nbytes) for _ in range(count)]
        for coder in self._all:
            threading.Thread(target=self._begin, args=(coder,), name="holdfast-coder", daemon=True).start()

    def encode(self, data: bytes, dtype: str, base: bytes | None = None, base_dtype: str | None = None) -> bytes:
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
            raise EncodingError(answer.decode())
        return answer

    def close(self) -> None:
        """End them."""
        for coder in self._all:
            coder.close()

    def _begin(self, coder: "_Coder") -> None:
        if coder.ready():
            self._free.put(coder)


class _Coder:
    """One process."""

    def __init__(self, nbytes: int) -> None:
        # in a session of its own, so that Ctrl-C on the terminal reaches the parent alone
        self._process = subprocess.Popen(
            [sys.executable, "-m", "holdfast.vault.coders", str(nbytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin.fileno(), self._process.stdout.fileno()
        for pipe in (self._input, self._output):
            with contextlib.suppress(AttributeError, OSError):  # not on every system, and not without limit
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)

    def ready(self) -> bool:
        """Wait until it is; whether it is."""
        try:
            return os.read(self._output, 1) == _READY
        except OSError:
            return False

    def ask(self, data: bytes, dtype: str, base: bytes | None, base_dtype: str | None) -> tuple[int, bytes]:
        """Have it encode; whether that failed, and the blob or why.

        Raises:
            OSError: it has died.
        """
        code = CODES[base_dtype] if base_dtype is not None else 0
        head = _HEAD.pack(CODES[dtype], code, len(data), 0 if base is None else 1 + len(base))
        for part in (head, data, base or b""):
            view = memoryview(part)
            while view:
                view = view[os.write(self._input, view) :]
        failed, length = _ANSWER.unpack(self._read(_ANSWER.size))
        return failed, self._read(length)

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()

    def _read(self, count: int) -> bytes:
        found = bytearray()
        while len(found) < count:
            part = os.read(self._output, count - len(found))
            if not part:
                raise BrokenPipeError("a process that encodes has ended")
            found += part
        return bytes(found)


def serve(requests: BinaryIO, answers: BinaryIO, loops: Loops) -> None:
    """Encode until there are no more requests."""
    answers.write(_READY)
    answers.flush()
    while head := requests.read(_HEAD.size):
        dtype, base_dtype, length, based = _HEAD.unpack(head)
        data = requests.read(length)
        base = requests.read(based - 1) if based else None
        try:
            base_name = DTYPES[base_dtype] if base_dtype else None
            answer = 0, encode(data, DTYPES[dtype], base, base_dtype=base_name, loops=loops)
        except EncodingError as error:
            answer = 1, error.message.encode()
        answers.write(_ANSWER.pack(answer[0], len(answer[1])))
        answers.write(answer[1])
        answers.flush()


if __name__ == "__main__":
    few = int(sys.argv[1]) < FAST_BYTES
    serve(sys.stdin.buffer, sys.stdout.buffer, NumpyLoops() if few else fastest_loops())
