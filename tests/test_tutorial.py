"""The tutorial does what it says, command by command, in a home and a folder that are new."""

import importlib.util
import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = Path(__file__).parent.parent
PAGE = PROJECT / "docs" / "tutorial" / "from-a-messy-repository.md"


def load_outputs() -> ModuleType:
    """docs/outputs.py, which is no package's."""
    spec = importlib.util.spec_from_file_location("outputs", PROJECT / "docs" / "outputs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["outputs"] = module  # its dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


outputs = load_outputs()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home in which the tutorial was followed; its outputs are beside it."""
    home = tmp_path_factory.mktemp("tutorial") / "home"
    follow(PAGE, home)
    return home


def follow(page: Path, home: Path) -> None:
    home.mkdir()
    (home / "holdfast").symlink_to(PROJECT)
    now = outputs.pasted(page.read_text(), home, [Path(sys.executable).parent])
    (home.parent / "now.md").write_text(now)


def test_each_command_of_the_tutorial_says_what_the_page_says(home: Path) -> None:
    assert (home.parent / "now.md").read_text() == PAGE.read_text()


@pytest.mark.parametrize("page", [page for page in outputs.pages() if page != PAGE], ids=lambda page: page.name)
def test_other_pages_whose_commands_are_run(page: Path, tmp_path: Path) -> None:
    follow(page, tmp_path / "home")
    assert (tmp_path / "now.md").read_text() == page.read_text()


def test_what_holdfast_leaves_is_in_the_list_of_files(home: Path) -> None:
    told = (PROJECT / "docs" / "reference" / "files.md").read_text()
    section = told.partition("### In `.dvc/tmp/holdfast/`")[2].partition("\n## ")[0]
    names = re.findall(r"`([^`|]+)`", "\n".join(line.split("|")[1] for line in section.splitlines() if "|" in line))
    patterns = [re.sub(r"<\w+>", "*", name).replace("…", "*").rstrip("/") for name in names]
    left = {path.name for path in (home / "mill" / ".dvc" / "tmp" / "holdfast").iterdir()}
    assert {"digests.sqlite", "registry.sqlite", "vaults", "quarantine", "mill.states.registering"} <= left
    assert [name for name in left if not any(fnmatch(name, pattern.split("/")[0]) for pattern in patterns)] == []
    ours = {path.name for path in (home / "mill" / ".git").iterdir() if "holdfast" in path.name}
    assert ours == {"holdfast"}
    assert (home / "mill" / ".git" / "holdfast" / "clone").is_file()
    elsewhere = {path.name for path in home.iterdir()} - {"holdfast", "mill", "report.md", "report.html"}
    assert elsewhere <= {".cache", ".config", ".gitconfig", "consolidation.json", "garbage.json"}


def test_files_that_git_has_are_told_as_such(home: Path) -> None:
    """Each tracked file that no one but Holdfast wrote has a row, with yes in its last column."""
    told = (PROJECT / "docs" / "reference" / "files.md").read_text().partition("## In `.git/`")[0]
    tracked = {}
    for line in told.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        for name in re.findall(r"`([^`]+)`", cells[0]) if len(cells) == 4 else ():
            tracked[re.sub(r"<\w+>|v3", "*", name)] = cells[3]
    listed = subprocess.run(["git", "ls-files"], cwd=home / "mill", check=True, capture_output=True, text=True).stdout
    made = [name for name in listed.split() if name.startswith(("registry/mill", "models/mill", "metrics/promotion"))]
    assert len(made) >= 8
    for name in made:
        rows = [row for pattern, row in tracked.items() if fnmatch(name, pattern) or fnmatch(name, f"*/{pattern}")]
        assert "yes" in rows, name


def test_the_tutorial_is_among_them() -> None:
    assert PAGE in outputs.pages()
    commands = [step.text for step in outputs.steps(PAGE.read_text()) if isinstance(step, outputs.Command)]
    for verb in ("scan", "runs classify", "registry consolidate", "registry promote", "push", "gc apply", "gc restore"):
        assert any(command.startswith(f"holdfast {verb}") for command in commands), verb


def test_what_is_installed_has_every_file_of_the_package() -> None:
    """The soak test below installs; this one sees at once what an installation would lack."""
    package = PROJECT / "src" / "holdfast"
    patterns = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["holdfast"]
    named = {path for pattern in patterns for path in package.glob(pattern)}
    there = {path for path in package.rglob("*") if path.is_file() and path.suffix != ".py"}
    there = {path for path in there if "__pycache__" not in path.parts}
    assert {path.relative_to(package).as_posix() for path in there - named} == set()


@pytest.mark.soak
def test_from_a_clone_in_a_new_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the commands of the page that install it, too, from what lies in the workspace."""
    home = tmp_path / "home"
    home.mkdir()
    origin = workspace_as_repository(tmp_path / "origin")
    page = PAGE.read_text()
    skipped = outputs.SKIP.search(page)
    assert skipped is not None
    page = page.replace(skipped[0], "")
    assert "\n$ pip install " in page
    # pip tells what it does, and the page does not
    page = page.replace("$ git clone ", "$ git clone --quiet ")
    page = page.replace("$ pip install ", "$ pip install --quiet --disable-pip-version-check ")
    python = tmp_path / "bin"
    python.mkdir()
    (python / "python3").symlink_to(sys.executable)
    monkeypatch.setattr(outputs, "COMMAND_SECONDS", 1200.0)
    mirrored = f'[url "{origin.as_uri()}"]\n\tinsteadOf = https://example.org/holdfast.git\n'
    (home / ".gitconfig").write_text(outputs.GIT_CONFIG + mirrored)
    assert outputs.pasted(page, home, [python]) == page


def workspace_as_repository(folder: Path) -> Path:
    """A repository with one commit: the workspace's files that git has, or would have."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=PROJECT, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        source, target = PROJECT / name, folder / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    for words in (["init", "--quiet"], ["add", "--all"], [*identity, "commit", "--quiet", "-m", "As it lies there"]):
        subprocess.run(["git", *words], cwd=folder, check=True)
    return folder


def run_page(page: str, home: Path) -> str:
    home.mkdir()
    return str(outputs.pasted(page, home, [Path(sys.executable).parent]))


def test_new_outputs_are_pasted_between_the_commands(tmp_path: Path) -> None:
    page = """\
```console
$ mkdir -p a && seq 2
old
$ export A=7; cd a
```

```yaml title="b/c.yaml"
x: 1
```

```console
$ cat b/c.yaml
older
and longer
$ echo $A \\
    $(ls)
```
"""
    now = page.replace("old\n", "1\n2\n").replace("older\nand longer\n", "x: 1\n")
    assert run_page(page, tmp_path / "home") == now.replace("    $(ls)\n", "    $(ls)\n7 b\n")


def test_what_differs_from_run_to_run_is_left_as_it_was(tmp_path: Path) -> None:
    same = [
        ("2026-11-20 07:52", "2027-01-02 10:00"),
        ("2026-11-20T07:52:00+00:00", "2027-01-02T10:00:01Z"),
        ("Wed May 20 18:00:00 2026 +0000", "Sun Jan  3 08:00:00 2027 +0100"),
        ("[main 0a1b2c3] text", "[main 9a8b7c6] text"),
        ("restored 3f2a91c04b7d", "restored 111111111111"),
        ("a  today  b", "a      3 min    b"),
        ("took 1.5 s", "took 0.25 s"),
        ("───", "────────"),
    ]
    for number, (before, now) in enumerate(same):
        page = f"```console\n$ printf '%s\\n' '{now}'\n{before}\n```\n"
        assert run_page(page, tmp_path / str(number)) == page, (before, now)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ("12 model files", "13 model files"),
        ("51.7 kB", "51.8 kB"),
        ("mill/states@v1", "mill/states@v2"),
        ("accuracy 0.92", "accuracy 0.93"),
        ("pass", "fail"),
        ("outputs/wide_20260512_091500", "outputs/wide_20260512_141000"),
        ("one line", "one line\\nand another"),
        ("a line\nand its end", "a line"),
        ("a line", ""),
    ],
)
def test_what_must_not_differ_is_seen(before: str, now: str, tmp_path: Path) -> None:
    page = f"```console\n$ printf '{now}\\n'\n{before}\n```\n"
    shown = f"{now}\n".replace("\\n", "\n") if now else ""
    assert run_page(page, tmp_path / "home") == f"```console\n$ printf '{now}\\n'\n{shown}```\n"


@pytest.mark.parametrize(
    ("said", "fits"),
    [
        ("[…]", True),
        ("1\n[…]", True),
        ("[…]\n9", True),
        ("1\n[…]\n4\n5\n[…]\n9", True),
        ("1\n[…]\n5\n4\n[…]\n9", False),
        ("2\n[…]", False),
        ("[…]\n8", False),
        ("[…]\n5\n[…]\n5\n[…]", False),
        ("1\n2\n3\n[…]\n3\n4\n[…]\n9", False),
        ("1\n2\n3\n4\n5\n[…]\n5\n6\n7\n8\n9", False),
    ],
)
def test_left_out_lines(said: str, fits: bool, tmp_path: Path) -> None:
    page = f"```console\n$ seq 9\n{said}\n```\n"
    assert (run_page(page, tmp_path / "home") == page) is fits


@pytest.mark.parametrize(
    ("said", "now"),
    [
        ("0\n\n2\n\n[…]\n\n8\n9", "1\n2\n[…]\n8\n9"),
        ("0\n2\n[…]\n8\n9", "1\n2\n[…]\n8\n9"),
        ("[…]\n8\n10", "[…]\n8\n9"),
        ("0\n2\n[…]", "1\n2\n[…]"),
        ("0\n2\n[…]\n5\n[…]\n7\n9", "1\n2\n[…]\n5\n[…]\n7\n8\n9"),
        ("0\n[…]\n9", "1\n2\n3\n4\n5\n6\n7\n8\n9"),
        ("8\n[…]\n2", "1\n2\n3\n4\n5\n6\n7\n8\n9"),
    ],
)
def test_a_new_output_is_left_out_where_the_old_one_was(said: str, now: str, tmp_path: Path) -> None:
    page = f"```console\n$ seq 9\n{said}\n```\n"
    assert run_page(page, tmp_path / "home") == f"```console\n$ seq 9\n{now}\n```\n"


def test_the_home_has_a_name_that_no_machine_shows(tmp_path: Path) -> None:
    page = run_page("```console\n$ pwd; echo $HOME/x\n```\n", tmp_path / "home")
    assert page == "```console\n$ pwd; echo $HOME/x\n/home/ada\n/home/ada/x\n```\n"


def test_a_command_that_fails_stops_the_page_unless_its_code_is_shown(tmp_path: Path) -> None:
    page = "```console\n$ echo so; false\n```\n"
    with pytest.raises(outputs.OutputsError, match=r"line 2: `echo so; false` ended with 1:\nso"):
        run_page(page, tmp_path / "home")
    with pytest.raises(outputs.OutputsError, match="`false` ended with 1"):
        run_page("```console\n$ false\n$ echo on\n```\n", tmp_path / "third")
    page = "```console\n$ sh -c 'exit 12'\n$ echo $?\n12\n```\n"
    assert run_page(page, tmp_path / "other") == page


def test_a_command_that_does_not_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "COMMAND_SECONDS", 0.5)
    with pytest.raises(outputs.OutputsError, match="did not end"):
        run_page("```console\n$ echo begun; sleep 60\n```\n", tmp_path / "home")


def test_blocks_that_are_skipped_and_broken_ones(tmp_path: Path) -> None:
    page = "<!-- outputs: skip, it needs a bucket -->\n```console\n$ false\n```\n"
    assert run_page(page, tmp_path / "home") == page
    with pytest.raises(outputs.OutputsError, match="line 2: output without a command"):
        run_page("```console\nno command\n```\n", tmp_path / "other")
    with pytest.raises(outputs.OutputsError, match="would end its block"):
        run_page("```console\n$ printf '```bash\\n'\n```\n", tmp_path / "fourth")
    page = "````console\n$ printf '```bash\\n'\n```bash\n````\n"
    assert run_page(page, tmp_path / "fifth") == page
    with pytest.raises(outputs.OutputsError, match="line 1: the block has no end"):
        run_page("```console\n$ true\n", tmp_path / "third")


def test_check_says_where_a_page_differs(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```console\n$ echo new\nold\n```\n")
    tool = [sys.executable, str(PROJECT / "docs" / "outputs.py")]
    checked = subprocess.run([*tool, "--check", str(page)], capture_output=True, text=True, check=False)
    assert checked.returncode == 1
    assert "\n-old\n+new\n" in checked.stdout
    assert "old" in page.read_text()
    pasted = subprocess.run([*tool, str(page)], capture_output=True, text=True, check=True)
    assert "Pasted new outputs" in pasted.stdout
    assert page.read_text() == "```console\n$ echo new\nnew\n```\n"
    assert subprocess.run([*tool, "--check", str(page)], check=False).returncode == 0
