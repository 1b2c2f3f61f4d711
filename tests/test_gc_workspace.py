"""The scope ``workspace``: what a clean-up would take, what it keeps for whom, and that what is safe loses nothing."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import torch

from cleanup_world import WORLDS, Arguments, make_cleanup
from holdfast.formats.cache import DigestCache
from holdfast.gc.planned import Found, PlannedObject
from holdfast.gc.policy import Policy
from holdfast.gc.workspace import find_workspace
from holdfast.inventory.config import ConfigError
from holdfast.removal.folder import FolderPlace
from holdfast.repo.history import UnreadableDvcFileError
from holdfast.repo.workspace import find_project
from worlds import World, make_repository

PLACES = [(WORLDS[0], "publication_packages"), (WORLDS[1], "handover_kits")]
LATER = timedelta(days=30)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_repository(tmp_path)


def look(
    world: World, *, accept: Sequence[str] = (), age: timedelta = LATER, policy: Policy | None = None, **more: object
) -> Found:
    now = datetime.now(timezone.utc) + age
    cache = more.pop("cache", None) or DigestCache(None)
    assert isinstance(cache, DigestCache)
    return find_workspace(find_project(world.folder), policy or Policy(), cache, now=now, accept=accept)


def fates(found: Found) -> dict[str, tuple[str, str]]:
    return {line.path: (line.tier, line.reason) for line in found.objects}


def line(found: Found, path: str) -> PlannedObject:
    (result,) = [item for item in found.objects if item.path == path]
    return result


def going(found: Found) -> list[PlannedObject]:
    return [item for item in found.objects if item.tier == "remove"]


def sizes(paths: Iterator[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file())


def contents(root: Path) -> dict[str, str]:
    """The digest of each file outside of git's and DVC's folders, by path."""
    files = (path for path in root.rglob("*") if path.is_file() and not {".git", ".dvc"} & set(path.parts))
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize(("arguments", "packages"), PLACES)
def test_the_first_world(tmp_path: Path, arguments: Arguments, packages: str) -> None:
    _, main, other, folder, ext = arguments
    world = make_cleanup(tmp_path, arguments, packages)
    found = look(world)
    copies = sizes((world.root / packages).rglob("*"))
    secondary = sorted((world.root / folder).glob(f"*_{other}.{ext}"))
    assert len([path for path in (world.root / packages).rglob("*") if path.is_file()]) == 205

    removed = {item.path: item for item in going(found)}
    caches = {path.parent for path in world.root.rglob("*.pyc")}
    assert removed.keys() == {packages, *(path.relative_to(world.root).as_posix() for path in caches)}
    assert (removed[packages].size, removed[packages].last_copy) == (copies, False)
    assert sum(item.size for item in removed.values()) == copies + sizes(world.root.rglob("*.pyc"))

    decisions = [item for item in found.objects if item.reason == "decision" and item.path.startswith(f"{folder}/")]
    assert {item.path for item in decisions} == {path.relative_to(world.root).as_posix() for path in secondary}
    assert sum(item.size for item in decisions) == sizes(iter(secondary))
    users = {place for item in decisions for place in item.users}
    assert len(users) == 6
    assert {place.partition(":")[0] for place in users} == {"analysis/a.py", "analysis/verify.py", "analysis/list.py"}
    # each of them names the family, by itself or with unknown parts
    for place in users:
        script, _, number = place.partition(":")
        assert f"_{other}.{ext}" in (world.root / script).read_text().splitlines()[int(number) - 1]
    primary = {path.relative_to(world.root).as_posix() for path in (world.root / folder).glob(f"*_{main}.{ext}")}
    assert primary.isdisjoint(fates(found))


@pytest.mark.parametrize(("arguments", "packages"), PLACES)
def test_what_is_accepted_goes_and_nothing_else(tmp_path: Path, arguments: Arguments, packages: str) -> None:
    _, _, other, folder, ext = arguments
    world = make_cleanup(tmp_path, arguments, packages)
    before, after = look(world), look(world, accept=[f"{folder}/*_{other}.{ext}"])
    changed = {path for path, fate in fates(after).items() if fate != fates(before)[path]}
    assert changed == {f"{folder}/{path.name}" for path in (world.root / folder).glob(f"*_{other}.{ext}")}
    for path in changed:
        item = line(after, path)
        assert (item.tier, item.reason, item.last_copy) == ("remove", "secondary", True)
        assert item.users == line(before, path).users != ()
    uses = {name for name, _ in after.inputs} - {name for name, _ in before.inputs}
    assert uses == {f"what uses {path}" for path in changed}
    assert before.inputs == after.inputs[:1]
    assert before == look(world)


@pytest.mark.parametrize(("arguments", "packages"), PLACES)
def test_what_is_safe_loses_nothing_and_comes_back(tmp_path: Path, arguments: Arguments, packages: str) -> None:
    world = make_cleanup(tmp_path, arguments, packages)
    before = contents(world.root)
    paths = [item.path for item in going(look(world))]
    place = FolderPlace(world.root, tmp_path / "waiting")
    things = place.look(paths)
    assert {key: thing.size for key, thing in things.items()} == {i.path: i.size for i in going(look(world))}
    place.take("ab" * 16, b"plan", list(things.values()))
    rest = contents(world.root)
    lost = set(before.values()) - set(rest.values())
    assert lost == {digest for path, digest in before.items() if path.endswith(".pyc")}
    assert not (world.root / packages).exists()
    assert going(look(world)) == []
    place.restore("ab" * 16)
    assert contents(world.root) == before


def test_nothing_that_is_young_goes(tmp_path: Path) -> None:
    world = make_cleanup(tmp_path, WORLDS[0])
    fresh = look(world, age=timedelta(days=13))
    assert going(fresh) == []
    assert fates(fresh)["publication_packages"] == ("keep", "young")
    assert fates(fresh)["__pycache__"] == ("keep", "young")
    assert "younger than 14 days" in line(fresh, "publication_packages").why
    assert fates(look(world, age=timedelta(days=15)))["publication_packages"] == ("remove", "copies")
    short = Policy(minimum_age=timedelta(hours=1))
    assert fates(look(world, age=timedelta(hours=2), policy=short))["publication_packages"] == ("remove", "copies")
    # one new file in it, and the whole waits; its mtime says otherwise
    soon = (datetime.now(timezone.utc) + timedelta(days=20)).timestamp()
    os.utime(world.root / "publication_packages/submission_1/Makefile", (soon, soon))
    assert fates(look(world))["publication_packages"] == ("keep", "young")
    os.utime(world.root / "publication_packages/submission_1/Makefile", (0, 0))  # an old mtime makes nothing old
    assert fates(look(world, age=timedelta(days=13)))["publication_packages"] == ("keep", "young")
    assert fates(look(world))["publication_packages"] == ("remove", "copies")


def plant_kit(world: World, folder: str = "kit", count: int = 4) -> None:
    for number in range(count):
        world.write(f"file_{number}.csv", f"text {number}")
        world.write(f"{folder}/file_{number}.csv", f"text {number}")


def test_what_only_a_folder_holds_needs_a_decision(world: World) -> None:
    plant_kit(world, count=9)
    assert fates(look(world)) == {"kit": ("remove", "copies")}
    world.write("kit/own.csv", "its own")
    assert fates(look(world)) == {"kit": ("keep", "decision")}
    assert "1 of 10 files lie nowhere else" in line(look(world), "kit").why
    accepted = line(look(world, accept=["/kit/"]), "kit")
    assert (accepted.tier, accepted.last_copy) == ("remove", True)


def test_two_backups_of_one_another_do_not_both_go(world: World) -> None:
    for place in ("backup_1", "backup_2"):
        for number in range(4):
            world.write(f"{place}/file_{number}.txt", f"text {number}")
    assert fates(look(world)) == {"backup_1": ("remove", "copies"), "backup_2": ("keep", "decision")}
    # what people name goes first, and the other is what stays
    both = look(world, accept=["backup_2/"])
    assert fates(both) == {"backup_1": ("keep", "decision"), "backup_2": ("remove", "copies")}
    assert line(both, "backup_2").last_copy is False
    everything = look(world, accept=["backup_*/"])
    assert fates(everything) == {"backup_1": ("remove", "copies"), "backup_2": ("remove", "copies")}
    assert [item.last_copy for item in everything.objects] == [True, True]


@pytest.mark.parametrize(
    ("user", "text", "place"),
    [
        ("run.py", "\nopen('kit/file_1.csv')\n", "run.py:2"),
        ("tools/run.py", "import os\nopen(os.path.join('..', 'kit', 'file_1.csv'))\n", "tools/run.py:2"),
        ("conf.yaml", "data: kit\n", "conf.yaml:1"),
        ("dvc.yaml", "stages:\n  a:\n    cmd: x\n    deps:\n    - kit/file_1.csv\n", "dvc.yaml:5"),
        ("sub/dvc.yaml", "stages:\n  a:\n    cmd: x\n    deps:\n    - ../kit\n", "sub/dvc.yaml:5"),
        ("dvc.lock", "schema: '2.0'\nstages:\n  a:\n    cmd: x\n    deps:\n    - path: kit/file_1.csv\n", "dvc.lock:6"),
    ],
)
def test_what_is_named_needs_a_decision(world: World, user: str, text: str, place: str) -> None:
    plant_kit(world)
    world.write("other.py", "toolkit = open('kit_2/x')\n")
    world.write("README.md", "see kit/\n")
    assert fates(look(world)) == {"kit": ("remove", "copies")}
    world.write(user, text)
    found = look(world)
    assert fates(found) == {"kit": ("keep", "decision")}
    assert line(found, "kit").users == (place,)
    accepted = look(world, accept=["kit/"])
    assert fates(accepted) == {"kit": ("remove", "copies")}
    assert [name for name, _ in accepted.inputs] == ["the rules for the workspace", "what uses kit"]


def test_rules_are_no_uses(world: World) -> None:
    plant_kit(world, "spare")
    world.write("holdfast.yaml", "scan:\n  backup: [spare/]\nworkspace:\n  remove: [drafts/]\n")
    world.write("drafts/text.bin", "x")
    assert fates(look(world)) == {"drafts": ("remove", "declared"), "spare": ("remove", "copies")}


def test_a_plan_in_the_project_is_no_use_of_anything(world: World) -> None:
    plant_kit(world, "spare")
    plan = {"format": "holdfast gc plan 2", "objects": [{"path": "spare"}]}
    world.write("plan.json", json.dumps(plan, indent=2))
    assert fates(look(world)) == {"spare": ("remove", "copies")}
    world.write("plan.json", json.dumps(plan | {"format": "another tool's"}, indent=2))
    assert fates(look(world)) == {"spare": ("keep", "decision")}


def test_a_link_into_a_folder_is_a_use_of_it(world: World) -> None:
    plant_kit(world)
    (world.root / "kit" / "inner").symlink_to("file_1.csv")
    assert fates(look(world)) == {"kit": ("remove", "copies")}
    (world.root / "latest").symlink_to("kit/file_2.csv")
    assert line(look(world), "kit").users == ("latest",)
    (world.root / "latest").unlink()
    (world.root / "outside").symlink_to(world.root.parent)
    (world.root / "nowhere").symlink_to("kit/gone")
    assert fates(look(world)) == {"kit": ("remove", "copies")}


def test_what_dvc_has_is_dvcs(world: World) -> None:
    plant_kit(world, count=14)
    world.track("kit/file_3.csv", "text 3")
    world.write("kit/dvc.yaml", "stages:\n  a:\n    cmd: x\n    outs:\n    - file_4.csv\n    - new: {cache: false}\n")
    world.write("kit/new", "made by a stage that never ran")
    found = look(world)
    kept = {item.path: item.why for item in found.objects if item.reason == "dvc"}
    assert kept.keys() == {f"kit/{name}" for name in ("file_3.csv", "file_3.csv.dvc", "file_4.csv", "dvc.yaml", "new")}
    assert kept["kit/file_3.csv"] == "DVC has it by kit/file_3.csv.dvc: `dvc remove` is for that"
    assert {item.path for item in going(found)} == {
        f"kit/file_{number}.csv" for number in range(14) if number not in (3, 4)
    }
    assert going(look(world, accept=["*"])) == going(found)
    world.write("kit/dvc.yaml", "stages: [")
    with pytest.raises(UnreadableDvcFileError, match=r"kit/dvc\.yaml cannot be read"):
        look(world)


def test_what_git_tracks_says_so(world: World) -> None:
    plant_kit(world)
    world.commit("all")
    item = line(look(world), "kit")
    assert (item.tier, item.last_copy) == ("remove", False)
    assert "git tracks all: `git status` will show that" in item.why
    for number in range(4):
        (world.root / f"file_{number}.csv").unlink()
    # nothing but its commit has it now, and nothing but its name says that it is a copy
    (world.root / "kit").rename(world.root / "old")
    world.commit("moved")
    item = line(look(world), "old")
    assert (item.tier, item.reason, item.last_copy) == ("keep", "decision", False)
    assert "git tracks it, and only its name speaks for it" in item.why
    world.write("old/file_1.csv", "changed since the commit")
    item = line(look(world), "old")
    assert (item.reason, item.last_copy) == ("decision", True)
    assert "1 of 4 files lie nowhere else" in item.why


def test_what_the_registry_names_stays(world: World) -> None:
    plant_kit(world)
    (world.root / "kit").rename(world.root / "backup")
    oid = hashlib.md5(b"text 2", usedforsecurity=False).hexdigest()
    model = "schema: 1\ncurrent: v1\naliases: {}\n"
    version = (
        f'schema: 1\npath: backup/file_2.csv\noid: "{oid}"\nsize: 6\nweights: "blake3:{"0" * 64}"\n'
        'date: "2026-11-20"\nsource: {}\nparams: {}\nmetrics: {}\n'
    )
    world.write("registry/a/b/model.yaml", model)
    world.write("registry/a/b/v1.yaml", version)
    found = look(world, accept=["*"])
    assert fates(found)["backup/file_2.csv"] == ("keep", "registry")
    assert {item.path for item in going(found)} == {f"backup/file_{number}.csv" for number in (0, 1, 3)}


def test_rules_of_people(world: World) -> None:
    for place in ("drafts/a", "drafts/b", "final"):
        for number in range(3):
            world.write(f"{place}/text_{number}.bin", f"{place} {number}")
    world.write("final/.gitignore", "x")
    world.write("holdfast.yaml", "workspace:\n  remove: [drafts/**, final/*]\n  keep: [drafts/b/text_1.bin]\n")
    found = look(world, accept=["*"])
    assert fates(found) == {
        "drafts/a": ("remove", "declared"),
        "drafts/b/text_0.bin": ("remove", "declared"),
        "drafts/b/text_1.bin": ("keep", "rule"),
        "drafts/b/text_2.bin": ("remove", "declared"),
        "final/.gitignore": ("keep", "rule"),
        "final/text_0.bin": ("remove", "declared"),
        "final/text_1.bin": ("remove", "declared"),
        "final/text_2.bin": ("remove", "declared"),
    }
    assert all(item.last_copy for item in going(found))
    world.write("use.py", "open('drafts/a/text_1.bin')\n")
    used = look(world)
    assert line(used, "drafts/a/text_1.bin").users == ("use.py:1",)
    assert fates(used)["drafts/a/text_1.bin"] == ("keep", "decision")
    assert fates(used)["drafts/a/text_0.bin"] == ("remove", "declared")
    world.write("use.py", "import glob\nos.listdir('drafts/a')\n")
    assert len([item for item in look(world).objects if item.users == ("use.py:2",)]) == 3
    world.write("holdfast.yaml", "workspace:\n  keep: ['**']\n")
    assert look(world).objects == ()


def test_mistakes_in_the_rules(world: World) -> None:
    world.write("holdfast.yaml", "workspace:\n  remove: [a]\n  keeps: [b]\n")
    with pytest.raises(ConfigError, match=r"holdfast\.yaml:3: workspace\.keeps is no setting") as error:
        look(world)
    assert error.value.hint == "Did you mean keep?"
    world.write("holdfast.yaml", "workspace:\n  remove: a\n")
    with pytest.raises(ConfigError, match="must be a list of texts"):
        look(world)
    (world.root / "holdfast.yaml").unlink()
    assert look(world, accept=["models/*.pth"]).notes == ("--accept models/*.pth names nothing that could go",)


def test_caches_that_do_not_come_again(world: World) -> None:
    code = b"\xa7\r\r\n" * 25
    for path in ("a.py", "lib/b.py", "look.ipynb"):
        world.write(path, "{}")
    for path in ("__pycache__/a.pyc", "__pycache__/a.nbi", "lib/b.pyc", "lib/alone.pyc", "gone/__pycache__/c.pyc"):
        world.write(path, code)
    world.write("gone/__pycache__/thesis.txt", "not again")
    world.write(".ipynb_checkpoints/look-checkpoint.ipynb", "{}")
    world.write(".ipynb_checkpoints/lost-checkpoint.ipynb", "{}")
    world.write(".pytest_cache/v/lastfailed", "{}")
    found = look(world)
    assert {path for path, fate in fates(found).items() if fate == ("remove", "cache")} == {
        "__pycache__",
        "lib/b.pyc",
        "gone/__pycache__/c.pyc",
        ".ipynb_checkpoints/look-checkpoint.ipynb",
        ".pytest_cache",
    }
    whys = {path: line(found, path).why for path, fate in fates(found).items() if fate == ("keep", "decision")}
    assert whys == {
        "lib/alone.pyc": "in the cache of a tool: its source is gone; it does not come again",
        "gone/__pycache__/thesis.txt": "in the cache of a tool: it is no byte code; it does not come again",
        ".ipynb_checkpoints/lost-checkpoint.ipynb": (
            "in the cache of a tool: its original is gone; it does not come again"
        ),
    }
    assert all(item.last_copy is None for item in going(found))


def test_single_copies(world: World) -> None:
    torch.save({"w": torch.ones(9)}, world.root / "best.pth")
    data = (world.root / "best.pth").read_bytes()
    world.write("keep/train.py", "x = 1\n")
    for path, what in (("best.pth.bak", data), ("elsewhere.orig", b"other"), ("keep/train.py~", b"x = 1\n")):
        world.write(path, what)
    world.write("keep/copy.py", "")  # a word alone says nothing of what is no model
    world.write("used.bak", data)
    world.write("run.py", "open('used.bak')\n")
    found = look(world)
    assert {path: fate for path, fate in fates(found).items() if path != "best.pth"} == {
        "best.pth.bak": ("remove", "orphan"),
        "elsewhere.orig": ("keep", "decision"),
        "keep/train.py~": ("remove", "orphan"),
        "used.bak": ("keep", "decision"),
    }
    assert line(found, "used.bak").users == ("run.py:1",)
    assert line(found, "elsewhere.orig").last_copy is True


def test_equal_models(world: World) -> None:
    torch.save({"w": torch.ones(9)}, world.root / "a.pt")
    data = (world.root / "a.pt").read_bytes()
    world.write("b.pt", data)
    world.write("serving/model.pt", data)
    world.write("serving/vocabulary.txt", "beside it")
    world.write("alone/model.pt", data)
    world.write("run.py", "load('b.pt')\n")
    found = look(world)
    assert fates(found) == {
        "a.pt": ("remove", "duplicate"),
        "alone/model.pt": ("remove", "duplicate"),
        "serving/model.pt": ("keep", "decision"),
    }
    assert "what lies beside it may need it" in line(found, "serving/model.pt").why
    assert line(found, "a.pt").last_copy is False


def test_a_file_that_changes_while_it_is_looked_at_stays(world: World) -> None:
    plant_kit(world)
    target = world.root / "kit" / "file_1.csv"
    reads, last = 0, -1

    def clock() -> int:
        # asked after each file that was read
        nonlocal reads
        reads += 1
        if reads == last:
            target.write_text("written meanwhile")
        return 2**62

    assert fates(look(world, cache=DigestCache(None, clock))) == {"kit": ("remove", "copies")}
    reads, last = 0, reads
    assert fates(look(world, cache=DigestCache(None, clock))) == {"kit": ("keep", "changed")}
    assert reads == last


def test_a_project_in_a_folder_of_its_repository(tmp_path: Path) -> None:
    world = make_repository(tmp_path, project="models/app")
    for number in range(4):
        world.write(f"models/app/file_{number}.csv", f"text {number}")
        world.write(f"models/app/kit/file_{number}.csv", f"text {number}")
        world.write(f"elsewhere/file_{number}.csv", f"else {number}")
        world.write(f"elsewhere/kit/file_{number}.csv", f"else {number}")
    assert fates(look(world)) == {"kit": ("remove", "copies")}
    world.write("scripts/run.py", "open('models/app/kit/file_1.csv')\n")
    assert line(look(world), "kit").users == ("../../scripts/run.py:1",)
    world.write("scripts/run.py", "")
    world.write("models/app/run.py", "open('kit/file_1.csv')\n")
    assert line(look(world), "kit").users == ("run.py:1",)
    assert fates(look(world, accept=["kit/"])) == {"kit": ("remove", "copies")}
    world.write("models/app/holdfast.yaml", "workspace: {keep: [kit/**]}\n")
    assert fates(look(world)) == {"kit": ("keep", "rule")}
