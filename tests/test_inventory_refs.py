"""References: which files one line names, however it builds the name; whole trees; texts that are no programs."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cleanup_world import WORLDS, sources
from holdfast.inventory.ref_families import name_families
from holdfast.inventory.references import NoTargetError, ReferenceReport, find_references
from holdfast.inventory.sources import parse_cell, read_cells
from worlds import World, make_home

NAMES = ("miyawaki", "vangerven", "crell", "mindbigdata")
CV = [f"models/{name}_cv_best.pth" for name in NAMES]
CCC = [f"models/{name}_cccv1_best.pth" for name in NAMES]
M, V, C, B = CV
ALL = frozenset(CV + CCC)
F = frozenset(CV)
S = frozenset(CCC)
NONE: frozenset[str] = frozenset()


def plant(root: Path, files: dict[str, str]) -> Path:
    for path, text in files.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    return root


def refs(root: Path, targets: list[str] | None = None) -> ReferenceReport:
    return find_references(root, CV + CCC if targets is None else targets)


def used(report: ReferenceReport) -> list[frozenset[str]]:
    return [frozenset(item.targets) for item in report.references if not item.is_mention]


# one line (`;` and `\n` where it takes more), and for each reference that it is the exact set it names
PYTHON: list[tuple[str, list[frozenset[str]]]] = [
    # written out
    ('load("models/miyawaki_cv_best.pth")', [{M}]),
    ("load('./models/miyawaki_cv_best.pth')", [{M}]),
    ('load("../models/miyawaki_cv_best.pth")', [{M}]),
    (r'load("models\\miyawaki_cv_best.pth")', [{M}]),
    (r'load(r"models\miyawaki_cv_best.pth")', [{M}]),
    (r'load(r"C:\work\models\miyawaki_cv_best.pth")', [{M}]),
    ('load("/workspace/models/crell_cccv1_best.pth")', [{CCC[2]}]),
    ('load("~/project/models/crell_cv_best.pth")', [{C}]),
    ('load(b"models/crell_cv_best.pth")', [{C}]),
    ('load("miyawaki_cv_best.pth")', [{M}]),
    ('load("miyawaki_cv_best")', [{M}]),
    ('load("models/miyawaki_cv_best")', [{M}]),
    ('load("models/miyawaki_cv_best.pth.dvc")', [{M}]),
    ('load("models/crell_cv_best.pth", "models/miyawaki_cv_best.pth")', [{C}, {M}]),
    ('A = {"a": "models/crell_cv_best.pth", "b": "miyawaki_cv_best.pth"}', [{C}, {M}]),
    ('x = "models/crell_cv_best.pth" if big else "models/miyawaki_cv_best.pth"', [{C}, {M}]),
    ('parser.add_argument("--ckpt", default="models/crell_cv_best.pth")', [{C}]),
    ('run(["python", "eval.py", "--ckpt=models/crell_cv_best.pth"])', [{C}]),
    ('os.system("python eval.py --ckpt models/crell_cv_best.pth")', [{C}]),
    ('subprocess.run(f"cp models/{n}_cv_best.pth /tmp", shell=True)', [F]),
    ('def f(path="models/crell_cv_best.pth"): pass', [{C}]),
    # f-strings
    ('load(f"models/{name}_cv_best.pth")', [F]),
    ('load(f"models/{name}_cccv1_best.pth")', [S]),
    ('load(f"{DIR}/{name}_cv_best.pth")', [F]),
    ('load(f"{name}_cv_best.pth")', [F]),
    ('load(f"models/{name}.pth")', [ALL]),
    ('load(f"models/{name}_{kind}_best.pth")', [ALL]),
    ("load(f\"models/{name.lower()}_cv_{'best'}.pth\")", [F]),
    ('load(f"models/crell_{kind}_best.pth")', [{C, CCC[2]}]),
    ('load(f"models/{name}_cv_best" + ".pth")', [F]),
    ('p = f"models/{name}_cv_best"', [F]),
    ('load(f"models" f"/{name}_cv_best.pth")', [F]),
    ('load(f"/data/models/{name}_cv_best.pth")', [F]),
    ('load(f"../models/{name}_cv_best.pth")', [F]),
    ('load(rf"models\\{name}_cv_best.pth")', [F]),
    # concatenation
    ('load("models/" + n + "_cccv1_best.pth")', [S]),
    ('load(n + "_cv_best.pth")', [F]),
    ('load("models/" + "miyawaki" + "_cv_best.pth")', [{M}]),
    ('load("models/" + (n or "x") + "_cv_best" + ".pth")', [F]),
    ('n = "crell"; load("models/" + n + "_cv_best.pth")', [{C}]),
    ('p = "models/"; p += n; p += "_cv_best.pth"', [F]),
    ('p = "models/" + str(n); load(p + "_cv_best.pth")', [F]),
    ('s = "_cv_best.pth"; load("models/" + n + s)', [F]),
    ('load("/".join(["models", n + "_cv_best.pth"]))', [F]),
    ('load("_".join([n, "cv", "best"]) + ".pth")', [F]),
    ('load("_".join(("crell", "cv", "best.pth")))', [{C}]),
    ('load("models" + os.sep + n + "_cv_best.pth")', [F]),
    # % and format
    ('load("models/%s_cv_best.pth" % n)', [F]),
    ('load("models/%s_%s_best.pth" % (n, "cv"))', [F]),
    ('load("models/%(n)s_cv_best.pth" % {"n": "crell"})', [{C}]),
    ('load("models/{}_cv_best.pth".format(n))', [F]),
    ('load("models/{}_cv_best.pth".format("crell"))', [{C}]),
    ('load("models/{name}_cv_best.pth".format(name=n))', [F]),
    ('load("models/{0}_{1}_best.pth".format(n, "cccv1"))', [S]),
    ('T = "models/{}_cv_best.pth"\nfor n in ["crell"]: load(T.format(n))', [{C}]),
    ('T = "models/%s_cv_best.pth"\nload(T % "crell")', [{C}]),
    ('T = "models/{}_cv_best.pth"', [F]),
    ('load(string.Template("models/${n}_cv_best.pth").substitute(n=n))', [F]),
    # joined paths
    ('load(os.path.join("models", "miyawaki_cv_best.pth"))', [{M}]),
    ('load(os.path.join(DIR, f"{n}_cv_best.pth"))', [F]),
    ('load(os.path.join(os.getcwd(), "models", n + "_cv_best.pth"))', [F]),
    ('from os.path import join\nload(join("models", n + "_cv_best.pth"))', [F]),
    ('load(Path("models") / f"{x}_cv_best.pth")', [F]),
    ('load(Path("models") / "crell_cv_best.pth")', [{C}]),
    ('load(Path("models", "crell_cv_best.pth"))', [{C}]),
    ('load(Path("models").joinpath("crell_cv_best.pth"))', [{C}]),
    ('load(str(Path(__file__).parent.parent / "models" / "crell_cv_best.pth"))', [{C}]),
    ('load(Path(__file__).resolve().parents[1] / "models" / f"{n}_cv_best.pth")', [F]),
    ('load(pathlib.Path("models/crell_cv_best.pth").resolve())', [{C}]),
    ('load(Path("models/crell_cv_best.onnx").with_suffix(".pth"))', [{C}]),
    ('load(Path("models/x.pth").with_name("crell_cv_best.pth"))', [{C}]),
    ('load(Path("models/x.pth").with_name(f"{n}_cv_best.pth"))', [F]),
    ('load(Path("models/x.pth").with_stem("crell_cv_best"))', [{C}]),
    ('load("models/crell_XX_best.pth".replace("XX", "cv"))', [{C}]),
    ('D = Path("models"); load(D / (n + "_cv_best.pth"))', [F]),
    ('D = "models"; N = "crell_cv_best.pth"; load(os.path.join(D, N))', [{C}]),
    ('P = "models/crell_cv_best.pth"; load(P); save(P)', [{C}]),
    # globs
    ('for p in glob.glob("models/*_cv_best.pth"): pass', [F]),
    ('for p in glob("models/*.pth"): pass', [ALL]),
    ('for p in Path("models").glob("*_cv_best.pth"): pass', [F]),
    ('for p in Path(".").rglob("*_cccv1_best.pth"): pass', [S]),
    ('for p in Path("models").glob("*"): pass', [ALL]),
    ('for p in root.rglob("*_cv_best.pth"): pass', [F]),
    ('x = glob.glob(os.path.join("models", "crell_*_best.pth"))', [{C, CCC[2]}]),
    ('x = glob.glob("models/[cm]*_cv_best.pth")', [{C, M, B}]),
    ('x = glob.glob("**/crell_cv_best.pth", recursive=True)', [{C}]),
    ('x = glob.glob("models/?rell_cv_best.pth")', [{C}]),
    ('x = glob.glob("models/[!cm]*_cv_best.pth")', [{V}]),
    ('x = glob.glob("models/[a-c]*_cv_best.pth")', [{C}]),
    ('load(os.path.join("backup", "/srv/models/crell_cv_best.pth"))', [{C}]),
    ('x = glob.glob(f"models/{n}_*_best.pth")', [ALL]),
    ('x = [p for p in os.listdir("models") if p.endswith("_cv_best.pth")]', [F]),
    ('x = fnmatch.filter(names, "*_cv_best.pth")', [F]),
    # loops and tables narrow
    ('for n in ["miyawaki", "crell"]: load(f"models/{n}_cv_best.pth")', [{M, C}]),
    ('for n in ("miyawaki", "crell"): load("models/" + n + "_cv_best.pth")', [{M, C}]),
    ('N = ["crell"]\nfor n in N: load(f"models/{n}_cv_best.pth")', [{C}]),
    ('for i, n in enumerate(["crell", "miyawaki"]): load(f"models/{n}_cv_best.pth")', [{M, C}]),
    ('for n, k in [("crell", "cv"), ("miyawaki", "cccv1")]: load(f"models/{n}_{k}_best.pth")', [{C, CCC[0]}]),
    ('for n, k in zip(["crell", "miyawaki"], ["cv", "cccv1"]): load(f"models/{n}_{k}_best.pth")', [{C, CCC[0]}]),
    ('x = [f"models/{n}_cv_best.pth" for n in ["crell", "vangerven"]]', [{C, V}]),
    ('x = {n: f"models/{n}_cv_best.pth" for n in ("crell",)}', [{C}]),
    ('D = {"a": "crell", "b": "miyawaki"}\nload(f"models/{D[\'a\']}_cv_best.pth")', [{C}]),
    ('D = {"a": "crell", "b": "miyawaki"}\nload(f"models/{D[k]}_cv_best.pth")', [{C, M}]),
    ('D = {"crell": 1, "miyawaki": 2}\nfor n in D: load(f"models/{n}_cv_best.pth")', [{C, M}]),
    ('D = {"crell": 1}\nfor n, k in D.items(): load(f"models/{n}_cv_best.pth")', [{C}]),
    ('class A:\n  d = "models"\n  def f(self, n): load(f"{self.d}/{n}_cv_best.pth")', [F]),
    ('class A:\n  n = "crell"\nload(f"models/{A.n}_cv_best.pth")', [{C}]),
    (
        'class A:\n  def __init__(self): self.n = "crell"\n  def f(self): load("models/" + self.n + "_cv_best.pth")',
        [{C}],
    ),
    ('n = "crell"\nif x: n = "miyawaki"\nload(f"models/{n}_cv_best.pth")', [{C, M}]),
    ('n = "crell"\nn = "miyawaki"\nload(f"models/{n}_cv_best.pth")', [{M}]),
    ('def f(n, s="_cv_best.pth"): return f"models/{n}{s}"', [F]),
    ('def f():\n  return os.path.join(D, n + E)\nD = "models"; E = "_cv_best.pth"', [F]),
    ('N = []\nN.append("crell")\nfor n in N: load(f"models/{n}_cv_best.pth")', [{C}]),
    # decoys
    ('load("models/miyawaki_cv_best.pth.bak")', []),
    ('load("models/old_miyawaki_cv_best.pth")', []),
    ('load("backup/miyawaki_cv_best.pth")', []),
    ('load("models/miyawaki_cv_best.pt")', []),
    ('load("models/miyawaki_cv_bestiary.pth")', []),
    ('load("models/miyawaki_cv2_best.pth")', []),
    ('load(f"models/{n}_xcv_best.pth")', []),
    ('load(f"outputs/{n}_cv_best.pth")', []),
    ('load(f"{n}.pth")', []),
    ('load(n + ".pth")', []),
    ('x = y / "models"', []),
    ("miyawaki_cv_best = 1", []),
    ('x = {"miyawaki": 1, "cv_best": 2}', []),
    ('x = a % b; x = "%d %%" % 3', []),
    ('url = "https://example.org/models/miyawaki_cv_best.pth"', []),
    ('print("saved models/miyawaki_cv_best.pth at last")', []),
    ('log.info(f"best model is {n}_cv_best.pth so far")', []),
    ("# models/miyawaki_cv_best.pth", []),
    ('"""See models/miyawaki_cv_best.pth."""', []),
    ('x = n.endswith(".pth")', []),
]


@pytest.mark.parametrize(("line", "sets"), PYTHON, ids=[line for line, _ in PYTHON])
def test_a_line_names_exactly(tmp_path: Path, line: str, sets: list[frozenset[str]]) -> None:
    plant(tmp_path, {"scripts/use.py": line + "\n"})
    assert used(refs(tmp_path)) == [frozenset(item) for item in sets]


TEXTS: list[tuple[str, str, list[set[str]]]] = [
    ("a.yaml", "model: models/crell_cv_best.pth  # not models/miyawaki_cv_best.pth", [{C}]),
    ("a.yaml", "model: crell_cv_best", [{C}]),
    ("a.yaml", "model: models/${dataset}_cv_best.pth", [set(F)]),
    ("a.yaml", "models: [models/crell_cv_best.pth, models/miyawaki_cv_best.pth]", [{C}, {M}]),
    ("a.json", '{"model": "models\\\\crell_cv_best.pth"}', [{C}]),
    ("a.toml", 'model = "models/{name}_cv_best.pth"', [set(F)]),
    ("a.ini", "; models/crell_cv_best.pth\nmodel=models/crell_cv_best.pth", [{C}]),
    ("a.sh", "rm models/*_cccv1_best.pth", [set(S)]),
    ("a.sh", "for n in crell miyawaki; do\n  cp models/${n}_cv_best.pth /tmp\ndone", [{C, M}]),
    ("a.sh", "D=models\ncp $D/crell_cv_best.pth x", [{C}]),
    ("a.sh", "cp models/{crell,miyawaki}_cv_best.pth x", [{C, M}]),
    ("a.sh", "cp models/$1_cv_best.pth x # models/crell_cv_best.pth", [set(F)]),
    ("Dockerfile", "COPY models/crell_cv_best.pth /app/", [{C}]),
    ("Makefile", "NAME := crell\nrun:\n\tpython x.py models/$(NAME)_cv_best.pth", [{C}]),
    ("dvc.yaml", "stages:\n  a:\n    deps: [models/crell_cv_best.pth]", [{C}]),
    ("dvc.lock", "path: models/crell_cv_best.pth", []),
    ("models/crell_cv_best.pth.dvc", "path: crell_cv_best.pth", []),
    ("a.md", "See [it](models/crell_cv_best.pth), **models/crell_cv_best.pth**.", []),
    ("a.yaml", "x: models/crell_cv_best.pth.bak\ny: xcrell_cv_best.pth\nz: crell_cv_best_2", []),
    ("a.py", 'print "old", open("models/%s_cv_best.pth" % n)\nx = "models/" + n + "_cccv1_best.pth"', [set(F), set(S)]),
    (".git/a.py", "x = 'models/crell_cv_best.pth'", []),
    ("node_modules/a/b.json", '"models/crell_cv_best.pth"', []),
    ("x/__pycache__/a.py", "x = 'models/crell_cv_best.pth'", []),
    (".dvc/cache/a.json", '"models/crell_cv_best.pth"', []),
]


@pytest.mark.parametrize(("name", "text", "sets"), TEXTS, ids=[f"{name} {text[:40]}" for name, text, _ in TEXTS])
def test_a_text_names_exactly(tmp_path: Path, name: str, text: str, sets: list[set[str]]) -> None:
    plant(tmp_path, {name: text + "\n"})
    found = used(refs(tmp_path))
    if name == "a.py":  # print "…" does not parse: what is left is read as words
        assert frozenset(S) in found
    else:
        assert found == [frozenset(item) for item in sets]


@pytest.mark.parametrize("arguments", WORLDS)
def test_seed_world(tmp_path: Path, arguments: tuple[tuple[str, str, str, str], str, str, str, str]) -> None:
    names, main, other, folder, ext = arguments
    plant(tmp_path, sources(names, main, other, folder, ext))
    for name in names:
        for family in (main, other):
            plant(tmp_path, {f"{folder}/{name}_{family}.{ext}": "weights"})

    report = find_references(tmp_path, (tmp_path / folder).glob(f"*.{ext}"))

    first, second = report.by_family()
    assert (first.name, first.files, first.references, first.scripts) == (f"{folder}/*_{main}.{ext}", 4, 36, 18)
    assert (second.name, second.files, second.references, second.scripts) == (f"{folder}/*_{other}.{ext}", 4, 6, 3)
    assert {item.file for item in report.references if item.is_mention} == {
        "README.md",
        "decoys.py",
        "notebooks/look.ipynb",
        "scripts/test_model_equivalence.py",
        "tools/copy.sh",
    }
    template = [item for item in report.references if item.file == "scripts/template.py" and item.how == "pattern"]
    assert [item.targets for item in template] == [
        (f"{folder}/{names[2]}_{main}.{ext}", f"{folder}/{names[3]}_{main}.{ext}")
    ]


def test_places_are_exact(tmp_path: Path) -> None:
    plant(tmp_path, {"a.py": 'x = "ä"; y = load("models/" +\n         n + "_cv_best.pth")\n'})
    plant(
        tmp_path,
        {
            "b.ipynb": json.dumps(
                {
                    "cells": [
                        {"cell_type": "markdown", "source": ["x"]},
                        {"cell_type": "code", "source": ["a\n", 'f"{n}_cv_best.pth"']},
                    ]
                }
            )
        },
    )
    first, second = refs(tmp_path).references
    assert (first.place, first.column, first.end_line, first.end_column) == ("a.py:1", 19, 2, 28)
    assert (first.how, first.text) == ("pattern", "models/{}_cv_best.pth")
    assert (second.place, second.column) == ("b.ipynb[2]:2", 1)


def test_a_full_path_to_another_file_is_none(tmp_path: Path) -> None:
    plant(
        tmp_path,
        {
            "copy/models/a_best.pth": "",
            "models/a_best.pth": "",
            "run.py": 'x = "models/a_best.pth"\ny = "a_best.pth"\n',
        },
    )
    assert used(refs(tmp_path, ["copy/models/a_best.pth"])) == [frozenset({"copy/models/a_best.pth"})]
    assert used(refs(tmp_path, ["models/a_best.pth", "copy/models/a_best.pth"]))[0] == {"models/a_best.pth"}


def test_paths_from_outside_say_the_whole_folder(tmp_path: Path) -> None:
    plant(tmp_path, {"run.py": 'x = "/models/a_best.pth"\ny = "/srv/deep/models/a_best.pth"\n'})
    assert [item.line for item in refs(tmp_path, ["deep/models/a_best.pth"]).references] == [2]


def test_a_pattern_means_the_nearest_folder(tmp_path: Path) -> None:
    plant(tmp_path, {"run.py": 'x = f"models/{n}_best.pth"\ny = f"models/{n}/a_best.pth"\n'})
    both = ["copy/models/a_best.pth", "models/a_best.pth"]
    assert used(refs(tmp_path, both)) == [frozenset({"models/a_best.pth"})]
    assert used(refs(tmp_path, ["models/sub/a_best.pth"])) == [frozenset({"models/sub/a_best.pth"})]


def test_a_url_is_a_mention(tmp_path: Path) -> None:
    url = "https://host/code/models/crell_cv_best.pth"
    root = plant(tmp_path / "code", {"a.py": f'x = "{url}"\n', "b.yaml": f"x: {url}\n"})
    assert [item.how for item in refs(root).references] == ["mention", "mention"]


def test_a_stem_that_others_have_names_nothing(tmp_path: Path) -> None:
    plant(tmp_path, {"models/graph_vae.pth": "", "run.py": 'x = "graph_vae"\ny = "plain"\n', "models/plain.pth": ""})
    assert used(refs(tmp_path, ["models/graph_vae.pth", "models/plain.pth"])) == [frozenset({"models/graph_vae.pth"})]
    plant(tmp_path, {"graph_vae.py": ""})
    assert used(refs(tmp_path, ["models/graph_vae.pth"])) == []


def test_links_and_other_tools_folders_are_left_out(tmp_path: Path) -> None:
    outside = plant(tmp_path / "outside", {"a.py": f'x = "{M}"'})
    root = plant(tmp_path / "root", {"venv/pyvenv.cfg": "", "venv/a.py": f'x = "{M}"', "b.py": "x = 1"})
    (root / "link").symlink_to(outside)
    (root / "link.py").symlink_to(outside / "a.py")
    report = refs(root)
    assert report.references == ()
    assert report.sources == 1


def test_what_is_no_text_or_too_large_is_passed_over(tmp_path: Path) -> None:
    plant(tmp_path, {"big.yaml": f"x: {M}\n" * 200_000})
    (tmp_path / "binary.yaml").write_bytes(b"\0\n" + M.encode())
    (tmp_path / "latin.py").write_bytes(f'x = "{M}" # '.encode() + b"\xe9\n")
    (tmp_path / "bom.py").write_bytes(b"\xef\xbb\xbf" + f'x = "{M}"'.encode())
    report = refs(tmp_path)
    assert [item.file for item in report.references] == ["bom.py", "latin.py"]
    assert report.notes == ("big.yaml: larger than 4,194,304 bytes, not read",)


def test_a_target_outside_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoTargetError, match="lies outside"):
        find_references(tmp_path, [tmp_path.parent / "x.pth"])
    with pytest.raises(NoTargetError, match="no file"):
        find_references(tmp_path, [])


@pytest.mark.parametrize(
    ("names", "families"),
    [
        ([*CV, *CCC], {"models/*_cv_best.pth", "models/*_cccv1_best.pth"}),
        (["a/x.pth", "b/y.pth"], {"a/x.pth", "b/y.pth"}),
        (["m/epoch_1.pt", "m/epoch_2.pt", "m/epoch_10.pt", "m/last.pt"], {"m/epoch_*.pt", "m/last.pt"}),
    ],
)
def test_families(names: list[str], families: set[str]) -> None:
    assert set(name_families(names).values()) == families


WORDS = st.sampled_from(
    [
        "models/",
        "_cv_best.pth",
        "{n}",
        "f'",
        '"',
        "'",
        "%s",
        "*",
        "**",
        "[",
        "]",
        "(",
        ")",
        " + ",
        "\n",
        "\n  ",
        "for n in ",
        ":",
        "Path",
        ".glob",
        "#",
        "\\",
        "/",
        "..",
        "=",
        ",",
        "{",
        "}",
        "$",
        "crell",
        "1",
        "if x",
        "%",
        "!ls",
        "\x0c",
        "ä",
        "\u2028",
        "\x00",
    ]
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(WORDS, max_size=40).map("".join) | st.text(max_size=200))
def test_no_text_breaks_it(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    root = tmp_path_factory.mktemp("fuzz")
    data = (text + "\ncrell_cv_best.pth").encode("utf-8", "surrogatepass")
    for name in ("a.py", "b.yaml", "c.sh", "d.md", "e.ipynb", "Makefile"):
        (root / name).write_bytes(data)
    cells = [{"cell_type": "code", "source": text + "\n# crell_cv_best.pth"}]
    (root / "f.ipynb").write_text(json.dumps({"cells": cells}), encoding="utf-8")
    refs(root)
    parse_cell(text)
    read_cells(text)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 50000,
        "x = " + "a + " * 20000 + "'.pth'",
        "[" * 5000 + "]" * 5000,
        "*" * 100000 + ".pth",
        "{a," * 30000 + ".pth",
        "x = '" + "{}_" * 30000 + "cv_best.pth'",
        "x = '" + "*a" * 30000 + "_cv_best.pth'",
        "a: " + "$x" * 50000 + "_cv_best.pth",
        "\n".join(f"for a{i} in ['x', 'y', 'z', 'w']:".rjust(40 + i) for i in range(3)) + " .pth",
        "-" * 100000 + "'.pth'",
        "\n".join(" " * i + f"for a{i} in range(60):" for i in range(15))
        + "\n"
        + " " * 15
        + "load(f'{a1}{a2}{a3}_cv_best.pth')",
    ],
    ids=lambda text: text[:12],
)
def test_hostile_text_takes_little_time(tmp_path: Path, text: str) -> None:
    for name in ("a.py", "b.yaml", "c.sh", "d.md"):
        (tmp_path / name).write_text(text)
    start = time.perf_counter()
    refs(tmp_path)
    assert time.perf_counter() - start < 60  # seconds on an idle machine; quadratic ones take many minutes


def test_speed(tmp_path: Path) -> None:
    body = "import os\n" + "\n".join(
        f"def f{i}(a, b=1):\n    return os.path.join('data', str(a), 'best_{i}')" for i in range(20)
    )
    for number in range(5000):
        folder = tmp_path / f"d{number % 50}"
        folder.mkdir(exist_ok=True)
        (folder / f"m{number}.py").write_text(body + (f"\nx = '{M}'" if number % 10 == 0 else ""))
    start = time.perf_counter()
    report = refs(tmp_path)
    print(f"5,000 files, 500 of them parsed: {time.perf_counter() - start:.1f} s")
    assert len(report.references) == 500


def test_three_forms(tmp_path: Path) -> None:
    world_ = World(plant(tmp_path / "code", sources(*WORLDS[0])), make_home(tmp_path))
    plant(world_.root, dict.fromkeys([*CV, *CCC], "weights"))
    world_.git("init", "--quiet")

    text = world_.holdfast("refs", "models").stdout
    assert text.startswith("42 references to 8 files in 21 scripts, 8 mentions.\n")
    assert "README.md" not in text
    assert "README.md" in world_.holdfast("refs", "models", "--mentions").stdout
    (world_.root / "models").joinpath("crell_cv_best.pth").unlink()
    one = world_.holdfast("--cd", "models", "refs", "crell_cv_best.pth").stdout
    assert "references to models/crell_cv_best.pth in " in one
    md = world_.holdfast("refs", "models/*_cccv1_best.pth", "--md").stdout
    assert "| analysis/list.py:2 | glob | models/*_cccv1_best.pth | all |" in md
    payload = json.loads(world_.holdfast("refs", "models/*_cccv1_best.pth", "--json").stdout)
    assert payload["families"][0]["references"] == 6
    assert next(item for item in payload["references"] if item["how"] != "mention") == {
        "file": "analysis/a.py",
        "kind": "python",
        "cell": None,
        "line": 1,
        "column": 5,
        "end_line": 1,
        "end_column": 37,
        "text": "models/miyawaki_cccv1_best.pth",
        "how": "path",
        "targets": ["models/miyawaki_cccv1_best.pth"],
    }
    assert world_.holdfast("refs", "models/*.nothing", code=2).stderr.startswith(
        "holdfast: no file fits models/*.nothing"
    )
    assert "Nothing refers to gone.pth" in world_.holdfast("refs", "gone.pth").stdout
    assert "lies outside" in world_.holdfast("refs", "../x.pth", code=1).stderr
