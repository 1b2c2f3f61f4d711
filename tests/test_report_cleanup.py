"""The clean-up report: figures of the two worlds, and that what it calls safe loses nothing."""

import hashlib
import re
import subprocess
from datetime import date
from pathlib import Path

import pytest
import torch

from cleanup_world import GAP_BYTES, WORLDS, Arguments, plant_cleanup, write
from holdfast.cli.output import human_bytes
from holdfast.formats.cache import DigestCache
from holdfast.inventory.cleanup import Cleanup, plan_cleanup
from holdfast.inventory.scan import scan_tree
from holdfast.report.cleanup import cleanup_report
from worlds import World, make_home, make_repository

PLACES = [(WORLDS[0], "publication_packages"), (WORLDS[1], "handover_kits")]


def facts(root: Path) -> Cleanup:
    cache = DigestCache(None)
    return plan_cleanup(scan_tree(root, cache), cache)


def report(cleanup: Cleanup) -> str:
    return cleanup_report(cleanup, day=date(2026, 1, 2), size_text=human_bytes)


def contents(root: Path) -> set[str]:
    """The digests of all files but byte code, which comes again."""
    files = [path for path in root.rglob("*") if path.is_file() and path.suffix != ".pyc" and ".git" not in path.parts]
    return {hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize(("arguments", "packages"), PLACES)
def test_the_figures(tmp_path: Path, arguments: Arguments, packages: str) -> None:
    _, main, other, folder, ext = arguments
    root = plant_cleanup(tmp_path / "cortex", arguments, packages)
    cleanup = facts(root)
    text = report(cleanup)
    first, second = f"{folder}/*_{main}.{ext}", f"{folder}/*_{other}.{ext}"

    (rivalry,) = cleanup.rivalries
    assert rivalry.families == (first, second)
    assert len(rivalry.pairs) == 4
    for pair in rivalry.pairs:
        assert GAP_BYTES[0] <= pair.difference <= GAP_BYTES[1]
        assert pair.comparison is not None
        assert sum(part.difference for part in pair.comparison.parts) == pair.difference
    kinds = [pair.comparison.kind for pair in rivalry.pairs if pair.comparison]
    assert sorted(kinds) == ["fine-tuned", "same weights", "same weights", "same weights"]
    low, high = (form(pair.difference for pair in rivalry.pairs) for form in (min, max))
    assert f"sizes differ by {low:,} to {high:,} bytes in 4 pairs" in text
    assert f"`{first}` has 36 references in 18 scripts" in text
    assert f"`{second}` has 6 references in 3 scripts" in text
    primary = sum(path.stat().st_size for path in (root / folder).glob(f"*_{main}.{ext}"))
    secondary = sum(path.stat().st_size for path in (root / folder).glob(f"*_{other}.{ext}"))
    copies = sum(path.stat().st_size for path in (root / packages).rglob("*") if path.is_file())
    assert f"- 4 primary: {human_bytes(primary)}" in text
    assert f"- 4 secondary: {human_bytes(secondary)}" in text
    assert f"**`{packages}`**: 205 files, {human_bytes(copies)} ({copies:,} bytes)" in text
    safe = {removal.what: removal.bytes for removal in cleanup.safe}
    assert safe == {packages: copies, "__pycache__": sum(p.stat().st_size for p in root.rglob("*.pyc"))}
    held = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    assert safe[packages] + primary + secondary < held
    (removal,) = [item for item in cleanup.conditional if item.kind == "secondary"]
    assert (removal.bytes, len(removal.users)) == (secondary, 6)
    for script in ("analysis/a.py", "analysis/verify.py", "analysis/list.py"):
        assert f"- `{script}:" in text
    assert "- `history`: only in the one used less, in 4 pairs" in text
    assert "1 of 4 pairs holds other weights" in text
    assert f"**Keep both `{first}` and `{second}`, or `{first}` alone?**" in text
    assert text == report(facts(root))


@pytest.mark.parametrize(("arguments", "packages"), PLACES)
def test_what_is_safe_loses_nothing(tmp_path: Path, arguments: Arguments, packages: str) -> None:
    root = plant_cleanup(tmp_path / "my cortex", arguments, packages)
    write(root / packages / "submission_0" / "extra" / "figure_0.png", (root / "figures/figure_1.png").read_bytes())
    before = contents(root)
    used = scan_tree(root, DigestCache(None)).of("primary")
    commands = re.findall(r"```bash\n(.*?)\n```", report(facts(root)), re.DOTALL)
    assert len(commands) == 1  # the package holds a file whose name lies nowhere else with these bytes
    (root / packages / "submission_0" / "extra" / "figure_0.png").unlink()
    commands = re.findall(r"```bash\n(.*?)\n```", report(facts(root)), re.DOTALL)
    assert len(commands) == 2
    for command in commands:
        subprocess.run(["bash", "-euc", command], cwd=root, check=True)
    assert not (root / packages).exists()
    assert not list(root.rglob("__pycache__"))
    assert contents(root) == before
    after = scan_tree(root, DigestCache(None))
    assert after.of("primary") == used
    assert facts(root).safe == []


def test_two_backups_of_one_another_are_not_both_safe(tmp_path: Path) -> None:
    for place in ("backup_1", "backup_2"):
        for number in range(4):
            write(tmp_path / place / f"file_{number}.txt", b"text %d" % number)
    cleanup = facts(tmp_path)
    assert [(item.what, item.safe) for item in cleanup.removals] == [("backup_1", True), ("backup_2", False)]
    assert cleanup.conditional[0].alone == tuple(f"backup_2/file_{number}.txt" for number in range(4))


def test_a_folder_that_scripts_name_needs_a_decision(tmp_path: Path) -> None:
    for number in range(4):
        write(tmp_path / f"file_{number}.csv", b"text %d" % number)
        write(tmp_path / "kit" / f"file_{number}.csv", b"text %d" % number)
    assert [item.what for item in facts(tmp_path).safe] == ["kit"]
    write(tmp_path / "README.md", b"see kit/\n")
    write(tmp_path / "other.py", b"toolkit = open('kit_2/x')\n")
    assert [item.what for item in facts(tmp_path).safe] == ["kit"]
    write(tmp_path / "run.py", b"\nopen('kit/file_1.csv')\n")
    cleanup = facts(tmp_path)
    assert cleanup.safe == []
    assert cleanup.conditional[0].users == ("run.py:2",)


def test_what_git_and_dvc_keep_is_no_last_copy(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    world.write("backup/in_git.txt", "one")
    world.write("backup/in_dvc.txt", "two")
    world.track("backup/in_dvc.txt", "two")
    world.write("backup/nowhere.txt", "three")
    world.git("add", "backup/in_git.txt", "backup/in_dvc.txt.dvc")
    (removal,) = facts(world.root).removals
    assert removal.alone == ("backup/nowhere.txt",)


def test_equal_models(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(9)}, tmp_path / "a.pt")
    for name in ("b.pt", "c.pt"):
        (tmp_path / name).write_bytes((tmp_path / "a.pt").read_bytes())
    write(tmp_path / "run.py", b"load('b.pt')\n")
    cleanup = facts(tmp_path)
    assert [(item.kind, item.what, item.why) for item in cleanup.safe] == [
        ("duplicate", "a.pt", "the bytes of b.pt"),
        ("duplicate", "c.pt", "the bytes of b.pt"),
    ]
    text = report(cleanup)
    assert "`a.pt`, `b.pt`, `c.pt`" in text
    assert "rm -r a.pt" in text


def test_nothing_there(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", b"x")
    text = report(facts(tmp_path))
    assert "There are no model files among 1 file." in text
    assert "There is nothing to remove." in text


def test_a_damaged_counterpart_is_told(tmp_path: Path) -> None:
    root = plant_cleanup(tmp_path / "t", WORLDS[0])
    path = root / "models" / "crell_cccv1_best.pth"
    path.write_bytes(path.read_bytes()[:5000])
    text = report(facts(root))
    assert "| not compared: " in text
    assert "4 primary" in text


def test_command(tmp_path: Path) -> None:
    world = World(tmp_path / "tree", make_home(tmp_path))
    plant_cleanup(world.root, WORLDS[0])
    world.git("init", "--quiet")
    text = world.holdfast("report", "cleanup", "--date", "2026-01-02").stdout
    assert text.startswith("# Model clean-up: tree\n\nGenerated: 2026-01-02\n")
    assert world.holdfast("report", "cleanup", "--date", "2026-01-02", "-o", "c.md").stdout == "Wrote c.md.\n"
    assert (world.root / "c.md").read_text() == text
    nothing = world.holdfast("report", "cleanup", "--exclude", "*.pth").stdout
    assert "no model files" in nothing
