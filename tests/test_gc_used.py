"""The used set is that of DVC, on random histories and every way of choosing commits."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from history_worlds import make_history
from holdfast.repo.cache import object_path, read_members
from holdfast.repo.gitfolder import find_git_folder
from holdfast.repo.history import HistoryReader, UnreadableDvcFileError
from holdfast.repo.refs import read_tips
from holdfast.repo.roots import EVERYTHING, Roots
from holdfast.repo.used import MissingListingError, used_set
from holdfast.repo.workspace import Project, find_project
from worlds import World, environment, make_home, make_repository, run

DAY = "2025-01-04"
# ours, and the same for `Repo.used_objs` as dvc/repo/gc.py hands it on
SELECTIONS: list[tuple[Roots, dict[str, Any]]] = [
    (Roots(), {}),
    (Roots(all_branches=True), {"all_branches": True}),
    (Roots(all_branches=True, num=2), {"all_branches": True, "num": 2}),
    (Roots(all_tags=True), {"all_tags": True}),
    (Roots(all_commits=True), {"all_commits": True}),
    (Roots(all_experiments=True), {"all_experiments": True}),
    (Roots(date=DAY), {"commit_date": DAY}),
    (Roots(revisions=("HEAD",), num=3), {"revs": ["HEAD"], "num": 3}),
    (Roots(revisions=("HEAD~1",)), {"revs": ["HEAD~1"]}),
    (
        Roots(all_branches=True, all_tags=True, all_experiments=True, date=DAY),
        {"all_branches": True, "all_tags": True, "all_experiments": True, "commit_date": DAY},
    ),
]
USED_BY_DVC = """
import json, logging, sys
logging.disable(logging.WARNING)
from dvc.repo import Repo
result = []
for path, choices in json.load(sys.stdin):
    with Repo(path) as repo:
        for choice in choices:
            used = {}
            for odb, infos in repo.used_objs(force=True, **choice).items():
                name = "" if odb is None else odb.path.split("/files/")[0].rsplit("/", 1)[1]
                used.setdefault(name, set()).update((info.name, info.value) for info in infos)
            result.append({name: sorted(keys) for name, keys in used.items() if keys})
json.dump(result, sys.stdout)
"""


def ask_dvc(asked: list[tuple[World, list[dict[str, Any]]]]) -> Iterator[dict[str | None, set[tuple[str, str]]]]:
    """What DVC says of each world and choice, in one process."""
    done = subprocess.run(
        [sys.executable, "-c", USED_BY_DVC],
        input=json.dumps([[str(world.folder), choices] for world, choices in asked]),
        env=environment(asked[0][0].home),
        cwd=asked[0][0].root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for found in json.loads(done.stdout):
        yield {name or None: {(kind, oid) for kind, oid in keys} for name, keys in found.items()}


def compare(folder: Path, seeds: range, every: int) -> int:
    """Compare each history in one of ``every`` ways of choosing, in turn; the objects that were compared."""
    worlds = [make_history(folder / str(seed), seed) for seed in seeds]
    chosen = [SELECTIONS[seed % every :: every] for seed in seeds]
    answers = ask_dvc([(world, [choice for _, choice in some]) for world, some in zip(worlds, chosen, strict=True)])
    objects = 0
    for seed, world, some in zip(seeds, worlds, chosen, strict=True):
        project = find_project(world.folder)
        for roots, choice in some:
            expected = next(answers)
            found = used_set(project, roots, force=True)
            assert {key: keys for key, keys in found.items() if keys} == expected, f"seed {seed}, {choice}"
            objects += sum(map(len, expected.values()))
            kept = kept_by_reader(world, project, roots)
            assert set().union(*expected.values()) <= kept, f"seed {seed}, {choice}: the reader forgets objects"
    return objects


def kept_by_reader(world: World, project: Project, roots: Roots) -> set[tuple[str, str]]:
    """What `HistoryReader` finds in the same commits and in the workspace, folders expanded."""
    reader = HistoryReader(find_git_folder(project.git_root))
    sightings = [*reader.read_workspace().sightings, *reader.read_refs(roots)]
    found = {(one.out.hash_name, one.out.oid) for one in sightings}
    for hash_name, oid in [*found]:
        found.update((hash_name, member) for _, member in read_members(world.cache, hash_name, oid) or ())
    return found


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("DVC_SYSTEM_CONFIG_DIR", str(tmp_path / "none"))


def test_random_histories(tmp_path: Path) -> None:
    assert compare(tmp_path, range(20), 3) > 900


@pytest.mark.soak
def test_sixty_random_histories(tmp_path: Path) -> None:
    assert compare(tmp_path, range(60), 1) > 9000


def test_this_project(tmp_path: Path) -> None:
    """Its whole history, read in a clone, for the original may be at work."""
    top = Path(__file__).parent.parent
    if subprocess.run(["git", "-C", str(top), "rev-parse"], capture_output=True, check=False).returncode:
        pytest.skip("not in a git repository")
    world = World(tmp_path / "clone", make_home(tmp_path))
    run(["git", "clone", "-q", str(top), str(world.root)], tmp_path, world.home)
    choices = [SELECTIONS[0], SELECTIONS[3], SELECTIONS[4]]
    answers = ask_dvc([(world, [choice for _, choice in choices])])
    for roots, choice in choices:
        expected = next(answers)
        assert used_set(find_project(world.root), roots, force=True) == expected, choice
    assert expected[None]


def test_what_dvc_itself_writes(tmp_path: Path) -> None:
    """Imports, stages with every kind of out, experiments, one of them queued: by DVC's own commands."""
    source = make_repository(tmp_path / "source")
    source.write("shared.csv", "of the source")
    source.dvc("add", "-q", "shared.csv")
    source.commit()
    world = make_repository(tmp_path / "project")
    (tmp_path / "outside.csv").write_text("from a URL")
    world.dvc("import", "-q", str(source.root), "shared.csv", "-o", "imported.csv")
    world.dvc("import-url", "-q", str(tmp_path / "outside.csv"), "fetched.csv")
    world.write("params.yaml", "count: 2\nnames: [a, b]\n")
    world.write(
        "make.py",
        "import pathlib, sys\ncount, name = sys.argv[1:]\nout = pathlib.Path(f'out-{name}'); out.mkdir()\n"
        "for n in range(int(count)): (out / f'{n}.txt').write_text(f'{name} {count} {n}')\n"
        "pathlib.Path(f'{name}.json').write_text('{\"n\": %s}' % count)\n",
    )
    world.write(
        "dvc.yaml",
        "stages:\n  make:\n    foreach: ${names}\n    do:\n      cmd: python make.py ${count} ${item}\n"
        "      deps: [make.py, fetched.csv]\n      params: [count]\n      outs: ['out-${item}']\n"
        "      metrics:\n      - ${item}.json:\n          cache: false\n",
    )
    world.dvc("repro", "-q")
    first = world.commit()
    world.dvc("exp", "run", "-q", "-n", "larger", "-S", "count=3")
    world.git("reset", "-q", "--hard")
    world.dvc("checkout", "-q")
    world.dvc("exp", "run", "-q", "--queue", "-S", "count=9")
    world.write("params.yaml", "count: 2\nnames: [a]\n")  # a stage goes, its lock stays
    world.commit()
    choices = [
        *SELECTIONS,
        (Roots(revisions=("larger",)), {"revs": ["larger"]}),
        (Roots(revisions=(first[:7],)), {"revs": [first[:7]]}),
    ]
    answers = ask_dvc([(world, [choice for _, choice in choices])])
    for roots, choice in choices:
        assert used_set(find_project(world.root), roots) == next(answers), choice
    everything = kept_by_reader(world, find_project(world.root), EVERYTHING)
    names = {tip.ref for tip in read_tips(find_git_folder(world.root).repository)}
    assert {"larger", "queue@{0}"} <= names
    keys = {("md5", world.store(f"{name} 2 {n}")) for name in "ab" for n in range(2)}
    assert keys | {("md5", world.store("b 3 2")), ("md5", world.store("from a URL"))} <= everything
    now = used_set(find_project(world.root), Roots())[None]
    assert ("md5", world.store("b 2 0")) not in now
    assert ("md5", world.store("of the source")) not in now


def test_what_lies_in_an_out_is_none_of_the_pipeline(tmp_path: Path) -> None:
    """DVC does not look for its files in folders that are outs, in commits and in the workspace."""
    world = make_repository(tmp_path)
    world.lock({"models": "x"}, folder="a")
    world.write("a/dvc.yaml", "stages:\n  train:\n    cmd: make it\n    outs:\n    - models:\n        cache: false\n")
    inner = world.track("a/models/inner.bin", "inside of an out")
    outer = world.track("a/other/outer.bin", "beside it")
    world.commit()
    choices = [({}, Roots()), ({"all_commits": True}, Roots(all_commits=True))]
    answers = ask_dvc([(world, [choice for choice, _ in choices])])
    for _, roots in choices:
        found = used_set(find_project(world.root), roots)
        assert found == next(answers) == {None: {("md5", outer)}}
    assert inner != outer


def test_a_head_on_no_branch_counts_among_all_commits(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    world.git("checkout", "-q", "--detach")
    oid = world.track("data.csv", "on no branch")
    world.commit()
    world.git("rm", "-q", "data.csv.dvc")
    world.commit()
    choices = [({"all_commits": True}, Roots(all_commits=True)), ({"all_branches": True}, Roots(all_branches=True))]
    answers = ask_dvc([(world, [choice for choice, _ in choices])])
    found = [used_set(find_project(world.root), roots) for _, roots in choices]
    assert found == list(answers) == [{None: {("md5", oid)}}, {}]


def test_missing_listing_stops_unless_forced(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    oid = world.track("images", {"a.png": "a", "b.png": "b"})
    world.commit()
    project = find_project(world.root)
    assert len(used_set(project, Roots())[None]) == 3
    object_path(world.cache, "md5", oid).unlink()
    with pytest.raises(MissingListingError, match=rf"{oid[:8]}\.dir of images .*dvc fetch images"):
        used_set(project, Roots())
    assert used_set(project, Roots(), force=True) == {}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("stages:\n  t:\n    cmd: x\n    outs:\n    - ${gone}\n", "gone"),
        ("stages: [", "dvc.yaml"),
        ("stages:\n  t: 1\n", "mapping"),
    ],
)
def test_a_pipeline_that_cannot_be_read_is_named(tmp_path: Path, text: str, told: str) -> None:
    world = make_repository(tmp_path)
    world.write("dvc.yaml", text)
    world.commit("broken")
    (world.root / "dvc.yaml").unlink()
    assert used_set(find_project(world.root), Roots()) == {}
    with pytest.raises(UnreadableDvcFileError, match=rf"dvc\.yaml in commit .*{told}"):
        used_set(find_project(world.root), Roots(all_commits=True))


# --- what DVC forgets ---------------------------------------------------------------------------------------------


def test_what_dvc_forgets_is_kept(tmp_path: Path) -> None:
    """Each on its own, and in none of DVC's selections."""
    world = make_repository(tmp_path)
    world.track("data.csv", "committed")
    base = world.commit()

    def dirty(text: str) -> str:
        return world.track("data.csv", text)

    forgotten = {"staged part of a stash": dirty("staged, then stashed")}
    world.git("add", "data.csv.dvc")
    forgotten["stash"] = dirty("stashed")
    world.git("stash", "-q")
    forgotten["untracked part of a stash"] = world.track("new.csv", "untracked, then stashed")
    world.git("stash", "-q", "-u")
    for place in ("refs/exps/celery/stash", "refs/exps/celery/failed"):
        for number in range(2):
            forgotten[f"{place}@{number}"] = dirty(f"{place} {number}")
            world.git("update-ref", "--create-reflog", "-m", "queued", place, world.git("stash", "create"))
            world.git("checkout", "-q", ".")
    forgotten["a stage that dvc.yaml no longer has"] = world.lock({"gone.bin": "gone"}, stage="gone")[0]
    world.write("dvc.yaml", "stages: {}\n")
    world.commit()
    world.git("checkout", "-q", "--detach", base)
    forgotten["note"] = dirty("on a note")
    world.git("update-ref", "refs/notes/x", world.commit())
    world.git("checkout", "-q", "main")
    linked = World(tmp_path / "linked", world.home)
    world.git("worktree", "add", "-q", "--detach", str(linked.root), base)
    forgotten["worktree head"] = world.store("detached")
    linked.write("data.csv.dvc", f"outs:\n- md5: {world.store('detached')}\n  hash: md5\n  path: data.csv\n")
    linked.commit()
    forgotten["dirty worktree"] = world.store("dirty elsewhere")
    linked.write("data.csv.dvc", f"outs:\n- md5: {world.store('dirty elsewhere')}\n  hash: md5\n  path: data.csv\n")
    forgotten["index"] = dirty("staged")
    world.git("add", "data.csv.dvc")
    dirty("committed")
    project = find_project(world.root)
    of_dvc = set().union(*(keys for roots, _ in SELECTIONS for keys in used_set(project, roots).values()))
    reader = HistoryReader(find_git_folder(world.root))
    kept = {one.out.oid for one in (*reader.read_workspace().sightings, *reader.read_refs(), *reader.read_index())}
    alone = {one.out.oid for one in HistoryReader(find_git_folder(world.root)).read_refs(Roots(forgotten=True))}
    for what, oid in forgotten.items():
        assert oid in kept, what
        assert oid in alone or what in ("a stage that dvc.yaml no longer has", "dirty worktree", "index"), what
        assert ("md5", oid) not in of_dvc, what
