"""References in Python: literals, joins and f-strings, what the program makes of them, and what is not touched."""

import ast
import os
from pathlib import Path

import pytest

from holdfast.registry.rewriting import plan_rewrites
from holdfast.registry.rewriting_found import Place
from holdfast.registry.rewriting_paths import Moves
from holdfast.registry.rewriting_paths_python import Program
from holdfast.registry.rewriting_python import _verified
from test_registry_rewriting import MOVES, NEW, OLD, after, put, reasons, root

__all__ = ["root"]

HEAD = """import os
from pathlib import Path
HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BASE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OUT = "outputs"
"""

# what stands there, and what comes; each is run before and after
FORMS = [
    ("'{old}'", "'{new}'"),
    ('"{old}"  # {old}', '"{new}"  # {old}'),
    ("r'{old}'", "r'{new}'"),
    ("u'{old}'", "u'{new}'"),
    ("f'{old}'", "f'{new}'"),
    ("'''{old}'''", "'''{new}'''"),
    ("os.fsdecode(b'{old}')", "os.fsdecode(b'{new}')"),
    ("'outputs\\x2fava/\\147pu_run_regression_18_01/best\\N{{LOW LINE}}model.pt'", "'{new}'"),
    ("Path('{old}')", "Path('{new}')"),
    ("Path('./{old}')", "Path('./{new}')"),
    ("Path('outputs') / 'ava' / 'gpu_run_regression_18_01' / 'best_model.pt'", "Path('models') / 'album_app' / 'ava_aesthetic_model.pt'"),
    ("Path('outputs', 'ava', 'gpu_run_regression_18_01', 'best_model.pt')", "Path('models', 'album_app', 'ava_aesthetic_model.pt')"),
    ("Path('outputs/ava') / 'gpu_run_regression_18_01/best_model.pt'", "Path('models') / 'album_app/ava_aesthetic_model.pt'"),
    ("os.path.join('outputs/ava', 'gpu_run_regression_18_01', \"best_model.pt\")", "os.path.join('models', 'album_app', \"ava_aesthetic_model.pt\")"),
    ("os.path.join('outputs', 'ava/gpu_run_regression_18_01', 'best_model.pt')", "os.path.join('models', 'album_app', 'ava_aesthetic_model.pt')"),
    ("Path('outputs').joinpath('ava', 'gpu_run_regression_18_01/best_model.pt')", "Path('models').joinpath('album_app', 'ava_aesthetic_model.pt')"),
    ("ROOT / '{old}'", "ROOT / '{new}'"),
    ("ROOT / 'outputs' / 'ava' / 'gpu_run_regression_18_01' / 'best_model.pt'", "ROOT / 'models' / 'album_app' / 'ava_aesthetic_model.pt'"),
    ("(\n    ROOT\n    / 'outputs'\n    / 'ava'  # the run\n    / 'gpu_run_regression_18_01/best_model.pt'\n)", "(\n    ROOT\n    / 'models'\n    / 'album_app'  # the run\n    / 'ava_aesthetic_model.pt'\n)"),
    ("HERE.parent / '{old}'", "HERE.parent / '{new}'"),
    ("Path(__file__).resolve().parents[1] / '{old}'", "Path(__file__).resolve().parents[1] / '{new}'"),
    ("os.path.join(BASE, 'outputs', 'ava', 'gpu_run_regression_18_01', 'best_model.pt')", "os.path.join(BASE, 'models', 'album_app', 'ava_aesthetic_model.pt')"),
    ("BASE + '/{old}'", "BASE + '/{new}'"),
    ("f'{{ROOT}}/{old}'", "f'{{ROOT}}/{new}'"),
    ("rf\"{{BASE}}/{old}\"", "rf\"{{BASE}}/{new}\""),
    ("f'{{Path(__file__).resolve().parent.parent}}/{old}'", "f'{{Path(__file__).resolve().parent.parent}}/{new}'"),
    ("Path.cwd() / '{old}'", "Path.cwd() / '{new}'"),
    ("os.path.join(os.getcwd(), '{old}')", "os.path.join(os.getcwd(), '{new}')"),
    ("str(Path('{old}').resolve())", "str(Path('{new}').resolve())"),
    ("os.path.abspath('{old}')", "os.path.abspath('{new}')"),
    ("dict(a=['x', '{old}'])['a'][1]", "dict(a=['x', '{new}'])['a'][1]"),
    ("'üé😀'[:0] or '{old}'", "'üé😀'[:0] or '{new}'"),
    ("(lambda path='{old}': path)()", "(lambda path='{new}': path)()"),
    ("'{old}' if ROOT else None", "'{new}' if ROOT else None"),
]  # fmt: skip


def run(text: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    space: dict[str, object] = {"__file__": str(root / "src/serve.py")}
    monkeypatch.chdir(root)
    exec(compile(text, "serve.py", "exec"), space)
    return os.fspath(space["VALUE"])  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize(("form", "wanted"), FORMS)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_forms(root: Path, form: str, wanted: str, newline: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = f'"""Loads {OLD}."""\n{HEAD}VALUE = {form.format(old=OLD, new=NEW)}\nprint(f"loading {{VALUE}}")\n'
    source = source.replace("\n", newline)
    put(root, {"src/serve.py": source})
    plan = plan_rewrites(root, MOVES)
    assert plan.left == ()
    result = after(plan, "src/serve.py")
    assert result is not None
    lines = f'"""Loads {OLD}."""\n{HEAD}VALUE = {wanted.format(old=OLD, new=NEW)}\nprint(f"loading {{VALUE}}")\n'
    assert result == lines.replace("\n", newline)
    before, now = run(source, root, monkeypatch), run(result, root, monkeypatch)
    assert before.endswith(OLD)
    assert now == before.replace(OLD, NEW)
    put(root, {"src/serve.py": result})
    assert plan_rewrites(root, MOVES).rewrites == ()


def test_joined_after_a_step_up(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = f"{HEAD}VALUE = HERE / '..' / '{OLD}'\n"
    put(root, {"src/serve.py": source})
    result = after(plan_rewrites(root, MOVES), "src/serve.py")
    assert result is not None
    assert os.path.normpath(run(result, root, monkeypatch)) == str(root.resolve() / NEW)


# what is left, and the line of each
LEFT = [
    ("f'outputs/{{name}}/gpu_run_regression_18_01/best_model.pt'", "the name is put together from parts"),
    ("f'{{elsewhere}}/{old}'", "the name is put together from parts"),
    ("elsewhere / '{old}'", "it is put together with something else in line 7"),
    ("os.path.join(elsewhere, '{old}')", "it is put together with something else in line 7"),
    ("'{old}' + '.bak'", "it is put together with something else in line 7"),
    ("Path(OUT) / 'ava/gpu_run_regression_18_01/best_model.pt'", "OUT is put before it, and the new path lies elsewhere"),
    ("os.path.join(OUT, 'ava', 'gpu_run_regression_18_01', 'best_model.pt')", "OUT is put before it, and the new path lies elsewhere"),
    ("f'{{OUT}}/ava/gpu_run_regression_18_01/best_model.pt'", "OUT is put before it, and the new path lies elsewhere"),
    ("('outputs/ava/'\n 'gpu_run_regression_18_01/best_model.pt')", "the path is written in several strings"),
    ("Path('outputs') / 'ava' / (  # c\n  'gpu_run_regression_18_01') / 'best_model.pt'", "the new path has fewer parts"),
    ("glob.glob('outputs/*/*/best_model.pt')", "a pattern finds whatever lies there"),
    ("load('best_model.pt')", "it gives the name without its folder"),
    ("load('/data/{old}')", "it begins outside of the project"),
    ("torch.save(net, '{old}')", "the program writes or removes it in line 7"),
    ("torch.save(net, Path('{old}'))", "the program writes or removes it in line 7"),
    ("net.save_pretrained('{old}')", "the program writes or removes it in line 7"),
    ("open('{old}', 'wb')", "the program writes it in line 7"),
    ("open('{old}', mode)", "the program writes it in line 7"),
    ("Path('{old}').write_bytes(b'')", "the program writes or removes it in line 7"),
    ("Path('{old}').unlink()", "the program writes or removes it in line 7"),
    ("os.remove('{old}')", "the program writes or removes it in line 7"),
    ("shutil.copy(best, '{old}')", "the program writes it in line 7"),
    ("shutil.move('{old}', '/x')", "the program writes or removes it in line 7"),
    ("Path('{old}').parent", "another path is made from it in line 7"),
    ("Path('{old}').with_suffix('.yaml')", "another path is made from it in line 7"),
    ("os.path.dirname('{old}')", "another path is made from it in line 7"),
    ("train(save_path='{old}')", "its option save_path says that it is written"),
    ("dict([('x', {{'output': '{old}'}}])" , "this Python does not parse the file"),
    ("{{'output': '{old}'}}", "its key output says that it is written"),
    ("parser.add_argument('--out', default='{old}')", "its option --out says that it is written"),
    ("1; SAVE_PATH = '{old}'", "its name SAVE_PATH says that it is written"),
    ("1; CK = '{old}'; torch.save(net, CK)", "the program writes or removes it in line 7"),
    ("1; CK = '{old}'; cfg = Path(CK).parent / 'c.yaml'", "another path is made from it in line 7"),
    ("1; CK = '{old}'; x = f'{{CK}}.bak'", "it is put together with something else in line 7"),
    ("1; CK = '{old}'; x = CK + '.bak'", "it is put together with something else in line 7"),
]  # fmt: skip


@pytest.mark.parametrize(("form", "why"), LEFT)
def test_what_is_left(root: Path, form: str, why: str) -> None:
    put(root, {"src/serve.py": HEAD + f"VALUE = {form.format(old=OLD)}\n"})
    plan = plan_rewrites(root, MOVES)
    assert plan.rewrites == ()
    assert set(reasons(plan).values()) == {why}
    assert all(place == "src/serve.py:7" for place in reasons(plan))


READ = [
    "open('{old}')",
    "open('{old}', 'rb')",
    "shutil.copy('{old}', '/x')",
    "parser.add_argument('--ckpt', default='{old}')",
    "os.system('python a.py --model {old}')",
    "subprocess.run(['python', 'a.py', '{old}'])",
    "CK = '{old}'; load(CK); print('loaded %s' % CK); log(f'from {{CK}}: ok')",
    "CK = '{old}'; load(ROOT / CK); load(os.path.join(BASE, CK))",
    "dataclasses.replace(config, checkpoint='{old}')",
]


@pytest.mark.parametrize("form", READ)
def test_what_is_read_is_rewritten(root: Path, form: str) -> None:
    source = HEAD + form
    put(root, {"src/serve.py": source.format(old=OLD)})
    plan = plan_rewrites(root, MOVES)
    assert after(plan, "src/serve.py") == source.format(old=NEW)
    assert plan.left == ()


def test_a_name_that_is_bound_twice_is_not_known(root: Path) -> None:
    twice = "OUT = 'outputs'\nOUT = 'models'\nx = OUT + '/old.pt'\n"
    inner = "OUT = 'models'\ndef f(OUT):\n    return OUT + '/old.pt'\n"
    later = "x = OUT + '/old.pt'\nOUT = 'models'\n"
    loop = "for OUT in ['models']:\n    x = OUT + '/old.pt'\n"
    once = "OUT = 'models'\ndef f():\n    return OUT + '/old.pt'\n"
    put(root, {"models/old.pt": b"", "a.py": twice, "b.py": inner, "c.py": later, "d.py": loop, "e.py": once})
    plan = plan_rewrites(root, {"models/old.pt": "models/app/new.pt"}, keep=())
    assert plan.files == ("e.py",)
    assert after(plan, "e.py") == once.replace("/old.pt", "/app/new.pt")


def test_docstrings_comments_and_messages_stay(root: Path) -> None:
    text = f'"""{OLD}"""\n# {OLD}\ndef f():\n    """{OLD}"""\n    print("we load {OLD} here")\n    raise ValueError("no {OLD}")\n'
    put(root, {"a.py": text})
    plan = plan_rewrites(root, MOVES)
    assert plan.rewrites == ()
    assert plan.left == ()


def test_braces_in_names(root: Path) -> None:
    put(root, {"a.py": "x = f'm/{{a}}.pt'\ny = 'm/{a}.pt'\n", "m/{a}.pt": b""})
    plan = plan_rewrites(root, {"m/{a}.pt": "n/{b}}.pt"}, keep=())
    assert after(plan, "a.py") == "x = f'n/{{b}}}}.pt'\ny = 'n/{b}}.pt'\n"


def test_deeper_new_paths_go_to_the_first_part(root: Path) -> None:
    put(root, {"a.py": "import os\nx = os.path.join('m', 'old.pt')\n", "m/old.pt": b""})
    plan = plan_rewrites(root, {"m/old.pt": "models/app/deep/new.pt"}, keep=())
    assert after(plan, "a.py") == "import os\nx = os.path.join('models/app/deep', 'new.pt')\n"


def test_hostile_sources_are_left_alone(root: Path) -> None:
    deep = "x = " + "(" * 150 + f"'{OLD}'" + ")" * 150 + "\n"
    nested = "x = " + "-" * 3000 + f"'{OLD}'\n"
    long = "x = " + " + ".join([f"'{OLD}'"] * 800) + "\n"
    put(root, {"deep.py": deep, "nested.py": nested, "long.py": long, "nul.py": f"x = '{OLD}'\0\n"})
    plan = plan_rewrites(root, MOVES)
    assert plan.files in (("deep.py",), ())
    assert {left.file for left in plan.left} >= {"nested.py", "long.py"}


def test_what_says_something_else_is_no_rewriting(root: Path) -> None:
    """The comparison that every edit must pass: a wrong one does not."""
    text = f"x = '{OLD}'\ny = 'other'  # {OLD}\n"
    place = Place(text, "src/a.py")
    tree = ast.parse(text)
    program = Program([(place, tree)])
    moves = Moves(root, MOVES)

    def passes(*edits: tuple[str, str, int]) -> bool:
        made = [place.edit(start := text.index(old, at), start + len(old), new) for old, new, at in edits]
        return _verified(program, place, tree, [(edit,) for edit in made], moves)

    assert passes((OLD, NEW, 0))
    assert not passes((OLD, NEW, 10))  # in the comment: nothing is rewritten
    assert not passes((OLD, f"{NEW}x", 0))
    assert not passes((OLD, NEW, 0), ("other", "another", 0))
    assert not passes((OLD, NEW, 0), ("y = ", "z = ", 0))
    assert not passes((OLD, f"{NEW}' + '", 0))
    assert not passes((OLD, f"{NEW}'", 0))
