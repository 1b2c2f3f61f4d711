"""Rules on models and modules: which line breaks one, and what the right name is; rules that cannot be kept."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cleanup_world import WORLDS, Arguments, sources
from holdfast.inventory.canonical import CheckReport, check, find_canon

RULES = """
canonical:
  models:
    - use: models/*_cv_best.pth
      not: [models/*_cccv1_best.pth]
      why: other preprocessing
  modules:
    - use: neuro.graph_vae
      not: [neuro.rebuilt_graph_vae, "neuro.*_graph_vae_fixed"]
    - {use: loader, not: loader_simple}
"""
FILES = {
    "holdfast.yaml": RULES,
    "models/miyawaki_cv_best.pth": "",
    "models/crell_cv_best.pth": "",
    "models/other.pth": "",
    "neuro/__init__.py": "def result_graph_vae_fixed(): pass\n",
    "neuro/graph_vae.py": "class GraphVAE: pass\ndef train(): pass\n",
    "loader.py": "def load(): pass\n",
}
# the same world under other names: words of other lengths, which order otherwise
WORDS = {
    "cccv1": "finaldraft", "cv": "final", "models/": "weights/", "models\\": "weights\\", '"models"': '"weights"', ".pth": ".safetensors", "miyawaki": "amber", "crell": "zinc",
    "newsubject": "w", "neuro": "storage", "rebuilt_graph_vae": "simple_layer", "graph_vae": "layer",
    "GraphVAE": "Layer", "loader": "fast_reader",
}  # fmt: skip


def plain(text: str) -> str:
    return text


def renamed(text: str) -> str:
    for old, new in WORDS.items():
        text = text.replace(old, new)
    return text


def plant(root: Path, files: dict[str, str]) -> Path:
    for path, text in files.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    return root


def guard(root: Path, world: dict[str, str] | None = None, **options: object) -> CheckReport:
    plant(root, world or {})
    return check(root, find_canon(root), **options)  # type: ignore[arg-type]


def rights(report: CheckReport) -> list[str]:
    return [finding.right for finding in report.findings]


M, C, N = "models/miyawaki_cv_best.pth", "models/crell_cv_best.pth", "models/newsubject_cv_best.pth"
# a line, and for each finding in it the right name
MODELS: list[tuple[str, list[str]]] = [
    # written out
    ('load("models/miyawaki_cccv1_best.pth")', [M]),
    ('load("models/newsubject_cccv1_best.pth")', [N]),
    ('load("./models/newsubject_cccv1_best.pth")', [N]),
    ('load("../models/newsubject_cccv1_best.pth")', [N]),
    (r'load("models\\newsubject_cccv1_best.pth")', [N]),
    ('load("/data/models/newsubject_cccv1_best.pth")', [N]),
    ('load("newsubject_cccv1_best.pth")', [N]),
    ('load("newsubject_cccv1_best")', ["models/newsubject_cv_best"]),
    ('load("models/newsubject_cccv1_best")', ["models/newsubject_cv_best"]),
    ('load("models/newsubject_cccv1_best.pth.dvc")', [N]),
    ('load("models/crell_cccv1_best.pth", "models/miyawaki_cccv1_best.pth")', [C, M]),
    ('os.system("python eval.py --ckpt models/crell_cccv1_best.pth")', [C]),
    # built
    ('load(f"models/{name}_cccv1_best.pth")', ['f"models/{name}_cv_best.pth"']),
    ('load(f"models/new{name}_cccv1_best.pth")', ['f"models/new{name}_cv_best.pth"']),
    ('load(f"{FOLDER}/{name}_cccv1_best.pth")', ['f"{FOLDER}/{name}_cv_best.pth"']),
    ('load("models/" + n + "_cccv1_best.pth")', ['"models/" + n + "_cv_best.pth"']),
    ('load(("models/"\n      + n + "_cccv1_best.pth"))', ['"models/" + n + "_cv_best.pth"']),
    ('load("models/%s_cccv1_best.pth" % n)', ['"models/%s_cv_best.pth" % n']),
    ('load("models/{}_{}_best.pth".format(n, "cccv1"))', ['"models/{}_{}_best.pth".format(n, "cv")']),
    ('T = "models/{}_{}_best.pth"\nload(T.format(n, "cccv1"))\nload(T.format(n, "cv"))', ['T.format(n, "cv")']),
    ('load(Path("models") / f"{n}_cccv1_best.pth")', ['Path("models") / f"{n}_cv_best.pth"']),
    ('load(os.path.join("models", n + "_cccv1_best.pth"))', ['os.path.join("models", n + "_cv_best.pth")']),
    ('load(MODELS / "newsubject_cccv1_best.pth")', ['MODELS / "newsubject_cv_best.pth"']),
    ('load(Path("models") / f"{n}_cccv1_best")', ['Path("models") / f"{n}_cv_best"']),
    ('K = "cccv1"\nload(f"models/{n}_{K}_best.pth")', ["models/{}_cv_best.pth"]),
    ('END = "_cccv1_best.pth"\nload(f"models/{n}{END}")', ["models/{}_cv_best.pth"]),
    ('END = "_cccv1_best.pth"\nload(FOLDER / f"{n}{END}")', ["models/{}_cv_best.pth"]),
    ('load(f"models/{cccv1_name}_cccv1_best.pth")', ["models/{}_cv_best.pth"]),
    ('cccv1 = "cccv1"\nload(f"models/{n}_{cccv1}_best.pth")', ["models/{}_cv_best.pth"]),
    ('for n in ["crell"]: load(f"models/{n}_cccv1_best.pth")', ['f"models/{n}_cv_best.pth"']),
    ('n = "crell"; s = "_cccv1_best.pth"; load("models/" + n + s)', [C]),
    # each alternative that is written out counts for itself
    ('for k in ("cv", "cccv1"): load(f"models/{n}_{k}_best.pth")', ["models/{}_cv_best.pth"]),
    ('x = "models/crell_cccv1_best.pth" if old else "models/crell_cv_best.pth"', [C]),
    ('k = "cv" if new else "cccv1"\nload(f"models/{n}_{k}_best.pth")', ["models/*_cv_best.pth"]),
    # globs
    ('x = glob.glob("models/*_cccv1_best.pth")', ['glob.glob("models/*_cv_best.pth")']),
    ('x = glob.glob("models/*cccv1*")', ["models/*_cv_best.pth"]),
    ('x = Path(".").rglob("*_cccv1_best.pth")', ['Path(".").rglob("*_cv_best.pth")']),
    ('x = Path(FOLDER).rglob("*_cccv1_*")', ['Path(FOLDER).rglob("*_cv_*")']),
    ('x = glob.glob("models/**/new*_cccv1_best.pth")', ['glob.glob("models/**/new*_cv_best.pth")']),
    ('x = [p for p in os.listdir("models") if p.endswith("_cccv1_best.pth")]', ['p.endswith("_cv_best.pth")']),
    # what can be one that counts, or any other file, is none
    ('x = glob.glob("models/*_best.pth")', []),
    ('x = glob.glob("models/*.pth")', []),
    ('x = Path("models").glob("*")', []),
    ('load(f"models/{n}_{k}_best.pth")', []),
    ('load(f"models/{n}.pth")', []),
    ('load(f"models/new{n}_best.pth")', []),
    ('load(f"models/{n}_{k}_best.pth".replace("x", k))', []),
    # what counts, and what is another file
    ('load("models/miyawaki_cv_best.pth")', []),
    ('load(f"models/{n}_cv_best.pth")', []),
    ('load("models/other.pth")', []),
    ('load("outputs/newsubject_cccv1_best.pth")', []),
    ('load(f"outputs/{n}_cccv1_best.pth")', []),
    ('load("models/newsubject_cccv1_best.pt")', []),
    ('load("models/newsubject_cccv1_best.pth.bak")', []),
    ('load("models/newsubject_cccv12_best.pth")', []),
    ('load("https://host/models/newsubject_cccv1_best.pth")', []),
    ('END = "_cccv1_best.pth"', []),
    # mentions, and what a comment excuses
    ("# models/crell_cccv1_best.pth", []),
    ('"""See models/crell_cccv1_best.pth."""', []),
    ('print("wrote models/crell_cccv1_best.pth at last")', []),
    ('load("models/crell_cccv1_best.pth")  # holdfast: allow', []),
    ('load("models/crell_cccv1_best.pth")  # noqa: E501  # holdfast: allow, the paper has it', []),
    ('load("models/" +\n     n + "_cccv1_best.pth")  # holdfast: allow', []),
    ('load("models/crell_cccv1_best.pth")  # holdfast: allowance', [C]),
    ('# holdfast: allow\nload("models/crell_cccv1_best.pth")', [C]),
]


@pytest.mark.parametrize("rename", [plain, renamed])
@pytest.mark.parametrize(("line", "right"), MODELS, ids=[line for line, _ in MODELS])
def test_a_line_and_the_right_model(tmp_path: Path, line: str, right: list[str], rename: Callable[[str], str]) -> None:
    world = {rename(path): rename(text) for path, text in (FILES | {"scripts/use.py": line + "\n"}).items()}
    report = guard(tmp_path, world)
    assert rights(report) == [rename(name) for name in right]
    assert {finding.about for finding in report.findings} <= {"model"}


@pytest.mark.parametrize("deleted", [False, True])
@pytest.mark.parametrize("arguments", WORLDS)
def test_the_six_references_of_a_clean_up(tmp_path: Path, arguments: Arguments, deleted: bool) -> None:
    names, main, other, folder, ext = arguments
    plant(tmp_path, sources(*arguments))
    plant(tmp_path, {f"{folder}/{name}_{main}.{ext}": "" for name in names})
    plant(tmp_path, {} if deleted else {f"{folder}/{name}_{other}.{ext}": "" for name in names})
    rule = f"{{use: {folder}/*_{main}.{ext}, not: {folder}/*_{other}.{ext}}}"
    report = guard(tmp_path, {"holdfast.yaml": f"canonical: {{models: [{rule}]}}"})
    assert [(item.file, item.right) for item in report.findings] == [
        ("analysis/a.py", f"{folder}/{names[0]}_{main}.{ext}"),
        ("analysis/a.py", f'f"{folder}/{{n}}_{main}.{ext}"'),
        ("analysis/list.py", f'glob.glob("{folder}/*_{main}.{ext}")'),
        ("analysis/list.py", f'glob.glob("{folder}/*_{main}.{ext}")'),
        ("analysis/verify.py", f'"{folder}/" + n + "_{main}.{ext}"'),
        ("analysis/verify.py", f'"{folder}/%s_{main}.{ext}" % n'),
    ]
    assert len(guard(tmp_path, mentions=True).findings) == 10


MODULES: list[tuple[str, list[str]]] = [
    ("from neuro.rebuilt_graph_vae import GraphVAE", ["from neuro.graph_vae import GraphVAE"]),
    ("from neuro.rebuilt_graph_vae import GraphVAE as G, train", ["from neuro.graph_vae import GraphVAE as G, train"]),
    ("from neuro.big_graph_vae_fixed import train", ["from neuro.graph_vae import train"]),
    ("from neuro.rebuilt_graph_vae import *", ["from neuro.graph_vae import *"]),
    ("from neuro.rebuilt_graph_vae.parts import x", ["from neuro.graph_vae.parts import x"]),
    ("import neuro.rebuilt_graph_vae", ["import neuro.graph_vae"]),
    ("import os, neuro.rebuilt_graph_vae as vae", ["import neuro.graph_vae as vae"]),
    ("from neuro import os, rebuilt_graph_vae as vae", ["from neuro import graph_vae as vae"]),
    ("from neuro import (\n    graph_vae,\n    rebuilt_graph_vae,\n)", ["from neuro import graph_vae"]),
    ("def f():\n    from neuro.rebuilt_graph_vae import train", ["from neuro.graph_vae import train"]),
    ("import loader_simple", ["import loader"]),
    ("from loader_simple import load", ["from loader import load"]),
    ('m = importlib.import_module("neuro.rebuilt_graph_vae")', ["importlib.import_module('neuro.graph_vae')"]),
    ('m = importlib.import_module("loader_simple")', ["importlib.import_module('loader')"]),
    ('C = {"_target_": "neuro.rebuilt_graph_vae.GraphVAE"}', ["neuro.graph_vae.GraphVAE"]),
    ('run(["python", "-m", "neuro.rebuilt_graph_vae"])', ["neuro.graph_vae"]),
    ('run(["python", "neuro/rebuilt_graph_vae.py"])', ["neuro/graph_vae.py"]),
    ("try:\n    import fast\nexcept ImportError:\n    import loader_simple as fast", ["import loader as fast"]),
    ("try:\n    import loader\nexcept ImportError:\n    import loader_simple as loader", [""]),
    ("try:\n    import loader\nexcept ImportError:\n    pass\ntry:\n    import fast\nexcept ImportError:\n    import loader_simple as fast", ["import loader as fast"]),
    ("try:\n    from neuro import graph_vae\nexcept ImportError:\n    import neuro.rebuilt_graph_vae", [""]),
    ("try:\n    from neuro.rebuilt_graph_vae import train\nexcept ImportError:\n    from neuro.graph_vae import train",
     ["from neuro.graph_vae import train"]),
    ("print 'old'\nfrom neuro.rebuilt_graph_vae import train", ["from neuro.graph_vae import train"]),
    # none
    ("from neuro.graph_vae import GraphVAE", []),
    ("from neuro import result_graph_vae_fixed", []),
    ("from other.rebuilt_graph_vae import GraphVAE", []),
    ("import neuro.rebuilt_graph_vae2", []),
    ("rebuilt_graph_vae = 1", []),
    ('x = "loader_simple"', []),
    ("# from neuro.rebuilt_graph_vae import x", []),
    ('"""Was neuro.rebuilt_graph_vae."""', []),
    ("from neuro.rebuilt_graph_vae import train  # holdfast: allow", []),
    ("from neuro.rebuilt_graph_vae import (  # holdfast: allow\n    train,\n)", []),
]  # fmt: skip


@pytest.mark.parametrize("rename", [plain, renamed])
@pytest.mark.parametrize(("line", "right"), MODULES, ids=[line for line, _ in MODULES])
def test_a_line_and_the_right_import(tmp_path: Path, line: str, right: list[str], rename: Callable[[str], str]) -> None:
    world = {rename(path): rename(text) for path, text in (FILES | {"use.py": line + "\n"}).items()}
    report = guard(tmp_path, world)
    assert rights(report) == [rename(name) for name in right]
    assert {finding.about for finding in report.findings} <= {"module"}


@pytest.mark.parametrize(
    ("file", "line", "right"),
    [
        ("neuro/use.py", "from .rebuilt_graph_vae import train", "from .graph_vae import train"),
        ("neuro/use.py", "from . import rebuilt_graph_vae as r", "from . import graph_vae as r"),
        ("neuro/deep/use.py", "from ..rebuilt_graph_vae import train", "from ..graph_vae import train"),
        ("neuro/deep/use.py", "from .. import rebuilt_graph_vae", "from .. import graph_vae"),
        # a script sees the modules beside it
        ("neuro/use.py", "import rebuilt_graph_vae", "import graph_vae"),
        ("neuro/use.py", "from rebuilt_graph_vae import train", "from graph_vae import train"),
        (
            "neuro/use.py",
            'import_module(".rebuilt_graph_vae", __package__)',
            "import_module('.graph_vae', __package__)",
        ),
        ("src/use.py", "from src.neuro.rebuilt_graph_vae import train", "from src.neuro.graph_vae import train"),
        ("other/use.py", "import rebuilt_graph_vae", None),
        ("neuro/rebuilt_graph_vae.py", "from .rebuilt_graph_vae import train", None),
    ],
)
def test_imports_as_the_file_writes_them(tmp_path: Path, file: str, line: str, right: str | None) -> None:
    assert rights(guard(tmp_path, FILES | {file: line + "\n"})) == ([] if right is None else [right])


def test_modules_below_src_and_elsewhere(tmp_path: Path) -> None:
    rules = {"holdfast.yaml": "canonical: {modules: [{use: neuro.graph_vae, not: neuro.old_vae}]}"}
    for base in ("src", "code/lib"):
        world = rules | {f"{base}/neuro/__init__.py": "", f"{base}/neuro/graph_vae.py": ""}
        uses = {
            f"{base}/neuro/a.py": "from .old_vae import x\n",
            "b.py": "from neuro.old_vae import x\n",
            "c.sh": f"python {base}/neuro/old_vae.py\n",
        }
        report = guard(tmp_path / base.replace("/", "_"), world | uses)
        expected = {"from .graph_vae import x", "from neuro.graph_vae import x", f"{base}/neuro/graph_vae.py"}
        assert set(rights(report)) == expected


def test_a_module_that_is_there_decides(tmp_path: Path) -> None:
    world = FILES | {
        "neuro/rebuilt_graph_vae.py": "",
        "other/use.py": "import rebuilt_graph_vae\n",  # no other module has that name
        "tools/loader_simple.py": "",
        "tools/use.py": "import loader_simple\n",  # the one beside it
    }
    report = guard(tmp_path, world)
    assert [(item.file, item.right) for item in report.findings] == [("other/use.py", "import graph_vae")]


def test_of_two_copies_of_a_package_the_one_that_is_imported_counts(tmp_path: Path) -> None:
    world = {
        "holdfast.yaml": 'canonical: {modules: [{use: lab.core, not: [lab.old, "lab.*.*"]}]}',
        **dict.fromkeys(["src/lab/core.py", "backup/lab/core.py"], ""),
        "backup/lab/use.py": "from .old import x\n",
        "src/lab/use.py": "import torch.nn\nfrom .old import x\nfrom .deep.er import y\n",
    }
    report = guard(tmp_path, world)
    assert [(item.place, item.right) for item in report.findings] == [
        ("src/lab/use.py:2:1", "from .core import x"),
        ("src/lab/use.py:3:1", "from .core import y"),
    ]


def test_a_name_that_the_right_module_lacks_is_told(tmp_path: Path) -> None:
    line = "from neuro.rebuilt_graph_vae import GraphVAE, Encoder\n"
    (finding,) = guard(tmp_path, FILES | {"use.py": line}).findings
    assert finding.note == "neuro/graph_vae.py has no Encoder"


TEXTS: list[tuple[str, str, list[str]]] = [
    ("a.yaml", "model: models/newsubject_cccv1_best.pth", [N]),
    ("a.yaml", "model: models/${name}_cccv1_best.pth  # ${name}", ["models/${name}_cv_best.pth"]),
    ("a.yaml", "net:\n  _target_: neuro.rebuilt_graph_vae.GraphVAE", ["neuro.graph_vae.GraphVAE"]),
    ("a.yaml", "# models/crell_cccv1_best.pth", []),
    ("a.yaml", "model: models/crell_cccv1_best.pth  # holdfast: allow", []),
    ("a.json", '{"a": "models/crell_cccv1_best.pth", "_target_": "neuro.rebuilt_graph_vae.X"}', [C, "neuro.graph_vae.X"]),
    ("a.toml", 'main = "neuro.rebuilt_graph_vae:train"', ["neuro.graph_vae"]),
    ("a.sh", "for n in crell miyawaki; do cp models/${n}_cccv1_best.pth /tmp; done", ["models/${n}_cv_best.pth"]),
    ("a.sh", "python -m neuro.rebuilt_graph_vae", ["neuro.graph_vae"]),
    ("Makefile", "run:\n\tpython neuro/rebuilt_graph_vae.py models/crell_cccv1_best.pth", ["neuro/graph_vae.py", C]),
    ("dvc.yaml", "stages:\n  a:\n    cmd: python neuro/rebuilt_graph_vae.py", ["neuro/graph_vae.py"]),
    ("a.md", "We use `models/crell_cccv1_best.pth` and neuro.rebuilt_graph_vae.", []),
    ("dvc.lock", "path: models/crell_cccv1_best.pth", []),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "right"), TEXTS, ids=[f"{name} {text[:40]}" for name, text, _ in TEXTS])
def test_a_text_and_the_right_name(tmp_path: Path, name: str, text: str, right: list[str]) -> None:
    assert rights(guard(tmp_path, FILES | {name: text + "\n"})) == right


def notebook(*cells: tuple[str, str]) -> str:
    return json.dumps({"cells": [{"cell_type": kind, "source": text} for kind, text in cells], "nbformat": 4})


def test_notebooks(tmp_path: Path) -> None:
    cells = (
        ("markdown", "from neuro.rebuilt_graph_vae and models/crell_cccv1_best.pth"),
        ("code", '%matplotlib inline\nfrom neuro.rebuilt_graph_vae import train\nNAME = "crell"'),
        ("code", '!ls models/crell_cccv1_best.pth\nm = load(f"models/{NAME}_cccv1_best.pth")  # holdfast: allow'),
        ("code", 'm = load("é", f"models/{x}_cccv1_best.pth")'),
    )
    report = guard(tmp_path, FILES | {"a.ipynb": notebook(*cells)})
    assert [(finding.place, finding.right) for finding in report.findings] == [
        ("a.ipynb[2]:2:1", "from neuro.graph_vae import train"),
        ("a.ipynb[3]:1:5", C),
        ("a.ipynb[4]:1:15", 'f"models/{x}_cv_best.pth"'),
    ]
    assert report.allowed == 1


def test_places_and_words(tmp_path: Path) -> None:
    text = 'x = "ä"; y = load("models/" +\n         n + "_cccv1_best.pth")\nfrom neuro import (\n  rebuilt_graph_vae)\n'
    first, second = guard(tmp_path, FILES | {"a.py": text}).findings
    assert (first.place, first.end_line, first.end_column) == ("a.py:1:19", 2, 31)
    assert first.message == (
        '`models/{}_cccv1_best.pth` is not canonical (other preprocessing): use `"models/" + n + "_cv_best.pth"`'
    )
    assert (second.place, second.end_line, second.end_column) == ("a.py:4:3", 4, 20)
    assert second.message == "`from neuro import rebuilt_graph_vae` is not canonical: use `from neuro import graph_vae`"


def test_a_right_name_that_is_not_there_is_told(tmp_path: Path) -> None:
    text = 'a = "models/crell_cccv1_best.pth"\nb = "models/newsubject_cccv1_best.pth"\n'
    assert [finding.note for finding in guard(tmp_path, FILES | {"a.py": text}).findings] == [
        "",
        "there is no such file yet",
    ]


def test_mentions_count_when_asked_for(tmp_path: Path) -> None:
    files = {
        "a.py": '"""Was models/crell_cccv1_best.pth."""\n# neuro.rebuilt_graph_vae\nx = 1\n',
        "b.md": "See models/newsubject_cccv1_best.pth. <!-- holdfast: allow -->\nAnd neuro.rebuilt_graph_vae.\n",
    }
    assert guard(tmp_path, FILES | files).findings == ()
    report = guard(tmp_path, mentions=True)
    assert [(item.place, item.right, item.mention) for item in report.findings] == [
        ("a.py:1:1", C, True),
        ("a.py:2:3", "neuro.graph_vae", True),
        ("b.md:2:5", "neuro.graph_vae", True),
    ]


def test_allowed_files_and_chosen_files(tmp_path: Path) -> None:
    text = 'x = "models/crell_cccv1_best.pth"\n'
    names = ["archive/a.py", "archive/deep/b.py", "tests/legacy/c.py", "tests/d.py", "e.py"]
    world = FILES | dict.fromkeys(names, text) | {"holdfast.yaml": RULES + "  allow: [archive/**, tests/legacy/*.py]\n"}
    assert [finding.file for finding in guard(tmp_path, world).findings] == ["e.py", "tests/d.py"]

    (tmp_path / "link.py").symlink_to(tmp_path / "e.py")
    (tmp_path / "f.bin").write_bytes(text.encode())
    outside = plant(tmp_path.parent / f"{tmp_path.name}-outside", {"a.py": text})
    chosen = [tmp_path / name for name in ("archive/a.py", "tests", "link.py", "f.bin", "gone.py")]
    report = guard(tmp_path, files=[*chosen, outside / "a.py"])
    assert [finding.file for finding in report.findings] == ["tests/d.py"]
    assert report.sources == 1


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.lists(
        st.sampled_from(
            ["models/", "_cccv1_best.pth", "{n}", "f'", '"', "'", "*", "**", "[", "]", "(", " + ", "\n", "import ",
             "from ", "neuro", ".", "rebuilt_graph_vae", "# holdfast: allow", "..", "\\", "/", "archive/", "\x0c", "ä"]
        ),
        max_size=30,
    ).map("".join)
)  # fmt: skip
def test_no_text_breaks_it(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    root = plant(tmp_path_factory.mktemp("fuzz"), FILES)
    for name in ("a.py", "b.yaml", "c.sh", "d.md", "Makefile"):
        (root / name).write_text(text + "\n'crell_cccv1_best.pth' neuro.rebuilt_graph_vae", encoding="utf-8")
    (root / "f.ipynb").write_text(notebook(("code", text + "\n# crell_cccv1_best.pth")), encoding="utf-8")
    report = guard(root, mentions=True)
    assert {finding.file for finding in report.findings} >= {"b.yaml", "d.md"}


@pytest.mark.parametrize(
    "text",
    ["x = '" + "{}_" * 30000 + "cccv1_best.pth'", "x = f'" + "{a}b" * 80 + "_cccv1_best.pth'",
     "a = glob('" + "**/" * 300 + "*_cccv1_best.pth')", "x = '" + "a/" * 400 + "_cccv1_best.pth'",
     "\n".join(f"x{i} = f'{{a}}{'*a' * 100}{i}_cccv1_best.pth'" for i in range(400))],
    ids=lambda text: text[:16],
)  # fmt: skip
def test_hostile_text_takes_little_time(tmp_path: Path, text: str) -> None:
    start = time.perf_counter()
    guard(tmp_path, FILES | {"a.py": text, "b.sh": text})
    assert time.perf_counter() - start < 10  # what is not bounded takes minutes


def test_speed(tmp_path: Path) -> None:
    body = "import os\nfrom torchvision import models\n" + "\n".join(
        f"def f{i}(a, b=1):\n    return os.path.join('models', str(a), 'best_{i}')" for i in range(20)
    )
    plant(tmp_path, FILES)
    for number in range(2000):
        (tmp_path / f"m{number}.py").write_text(
            body + (f"\nx = '{M}'.replace('cv', 'cccv1')" if number % 20 == 0 else "")
        )
    start = time.perf_counter()
    report = guard(tmp_path)
    whole = time.perf_counter() - start
    start = time.perf_counter()
    one = guard(tmp_path, files=[tmp_path / "m1.py"])
    print(f"2,000 files: {whole:.1f} s; one of them: {time.perf_counter() - start:.3f} s")
    assert (len(report.findings), one.sources) == (100, 1)
    assert whole < 20
