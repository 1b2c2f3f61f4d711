"""Where a store is and how to reach it: what is sent to another process, which opens the store for itself."""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from holdfast.objectstore.opening import open_store
from holdfast.objectstore.options import StoreOptions

if TYPE_CHECKING:
    from holdfast.objectstore.store import ObjectStore


@dataclass(frozen=True)
class StoreAddress:
    """A store that can be opened elsewhere. It holds credentials where the options do: they travel with it.

    Attributes:
        url: as of `holdfast.objectstore.opening.open_store`.
        options: how to reach it and as whom; never shown.
    """

    url: str
    options: StoreOptions = field(default_factory=StoreOptions, repr=False)

    def open(self) -> "ObjectStore":
        """The store; opened once in a process, where asked for from however many threads.

        Raises:
            UsageError: the URL is of no store.
            DeniedError: there are no credentials.
        """
        return _opened(self)


@lru_cache(maxsize=64)
def _opened(address: StoreAddress) -> "ObjectStore":
    return open_store(address.url, address.options)
