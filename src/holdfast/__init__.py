"""Holdfast: a model registry, deduplication and safe garbage collection on top of DVC and git."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.api import Vault
    from holdfast.registry.snapshot import load_registry

__version__ = "0.1.0"
__all__ = ["Vault", "__version__", "load_registry"]

# what `import holdfast` offers without importing it: the name, and the module that has it
_LAZY = {
    "Vault": "holdfast.api",
    "load_registry": "holdfast.registry.snapshot",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
