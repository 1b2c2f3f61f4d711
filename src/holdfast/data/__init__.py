"""Data sources: the catalogue that names them, whether it is true, how they come here; samples straight from there."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.api import stream
    from holdfast.data.stream_dataset import Stream

__all__ = ["Stream", "stream"]

# what `import holdfast.data` offers without importing it: the name, and the module that has it
_LAZY = {
    "Stream": "holdfast.data.stream_dataset",
    "stream": "holdfast.api",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
