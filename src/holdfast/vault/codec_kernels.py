"""Which loops are in use: numba's where it can be imported (the extra ``fast``), else NumPy's, to the same bytes."""

import threading
from functools import cache

from holdfast.vault.codec_loops import Loops
from holdfast.vault.codec_numpy import NumpyLoops

# numba is imported and loads what it compiled in 0.7 s of processor time, which it saves again on some 300 MB
WARM_UP_BYTES = 192 << 20


class _Choice:
    """NumPy's loops until there is enough to do, then numba's, which are imported meanwhile."""

    def __init__(self) -> None:
        self._loops: Loops = NumpyLoops()
        self._nbytes = 0
        self._lock = threading.Lock()
        self._begun = False

    def loops(self, nbytes: int) -> Loops:
        if not self._begun:
            with self._lock:
                self._nbytes += nbytes
                if self._nbytes >= WARM_UP_BYTES and not self._begun:
                    self._begun = True
                    threading.Thread(target=self._warm_up, name="holdfast-numba", daemon=True).start()
        return self._loops

    def _warm_up(self) -> None:
        self._loops = fastest_loops()


_choice = _Choice()


def loops_for(nbytes: int) -> Loops:
    """The loops for so many bytes of data: the fastest, once there has been so much to do that they are worth it."""
    return _choice.loops(nbytes)


@cache
def fastest_loops() -> Loops:
    """numba's loops where they can be had, else NumPy's."""
    try:
        # a wrong pair of versions raises ImportError as well
        from holdfast.vault.codec_numba import NumbaLoops
    except ImportError:
        return NumpyLoops()
    return NumbaLoops()


def loops_in_use() -> str:
    """The library of the fastest loops and its version, as ``numba 0.61.2``."""
    return fastest_loops().name
