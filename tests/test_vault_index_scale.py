"""The vaults that only have an index, what they measure, and that the page on scale says what came out."""

import dataclasses
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from holdfast.objectstore.opening import open_store
from holdfast.vault.index import Index, Known
from holdfast.vault.index_runs import RECORD, run_bytes

PROJECT = Path(__file__).parent.parent
BENCHMARKS = PROJECT / "benchmarks"
sys.path.append(str(BENCHMARKS))

import push_simulation  # noqa: E402 - found through the path above
import scale_page  # noqa: E402
from harness import read_results  # noqa: E402
from index_vault import LINEAGES, Shape, make_vault  # noqa: E402

SIMULATED = read_results("push_simulation")
PAGE = scale_page.PAGE.read_text()
# a lineage's second session comes after the first one of each
SHAPE = Shape(LINEAGES + 2, blobs=60, tensors=5, frozen=3)


@pytest.fixture
def index(tmp_path: Path) -> Index:
    make_vault(tmp_path / "vault", SHAPE)
    found = Index(open_store(str(tmp_path / "vault")), tmp_path / "index", jobs=2)
    found.refresh()
    return found


def test_the_vault_is_whole(index: Index) -> None:
    assert not index.damaged
    oids = list(index.oids())
    assert len(oids) == SHAPE.sessions * SHAPE.files
    assert index.standing(oids, thorough=True) == set(oids)  # each base is there, too
    entries = list(index.all_entries())
    places = {entry.id: entry for entry in entries}
    assert len(places) == len(entries) == len(oids) * (SHAPE.tensors + 1) + LINEAGES * SHAPE.frozen
    for entry in entries:
        assert not entry.base or places[entry.base].depth == entry.depth - 1
    across = [entry for entry in entries if entry.base and places[entry.base].pack[-32:] != entry.pack[-32:]]
    assert len(across) == 2 * SHAPE.tensors  # where a lineage goes on in another session
    ends: dict[str, int] = {}
    for entry in sorted(entries, key=lambda entry: (entry.pack, entry.offset)):
        assert entry.offset >= ends.get(entry.pack, 4)
        ends[entry.pack] = entry.offset + entry.stored
    index.close()


def test_the_same_seed_makes_the_same_vault(tmp_path: Path) -> None:
    def content(name: str, shape: Shape) -> list[bytes]:
        make_vault(tmp_path / name, shape)
        return [path.read_bytes() for path in sorted((tmp_path / name / "index").iterdir())]

    first = content("a", SHAPE)
    assert content("b", SHAPE) == first
    assert content("c", dataclasses.replace(SHAPE, seed=2)) != first


def test_the_page_has_the_figures_of_the_results() -> None:
    assert scale_page.filled(PAGE) == PAGE, "run benchmarks/scale_page.py"


def test_what_the_page_says_between_the_tables() -> None:
    small, large = SIMULATED["blobs"]["small"], SIMULATED["blobs"]["large"]
    model, place = SIMULATED["model"], run_bytes(1, 0) - run_bytes(0, 0)
    ratio = read_results("vault_ratio")["histories"]["bf16"]["stats at push"]["ratio"]
    words = " ".join(PAGE.split())
    for said in (
        f"{ratio:.2f} times smaller than raw",
        f"{small['segment']:.0f} bytes for each",
        f"of {model['checkpoint_blobs']['small']:,} and {model['checkpoint_blobs']['large']:,} blobs",
        f"A place takes {place} bytes: 32 of the id, 4 for its base, which is the number of a row, and",
        f"and {RECORD.itemsize - 24} for the rest",
        f"{large['stored'] / 1e5:.0f} TB of large checkpoints, {small['stored'] / 1e5:.1f} TB of small",
        f"the page of {model['page_bytes'] >> 10} KiB",
        f"{small['segment'] * 8 / model['filter_bits']:.0f} times smaller than itself",
        "nine of ten known blobs",
    ):
        assert said in words, said
    assert model["elsewhere"] == 0.1


def test_a_simulation_comes_out_the_same_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def simulated(*options: str) -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", ["push_simulation.py", "--results", str(tmp_path), *options])
        push_simulation.main()
        found: dict[str, Any] = json.loads((tmp_path / "push_simulation.json").read_text())
        return found

    again = simulated()
    for part in ("model", "blobs", "vaults", "pushes", "goals"):
        assert again[part] == SIMULATED[part], f"{part}: run benchmarks/push_simulation.py"
    assert simulated("--seed", "2", "--rounds", "1")["pushes"] != SIMULATED["pushes"]


def test_what_a_push_reads_on_paper() -> None:
    """What can be said without drawing: the mean of balls in bins, of false positives, and the bounds of both."""
    for name, found in SIMULATED["pushes"].items():
        vault = SIMULATED["vaults"][name]
        blobs = SIMULATED["model"]["checkpoint_blobs"][name.split(", ")[1]]
        parts = round(vault["partitions"])
        expected = 1 + parts * (1 - (1 - 1 / parts) ** blobs)
        for share, ways in found.items():
            assert ways["partitions"]["requests"] == pytest.approx(expected, rel=0.01), (name, share)
            assert ways["first"]["bytes"] == pytest.approx(vault["segment bytes"], rel=0.001)
            assert ways["lineage"]["requests"] <= ways["filters"]["requests"] + SIMULATED["model"]["lineage_segments"]
        none = found["0%"]["filters"]
        said = none["requests"] - 1 - SIMULATED["model"]["pushes_since"]
        assert said == pytest.approx(blobs * SIMULATED["model"]["false_positives"], rel=0.25)


@pytest.mark.soak
def test_whoever_is_killed_while_it_puts_runs_together_leaves_an_index_that_is_right(tmp_path: Path) -> None:
    """Two processes at a time take in the same segments, and are killed at any moment; the last one reads all."""
    shape = dataclasses.replace(SHAPE, sessions=120, blobs=2000)
    make_vault(tmp_path / "vault", shape)
    store = open_store(str(tmp_path / "vault"))
    whole = Index(store, None, jobs=2)
    whole.refresh()
    expected = list(whole.all_entries())
    script = (
        "import sys\nfrom pathlib import Path\nfrom holdfast.objectstore.opening import open_store\n"
        "from holdfast.vault import index, index_file\nindex.ROWS_AT_ONCE, index_file.SHORT_ROWS = 4000, 1000\n"
        "print('begun', flush=True)\n"
        "index.Index(open_store(sys.argv[1]), Path(sys.argv[2]), jobs=2).refresh()"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "vault"), str(tmp_path / "cache/index")]
    chances = random.Random(5)
    ended = 0
    for _ in range(30):
        some = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
        for process in some:
            assert process.stdout is not None
            assert process.stdout.readline() == b"begun\n"
        time.sleep(chances.uniform(0, 1))
        for process in some:
            process.kill()
            ended += process.wait() == 0
            assert process.stdout is not None
            process.stdout.close()
        index = Index(store, tmp_path / "cache/index", jobs=2)
        known = {session: number for session, (number, _) in index._file.segments().items()}
        index.known = Known(known)
        assert {entry.pack[-32:] for entry in index.all_entries()} == known.keys()
        if len(known) == shape.sessions:
            index.refresh()
            assert list(index.all_entries()) == expected
            index.close()
            for path in (tmp_path / "cache").iterdir():
                path.unlink()
        else:
            index.close()
    assert ended < 60  # most were killed
    index = Index(store, tmp_path / "cache/index", jobs=2)
    index.refresh()
    assert list(index.all_entries()) == expected
    long = {f"index-{name}.run" for (name,) in index._file.rows("SELECT name FROM runs WHERE data IS NULL")}
    assert {path.name for path in (tmp_path / "cache").glob("*.run")} == long
    index.close()


@pytest.mark.soak
def test_the_benchmark_runs_small(tmp_path: Path) -> None:
    """Every step of benchmarks/index_scale.py, peers and all, in a vault of 100,000 blobs."""
    command = [sys.executable, str(BENCHMARKS / "index_scale.py"), "--blobs", "100000", "--small-segments", "20"]
    subprocess.run(
        [*command, "--results", str(tmp_path), "--folder", str(tmp_path)], check=True, stdout=subprocess.PIPE
    )
    results = json.loads((tmp_path / "index_scale.json").read_text())
    measured = results["measured"]
    assert {goal["met"] for goal in results["goals"].values()} == {None}  # they are for ten million
    assert set(measured["cold, 100,000 blobs"]["peers"]) == {"dict", "SQLite, appended", "SQLite, by id"}
    assert measured["requests, cold, 100,000 blobs"]["median"] == 4  # two lists, two segments
    assert measured["requests, warm, 100,000 blobs"]["median"] == 2
    assert measured["one more push, requests, 100,000 blobs"]["median"] == 3
    assert measured["blobs, 20 segments"]["median"] == 20 * (180 + 1) + 19 * 20
