"""A tree of models in two families, with the scripts that use them, packages of copies and caches, under several names."""

import json
import random
from pathlib import Path

import torch

from worlds import World, make_repository

GAP_BYTES = (20_074, 20_138)
PACKAGES = 5
PICTURES = 20

Names = tuple[str, str, str, str]
Arguments = tuple[Names, str, str, str, str]

WORLDS: list[Arguments] = [
    (("miyawaki", "vangerven", "crell", "mindbigdata"), "cv_best", "cccv1_best", "models", "pth"),
    (("amber", "birch", "cedar", "dogwood"), "final", "final_v2", "weights", "safetensors"),
]


def sources(
    names: tuple[str, str, str, str], main: str, other: str, folder: str = "models", ext: str = "pth"
) -> dict[str, str]:
    """Eighteen scripts with 36 references to the first family, three with 6 to the second, and decoys."""
    a, b, c, d = names
    one = f"_{main}.{ext}"
    two = f"_{other}.{ext}"

    def notebook(*cells: tuple[str, str]) -> str:
        return json.dumps({"cells": [{"cell_type": kind, "source": text} for kind, text in cells], "nbformat": 4})

    return {
        # 1-4: written out
        "fair_comparison.py": f'A = load("{folder}/{a}{one}")\nB = load("{folder}/{b}{one}")\n',
        "visualize.py": f'PATHS = {{\n  "{a}": "{folder}/{a}{one}",\n  "{c}": "{a}/../{folder}/{c}{one}",\n}}\n',
        "scripts/evaluate.py": f'import os\nX = os.path.join("..", "{folder}", "{d}{one}")\n'
        f'Y = "../{folder}/{a}{one}"\n',
        "scripts/test_model_equivalence.py": f'm = load("{folder}/{a}{one}")  # and {folder}/{a}{two}\n'
        f'n = load("{folder}/{b}{one}")\n',
        # 5-10: built
        "scripts/loop.py": f'for n in ["{a}", "{b}", "{c}", "{d}"]:\n'
        f'  load(f"{folder}/{{n}}{one}")\n  save("{folder}/" + n + "{one}")\n',
        "scripts/percent.py": f'def f(n):\n  x = "{folder}/%s{one}" % n\n'
        f'  return x or "{folder}/{{}}{one}".format(n)\n',
        "scripts/paths.py": "from pathlib import Path\nROOT = Path(__file__).parent.parent\n"
        f'def f(n):\n  return ROOT / "{folder}" / f"{{n}}{one}"\n'
        f'def g(n):\n  return Path("{folder}").joinpath(n + "{one}")\n',
        "scripts/constants.py": f'FOLDER = "{folder}"\nEND = "{one}"\nclass C:\n  end = "{one}"\n'
        f'  def path(self, n): return FOLDER + "/" + n + self.end\ndef path(n): return f"{{FOLDER}}/{{n}}{{END}}"\n',
        "scripts/suffix.py": "from pathlib import Path\n"
        f'p = Path("{folder}/{a}_{main}.onnx").with_suffix(".{ext}")\n'
        f'q = Path("{folder}/q.{ext}").with_name("{b}{one}")\n',
        "scripts/template.py": f'T = "{folder}/{{name}}{one}"\nfor n in ("{c}", "{d}"):\n  load(T.format(name=n))\n'
        f'print(open("{folder}/{c}{one}"))\n',
        # 11-13: globs
        "scripts/glob_them.py": f'import glob\nfor p in glob.glob("{folder}/*{one}"): pass\n'
        f'from pathlib import Path\nfor p in Path("{folder}").rglob("*{one}"): pass\n',
        "scripts/list_them.py": f'import os\nx = [p for p in os.listdir("{folder}") if p.endswith("{one}")]\n'
        f'y = [p for p in sorted(Path("{folder}").glob("*{one}"))]\n',
        "tools/copy.sh": f"# cp {folder}/{a}{two} .\n"
        f'for n in {a} {b}; do cp "{folder}/${{n}}{one}" /tmp; done\ncp {folder}/{c}{one} /tmp\n',
        # 14-16: notebooks, a magic, Python 2
        "notebooks/look.ipynb": notebook(
            ("markdown", f"We use `{folder}/{a}{two}`."),
            ("code", f'%matplotlib inline\nNAME = "{b}"'),
            ("code", f'!ls -l {folder}/{a}{one}\nm = load(f"{folder}/{{NAME}}{one}")'),
        ),
        "notebooks/more.ipynb": notebook(("code", f'x = "../{folder}/{c}{one}"\ny = "{folder}/{d}{one}"')),
        "old/python2.py": f'print "loading"\nx = open("{folder}/{a}{one}")\ny = open("{folder}/%s{one}" % n)\n',
        # 17-18: builds
        "Makefile": f"run:\n\tpython evaluate.py {folder}/{a}{one}\n\tpython evaluate.py {folder}/{b}{one}\n",
        "Dockerfile": f"FROM python\nCOPY {folder}/{a}{one} /a/\nCOPY {folder}/{b}{one} /b/\n",
        # the second family: 6 in 3
        "analysis/a.py": f'x = "{folder}/{a}{two}"\ny = f"{folder}/{{n}}{two}"\n',
        "analysis/verify.py": f'for n in ["{a}", "{b}"]: load("{folder}/" + n + "{two}")\nz = "{folder}/%s{two}" % n\n',
        "analysis/list.py": f'import glob\nx = glob.glob("{folder}/*{two}")\ny = glob.glob("{folder}/*{two}")\n',
        # decoys
        "README.md": f"Both `{folder}/{a}{one}` and `{folder}/{a}{two}` are there.\n",
        "decoys.py": f'"""Docs of {folder}/{a}{one}."""\n# {folder}/{b}{one}\n'
        f'x = "{folder}/{a}{one}.bak"\ny = "{folder}/old_{a}{one}"\n'
        f'z = "results/{b}{one}"\nw = "{a}"; v = "{main}"; {main} = 1\nprint("done with {folder}/{a}{one} now")\n'
        f'u = "https://host/{folder}/{a}{one}"\nt = f"{{v}}.{ext}"\n',
        f"{folder}/{a}{one}.dvc": f"outs:\n- path: {a}{one}\n",
    }


def plant_cleanup(root: Path, arguments: Arguments, packages: str = "publication_packages") -> Path:
    """The whole tree: 4 + 4 checkpoints, 41 scripts, results and pictures, 205 copies of these, byte code."""
    names, main, other, folder, ext = arguments
    (root / folder).mkdir(parents=True)
    live = {path: text.encode() for path, text in sources(*arguments).items() if not path.endswith(".dvc")}
    rng = random.Random(4)
    for number in range(PICTURES):
        live[f"figures/figure_{number}.png"] = b"\x89PNG" + rng.randbytes(2_000)
    live["README.md"] = live["README.md"] + b"\n" + b"All figures are in `figures/`.\n" * 20
    for path, data in live.items():
        write(root / path, data)
    copied = [path for path in sorted(live) if path not in ("decoys.py", "README.md")]
    for number in range(PACKAGES):
        for path in copied:
            write(root / packages / f"submission_{number}" / path, live[path])
    for path in copied[:7]:
        if path.endswith(".py"):
            write(root / Path(path).parent / "__pycache__" / f"{Path(path).stem}.cpython-311.pyc", b"\xa7\r\r\n" * 25)
    for place, name in enumerate(names):
        plant_pair(root / folder, name, main, other, ext, seed=place)
    return root


def make_cleanup(folder: Path, arguments: Arguments, packages: str = "publication_packages") -> World:
    """The same as a DVC project, with git ignoring weights, byte code and packages, as people have it."""
    world = make_repository(folder)
    plant_cleanup(world.root, arguments, packages)
    world.write(".gitignore", f"*.pth\n*.safetensors\n__pycache__\n/{packages}/\n")
    world.commit("models")
    return world


def plant_pair(folder: Path, name: str, main: str, other: str, ext: str, *, seed: int) -> None:
    """Two checkpoints of one model 20 KB apart: a longer history, an optimizer's state, or both with other weights."""
    torch.manual_seed(seed)
    weights = {
        "encoder.weight": torch.randn(64, 200),
        "encoder.bias": torch.randn(64),
        "head.weight": torch.randn(10, 64),
    }
    first = {"model_state_dict": weights, "epoch": 12}
    save(first, folder / f"{name}_{main}.{ext}", ext)
    size = (folder / f"{name}_{main}.{ext}").stat().st_size
    second = dict(first)
    if seed == 1:  # mostly an optimizer's state
        second["optimizer_state_dict"] = {"state": {0: {"momentum_buffer": torch.randn(4_700)}}, "param_groups": []}
    if seed == 3:  # a fine-tuned head
        second["model_state_dict"] = weights | {"head.weight": weights["head.weight"] + 0.01}
    path = folder / f"{name}_{other}.{ext}"
    for filler in range(0, GAP_BYTES[1], 16):
        save(second | {"history": "x" * filler}, path, ext)
        if GAP_BYTES[0] <= path.stat().st_size - size <= GAP_BYTES[1]:
            return
    raise AssertionError(f"{path} does not come to {GAP_BYTES} bytes more than its counterpart")


def save(state: dict[str, object], path: Path, ext: str) -> None:  # noqa: ARG001
    """As torch writes it, whatever the suffix says."""
    torch.save(state, path)


def write(path: Path, data: bytes) -> None:
    """Write a file, and its folder where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
