"""DVC remotes for tests: a history of checkpoints that DVC itself pushed, and imports and exports within this process."""

import shutil
import stat
import subprocess
import sys
from pathlib import Path

import torch

from holdfast.objectstore.opening import open_store
from holdfast.objectstore.store import ObjectStore
from holdfast.repo.workspace import find_project
from holdfast.vault.exporting import Exported, export_files, plan_export
from holdfast.vault.importing import Imported, Limits, import_files, plan_import
from holdfast.vault.repository import Vault, init_vault, open_vault
from vaults import oid_of
from worlds import World, environment, make_repository

VERSIONS = 3
LEGACY = b"a,b\r\n1,2\r\n" * 50  # DVC before 3.0 took its md5 with the line ends of Unix
LEGACY_OID = "md5-dos2unix:" + oid_of(LEGACY.replace(b"\r\n", b"\n"))[4:]
LEGACY_KEY = f"{LEGACY_OID[13:15]}/{LEGACY_OID[15:]}"
SMALL = Limits(session_bytes=600_000, session_files=4, batch_bytes=300_000, batch_files=2, kept_bytes=0)


def model(step: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """A checkpoint that is a small step from the one before."""
    torch.manual_seed(seed)
    weights = {"a.weight": torch.randn(300, 400) * 0.02, "b.weight": torch.randn(100, 400) * 0.02}
    for number in range(step):
        torch.manual_seed(number + 1)
        weights = {name: value + 1e-4 * torch.randn_like(value) for name, value in weights.items()}
    return {name: value.bfloat16() for name, value in weights.items()}


def make_pushed(folder: Path) -> World:
    """Versions of a model, a folder with another one, a pipeline with its run cache, all of it pushed by DVC."""
    world = make_repository(folder)
    world.write("dvc.yaml", "stages:\n  copy:\n    cmd: cp in.txt out.txt\n    deps: [in.txt]\n    outs: [out.txt]\n")
    for number in range(VERSIONS):
        torch.save(model(number), world.root / "model.pt")
        for name in range(3):
            world.write(f"data/{name}.csv", f"row {name}\n" * (50 + (number if name == 0 else 0)))
        (world.root / "data/sub").mkdir(exist_ok=True)
        torch.save(model(number, seed=7), world.root / "data/sub/other.pt")
        world.write("in.txt", f"number {number}\n")
        world.dvc("add", "-q", "model.pt", "data")
        world.dvc("repro", "-q")
        world.commit(f"version {number}")
    world.dvc("remote", "add", "-q", "--global", "-d", "store", str(world.root.parent / "store"))
    world.dvc("push", "-q", "-A", "--run-cache")
    old = world.root.parent / "store" / LEGACY_KEY
    old.parent.mkdir()
    old.write_bytes(LEGACY)
    old.chmod(0o444)
    return world


def copy_pushed(made: World, tmp_path: Path) -> World:
    """A copy of it, with an empty vault."""
    shutil.copytree(made.root.parent, tmp_path, symlinks=True, dirs_exist_ok=True)
    world = World(tmp_path / "repository", tmp_path / "home")
    config = next(world.home.joinpath("dvc-global").rglob("config"))
    config.write_text(config.read_text().replace(str(made.root.parent), str(tmp_path)))
    world.write("holdfast.yaml", f"vault:\n  url: {tmp_path / 'vault'}\n")
    init_vault(open_store(str(tmp_path / "vault")), None).close()
    return world


def add_remote(world: World, name: str, url: str, **options: str) -> None:
    """As `dvc remote add` and `modify` write it, which take a second each."""
    lines = [f"    {option} = {value}" for option, value in {"url": url, **options}.items()]
    with open(next(world.home.joinpath("dvc-global").rglob("config")), "a") as config:
        config.write("\n".join([f"['remote \"{name}\"']", *lines, ""]))


def remote(world: World) -> Path:
    return world.root.parent / "store"


def tree(folder: Path) -> dict[str, tuple[bytes, int]]:
    """All files of a folder with their bytes and modes; the same names hidden or not."""
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), stat.S_IMODE(path.stat().st_mode))
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def contents(store: ObjectStore) -> dict[str, bytes]:
    return {info.key: store.get(info.key) for info in store.list_objects()}


def oid_of_version(world: World, number: int, path: str = "model.pt") -> str:
    """The md5 that a commit names, the first one for 0."""
    text = world.git("show", f"HEAD~{VERSIONS - 1 - number}:{path}.dvc")
    return next(line.split()[-1] for line in text.splitlines() if "md5:" in line)


def place_of(root: Path, oid: str) -> Path:
    return root / "files/md5" / oid[:2] / oid[2:]


def overwrite(path: Path, data: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(data)


def flip(path: Path) -> bytes:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    overwrite(path, bytes(data))
    return bytes(data)


def opened(world: World) -> Vault:
    return open_vault(open_store(str(world.root.parent / "vault")), world.root.parent / "vaults", jobs=2)


def taken(vault: Vault, source: ObjectStore, world: World, limits: Limits = SMALL, **more: object) -> Imported:
    """Import within this process, in small steps."""
    spool = world.root.parent / "spool"
    return import_files(vault, plan_import(vault, source), find_project(world.root), spool, limits=limits, **more)  # type: ignore[arg-type]


def import_all(world: World) -> None:
    """The remote into the vault."""
    with opened(world) as vault:
        assert not taken(vault, open_store(str(remote(world))), world, Limits()).failed


def written(vault: Vault, target: ObjectStore, spool: Path, **more: object) -> Exported:
    return export_files(vault, plan_export(vault, target, **more), spool)  # type: ignore[arg-type]


def in_memory(world: World) -> ObjectStore:
    """The remote in a bucket that needs no server."""
    store = open_store("memory://")
    for key, (data, _) in tree(remote(world)).items():
        store.put(key, data)
    return store


CHILD = """
import os, signal, sys
from pathlib import Path
from holdfast.objectstore.opening import open_store
from holdfast.repo.workspace import find_project
from holdfast.vault.exporting import export_files, plan_export
from holdfast.vault.importing import Limits, import_files, plan_import
from holdfast.vault.repository import open_vault

verb, source, folder, calls = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])

def die(_done, _total):
    global calls
    calls -= 1
    if not calls:
        os.kill(os.getpid(), signal.SIGKILL)

with open_vault(open_store(str(folder / "vault")), folder / "vaults", jobs=2) as vault:
    if verb == "import":
        store = open_store(source)
        if "memory" in sys.argv[5:]:
            bucket = open_store("memory://")
            for info in store.list_objects():
                bucket.put(info.key, store.get(info.key))
            store = bucket
        limits = Limits(session_bytes=600_000, session_files=4, batch_bytes=300_000, batch_files=2)
        report = import_files(
            vault, plan_import(vault, store), find_project(folder / "repository"), folder / "spool",
            limits=limits, progress=die,
        )
        print(report.statistics.files, report.known)
    else:
        report = export_files(vault, plan_export(vault, open_store(source)), folder / "spool", progress=die)
        print(report.files, report.known)
"""


def child(world: World, verb: str, place: Path, calls: int, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", CHILD, verb, str(place), str(world.root.parent), str(calls), *more]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment(world.home))
