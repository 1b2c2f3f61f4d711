"""Which commits count, and what is remembered of them: never anything else than a reader without memory would say."""

import hashlib
import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from history_worlds import make_history
from holdfast.errors import UsageError
from holdfast.repo import recordcache
from holdfast.repo.gitfolder import find_git_folder
from holdfast.repo.history import HistoryReader, Sighting, UnreadableDvcFileError
from holdfast.repo.refs import UnknownRevisionError
from holdfast.repo.roots import EVERYTHING, Roots
from worlds import World, environment, make_repository


def sightings(world: World, cache: Path | None = None, roots: Roots = EVERYTHING) -> list[Sighting]:
    """All that a reader says, in its order."""
    reader = HistoryReader(find_git_folder(world.root), cache)
    found = reader.read_workspace().sightings
    found += [*reader.read_refs(roots), *reader.read_index(), *reader.read_reflogs()]
    reader.close()
    return found


def texts(world: World, roots: Roots, known: dict[str, str]) -> list[str]:
    """What the chosen commits name, by the content that was stored."""
    reader = HistoryReader(find_git_folder(world.root))
    return sorted({known[sighting.out.oid] for sighting in reader.read_refs(roots)})


# --- which commits count ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, dict[str, str]]:
    """main: m0 – m4, a day apart; release/1 with r1 and release/2 with r2 from m1; v1 on m2, v2 on r1; experiment e2 –
    e1 – m3; origin/there with o1; a stash, a queued experiment, another worktree's detached head and a note."""
    world = make_repository(tmp_path_factory.mktemp("line"))
    known: dict[str, str] = {}

    def commit(text: str, day: int) -> str:
        known[world.track("data.csv", text)] = text
        world.git("add", "--all")
        stamp = f"2025-03-0{day}T12:00:00+0000"
        world.git("-c", "user.name=A", "commit", "-q", "-m", text)
        tree, parent = world.git("rev-parse", "HEAD^{tree}"), world.git("rev-parse", "HEAD^")
        script = f"GIT_COMMITTER_DATE={stamp} GIT_AUTHOR_DATE={stamp} git commit-tree {tree} -p {parent} -m {text}"
        done = subprocess.run(
            ["sh", "-c", script],
            cwd=world.root,
            env=environment(world.home),
            capture_output=True,
            text=True,
            check=True,
        )
        world.git("reset", "-q", "--hard", done.stdout.strip())
        return done.stdout.strip()

    ids = {f"m{number}": commit(f"m{number}", number + 1) for number in range(5)}
    for number, day in ((1, 6), (2, 7)):
        world.git("checkout", "-q", "-b", f"release/{number}", ids["m1"])
        ids[f"r{number}"] = commit(f"r{number}", day)
    world.git("tag", "v1", ids["m2"])
    world.git("tag", "-a", "-m", "two", "v2", ids["r1"])
    world.git("checkout", "-q", "--detach", ids["m3"])
    commit("e1", 6)
    last = commit("e2", 7)
    world.git("update-ref", f"refs/exps/{ids['m3'][:2]}/{ids['m3'][2:]}/brisk-owl", last)
    world.git("checkout", "-q", "--detach", ids["m0"])
    world.git("update-ref", "refs/remotes/origin/there", commit("o1", 8))
    world.git("checkout", "-q", "--detach", ids["m0"])
    world.git("update-ref", "refs/notes/kept", commit("n1", 2))
    world.git("checkout", "-q", "main")
    known[world.track("data.csv", "queued")] = "queued"
    world.git("update-ref", "--create-reflog", "-m", "q", "refs/exps/celery/stash", world.git("stash", "create"))
    world.git("checkout", "-q", ".")
    known[world.track("data.csv", "stashed")] = "stashed"
    world.git("stash", "-q")
    world.git("worktree", "add", "-q", "--detach", str(world.root.parent / "linked"), ids["m0"])
    linked = World(world.root.parent / "linked", world.home)
    oid = world.store("elsewhere")
    known[oid] = "elsewhere"
    linked.write("data.csv.dvc", f"outs:\n- md5: {oid}\n  size: 9\n  hash: md5\n  path: data.csv\n")
    linked.commit()
    return world, known


@pytest.mark.parametrize(
    ("roots", "expected"),
    [
        (Roots(), ""),
        (Roots(all_branches=True), "m4 r1 r2"),
        (Roots(all_branches=True, num=2), "m1 m3 m4 r1 r2"),
        (Roots(all_tags=True), "m2 r1"),
        (Roots(all_commits=True), "m0 m1 m2 m3 m4 o1 r1 r2"),
        (Roots(all_experiments=True), "e1 e2"),
        (Roots(date="2025-03-05"), "m4 o1 r1 r2"),
        (Roots(since=1_740_916_800), ""),  # 2025-03-02T12:00:00Z
        (Roots(date="2025-03-06", since=1_740_916_800), "o1 r1 r2"),
        (Roots(branches=("main",), since=1_740_916_800), "m1 m2 m3 m4"),
        (Roots(branches=("main",), since=1_740_916_801), "m2 m3 m4"),
        (Roots(branches=("release/2",), tags=("v1",), since=1_740_916_800), "m1 m2 r2"),
        (Roots(revisions=("release/1",), since=1_740_916_800), "m1 r1"),
        (Roots(revisions=("main",)), "m4"),
        (Roots(revisions=("main",), num=3), "m2 m3 m4"),
        (Roots(revisions=("main",), num=-1), "m0 m1 m2 m3 m4"),
        (Roots(revisions=("v2", "release/2~1")), "m1 r1"),
        (Roots(revisions=("there",), num=2), "o1"),
        (Roots(revisions=("brisk-owl",), num=2), "e2"),
        (Roots(branches=("main",)), "m4"),
        (Roots(branches=("release/*",)), "r1 r2"),
        (Roots(branches=("*",), without_branches=("release/2", "origin/*")), "m4 r1"),
        (Roots(branches=("origin/*",)), "o1"),
        (Roots(branches=("release/1",), behind=True), "m0 m1 r1"),
        (Roots(tags=("v*",), without_tags=("v2",)), "m2"),
        (Roots(tags=("v1",), behind=True), "m0 m1 m2"),
        (Roots(forgotten=True), "elsewhere m4 n1 queued stashed"),
        (EVERYTHING, "e1 e2 elsewhere m0 m1 m2 m3 m4 n1 o1 queued r1 r2 stashed"),
    ],
)
def test_selection(line: tuple[World, dict[str, str]], roots: Roots, expected: str) -> None:
    assert " ".join(texts(line[0], roots, line[1])) == expected


def test_best_origin_is_kept_in_a_selection(line: tuple[World, dict[str, str]]) -> None:
    world, known = line
    reader = HistoryReader(find_git_folder(world.root))
    found = {known[one.out.oid]: one.origin for one in reader.read_refs(Roots(all_commits=True, all_experiments=True))}
    shown = {text: f"{origin.kind} {origin.ref} {origin.back}" for text, origin in found.items()}
    assert shown["m4"] == "branch main 0"
    assert shown["m2"] == "tag v1 0"
    assert shown["m3"] == "history main 1"
    assert shown["e1"] == "history brisk-owl 1"
    assert shown["o1"] == "branch origin/there 0"


def test_revisions_that_are_none(line: tuple[World, dict[str, str]]) -> None:
    with pytest.raises(UnknownRevisionError, match="nowhere"):
        texts(line[0], Roots(revisions=("nowhere",)), line[1])
    with pytest.raises(UsageError, match="YYYY-MM-DD"):
        texts(line[0], Roots(date="5 March"), line[1])


# --- what is remembered -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[101, 104, 107])
def history(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    world = make_history(tmp_path_factory.mktemp("history"), request.param)
    world.git("add", "data", code=0) if (world.root / "data").exists() else None
    return world


def test_memory_says_what_was_read(history: World, tmp_path: Path) -> None:
    cache = tmp_path / "cache.sqlite"
    expected = sightings(history)
    assert len(expected) > 10
    assert sightings(history, cache) == expected
    assert sightings(history, cache) == expected


def test_memory_of_one_selection_serves_another(history: World, tmp_path: Path) -> None:
    cache = tmp_path / "cache.sqlite"
    for roots in (Roots(all_tags=True), Roots(all_branches=True), EVERYTHING, Roots(all_experiments=True), EVERYTHING):
        assert sightings(history, cache, roots) == sightings(history, None, roots)


def test_warm_reader_opens_no_object(history: World, tmp_path: Path) -> None:
    cache = tmp_path / "cache.sqlite"
    sightings(history, cache)
    script = (
        "import sys\nfrom pathlib import Path\nfrom holdfast.repo.gitfolder import find_git_folder\n"
        "from holdfast.repo.history import HistoryReader\n"
        f"reader = HistoryReader(find_git_folder(Path({str(history.root)!r})), Path({str(cache)!r}))\n"
        "found = [*reader.read_workspace().sightings, *reader.read_refs(), *reader.read_index(), *reader.read_reflogs()]\n"
        "print(len(found), 'pygit2' in sys.modules, 'yaml' in sys.modules)"
    )
    assert history.python(script) == f"{len(sightings(history))} False False"


def changes(world: World) -> Iterator[None]:
    """What happens to a repository between two runs."""
    chance = random.Random(1)
    for number in range(8):
        world.track(f"data/new-{number % 3}", f"new {chance.random()}")
        world.lock({"model.pt": f"model {number}"}, folder=f"deep/{number % 2}")
        if number % 3:
            world.commit()
        if number == 4:
            world.git("tag", "-a", "-m", "tag", "latest")
        if number == 5:
            world.git("commit", "-q", "--amend", "-m", "amended")
        if number == 6:
            world.git("stash", "-q", "-u")
        yield


def test_memory_grows_with_the_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recordcache, "MOST_BATCHES", 3)
    world = make_repository(tmp_path)
    cache = tmp_path / "cache.sqlite"
    counts = []
    for _ in changes(world):
        assert sightings(world, cache) == sightings(world)
        with sqlite3.connect(cache) as connection:
            counts.append(connection.execute("SELECT COUNT(*) FROM batches").fetchone()[0])
        connection.close()
    assert max(counts) == 3
    assert 1 in counts[3:]


def test_linked_files_are_remembered_with_their_commit(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    cache = tmp_path / "cache.sqlite"
    (world.root / "pipe").mkdir()
    (world.root / "pipe/dvc.lock").symlink_to("../real.txt")
    oids = []
    for number in range(3):
        oids += world.lock({"model.pt": f"model {number}"}, folder="elsewhere")
        (world.root / "elsewhere/dvc.lock").replace(world.root / "real.txt")
        world.commit()
        found = sightings(world, cache)
        assert found == sightings(world)
        assert {one.out.oid for one in found} == set(oids)


def test_a_lock_is_read_with_its_definition(tmp_path: Path) -> None:
    """The same lock beside another `dvc.yaml` names other objects."""
    world = make_repository(tmp_path)
    cache = tmp_path / "cache.sqlite"
    (oid,) = world.lock({"model.pt": "model"})
    written = (world.root / "dvc.yaml").read_text()
    world.write("dvc.yaml", written.replace("- model.pt", "- model.pt:\n          cache: false"))
    world.commit("not cached")
    assert sightings(world, cache) == sightings(world) == []
    world.write("dvc.yaml", written)
    world.commit("cached")
    world.git("rm", "-q", "dvc.yaml", "dvc.lock")
    world.commit("gone")
    assert [one.out.oid for one in sightings(world, cache)] == [oid]
    assert sightings(world, cache) == sightings(world)


@pytest.mark.parametrize(
    "damage",
    ["flip", "flip a batch", "truncate", "garbage", "schema", "hole", "staged", "answers", "no answers", "empty"],
)
def test_damaged_memory_is_made_anew(tmp_path: Path, damage: str) -> None:
    world = make_repository(tmp_path)
    cache = tmp_path / "cache.sqlite"
    for _ in changes(world):
        expected = sightings(world, cache)
    data = cache.read_bytes()
    with sqlite3.connect(cache) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        (payload,) = connection.execute("SELECT payload FROM batches WHERE number = 1").fetchone()
        if damage == "flip":  # another object, in a batch or an answer that reads well
            oid = expected[-1].out.oid.encode()
            other = bytes([oid[0] ^ 1]) + oid[1:]
            for table in ("batches", "answers"):
                rows = connection.execute(f"SELECT rowid, payload FROM {table}").fetchall()
                assert any(oid in row[1] for row in rows)
                for rowid, data_of_row in rows:
                    changed = (data_of_row.replace(oid, other), rowid)
                    connection.execute(f"UPDATE {table} SET payload = ? WHERE rowid = ?", changed)
        elif damage == "flip a batch":
            oid = expected[-1].out.oid.encode()
            for rowid, data_of_row in connection.execute("SELECT rowid, payload FROM batches").fetchall():
                changed = (data_of_row.replace(oid, bytes([oid[0] ^ 1]) + oid[1:]), rowid)
                connection.execute("UPDATE batches SET payload = ? WHERE rowid = ?", changed)
            connection.execute("DELETE FROM answers")
        elif damage == "schema":
            connection.execute("PRAGMA user_version = 7")
        elif damage == "hole":
            connection.execute("DELETE FROM batches WHERE number = 1")
            connection.execute("DELETE FROM answers")
        elif damage in ("staged", "answers"):
            connection.execute(f"UPDATE {damage} SET payload = ?", (payload[:16] + b"[]",))
        elif damage == "no answers":
            connection.execute("DELETE FROM answers")
        elif damage == "empty":  # the digest is right, what it stands for is not
            empty = hashlib.blake2b(b"{}", digest_size=16).digest()
            connection.execute("UPDATE answers SET payload = ?", (empty + b"{}",))
            connection.execute("UPDATE batches SET digest = ?, payload = ?", (empty, b"{}"))
    connection.close()
    if damage == "truncate":
        cache.write_bytes(data[: len(data) // 2])
    elif damage == "garbage":
        cache.write_bytes(b"no database\n" * 100)
    for suffix in ("-wal", "-shm"):
        Path(f"{cache}{suffix}").unlink(missing_ok=True)
    assert sightings(world, cache) == expected
    assert sightings(world, cache) == expected


def test_few_answers_are_kept(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    world.track("data.csv", "x")
    world.commit()
    cache = tmp_path / "cache.sqlite"
    for number in range(recordcache.MOST_KEPT + 5):
        choice = Roots(branches=(f"no-such-{number}",))
        assert sightings(world, cache, choice) == sightings(world, None, choice)
    with sqlite3.connect(cache) as connection:
        assert connection.execute("SELECT COUNT(*) FROM answers").fetchone() == (recordcache.MOST_KEPT,)
        before = connection.execute("SELECT place FROM answers ORDER BY place").fetchall()
    connection.close()
    # a limit that moves with the clock is never asked for again
    assert sightings(world, cache, Roots(since=1.5)) == sightings(world, None, Roots(since=1.5))
    with sqlite3.connect(cache) as connection:
        assert connection.execute("SELECT place FROM answers ORDER BY place").fetchall() == before
    connection.close()


def test_order_of_questions_does_not_matter(history: World, tmp_path: Path) -> None:
    """The index before the refs, two selections by one reader, the same one twice: as without memory."""
    cache = tmp_path / "cache.sqlite"
    for _ in range(3):
        remembering, plain = (HistoryReader(find_git_folder(history.root), place) for place in (cache, None))
        for ask in (
            lambda reader: reader.read_index(),
            lambda reader: reader.read_refs(Roots(all_tags=True)),
            lambda reader: reader.read_refs(),
            lambda reader: reader.read_refs(),
            lambda reader: reader.read_reflogs(),
        ):
            assert list(ask(remembering)) == list(ask(plain))
        assert remembering.reached == plain.reached
        remembering.close()
    for _ in range(2):
        remembering, plain = (HistoryReader(find_git_folder(history.root), place) for place in (cache, None))
        assert list(remembering.read_refs(Roots(all_tags=True))) == list(plain.read_refs(Roots(all_tags=True)))
        assert list(remembering.read_revision("HEAD")) == list(plain.read_revision("HEAD"))
        assert list(remembering.read_refs()) == list(plain.read_refs())
        assert list(remembering.read_index()) == list(plain.read_index())
        remembering.close()


def test_a_place_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    world.track("data.csv", "x")
    world.commit()
    (tmp_path / "file").write_text("")
    assert sightings(world, tmp_path / "file" / "cache.sqlite") == sightings(world)


def test_processes_at_once(history: World, tmp_path: Path) -> None:
    cache = tmp_path / "cache.sqlite"
    script = (
        "from pathlib import Path\nfrom holdfast.repo.gitfolder import find_git_folder\n"
        "from holdfast.repo.history import HistoryReader\n"
        "import sys\n"
        f"reader = HistoryReader(find_git_folder(Path({str(history.root)!r})), Path({str(cache)!r}))\n"
        "found = [*reader.read_workspace().sightings, *reader.read_refs(), *reader.read_index(), *reader.read_reflogs()]\n"
        "sys.stdin.read()\nreader.close()\nprint(len(found))"
    )
    options = {"env": environment(history.home), "stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    started = [subprocess.Popen([sys.executable, "-c", script], **options) for _ in range(4)]  # type: ignore[call-overload]
    try:
        # all have read before the first may write
        counts = [process.communicate(timeout=60)[0].strip() for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    expected = sightings(history)
    assert counts == [str(len(expected))] * 4
    assert sightings(history, cache) == expected
    with sqlite3.connect(cache) as connection:
        assert connection.execute("SELECT COUNT(*) FROM batches").fetchone() == (1,)
    connection.close()


def test_an_unreadable_file_is_named_each_time(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    world.write("dvc.lock", "stages: [")
    broken = world.commit("broken")
    (world.root / "dvc.lock").unlink()
    world.commit("mended")
    for _ in range(2):
        with pytest.raises(UnreadableDvcFileError, match=broken[:8]):
            sightings(world, tmp_path / "cache.sqlite")
