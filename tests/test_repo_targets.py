"""What a selection of targets means: the same objects that DVC itself would push and fetch; and a path's lineage."""

import shutil
from pathlib import Path

import pytest
from dvc.repo import Repo
from dvc.utils import glob_targets

from holdfast.errors import HoldfastError, LockedError, PartlyDoneError, UsageError
from holdfast.repo.cache import object_path
from holdfast.repo.dvc import Selection, UsedObject, checkout
from holdfast.repo.lineage import read_lineage
from holdfast.repo.selection import used_objects
from holdfast.repo.workspace import Project, find_project
from worlds import World, make_repository

# DVC 3.67 asks its own dependency for something deprecated
pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep:DeprecationWarning")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A pipeline of two stages, a folder, files, outs that are no one's business; two commits, a branch, a tag."""
    world = make_repository(tmp_path_factory.mktemp("targets"))
    world.write(
        "dvc.yaml",
        "stages:\n"
        "  prepare:\n    cmd: mkdir -p data/sub && cp in.txt data/a.txt && cp in.txt data/sub/b.txt && date > out.log\n"
        "    deps: [in.txt]\n    outs:\n    - data\n    - out.log:\n        push: false\n"
        "  train:\n    cmd: cat data/a.txt in.txt > model.pt && echo '{}' > metrics.json\n"
        "    deps: [data]\n    outs: [model.pt]\n    metrics:\n    - metrics.json:\n        cache: false\n",
    )
    for number in (1, 2):
        world.write("in.txt", f"version {number}\n")
        world.write("extra/one.bin", f"one, {number}")
        world.dvc("repro", "-q")
        world.dvc("add", "-q", "extra/one.bin")
        world.commit(f"version {number}")
        world.git("tag", f"v{number}")
    world.git("checkout", "-q", "-b", "side")
    world.write("in.txt", "aside\n")
    world.dvc("repro", "-q")
    world.commit("aside")
    world.git("checkout", "-q", "main")
    world.dvc("checkout", "-q")
    return world


SELECTIONS = [
    Selection(),
    Selection(("train",)),
    Selection(("train",), with_deps=True),
    Selection(("data",)),
    Selection(("data/sub",)),
    Selection(("data/a.txt",)),
    Selection(("extra/one.bin.dvc",)),
    Selection(("extra",), recursive=True),
    Selection(("extra/*.bin",), glob=True),
    Selection(("dvc.yaml",)),
    Selection(all_tags=True),
    Selection(all_branches=True),
    Selection(all_commits=True),
    Selection(("model.pt",), all_commits=True),
]


def as_dvc_says(root: Path, selection: Selection, *, push: bool) -> set[tuple[str, str]]:
    with Repo(str(root)) as repo:
        used = repo.used_objs(
            glob_targets(list(selection.targets), glob=selection.glob) or None,
            all_branches=selection.all_branches,
            all_tags=selection.all_tags,
            all_commits=selection.all_commits,
            with_deps=selection.with_deps,
            recursive=selection.recursive,
            push=push,
            skip_failed=True,
        )
    return {(str(info.name), str(info.value)) for infos in used.values() for info in infos}


@pytest.mark.parametrize("push", [False, True])
@pytest.mark.parametrize("selection", SELECTIONS, ids=str)
def test_the_same_as_dvc(world: World, selection: Selection, push: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world.folder)
    used = used_objects(find_project(world.folder), selection, for_push=push)
    found = [(item.hash_name, item.oid) for item in used.objects]
    wanted = as_dvc_says(world.folder, selection, push=push)
    if selection.targets in (("data/sub",), ("data/a.txt",)):
        # DVC names the part of the folder as a folder of its own, which is nowhere; the listing of all of it is needed
        wanted = {key for key in wanted if not key[1].endswith(".dir")}
        found = [key for key in found if not key[1].endswith(".dir")]
    assert len(found) == len(set(found))
    assert set(found) == wanted
    assert used.missing == []


def test_paths_and_order(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world.folder)
    used = used_objects(find_project(world.folder), Selection())
    assert used.objects[0].oid.endswith(".dir")
    assert {item.path for item in used.objects} >= {"data", "data/a.txt", "model.pt", "extra/one.bin"}


def test_a_missing_listing_is_asked_for(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(world.root, copy, symlinks=True)
    monkeypatch.chdir(copy)
    whole = used_objects(find_project(copy), Selection())
    listing = whole.objects[0]
    path = object_path(copy / ".dvc/cache", listing.hash_name, listing.oid)
    data = path.read_bytes()
    path.unlink()
    lost = used_objects(find_project(copy), Selection())
    assert [item.oid for item in lost.missing] == [listing.oid]
    assert not [item for item in lost.objects if item.path.startswith("data")]
    asked: list[UsedObject] = []

    def bring(items: list[UsedObject]) -> None:
        asked.extend(items)
        path.write_bytes(data)

    assert used_objects(find_project(copy), Selection(), bring=bring) == whole
    assert [item.oid for item in asked] == [listing.oid]


def test_what_is_no_target(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world.folder)
    with pytest.raises(UsageError, match="nowhere"):
        used_objects(find_project(world.folder), Selection(("nowhere",)))
    with pytest.raises(UsageError, match="nowhere"):
        checkout(world.folder, Selection(("nowhere",)))


def test_checkout(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(world.root, copy, symlinks=True)
    monkeypatch.chdir(copy)
    shutil.rmtree(copy / "data")
    (copy / "model.pt").unlink()
    done = checkout(copy, Selection())
    assert {name.rstrip("/") for name in done.added} == {"data", "model.pt"}
    assert (copy / "data/sub/b.txt").read_text() == "version 2\n"
    (copy / "model.pt").unlink()
    (copy / "model.pt").write_text("mine, and nowhere else")
    with pytest.raises(HoldfastError, match=r"model\.pt"):
        checkout(copy, Selection())
    assert (copy / "model.pt").read_text() == "mine, and nowhere else"
    assert checkout(copy, Selection(), force=True).modified == ("model.pt",)
    for item in used_objects(find_project(copy), Selection()).objects:
        object_path(copy / ".dvc/cache", item.hash_name, item.oid).unlink(missing_ok=True)
    (copy / "model.pt").unlink()
    with pytest.raises(PartlyDoneError, match=r"model\.pt"):
        checkout(copy, Selection())


def test_a_lock_is_told(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(world.root, copy, symlinks=True)
    monkeypatch.chdir(copy)
    with Repo(str(copy)) as repo, repo.lock, pytest.raises(LockedError, match="another DVC process"):
        used_objects(find_project(copy), Selection(("model.pt",)))


def test_lineage(world: World) -> None:
    lineage = read_lineage(Project(world.folder, world.root), world.cache)
    model = lineage.versions["model.pt"]
    assert len(model) == 3
    newest = used_objects(find_project(world.folder), Selection()).objects
    (key,) = [(item.hash_name, item.oid) for item in newest if item.path == "model.pt"]
    assert model[0] == key
    first = lineage.older(key)[-1]
    assert lineage.older(first) == []
    assert lineage.newer(key) == []
    assert lineage.newer(first)[-1] == key
    assert lineage.oldest_first([key, first]) == [first, key]
    assert lineage.oldest_first([("md5", "unknown"), first]) == [first, ("md5", "unknown")]
    # members of a folder that changed have their own history; both were copies of one text
    assert lineage.versions["data/a.txt"] == lineage.versions["data/sub/b.txt"]
    assert len(lineage.versions["data/a.txt"]) == 3
    assert set(lineage.paths[lineage.versions["data/a.txt"][0]]) == {"data/a.txt", "data/sub/b.txt"}
