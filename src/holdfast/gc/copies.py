"""Which of the objects that are to go lie in another place, too."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path

from holdfast.errors import HoldfastError
from holdfast.executor.executor import Executor
from holdfast.gc.plan import Request
from holdfast.gc.planned import PlannedObject, Scope, Staying
from holdfast.gc.references import Key
from holdfast.gc.remote import list_remote, remote_key
from holdfast.gc.world import Remote, World
from holdfast.objectstore.parallel import concurrently
from holdfast.objectstore.store import ObjectNotFoundError, ObjectStore, StoreError
from holdfast.repo.cache import RUN_CACHE, object_path
from holdfast.vault.repository import Vault

JOBS = 16
# more than so many are found quicker in a listing than one by one
ASKED_ONE_BY_ONE = 1000

# of objects, those that a place has
Copies = Callable[[Collection[Key]], Collection[Key]]
_Place = tuple[Scope, str]


def tell_last_copies(
    objects: Iterable[PlannedObject],
    places: Mapping[_Place, Copies],
    notes: list[str],
    staying: Sequence[Staying] = (),
) -> list[PlannedObject]:
    """Say of every object that is to go whether it is the last copy known.

    A copy that is to go as well is none: what leaves the cache and the remote at once leaves both for the last time.

    Args:
        objects: of all scopes, those in ``staying`` left out.
        places: of `places_of`.
        notes: gets a line for each place that cannot be asked.
        staying: what stays because something needs it.
    """
    found = list(objects)
    wanted = {(entry.hash_name, entry.oid) for entry in found if entry.tier == "remove" and entry.oid}
    # what was looked at need not be asked again
    judged = {(entry.scope, entry.place) for entry in found}
    judged |= {(one.scope, one.place) for one in staying if any(one.objects.values())}
    kept = {key for entry in found if entry.kept and (key := (entry.hash_name, entry.oid)) in wanted}
    for entry in chain.from_iterable(some for one in staying for some in one.objects.values()) if wanted else ():
        if (key := (entry.hash_name, entry.oid)) in wanted:
            kept.add(key)
    for place, ask in places.items() if wanted else ():
        if place in judged:
            continue
        try:
            kept.update(ask(wanted))
        except StoreError as error:
            notes.append(f"{_called(place)} was not asked for copies: {error.message}")
    return [
        entry._replace(last_copy=(entry.hash_name, entry.oid) not in kept)
        if entry.tier == "remove" and entry.oid
        else entry
        for entry in found
    ]


def places_of(world: World, request: Request, notes: list[str]) -> dict[_Place, Copies]:
    """The places that may have copies: the cache, the remotes that a request names and DVC's default one, the vaults.

    One place with two names counts once. Offline there is the cache alone.

    Args:
        world: the project and its stores.
        request: what a plan was asked for.
        notes: gets a line for each place that cannot be asked.
    """
    asked: dict[_Place, Copies] = {("cache", ""): cache_copies(world)}
    if request.offline:
        notes.append("No other place was asked: what is not in the cache counts as the last copy")
        return asked
    urls: set[str] = set()
    for name in dict.fromkeys((*request.remotes, *((world.default_remote,) if world.default_remote else ()))):
        try:
            remote = world.remote(name)
        except HoldfastError as error:
            notes.append(f"{_called(('remote', name))} was not asked for copies: {error.message}")
            continue
        if remote.store.url not in urls:
            urls.add(remote.store.url)
            asked["remote", name] = remote_copies(remote, lambda: world.executor)
    for name in dict.fromkeys((*request.vaults, "")):
        try:
            vault = world.vault(name)
        except HoldfastError:
            continue  # most projects have none
        if vault.url not in urls:
            urls.add(vault.url)
            asked["vault", name] = vault_copies(vault)
    return asked


def cache_copies(world: World) -> Copies:
    """Asks DVC's local cache which objects it has."""
    folder = world.cache.folder

    def place(hash_name: str, oid: str) -> Path:
        if hash_name != RUN_CACHE:
            return object_path(folder, hash_name, oid)
        return folder / RUN_CACHE / oid[:2] / oid

    return lambda keys: {key for key in keys if place(*key).is_file()}


def remote_copies(remote: Remote, executor: Callable[[], Executor]) -> Copies:
    """Asks a plain DVC remote which objects it has; very many with what ``executor`` opens."""

    def ask(keys: Collection[Key]) -> Collection[Key]:
        if len(keys) > ASKED_ONE_BY_ONE:
            return {(entry.hash_name, entry.oid) for entry in list_remote(remote, executor())} & set(keys)
        ordered = sorted(keys)
        there = concurrently(lambda key: _is_there(remote.store, key), ordered, JOBS)
        return {key for key, yes in zip(ordered, there, strict=True) if yes}

    return ask


def vault_copies(vault: Vault) -> Copies:
    """Asks a vault which objects it has; what a collection has let go, or may, is none."""

    def ask(keys: Collection[Key]) -> Collection[Key]:
        vault.refresh()
        names = {f"{hash_name}:{oid}": (hash_name, oid) for hash_name, oid in keys}
        return {names[name] for name in vault.index.standing(list(names))}

    return ask


def _is_there(store: ObjectStore, key: Key) -> bool:
    if key[0] == RUN_CACHE:
        return False  # not worth a request: DVC makes such an entry anew when it runs the stage
    try:
        store.head(remote_key(*key))
    except ObjectNotFoundError:
        return False
    return True


def _called(place: _Place) -> str:
    return f"the {place[0]} {place[1]}".rstrip()
