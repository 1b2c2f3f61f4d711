"""A collection that goes wrong at any of its steps, or is killed, or is not alone: nothing is lost, and the next ends it."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from faults import FaultyStore, Kind, Rule
from holdfast.errors import HoldfastError, StalePlanError
from holdfast.formats.source import MemorySource
from holdfast.objectstore.opening import open_store
from holdfast.objectstore.store import ObjectStore
from holdfast.vault.collecting import generations, purge
from holdfast.vault.repack import plan_repack, repack
from holdfast.vault.repository import init_vault, open_vault
from test_vault_repack import NOW, depths, lineage_of
from vaults import SMALL_BLOCK, SMALL_PACK, all_is_well, bf16_history, noise, oid_of, png_like, put_all, read_all

KINDS: tuple[Kind, ...] = ("refuse", "lose", "truncate", "flip", "duplicate")
VERSIONS, OTHERS = bf16_history(4, elements=40_000), [noise(80_000, 5), *(png_like(number) for number in range(9))]


def filled(folder: Path) -> ObjectStore:
    store = open_store("memory://")
    with init_vault(store, folder, block_bytes=SMALL_BLOCK, pack_bytes=SMALL_PACK, vault_id="ef" * 16, jobs=1) as vault:
        put_all(vault, VERSIONS, chain=True)
        put_all(vault, OTHERS)
    return store


def collect(store: ObjectStore, folder: Path | None) -> None:
    lineage = lineage_of(VERSIONS)
    with open_vault(store, folder, jobs=1) as vault:
        plan = plan_repack(vault, lineage, recent=NOW)
        repack(vault, plan, recent=NOW, grace=NOW)
        purge(vault, older_than=NOW)


CALLS = 95  # a test sees to it that a collection has no more


def test_a_collection_has_as_many_calls_as_are_tried(tmp_path: Path) -> None:
    counted = FaultyStore(filled(tmp_path))
    collect(counted, tmp_path)
    assert CALLS * 0.6 < len(counted.calls) <= CALLS


@pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.soak)])
@pytest.mark.parametrize("kind", KINDS)
def test_any_single_call_of_a_collection_may_go_wrong(kind: Kind, step: int, tmp_path: Path) -> None:
    struck = 0
    # of several kinds each tries other calls
    for number in range(1 + KINDS.index(kind) % step, CALLS + 1, step):
        cache = tmp_path / str(number)
        store = filled(cache)
        try:
            collect(FaultyStore(store, [Rule(kind, at=number)]), cache)
        except HoldfastError:
            struck += 1
        with open_vault(store, None, jobs=1) as vault:
            read_all(vault, [*VERSIONS, *OTHERS])
        collect(store, cache)  # whoever comes next brings it to its end
        with open_vault(store, None, jobs=1) as vault:
            assert depths(vault, VERSIONS) == [3, 2, 1, 0]
            assert generations(store) == []
        if number % 5 == 0:
            all_is_well(store, [*VERSIONS, *OTHERS])
    assert struck > 10 // step if kind in ("refuse", "lose") else struck <= CALLS


@pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.soak)])
def test_a_push_between_any_two_calls_of_a_collection(step: int, tmp_path: Path) -> None:
    """Somebody else pushes a version, stored against what is being collected, at every moment of it."""
    newer = bf16_history(5, elements=40_000)[4]
    for number in range(1, CALLS + 1, step):
        store = filled(tmp_path / str(number))

        pushed = []

        def push(store: ObjectStore = store, pushed: list[bytes] = pushed) -> None:
            pushed.append(newer)
            with open_vault(store, None, jobs=1) as other, other.session() as session:
                session.put(oid_of(newer), MemorySource(newer), base_oid=oid_of(VERSIONS[3]))
                session.commit()

        faulty = FaultyStore(store, [Rule("delay", at=number)], wait=push)
        with contextlib.suppress(StalePlanError):
            collect(faulty, tmp_path / str(number))
        with open_vault(store, None, jobs=1) as vault:
            read_all(vault, [*VERSIONS, *OTHERS, *pushed])
        assert pushed or number > CALLS * 0.6
        collect(store, None)
        all_is_well(store, [*VERSIONS, *OTHERS, *pushed])


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """A repack by a process that is killed, in a folder; the next one brings it to its end."""
    for number in range(1, 40, 3):
        place = tmp_path / str(number) / "vault"
        store = open_store(str(place))
        with init_vault(store, tmp_path / str(number), block_bytes=SMALL_BLOCK, pack_bytes=SMALL_PACK) as vault:
            put_all(vault, VERSIONS, chain=True)
            put_all(vault, OTHERS)
        program = (
            "import os, signal, sys; sys.path.insert(0, sys.argv[3]); import test_vault_repack_faults as own\n"
            "from pathlib import Path; from faults import FaultyStore, Rule\n"
            "from holdfast.objectstore.opening import open_store\n"
            "def die(): os.kill(os.getpid(), signal.SIGKILL)\n"
            "store = FaultyStore(open_store(sys.argv[1]), [Rule('delay', at=int(sys.argv[2]))], wait=die)\n"
            "own.collect(store, Path(sys.argv[1]).parent)\n"
        )
        tests = str(Path(__file__).parent)
        done = subprocess.run(
            [sys.executable, "-c", program, str(place), str(number), tests],
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        with open_vault(store, None, jobs=1) as vault:
            read_all(vault, [*VERSIONS, *OTHERS])
        collect(store, tmp_path / str(number))
        all_is_well(store, [*VERSIONS, *OTHERS])
        with open_vault(store, None, jobs=1) as vault:
            assert depths(vault, VERSIONS) == [3, 2, 1, 0]
