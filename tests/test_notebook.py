"""The notebook, from top to bottom: on a machine that is killed meanwhile, and on the next one."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest

from holdfast.objectstore.opening import open_store
from pipeline_world import Clone
from proxy import Proxy, R2Rules, proxy
from servers import ACCESS_KEY, BUCKET, SECRET_KEY, S3Server
from worlds import TOOLS, environment, make_home, run

PROJECT = Path(__file__).parent.parent
NOTEBOOK = PROJECT / "notebooks" / "train_on_runpod.ipynb"
HOW_TO = PROJECT / "docs" / "how-to" / "train-on-a-rented-gpu.md"
CHILD = Path(__file__).parent / "notebook_child.py"
ACCOUNT = "0123456789abcdef" * 2
EPOCHS = 12
RESUME = Path("outputs/.resume")


@dataclass
class Machine:
    """A rented one: a clone, an empty home, and variables that lead to the bucket.

    Args:
        root: the clone's folder.
        home: nobody's yet.
        variables: besides those of every process.
    """

    root: Path
    home: Path
    variables: dict[str, str]

    @property
    def executed(self) -> Path:
        return self.home / "executed.ipynb"

    def start(self, **variables: str) -> "subprocess.Popen[str]":
        """Begin to run all cells."""
        notebook = self.root / NOTEBOOK.relative_to(PROJECT)
        command = [sys.executable, str(CHILD), str(notebook), str(self.executed)]
        return subprocess.Popen(
            command,
            cwd=self.root,
            env=self._environment() | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run_all(self) -> dict[str, str]:
        """Run all cells; what each says, by its id."""
        child = self.start()
        _, errors = child.communicate()
        said = told(self.executed)
        assert child.returncode == 0, f"{errors}\n{said}"
        return said

    def run_until(self, reached: Callable[[], bool]) -> None:
        """Run cells until then, and end every process of this machine as a power failure does."""
        child = self.start()
        while not reached():
            assert child.poll() is None, f"the notebook ended before: {child.communicate()[1]}"
            time.sleep(0.02)
        for process in [*psutil.Process(child.pid).children(recursive=True), child]:
            process.kill()
        child.communicate()

    def __call__(self, *command: str) -> str:
        done = subprocess.run(
            [shutil.which(command[0], path=f"{TOOLS}:{os.environ['PATH']}") or command[0], *command[1:]],
            cwd=self.root,
            env=self._environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
        return done.stdout.strip()

    def model(self) -> dict[str, Any]:
        """The project's model, as the registry shows it."""
        return dict(json.loads(self("holdfast", "registry", "show", "--json"))["models"][0])

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in environment(self.home).items() if not name.startswith(("AWS_", "R2_"))}
        # the notebook has to find the programs by itself, and to install nothing
        path = [folder for folder in os.environ["PATH"].split(os.pathsep) if Path(folder) != TOOLS]
        kept.pop("NO_COLOR")  # nobody has set it where the notebook is at home
        return kept | self.variables | {"PATH": os.pathsep.join(path), "PIP_NO_INDEX": "1"}


def told(executed: Path) -> dict[str, str]:
    """What each cell of a notebook that ran says, by its id."""

    def text(output: Any) -> str:
        if output.output_type == "error":
            return f"{output.ename}: {output.evalue}"
        data = output.get("data", {})
        return str(output.get("text", data.get("text/markdown", data.get("text/plain", ""))))

    cells = nbformat.read(executed, as_version=4).cells
    return {cell.id: "".join(map(text, cell.outputs)) for cell in cells if cell.cell_type == "code"}


def rows(file: Path) -> int:
    try:
        return len(file.read_text().splitlines())
    except FileNotFoundError:
        return 0


@dataclass(frozen=True)
class World:
    """What machines come and go from: a repository that they push to, and a bucket behind rules as R2's.

    Args:
        folder: for machines.
        origin: the repository, bare.
        prefix: the folder of the bucket.
        server: without the rules.
        link: with them.
        rules: what was refused.
    """

    folder: Path
    origin: Path
    prefix: str
    server: S3Server
    link: Proxy
    rules: R2Rules

    def rent(self, name: str) -> Machine:
        """An empty machine, and the one command that the how-to gives it."""
        home = make_home(self.folder / name)
        run(["git", "clone", "-q", str(self.origin), str(self.folder / name / "clone")], self.folder, home)
        variables = {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "R2_ACCOUNT_ID": ACCOUNT,
            "R2_BUCKET": BUCKET, "R2_PREFIX": self.prefix, "R2_ENDPOINT": self.link.endpoint,
        }  # fmt: skip
        return Machine(self.folder / name / "clone", home, variables)


@contextmanager
def published(folder: Path, server: S3Server) -> Iterator[World]:
    """The project in a repository, and new data in the bucket and the catalogue, put there as the how-to says."""
    author = Clone(folder / "author")
    for name in ("notebooks", "docs/how-to"):
        shutil.copytree(PROJECT / name, author.root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("constraints.txt", "pyproject.toml"):
        shutil.copy(PROJECT / name, author.root / name)
    # other params than those of the registered versions, so that the first round, too, makes one
    params = author.root / "params.yaml"
    params.write_text(params.read_text().replace("epochs: 40", f"epochs: {EPOCHS}"))
    prefix = server.make_folder().rpartition("/")[2]
    lines = re.search(r"```console\n(\$ python notebooks/printed_digits(?:.*\n)*?)```", HOW_TO.read_text())
    assert lines is not None
    script = lines[1].replace("\n$ ", "\n").removeprefix("$ ").replace("s3://models", f"s3://{BUCKET}/{prefix}")
    done = subprocess.run(
        ["bash", "-ec", f"{script}git add -A && git commit -qm notebook"],
        cwd=author.root,
        env=environment(author.home) | server.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    author("git", "clone", "-q", "--bare", ".", str(folder / "origin.git"))
    with proxy(server.port) as link:
        rules = R2Rules()
        link.rules, link.noted = rules, rules.noted
        yield World(folder, folder / "origin.git", prefix, server, link, rules)


@pytest.fixture(scope="module")
def world(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with published(tmp_path_factory.mktemp("notebook"), s3_server) as made:
        yield made


@pytest.fixture(scope="module")
def machine(world: World) -> Machine:
    """A machine that lost its power in the second round, and then was left alone."""
    rented = world.rent("first")
    rented.run_until(lambda: rows(rented.root / "outputs/continued/train/epoch_statistics.csv") > 4)
    assert (rented.root / RESUME / "continued.pt").exists()
    rented.run_all()
    return rented


def test_nothing_of_a_run_is_committed() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) > 10
    assert all(cell.outputs == [] and cell.execution_count is None and cell.metadata == {} for cell in code)


def test_what_is_missing_is_named(world: World) -> None:
    rented = world.rent("hasty")
    del rented.variables["R2_BUCKET"]
    child = rented.start()
    assert child.communicate()[1].strip().splitlines()[-1] == "RuntimeError: R2_BUCKET is not set: the bucket's name"
    assert child.returncode == 1


def test_both_rounds(machine: Machine) -> None:
    said = told(machine.executed)
    assert not [cell for cell, text in said.items() if "Error" in text or "\x1b" in text]
    # the first round is the pipeline's
    assert "no GPU, so the CPU" in said["memory"] or "GB in use now" in said["memory"]
    assert json.loads((machine.root / "metrics/evaluate.json").read_text())["accuracy"] >= 0.95
    # the second went on with the new data
    second = json.loads((machine.root / "outputs/continued/train/metadata.json").read_text())
    assert (second["status"], second["epochs"], len(second.get("resumed", ()))) == ("finished", 13, 1)
    assert re.search(r"going on after epoch [2-9] of an interrupted round", said["continue"])
    assert second["monitor"]["best_epoch"] > 0
    begun, end = (float(value) for value in printed_accuracy(machine))
    assert end > begun + 0.1
    # and was judged by the same gate, against the version that it began with
    model = machine.model()
    versions = {version["version"]: version for version in model["versions"]}
    champion, current = versions[second["params"]["start"].partition("@")[2]], versions[model["current"]]
    judged = re.search(r"The gate: (\w+) against (v\d+)", said["gate"])
    assert judged is not None
    assert judged[2] == champion["version"]
    if judged[1] == "pass":
        assert current["params"]["data"] == second["params"]["data"]
        assert current["gate"]["champion"] == judged[2]
        assert current["source"]["predictions"] != champion["source"]["predictions"]
    else:  # on a processor that trains other bits
        assert current == champion
        assert "Nothing was registered" in said["gate"]


def printed_accuracy(machine: Machine) -> tuple[str, str]:
    """On printed digits, of the model as it was and of the best epoch."""
    lines = (machine.root / "outputs/continued/train/epoch_statistics.csv").read_text().splitlines()
    column = lines[0].split(",").index("printed_accuracy")
    metadata = json.loads((machine.root / "outputs/continued/train/metadata.json").read_text())
    return lines[1].split(",")[column], lines[1 + metadata["monitor"]["best_epoch"]].split(",")[column]


@pytest.mark.soak
def test_power_lost_in_the_pipeline(s3_server: S3Server, tmp_path: Path) -> None:
    """In the first round, of which the pipeline's own tests show the same without a notebook."""
    with published(tmp_path, s3_server) as made:
        rented = made.rent("first")
        rented.run_until(lambda: rows(rented.root / "outputs/train/epoch_statistics.csv") > 5)
        assert (rented.root / RESUME / "train.pt").exists()
        rented.run_all()
        assert json.loads((rented.root / "outputs/train/metadata.json").read_text())["resumed"]


@pytest.mark.soak
def test_nothing_is_done_twice(world: World, machine: Machine) -> None:
    """Neither by a machine that was interrupted, nor by the next one, which has it all from the bucket."""
    said = told(machine.executed)
    assert "up to date" in said["repro"]
    assert "Running stage" not in said["repro"]
    stored = packs(world)
    assert stored

    new = world.rent("next")
    said = new.run_all()
    assert "up to date" in said["repro"]
    assert "Running stage" not in said["repro"]
    assert packs(world) == stored
    assert new.model() == machine.model()
    assert new("git", "rev-parse", "HEAD") == machine("git", "rev-parse", "HEAD")
    assert new("git", "status", "--porcelain") == ""
    assert new("dvc", "status") == "Data and pipelines are up to date."
    assert "in sync" in new("holdfast", "status")
    # with the time of the training in it
    same = (
        "models/digits/classifier.safetensors",
        "outputs/train/metadata.json",
        "outputs/continued/train/metadata.json",
    )
    assert all((new.root / file).read_bytes() == (machine.root / file).read_bytes() for file in same)


def test_no_key_is_left(world: World, machine: Machine) -> None:
    """Neither in what the notebook shows, nor on the disk, nor in the bucket or the repository."""
    assert machine.executed.exists()
    folders = (machine.root, machine.home, world.origin)
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(files) > 100
    keys = (ACCESS_KEY.encode(), SECRET_KEY.encode())
    assert not [path for path in files if any(key in path.read_bytes() for key in keys)]


def packs(world: World) -> set[str]:
    """What the vault stores; each push also writes down what it claims."""
    store = open_store(f"s3://{BUCKET}/{world.prefix}", world.server.options())
    return {info.key for info in store.list_objects("vault/packs")}
