"""Rules: which of two patterns counts, what a rule must name, where deprecated and archived models come from."""

import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.inventory.canonical_names import meet, parse_pattern
from holdfast.inventory.canonical_rules import Deprecation
from holdfast.inventory.config import ConfigError
from holdfast.inventory.ref_pattern import match_name, parse_form
from test_inventory_canonical import FILES, RULES, C, N, guard, rights


def test_the_narrower_of_use_and_not_wins(tmp_path: Path) -> None:
    world = {
        "holdfast.yaml": """
canonical:
  models:
    - {use: models/*_best.pth, not: [models/*_old_best.pth, models/*_best_old.pth]}
    - {use: final/production.onnx, not: "final/*.onnx"}
    - {use: weights/*.npz, not: [old_weights/*.npz, weights/tmp/**]}
  modules:
    - {use: net.plain, not: "net.plain*"}
""",
        **dict.fromkeys(["models/a_best.pth", "final/production.onnx", "weights/a1.npz", "net/plain.py"], ""),
        "use.py": textwrap.dedent(
            """
            import net.plain, net.plain_fast
            load("models/a_best.pth", "models/new_best.pth")
            load("models/new_old_best.pth")
            load(f"models/{n}_old_best.pth")
            load("final/production.onnx")
            load("final/beta.onnx")
            load("weights/a1.npz", "a1.npz", f"{d}/{n}.npz")
            load("old_weights/z9.npz")
            load(f"old_weights/{n}.npz")
            load("weights/tmp/deep/a.npz")
            load(f"models/{n}_best_old.pth")
            """
        ),
    }
    assert [(item.line, item.right) for item in guard(tmp_path, world).findings] == [
        (2, "import net.plain"),
        (4, "models/new_best.pth"),
        (5, 'f"models/{n}_best.pth"'),
        (7, "final/production.onnx"),
        (9, "weights/z9.npz"),
        (10, 'f"weights/{n}.npz"'),
        (11, "weights/*.npz"),
        (12, 'f"models/{n}_best.pth"'),
    ]


def test_folders_that_vary(tmp_path: Path) -> None:
    world = {
        "holdfast.yaml": 'canonical: {models: [{use: "runs/*/best.pth", not: ["runs/*/last.pth", "*_draft.pth"]}]}',
        "runs/1/best.pth": "",
        "use.py": 'a = "runs/7/last.pth"\nb = f"runs/{n}/last.pth"\nc = run / "last.pth"\nd = "last.pth"\n'
        'e = "any/deep/x_draft.pth"\nf = glob("runs/*/last.pth")\ng = "runs/1/deep/last.pth"\n',
    }
    assert [(item.line, item.right) for item in guard(tmp_path, world).findings] == [
        (1, "runs/7/best.pth"),
        (2, 'f"runs/{n}/best.pth"'),
        (5, "runs/x/best.pth"),
        (6, 'glob("runs/*/best.pth")'),
    ]


def test_models_that_are_folders_and_folders_in_folders(tmp_path: Path) -> None:
    rules = """
canonical:
  models:
    - {use: models/final_best, not: models/best}
    - {use: runs/a.pth, not: [runs/*/*/x_b.pth, runs/deep/*_c.pth]}
"""
    text = """
c = f"runs/{n}/x_b.pth"
d = ["runs/x_b.pth", "other/x_b.pth", "/data/other/x_b.pth"]
e = "x_b.pth"
f = glob.glob("runs/deep/**/new*_c.pth")
"""
    files = {
        "models/final_best/weights.bin": "",
        "runs/a.pth": "",
        "a.py": 'a = "models/best"\nb = "models/final_best"\n',
    }
    report = guard(tmp_path, {"holdfast.yaml": rules, "use.py": text, **files})
    assert [(item.place, item.right) for item in report.findings] == [
        ("a.py:1:5", "models/final_best"),
        ("use.py:2:5", "runs/a.pth"),
        ("use.py:4:5", "runs/a.pth"),
        ("use.py:5:5", "runs/a.pth"),
    ]


def test_what_the_place_of_a_source_says(tmp_path: Path) -> None:
    world = FILES | {
        "models/deep/use.py": 'x = "../newsubject_cccv1_best.pth"\n',
    }
    assert rights(guard(tmp_path / "one", world)) == [N]
    rules = "canonical: {models: [{use: models/best.pth, not: models/old.pth}]}"
    text = 'x = "old.pth"\n'
    world = {"holdfast.yaml": rules, "models/best.pth": "", "models/use.py": text, "use.py": text}
    assert [item.file for item in guard(tmp_path / "two", world).findings] == ["models/use.py"]


def test_what_has_the_name_too(tmp_path: Path) -> None:
    text = 'a = "newsubject_cccv1_best"\nb = glob.glob("models/*cccv1*")\n'
    report = guard(tmp_path, FILES | {"use.py": text})
    assert [item.line for item in report.findings] == [1, 2]
    # a program of that name, a model of no family
    report = guard(tmp_path, {"tools/newsubject_cccv1_best.py": "", "models/notes_cccv1.pth": ""})
    assert report.findings == ()


def test_a_right_name_is_followed_to_the_last(tmp_path: Path) -> None:
    rules = """
canonical:
  models:
    - {use: models/*_cv.pth, not: models/*_old.pth}
    - {use: models/crell_v2.pth, not: models/crell_cv.pth}
"""
    files = dict.fromkeys(["models/a_cv.pth", "models/crell_cv.pth", "models/crell_v2.pth"], "")
    text = 'a = "models/a_old.pth"\nb = "models/crell_old.pth"\nc = "models/crell_cv.pth"\n'
    text += 'n = "crell"\nd = f"models/{n}_old.pth"\n'
    report = guard(tmp_path, {"holdfast.yaml": rules, "use.py": text, **files})
    assert rights(report) == ["models/a_cv.pth", *["models/crell_v2.pth"] * 3]


def test_archived_models(tmp_path: Path) -> None:
    world = FILES | {
        "archive/models/crell_cv_best.pth": "",  # holdfast: allow
        "archive/run.py": 'x = "archive/models/crell_cv_best.pth"\n',
        "attic/a.onnx": "",
        "b/two.onnx": "",
        "c/two.onnx": "",
        "use.py": 'a = "archive/models/crell_cv_best.pth"\nb = f"archive/{n}.onnx"\nc = "archive/notes.txt"\n'
        'd = "attic/gone.onnx"\ne = "archive/two.onnx"\nf = "archive/x.onnx"  # holdfast: allow\n'
        'g = "archive/models/x_cccv1_best.pth"\n',
    }
    found = [(item.line, item.about, item.right, item.note) for item in guard(tmp_path, world).findings]
    assert found == [
        (1, "archived", C, ""),
        (2, "archived", "", ""),
        (5, "archived", "", "outside of the archive there are b/two.onnx, c/two.onnx"),
        (7, "archived", "", ""),
    ]
    both = RULES.replace("modules:", '  - {use: b/two.onnx, not: "*_draft.onnx"}\n  modules:')
    more = guard(
        tmp_path.parent / f"{tmp_path.name}-more",
        world | {"holdfast.yaml": both, "use.py": 'x = "archive/a_draft.onnx"\n'},
    )
    assert [(item.about, item.right) for item in more.findings] == [("model", "b/two.onnx")]
    changed = guard(tmp_path, {"holdfast.yaml": RULES + "  archives: [attic]\n"})
    assert [item.line for item in changed.findings if item.file == "use.py"] == [4]
    assert guard(tmp_path, {"holdfast.yaml": RULES + "  archives: []\n"}).findings == ()


def test_deprecated_versions(tmp_path: Path) -> None:
    deprecations = [
        Deprecation("digits/classifier", "v1", "old/digits_v1.safetensors", "v3", "models/digits.safetensors", "leak"),
        Deprecation("digits/classifier", "v2", "", "v3", "", "slow"),
        Deprecation("faces/finder", "v1", "old/faces_v1.safetensors"),
    ]
    text = """
a = "old/digits_v1.safetensors"
b = Path("old") / "digits_v1.safetensors"
c = "digits/classifier@v1"
d = ["digits/classifier@v2.0.0", "digits/classifier@v3", "other/classifier@v1", "digits/classifier@v12"]
for v in ("v1", "v3"): show(f"digits/classifier@{v}")
e = "models/digits.safetensors"
f = "faces/finder@v1"
g = "old/faces_v1.safetensors"
h = "registry/digits/classifier/v1.yaml"
"""
    world = {"models/digits.safetensors": "", "use.py": text, "registry/a.yaml": "path: old/digits_v1.safetensors\n"}
    report = guard(tmp_path, world, deprecations=deprecations, skipped=frozenset({"registry"}))
    assert [(item.line, item.right, item.why) for item in report.findings] == [
        (2, "models/digits.safetensors", "leak"),
        (3, "models/digits.safetensors", "leak"),
        (4, "digits/classifier@v3", "leak"),
        (5, "digits/classifier@v3", "slow"),
        (6, "digits/classifier@v3", "leak"),
        (8, "", ""),
        (9, "", ""),
    ]
    assert {item.about for item in report.findings} == {"version"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models: [{use: models/*_new.pth, not: models/*_old.pth}]", "no such file"),
        ("models: [{use: a.pth, not: a.pth}]", "to use a.pth and not to"),
        ("models: [{use: models/*.pth, not: [models/*_best.pth, models/other.pth]}]", "it forbids every file"),
        ("modules: [{use: neuro.gone, not: neuro.old}]", "no such module"),
        ("models: [{use: models/*_cv_best.pth}]", "has no `not`"),
        ("models: [{not: models/*_cv_best.pth}]", "has no `use`"),
        ("models: [{use: models/*_cv_best.pth, not: []}]", "not is empty"),
        ("models: [{use: models/*_cv_best.pth, not: [1]}]", "must be a list of texts"),
        ("models: [{use: models/*_cv_best.pth, not: {a: b}}]", "must be a list of texts"),
        ("models: [{use: models/*_cv_best.pth, not: x.pth, because: x}]", "because is no setting"),
        ("models: {use: a}", "must be a list of rules"),
        ("models: [text]", "models[0] is 'text', and must be a mapping"),
        ("models: [{use: ../x.pth, not: x.pth}]", "is no path from the folder of the rules"),
        ('models: [{use: "models/{n}.pth", not: x.pth}]', "holds a placeholder"),
        ('models: [{use: models/*_cv_best.pth, not: "**"}]', "fits every name"),
        ('models: [{use: models/*_cv_best.pth, not: "[z-a].pth"}]', "is no pattern"),
        ("modules: [{use: neuro.graph_vae, not: neuro/old}]", "is no dotted name"),
        ("allow: archive", "must be a list of texts"),
        ('allow: ["!"]', "pattern"),
        ("archives: [a/b]", "must be names of folders"),
        ("model: []", "model is no setting"),
    ],
)
def test_rules_that_cannot_be_kept(tmp_path: Path, text: str, message: str) -> None:
    rules = f"# rules\ncanonical:\n  {text}\n"
    with pytest.raises(ConfigError) as caught:
        guard(tmp_path, FILES | {"holdfast.yaml": rules})
    assert message in str(caught.value)
    assert f"{tmp_path}/holdfast.yaml:3: canonical." in str(caught.value)


def test_rules_that_contradict_one_another(tmp_path: Path) -> None:
    rules = """
canonical:
  models:
    - {use: models/*_cv_best.pth, not: models/*_old.pth}
    - {use: models/*_v2.pth, not: models/*_cv_best.pth}
"""
    with pytest.raises(ConfigError) as caught:
        guard(tmp_path, FILES | {"holdfast.yaml": rules, "models/a_v2.pth": ""})
    assert "yaml:4: canonical.models[0] says to use models/*_cv_best.pth, which" in str(caught.value)
    assert "yaml:5: canonical.models[1] says not to" in str(caught.value)
    modules = "canonical: {modules: [{use: loader, not: a.old}, {use: neuro.graph_vae, not: loader}]}"
    with pytest.raises(ConfigError, match=r"modules\[0\] says to use loader, which"):
        guard(tmp_path, {"holdfast.yaml": modules})


def test_what_dvc_tracks_is_there(tmp_path: Path) -> None:
    md5 = "0" * 32
    lock = f"schema: '2.0'\nstages:\n  a:\n    cmd: x\n    outs:\n    - path: models/b_cv.pth\n      hash: md5\n      md5: {md5}\n"
    rules = "canonical: {models: [{use: models/*_cv.pth, not: models/*_old.pth}]}"
    text = 'a = "models/b_old.pth"\nb = "models/c_old.pth"\n'
    for number, files in enumerate(
        [
            {"dvc.lock": lock},
            {"models/b_cv.pth.dvc": f"outs:\n- md5: {md5}\n  hash: md5\n  path: b_cv.pth\n"},
            {"models.dvc": f"outs:\n- md5: {md5}.dir\n  hash: md5\n  path: models\n"},
            {"pipe/dvc.lock": lock.replace("models/b", "../models/b")},
            {
                "models.dvc": f"outs:\n- md5: {md5}.dir\n  hash: md5\n  path: models\n",
                "dvc.lock": lock.replace("models", "data"),
            },
            {"pipe/dvc.lock": lock.replace("models/b_cv.pth", "../models").replace(md5, f"{md5}.dir")},
        ]
    ):
        root = tmp_path / str(number)
        report = guard(root, {"holdfast.yaml": rules, "use.py": text, **files})
        assert rights(report) == ["models/b_cv.pth", "models/c_cv.pth"], files
        # of a folder whose listing is not here nobody can say what is not in it
        missing = "there is no such file yet"
        notes = [["", missing], ["", missing], ["", ""], [missing, missing], ["", ""], [missing, missing]][number]
        assert [item.note for item in report.findings] == notes, files
    for name in ("models/old.pth", "models/_cv.pth"):  # what is left of a name without its start is none
        with pytest.raises(ConfigError, match="no such file"):
            guard(tmp_path / name[-7:], {"holdfast.yaml": rules, "use.py": text, name: ""})


PIECES = st.lists(st.sampled_from(["a", "b", "ab", "_", "*", "?", "[ab]", "[!a]"]), min_size=1, max_size=6).map("".join)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(PIECES, PIECES, st.text("ab_", min_size=1, max_size=6))
def test_what_two_patterns_share_both_can_be(left: str, right: str, name: str) -> None:
    try:
        one, two = parse_pattern(f"d/{left}x"), parse_pattern(f"d/{right}x")
    except ValueError:
        return
    shared = meet(one.components[-1], two.components[-1], "c")
    if shared is not None:
        assert one.captures(f"d/{shared}") is not None
        assert match_name(two.components[-1], shared)
    elif one.captures(f"d/{name}x"):
        assert not match_name(two.components[-1], f"{name}x")
    captures = one.captures(f"d/{name}x")
    assert captures is None or one.fill(captures) == f"d/{name}x"
    shape = parse_form((f"q/d/{right}x",))
    whole = one.share(shape.components) if shape is not None else None
    assert (whole is None) == (shared is None)
    assert whole is None or one.captures(whole) is not None
