"""The command line as a user meets it: real processes, exit codes, one-line errors, help."""

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from holdfast import errors
from holdfast.cli.main import COMMANDS, root
from holdfast.cli.output import Table, human_age, human_bytes, plural

ROOT = Path(__file__).parent.parent
HOLDFAST = Path(sys.executable).parent / "holdfast"

sys.path.insert(0, str(ROOT / "docs"))
import generate  # noqa: E402 - docs/ is no package


def holdfast(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | variables
    return subprocess.run(
        [str(HOLDFAST), *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def commands() -> list[tuple[tuple[str, ...], click.Command]]:
    found = []
    for path in generate.command_paths(root, ()):
        command: click.Command = root
        for name in path:
            assert isinstance(command, click.Group)
            child = command.get_command(click.Context(command), name)
            assert child is not None
            command = child
        found.append((path, command))
    return found


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["gc", "plan"], 10, ["is not inside a DVC project", "git init && holdfast init"]),
        (["registry", "show"], 10, ["is not inside a DVC project"]),
        (["registri"], 2, ["No such command 'registri'", "Did you mean 'registry'?"]),
        (["gc", "plam"], 2, ["No such command 'plam'", "Did you mean 'plan'?", "holdfast gc --help"]),
        (["gc", "plan", "--jsn"], 2, ["No such option '--jsn'", "--json"]),
        (["--cd", "nowhere", "gc", "plan"], 2, ["'nowhere' does not exist"]),
        (["runs", "validate", "."], 1, [". is no run folder", "holdfast runs list"]),
        (["runs", "list", "nowhere"], 2, ["'nowhere' does not exist"]),
    ],
)
def test_a_mistake_gets_one_line(tmp_path: Path, arguments: list[str], code: int, words: list[str]) -> None:
    result = holdfast(*arguments, cwd=tmp_path)

    assert result.returncode == code
    assert result.stdout == ""
    assert result.stderr.startswith("holdfast: ")
    assert result.stderr.count("\n") == 1, result.stderr
    for word in words:
        assert word in result.stderr


def test_verbose_adds_the_traceback(tmp_path: Path) -> None:
    for arguments in (["-v", "gc", "plan"], ["gc", "plan", "-v"]):
        result = holdfast(*arguments, cwd=tmp_path)
        assert result.returncode == 10
        assert "Traceback" in result.stderr


def test_every_error_has_a_code_of_the_table() -> None:
    codes = {kind.__name__: kind.exit_code for kind in errors.HoldfastError.__subclasses__()}
    base = {name: code for name, code in codes.items() if hasattr(errors, name)}

    assert base == {
        "UsageError": 2,
        "PartlyDoneError": 3,
        "NotARepositoryError": 10,
        "LockedError": 11,
        "GateRefusedError": 12,
        "IntegrityError": 13,
        "StalePlanError": 14,
    }
    for code in {1, 130, *base.values()}:
        assert f"| {code} |" in generate.HEAD


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        ("KeyboardInterrupt()", 130, "holdfast: interrupted"),
        ("click.Abort()", 130, "holdfast: interrupted"),
        ("OSError(28, 'No space left on device', 'models/a.pt')", 1, "holdfast: models/a.pt: No space left on device"),
        ("click.ClickException('broken')", 1, "holdfast: broken"),
        ("errors.LockedError('a is locked', hint='Wait for b')", 11, "holdfast: a is locked. Wait for b"),
        (
            "ZeroDivisionError('by\\nzero')",
            1,
            "holdfast: unexpected ZeroDivisionError: by zero. Run `holdfast -v …` for the traceback",
        ),
    ],
)
def test_every_failure_becomes_a_line_and_a_code(error: str, code: int, line: str) -> None:
    program = (
        "import sys, types\nimport click\nfrom holdfast import errors\nfrom holdfast.cli import main\n"
        "@click.command()\ndef fail():\n"
        f"    raise {error}\n"
        "module = sys.modules['failing'] = types.ModuleType('failing')\nmodule.command = fail\n"
        "main.root.table = {**main.COMMANDS, 'fail': ('failing', 'Fail.')}\nmain.main(['fail'])\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (code, f"{line}\n")


def test_a_closed_output_is_no_error(tmp_path: Path) -> None:
    command = f"{HOLDFAST} runs list >&-"
    result = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


def test_help_imports_no_command_and_nothing_heavy() -> None:
    program = (
        "import sys\nfrom holdfast.cli.main import _run\n_run(['--help'])\n"
        "heavy = {'rich', 'dvc', 'git', 'pygit2', 'yaml', 'numpy', 'torch', 'holdfast.cli.gc'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_torch_is_imported_by_no_command(tmp_path: Path) -> None:
    """The base install has none: the modules of every command must load without it."""
    modules = [module.partition(":")[0] for module, _ in COMMANDS.values()]
    program = (
        "import sys, importlib\n"
        "for name in ('torch', 'matplotlib', 'sklearn', 'h5py', 'safetensors'): sys.modules[name] = None\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert result.returncode == 0, result.stderr


def test_summaries_are_those_of_the_commands() -> None:
    for name, (_, summary) in COMMANDS.items():
        command = root.get_command(click.Context(root), name)
        assert command is not None
        assert (command.help or "").splitlines()[0] == summary


def test_every_verb_has_a_sentence_and_an_example() -> None:
    for path, command in commands():
        text = command.help or ""
        assert text.split("\n")[0].endswith("."), path
        if not isinstance(command, click.Group):
            assert f"holdfast {' '.join(path)}" in text, f"no example in the help of {path}"


def test_the_reference_is_what_help_says() -> None:
    assert generate.PAGE.read_text(encoding="utf-8") == generate.page(), "run `make docs`"


def test_completion_completes(tmp_path: Path) -> None:
    script = holdfast("completion", "bash", cwd=tmp_path)
    assert "_HOLDFAST_COMPLETE" in script.stdout

    result = holdfast(cwd=tmp_path, _HOLDFAST_COMPLETE="bash_complete", COMP_WORDS="holdfast g", COMP_CWORD="1")
    assert result.stdout.split() == ["plain,gc"]
    result = holdfast(cwd=tmp_path, _HOLDFAST_COMPLETE="bash_complete", COMP_WORDS="holdfast gc p", COMP_CWORD="2")
    assert result.stdout.split() == ["plain,plan", "plain,purge"]


def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    for number in range(400):
        (tmp_path / f"run{number}").mkdir()
        (tmp_path / f"run{number}" / "epoch_statistics.csv").write_text("epoch,val_loss\n1,0.5\n")

    child = subprocess.Popen(
        [str(HOLDFAST), "runs", "list"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.close()
    with child.stderr:
        assert child.stderr.read() == b""
    assert child.wait() == 0


def test_runs_list_in_three_forms(tmp_path: Path) -> None:
    (tmp_path / "outputs" / "a|b").mkdir(parents=True)
    (tmp_path / "outputs" / "a|b" / "epoch_statistics.csv").write_text("epoch,val_loss\n1,0.5\n2,0.4\n")

    text = holdfast("runs", "list", cwd=tmp_path).stdout
    assert "outputs/a|b" in text
    assert not any(line.endswith(" ") for line in text.splitlines())
    assert "| outputs/a\\|b | unknown | 2 |" in holdfast("runs", "list", "--md", cwd=tmp_path).stdout
    payload = json.loads(holdfast("runs", "list", "--json", cwd=tmp_path).stdout)
    assert payload["runs"][0] == {
        "path": "outputs/a|b",
        "status": "unknown",
        "epochs": 2,
        "metric": None,
        "best_epoch": None,
        "best_value": None,
        "started": None,
        "size": 27,
    }
    assert holdfast("--cd", "outputs", "runs", "list", "--json", cwd=tmp_path).stdout.count('"a|b"') == 1


def test_runs_validate_says_each_fault_and_ends_with_13(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "epoch_statistics.csv").write_text("epoch,val_loss\n2,0.5\n1,0.4\n")

    result = holdfast("runs", "validate", "run", cwd=tmp_path)
    assert result.returncode == 13
    assert "run/metadata.json: is missing" in result.stdout
    assert "run/epoch_statistics.csv: line 3: epoch 1 does not come after epoch 2" in result.stdout
    assert result.stderr == f"holdfast: run has {len(result.stdout.splitlines())} faults\n"
    payload = json.loads(holdfast("runs", "validate", "run", "--json", cwd=tmp_path).stdout)
    assert payload["valid"] is False
    assert len(payload["faults"]) == len(result.stdout.splitlines())


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_950, "1.0 MB"), (47_600_000, "47.6 MB")],
)
def test_sizes(count: int, text: str) -> None:
    assert human_bytes(count) == text


def test_a_table_gives_up_spare_columns_until_it_fits() -> None:
    table = Table(("name", "note", "date"), [("a" * 10, "b" * 10, "c" * 10)], spare=("date", "note"))

    assert [tuple(table.fitted(width).columns) for width in (39, 38, 25)] == [
        ("name", "note", "date"),
        ("name", "note"),
        ("name",),
    ]
    assert table.fitted(5).rows == [["a" * 10]]  # what is left is folded


def test_ages_and_plurals() -> None:
    assert [human_age(days) for days in (0, 0.2, 1, 400)] == ["0 min", "4 h", "1 d", "1 y"]
    assert [plural(count, "entry", "entries") for count in (0, 1, 1200)] == ["0 entries", "1 entry", "1,200 entries"]
