"""Which loops are in use: numba's where it can be imported (the extra ``fast``), else NumPy's."""

from functools import cache

from holdfast.vault.codec_loops import Loops
from holdfast.vault.codec_numpy import NumpyLoops


@cache
def fastest_loops() -> Loops:
    """numba's loops where they can be had, else NumPy's. Both write the same bytes."""
    try:
        # numba takes longer to import than most commands take; a wrong pair of versions raises ImportError as well
        from holdfast.vault.codec_numba import NumbaLoops
    except ImportError:
        return NumpyLoops()
    return NumbaLoops()


def loops_in_use() -> str:
    """Their library and its version, as ``numba 0.61.2``."""
    return fastest_loops().name
