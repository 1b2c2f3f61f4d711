"""The inventory of model files: which there are, who uses them, what they are to the project; what is remembered."""

import csv
import io
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from cleanup_world import WORLDS, Arguments, plant_cleanup, write
from holdfast.errors import UsageError
from holdfast.formats import cache as caches
from holdfast.formats.cache import DigestCache
from holdfast.inventory import ref_families, references
from holdfast.inventory.config import ConfigError
from holdfast.inventory.models import ModelFile, ScanReport
from holdfast.inventory.ref_families import name_families
from holdfast.inventory.ref_memory import ReferenceMemory
from holdfast.inventory.references import find_references
from holdfast.inventory.scan import ScanRules, read_scan_rules, scan_tree
from holdfast.inventory.scan_files import choose, find_models
from holdfast.inventory.scan_judge import Registered
from holdfast.inventory.scan_status import find_rivals
from holdfast.inventory.tree import walk_files
from worlds import World, make_home, make_repository

LATER_NS = 2**62


def later_cache(path: Path | None = None) -> DigestCache:
    return DigestCache(path, now_ns=lambda: LATER_NS)


def scan(root: Path, **options: object) -> ScanReport:
    return scan_tree(root, later_cache(), **options)  # type: ignore[arg-type]


def model_of(report: ScanReport, path: str) -> ModelFile:
    (found,) = [model for model in report.models if model.path == path]
    return found


def weights(seed: int, size: int = 50) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return {"layer.weight": torch.randn(size, 8), "layer.bias": torch.randn(size)}


def save(path: Path, state: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)
    return path


@pytest.mark.parametrize(("arguments", "packages"), [(WORLDS[0], "publication_packages"), (WORLDS[1], "handover/kits")])
def test_two_families_and_copies(tmp_path: Path, arguments: Arguments, packages: str) -> None:
    names, main, other, folder, ext = arguments
    plant_cleanup(tmp_path, arguments, packages)
    report = scan(tmp_path)

    first, second = f"{folder}/*_{main}.{ext}", f"{folder}/*_{other}.{ext}"
    assert {model.path for model in report.of("primary")} == {f"{folder}/{name}_{main}.{ext}" for name in names}
    assert {model.path for model in report.of("secondary")} == {f"{folder}/{name}_{other}.{ext}" for name in names}
    assert len(report.models) == 8
    families = {family.name: family for family in report.families}
    assert (families[first].used.references, families[first].used.scripts) == (36, 18)
    assert (families[second].used.references, families[second].used.scripts) == (6, 3)
    assert families[first].rivals == (second,)
    assert report.rivalries == [[first, second]]
    (copies,) = [copies for copies in report.copies if copies.path != "old"]
    assert packages.startswith(copies.path)
    assert len(copies.files) == 205
    assert report.duplicates == ()
    # the fourth pair is a fine-tuned one
    pairs = [(f"{folder}/{name}_{main}.{ext}", f"{folder}/{name}_{other}.{ext}") for name in names[:3]]
    assert sorted(tuple(sorted(group.paths)) for group in report.same_weights) == sorted(
        tuple(sorted(pair)) for pair in pairs
    )


def test_what_a_file_is_to_the_project(tmp_path: Path) -> None:
    for place, path in enumerate(
        ("models/used.pt", "models/idle.pt", "models/used.pt.bak", "models_old/x.pt", ".cache/hub/y.pt", "out/best.pt")
    ):
        save(tmp_path / path, weights(place))
    write(tmp_path / "run.py", b'load("models/used.pt")\nload("models/used.pt")\n# models/idle.pt\n')
    write(tmp_path / "conf.yaml", b"model: models/used.pt\n")
    digest = model_of(scan(tmp_path), "out/best.pt").weights
    assert digest is not None
    report = scan(tmp_path, registered=[Registered("app/name@v2", "0" * 32, digest)])

    assert {model.path: model.status for model in report.models} == {
        "models/used.pt": "primary",
        "models/idle.pt": "unreferenced",
        "models/used.pt.bak": "backup",
        "models_old/x.pt": "backup",
        ".cache/hub/y.pt": "cache",
        "out/best.pt": "registered",
    }
    used = model_of(report, "models/used.pt").used
    assert (used.references, used.scripts, used.configs) == (3, 1, 1)
    assert model_of(report, "models/idle.pt").used.mentions == 1
    assert model_of(report, "out/best.pt").versions == ("app/name@v2",)
    assert model_of(report, "out/best.pt").parameters == 450


def test_of_equal_use_none_is_secondary(tmp_path: Path) -> None:
    for name in ("a_x.pt", "b_x.pt", "a_y.pt", "b_y.pt"):
        save(tmp_path / "m" / name, weights(1))
    write(tmp_path / "run.py", b'f"m/{n}_x.pt"\nf"m/{n}_y.pt"\n')
    assert {model.status for model in scan(tmp_path).models} == {"primary"}
    write(tmp_path / "more.py", b'f"m/{n}_y.pt"\n')
    assert [model.status for model in scan(tmp_path).models] == ["secondary", "primary", "secondary", "primary"]


def test_families_of_other_things_are_no_rivals(tmp_path: Path) -> None:
    for name in ("a_x.pt", "b_x.pt", "c_y.pt", "d_y.pt"):
        save(tmp_path / "m" / name, weights(1))
    write(tmp_path / "run.py", b'f"m/{n}_x.pt"\nf"m/{n}_x.pt"\nf"m/{n}_y.pt"\n')
    report = scan(tmp_path)
    assert report.rivalries == []
    assert {model.status for model in report.models} == {"primary"}


def test_a_rival_of_two_groups_joins_the_first() -> None:
    parts = {"m/*_a.pt": "xy", "m/*_b.pt": "vw", "m/*_c.pt": "xv", "m/*_d.pt": "pqrst", "m/*_e.pt": "p"}
    families = {family: [family.replace("*", part) for part in parts[family]] for family in parts}
    assert find_rivals(families) == [["m/*_a.pt", "m/*_c.pt"]]
    families["m/*_e.pt"] = ["m/p_e.pt", "m/q_e.pt"]
    assert find_rivals(families) == [["m/*_a.pt", "m/*_c.pt"], ["m/*_d.pt", "m/*_e.pt"]]


def test_families_do_not_depend_on_what_a_sieve_lets_through(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [f"o/{day}_{hour}/{name}_{kind}.pt" for day in (1, 2) for hour in "ab" for name in "xyz" for kind in "pqr"]
    paths += [f"{name}/best_{name}.pt" for name in ("one", "two", "three_four")]
    families = name_families(paths)
    assert len(set(families.values())) == 9
    monkeypatch.setattr(ref_families, "SLOTS", 0)  # it lets all through
    assert name_families(paths) == families


def test_an_old_script_counts_where_it_lies_nowhere_else(tmp_path: Path) -> None:
    save(tmp_path / "m.pt", weights(1))
    write(tmp_path / "old" / "run.py", b'load("m.pt")\n')
    assert model_of(scan(tmp_path), "m.pt").used.references == 1
    write(tmp_path / "run.py", b'load("m.pt")\n')  # now the old one is a copy
    assert model_of(scan(tmp_path), "m.pt").used.references == 1
    report = scan(tmp_path, rules=ScanRules(backup=("*.py",)))
    assert report.copies[0].sign == "name"


def test_content_and_not_names(tmp_path: Path) -> None:
    save_file({"w": np.ones(100, np.float32)}, tmp_path / "no_suffix")
    save(tmp_path / "torch.weird", {"w": torch.ones(100)})
    save(tmp_path / "zipped.zip", {"w": torch.ones(100)})
    save_file({"w": np.ones(100, np.float32)}, tmp_path / "really_safetensors.pt")
    write(tmp_path / "LICENSE", b"MIT\n" * 100)
    write(tmp_path / "random.bin", bytes(range(256)) * 4)
    write(tmp_path / "picture.png", b"\x89PNG" * 100)
    write(tmp_path / "empty.pt", b"")
    write(tmp_path / "table.pkl", b"\x80\x04]\x94.")
    write(tmp_path / "best_model.pkl", b"\x80\x04]\x94.")
    np.save(tmp_path / "features.npy", np.ones(100))
    np.savez(tmp_path / "weights.npz", w=np.ones(100))
    (tmp_path / "checkpoints").mkdir()
    np.savez(tmp_path / "checkpoints" / "a.npz", w=np.ones(100))
    torn = save(tmp_path / "torn.pt", weights(1)).read_bytes()
    (tmp_path / "torn.pt").write_bytes(torn[: len(torn) // 2])
    report = scan(tmp_path)
    assert {model.path: model.format for model in report.models} == {
        "no_suffix": "safetensors",
        "torch.weird": "torch zip",
        "zipped.zip": "torch zip",
        "really_safetensors.pt": "safetensors",
        "empty.pt": "unknown",
        "best_model.pkl": "pickle",
        "weights.npz": "npz",
        "checkpoints/a.npz": "npz",
        "torn.pt": "damaged",
    }
    assert "never unpickled" in model_of(report, "best_model.pkl").opaque
    assert model_of(report, "torn.pt").opaque
    assert str(tmp_path) not in model_of(report, "torn.pt").opaque
    assert report.notes == ()


@pytest.mark.parametrize(
    ("label", "choice"),
    [
        ("a.PT", "model"),
        ("a/b.safetensors", "model"),
        ("data/x.npz", "none"),
        ("data/model.npz", "model"),
        ("data/remodelled.npz", "none"),
        ("models/x.h5", "model"),
        ("x/models/deep/y.h5", "none"),
        ("photo.jpeg", "none"),
        ("x.py", "none"),
        ("Makefile", "content"),
        (".pt", "model"),
    ],
)
def test_choice(label: str, choice: str) -> None:
    assert choose(label, label.rpartition("/")[2]) == choice


def test_equal_bytes_and_equal_weights(tmp_path: Path) -> None:
    state = weights(7)
    a = save(tmp_path / "a.pt", state)
    shutil.copy(a, tmp_path / "b.pt")
    os.link(a, tmp_path / "hard.pt")
    save_file({name: tensor.numpy() for name, tensor in state.items()}, tmp_path / "c.safetensors")
    other = bytearray(a.read_bytes())
    save(tmp_path / "d.pt", weights(8))
    assert (tmp_path / "d.pt").stat().st_size == len(other)
    report = scan(tmp_path)
    (group,) = report.duplicates
    assert group.paths == ("a.pt", "b.pt", "hard.pt")
    assert group.size == len(other)
    (same,) = report.same_weights
    assert same.paths == ("a.pt", "c.safetensors")
    assert model_of(report, "d.pt").digest not in (None, group.digest)
    assert model_of(report, "c.safetensors").digest is None  # no other of its size


def test_a_hard_link_alone_is_no_duplicate(tmp_path: Path) -> None:
    os.link(save(tmp_path / "a.pt", weights(7)), tmp_path / "b.pt")
    assert scan(tmp_path).duplicates == ()


def test_links(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    save(root / "models" / "v3.pt", weights(1))
    save(tmp_path / "elsewhere.pt", weights(2))
    (root / "models" / "latest.pt").symlink_to("v3.pt")
    (root / "out.pt").symlink_to(tmp_path / "elsewhere.pt")
    (root / "nowhere.pt").symlink_to("gone.pt")
    (root / "loop").symlink_to(root)
    (root / "circle.pt").symlink_to("circle.pt")
    write(root / "run.py", b'load("models/latest.pt")\n')
    report = scan(root)
    assert [(model.path, model.link) for model in report.models] == [
        ("models/latest.pt", "models/v3.pt"),
        ("models/v3.pt", None),
    ]
    assert model_of(report, "models/latest.pt").status == "primary"
    assert report.duplicates == ()
    assert report.same_weights == ()
    assert sum(family.bytes for family in report.families) == model_of(report, "models/v3.pt").size
    assert len(report.notes) == 1
    assert report.notes[0].startswith("1 links")


def test_who_tracks_a_file(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    for path in ("in_git.pt", "by_file.pt", "folder/sub/inside.pt", "by_lock.pt", "nobody.pt"):
        save(world.root / path, weights(len(path)))
    oid = world.track("by_file.pt", "anything")
    world.track("folder", {"sub/inside.pt": "anything"})
    (lock_oid,) = world.lock({"by_lock.pt": "something"})
    world.git("add", "in_git.pt")
    versions = [Registered("app/a@v1", oid, "x"), Registered("app/b@v1", lock_oid, "y")]
    report = scan(world.root, registered=versions)
    assert {model.path: model.tracked for model in report.models} == {
        "in_git.pt": "git",
        "by_file.pt": "dvc",
        "folder/sub/inside.pt": "dvc",
        "by_lock.pt": "dvc",
        "nobody.pt": "none",
    }
    assert {model.path: model.versions for model in report.of("registered")} == {
        "by_file.pt": ("app/a@v1",),
        "by_lock.pt": ("app/b@v1",),
    }
    world.write("by_file.pt.dvc", "outs: {")
    broken = scan(world.root)
    assert model_of(broken, "by_file.pt").tracked == "none"
    assert any("by_file.pt.dvc cannot be read" in note for note in broken.notes)


def test_excludes_and_rules(tmp_path: Path) -> None:
    for path in ("a.pt", "big/b.pt", "big/keep.pt", "kits/c.pt"):
        save(tmp_path / path, weights(len(path)))
    rules = ScanRules(exclude=("/big/*", "!/big/keep.pt"), backup=("kits/",))
    report = scan(tmp_path, rules=rules)
    assert {model.path: model.status for model in report.models} == {
        "a.pt": "unreferenced",
        "big/keep.pt": "unreferenced",
        "kits/c.pt": "backup",
    }
    write(tmp_path / "holdfast.yaml", b"scan:\n  exclude: [big/]\n  backup: [kits/]\n")
    assert read_scan_rules(tmp_path) == ScanRules(("big/",), ("kits/",))
    write(tmp_path / "holdfast.yaml", b"scan:\n  excludes: [big/]\n")
    with pytest.raises(ConfigError, match=r"holdfast.yaml:2: scan.excludes"):
        read_scan_rules(tmp_path)
    with pytest.raises(UsageError):
        scan(tmp_path, rules=ScanRules(exclude=("!",)))


def test_only_below_a_folder_and_used_from_anywhere(tmp_path: Path) -> None:
    save(tmp_path / "models" / "a.pt", weights(1))
    save(tmp_path / "models_b" / "b.pt", weights(2))
    write(tmp_path / "run.py", b'load("models/a.pt")\nload("models_b/b.pt")\n')
    report = scan(tmp_path, within="models")
    assert [(model.path, model.used.references) for model in report.models] == [("models/a.pt", 1)]


def test_the_second_look_reads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "tree"
    plant_cleanup(root, WORLDS[0])
    write(root / "unknown", b"neither\n" * 100)
    memory = ReferenceMemory(tmp_path / "references.sqlite")
    with later_cache(tmp_path / "digests.sqlite") as cache:
        first = scan_tree(root, cache, memory=memory)

        def nothing(*_: object) -> None:
            raise AssertionError("a file was read")

        for name in ("FileSource", "file_digest", "file_md5"):
            monkeypatch.setattr(caches, name, nothing)
        monkeypatch.setattr(references, "read_source", nothing)
        second = scan_tree(root, cache, memory=memory)
    memory.close()
    assert second.to_json() == first.to_json()
    assert second.references == first.references


def test_what_is_remembered_of_sources_is_not_believed_blindly(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    write(root / "models" / "a_best.pth", b"x")
    write(root / "sub" / "run.py", b'load("models/a_best.pth")\n')
    memory = ReferenceMemory(tmp_path / "references.sqlite")

    def count(*targets: str) -> int:
        return len(find_references(root, targets, memory=memory).references)

    assert count("models/a_best.pth") == 1
    assert count("models/a_best.pth") == 1
    # another file takes the name over, seen from the script
    write(root / "sub" / "models" / "a_best.pth", b"y")
    fresh = len(find_references(root, ["models/a_best.pth"]).references)
    assert count("models/a_best.pth") == fresh
    # a path written from the folder above is another file's, once there is one
    write(root / "deep.py", b'load("tree/models/a_best.pth")\n')
    assert count("models/a_best.pth") == fresh + 1
    write(root / "tree" / "models" / "a_best.pth", b"w")
    assert count("models/a_best.pth") == fresh
    # the text changes, and keeps its size
    text = (root / "sub" / "run.py").read_bytes()
    write(root / "sub" / "run.py", text.replace(b"a_best", b"b_best"))
    os.utime(root / "sub" / "run.py", ns=(1, 1))
    assert count("models/a_best.pth") == 0
    write(root / "models" / "b_best.pth", b"z")
    assert count("models/a_best.pth", "models/b_best.pth") == 1
    memory.close()


def test_a_torn_memory_is_made_anew(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    write(root / "m.pth", b"x")
    write(root / "run.py", b'load("m.pth")\n')
    path = tmp_path / "references.sqlite"
    for _ in range(2):
        memory = ReferenceMemory(path)
        assert len(find_references(root, ["m.pth"], memory=memory).references) == 1
        memory.close()
        path.write_bytes(b"no database" * 1000)
    memory = ReferenceMemory(path)
    assert len(find_references(root, ["m.pth"], memory=memory).references) == 1
    memory.close()
    assert path.read_bytes()[:6] == b"SQLite"


@pytest.mark.parametrize(
    ("paths", "families"),
    [
        (["o/20251120_0755/b.pt", "o/20251120_0855/b.pt", "o/20251121_0755/b.pt"], {"o/*/b.pt"}),
        (["o/run_1/c/e_1.pt", "o/run_1/c/e_2.pt", "o/run_2/c/e_1.pt", "o/run_2/c/e_2.pt"], {"o/run_*/c/e_*.pt"}),
        (["models/best.pt", "other/best.pt"], {"models/best.pt", "other/best.pt"}),
        (["a/m.pt", "b/m.pt", "c/m.pt"], {"*/m.pt"}),
        (["e/dbg_1/b.pt", "e/dbg_2/b.pt", "e/prod_1/b.pt", "e/prod_2/b.pt"], {"e/dbg_*/b.pt", "e/prod_*/b.pt"}),
    ],
)
def test_families_over_folders(paths: list[str], families: set[str]) -> None:
    assert set(name_families(paths).values()) == families


def test_forms(tmp_path: Path) -> None:
    world = World(tmp_path / "tree", make_home(tmp_path))
    plant_cleanup(world.root, WORLDS[1], "kits")
    world.git("init", "--quiet")
    whole = world.holdfast("scan").stdout
    assert whole.startswith("8 model files in 2 families")
    assert "4 primary, 4 secondary" in whole
    assert "weights/*_final.safetensors" in whole
    document = json.loads(world.holdfast("scan", "--json").stdout)
    assert document["format"] == "holdfast scan 1"
    assert len(document["models"]) == 8
    assert "| weights/amber_final.safetensors | primary |" in world.holdfast("scan", "--md").stdout
    rows = list(csv.DictReader(io.StringIO(world.holdfast("scan", "--csv").stdout)))
    assert {row["path"]: int(row["references"]) for row in rows} == {
        model["path"]: model["used"]["references"] for model in document["models"]
    }
    only = world.holdfast("scan", "--only", "secondary", "--csv", "--parquet", "m.parquet").stdout
    assert len(only.splitlines()) == 9  # --only narrows what is listed for people
    program = (
        'import duckdb; print(duckdb.sql("SELECT sum(size)::BIGINT, count(*), sum(\\"references\\")::BIGINT'
        " FROM 'm.parquet' WHERE status = 'primary'\").fetchall())"
    )
    primary = [model for model in document["models"] if model["status"] == "primary"]
    sums = (sum(m["size"] for m in primary), 4, sum(m["used"]["references"] for m in primary))
    assert world.python(program) == f"[{sums}]"
    listed = world.holdfast("scan", "weights", "--only", "secondary").stdout
    assert "amber_final_v2" in listed
    assert "amber_final.safe" not in listed
    assert "no folder" in world.holdfast("scan", "nowhere", code=2).stderr
    assert "--exclude" in world.holdfast("scan", "--help").stdout
    assert world.holdfast("scan", "--exclude", "weights/").stdout.startswith("No model files among")


def test_names_that_are_no_text(tmp_path: Path) -> None:
    world = World(tmp_path / "tree", make_home(tmp_path))
    world.root.mkdir()
    strange = os.fsencode(world.root) + b"/m\xff\n|x_best.pt"
    torch.save(weights(1), world.root / "plain.pt")
    os.rename(world.root / "plain.pt", strange)  # noqa: PTH104 - no Path says this name
    for form in ([], ["--json"], ["--md"], ["--csv"], ["--parquet", "m.parquet"]):
        assert world.holdfast("scan", *form).stdout
    (row,) = csv.DictReader(io.StringIO(world.holdfast("scan", "--csv").stdout))
    assert row["path"] == "m\\udcff\n|x_best.pt"


def test_without_torch_or_a_repository(tmp_path: Path) -> None:
    world = World(tmp_path / "tree", make_home(tmp_path))
    save(world.root / "a.pt", weights(1))
    program = "import sys; sys.modules['torch'] = None\nfrom holdfast.cli.main import main\nmain(['scan', '--json'])"
    document = json.loads(world.python(program))
    assert document["models"][0]["weights"].startswith("blake3:")
    assert document["models"][0]["tracked"] == "none"
    quick = json.loads(world.holdfast("--cd", ".", "scan", "--json", "--no-digest", "--exclude", "nothing").stdout)
    assert quick["models"][0]["parameters"] == 450


def test_an_unreadable_folder_is_a_note(tmp_path: Path) -> None:
    save(tmp_path / "a.pt", weights(1))
    closed = tmp_path / "closed"
    save(closed / "b.pt", weights(2))
    closed.chmod(0)
    try:
        if os.access(closed, os.R_OK):  # root may read everything
            done = subprocess.run(["id", "-u"], capture_output=True, text=True, check=True).stdout.strip()
            assert done == "0"
        else:
            report = scan(tmp_path)
            assert [model.path for model in report.models] == ["a.pt"]
            assert report.notes == ("closed: Permission denied",)
    finally:
        closed.chmod(0o755)


@pytest.mark.parametrize("nbytes", [1000, 5_000_000])
def test_a_file_that_goes_meanwhile_is_a_note(tmp_path: Path, nbytes: int) -> None:
    for name in ("a", "b", "c"):
        save_file({"w": np.zeros(nbytes, np.uint8)}, tmp_path / f"{name}.safetensors")
    files = list(walk_files(tmp_path, []))
    for file in files:
        file.entry.stat(follow_symlinks=False)  # it remembers what it was
    (tmp_path / "b.safetensors").unlink()
    notes: list[str] = []
    found = find_models(files, DigestCache(None), notes)
    assert [item.label for item in found] == ["a.safetensors", "c.safetensors"]
    assert all(item.digests.weights for item in found)
    assert notes == ["b.safetensors: No such file or directory"]


def test_json_is_stable(tmp_path: Path) -> None:
    plant_cleanup(tmp_path / "t", WORLDS[0])
    one, two = scan(tmp_path / "t"), scan(tmp_path / "t")
    assert json.dumps(one.to_json()) == json.dumps(two.to_json())
