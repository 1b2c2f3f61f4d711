"""The registry's verbs as a user runs them, on a project with real DVC: what they do, what they refuse, what they leave."""

import hashlib
import json
from pathlib import Path

import pytest
import yaml

from holdfast.cli.output import Table, emit
from holdfast.cli.registry_tables import emit_quickly
from registry_world import CLEAN, MODEL, STABLE, copy_of, error_of, labels, make_project, registry_files, shown, weights
from worlds import World


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A project with v1 and v2, of which v2 is current."""
    return make_project(tmp_path_factory.mktemp("two"), 2)


@pytest.fixture
def world(two: World, tmp_path: Path) -> World:
    return copy_of(two, tmp_path)


def test_dvc_is_clean_after_each_verb(world: World) -> None:
    weights(world.root / "best.safetensors", 7.0)
    for arguments in (
        ["register", MODEL, "best.safetensors", "--alias", "staging"],
        ["assign", f"{MODEL}@v2", "production"],
        ["protect", f"{MODEL}@production"],
        ["unprotect", f"{MODEL}@production"],
        ["deprecate", f"{MODEL}@v1", "--reason", "wrong split"],
        ["unassign", f"{MODEL}@staging"],
        ["rm", f"{MODEL}@v3", "--apply"],
        ["get", f"{MODEL}@v1", "-o", "old.safetensors"],
        ["deprecate", f"{MODEL}@v1", "--undo"],
        ["rollback", MODEL],
    ):
        world.holdfast("registry", *arguments)
        assert world.dvc("status") == CLEAN, arguments
    assert "didn't change, skipping" in world.dvc("repro")
    assert shown(world, "verify")["ok"]


def test_show_and_list(world: World) -> None:
    world.holdfast("registry", "assign", f"{MODEL}@v1", "production")
    world.holdfast("registry", "deprecate", f"{MODEL}@v1", "--reason", "x", code=2)
    text = world.holdfast("registry", "show", MODEL).stdout.splitlines()
    assert text[0] == "digits/classifier, 2 versions: Handwritten digits"
    columns = ["version", "labels", "accuracy ↑", "test_loss ↓", "size", "new bytes", "age", "commit"]
    assert [column.strip() for column in text[2].split("   ") if column.strip()] == columns
    assert text[4].split()[:8] == ["v2", "current", "0.92", "+0.01", "✓", "0.08", "-0.01", "✓"]
    assert text[5].split()[:4] == ["v1", "production", "0.91", "0.09"]
    markdown = world.holdfast("registry", "show", MODEL, "--md").stdout
    assert "| v2 | current | 0.92 (+0.01 ✓) | 0.08 (-0.01 ✓) |" in markdown
    listed = shown(world, "list")["models"]
    assert [(m["model"], m["versions"], m["champion"], m["metrics"]["accuracy"]) for m in listed] == [
        (MODEL, 2, "v1", 0.91)
    ]
    assert "current v2, production v1" in world.holdfast("registry", "list").stdout
    one = shown(world, "show", f"{MODEL}@production")
    assert (one["version"], one["labels"], one["params"]) == ("v1", ["production"], {"lr": 0.001})
    assert "has no version or alias v9. It has current, production, v2, v1" in error_of(
        world, "show", f"{MODEL}@v9", code=2
    )
    stored = world.holdfast("registry", "show", "--stored").stdout
    assert "as DVC stores them: the project has no vault" in stored


def test_new_bytes_are_what_the_vault_took(world: World, tmp_path: Path) -> None:
    world.dvc("remote", "add", "-d", "store", str(tmp_path / "store"))
    world.holdfast("vault", "init")
    assert "2 versions that the vault does not have" in world.holdfast("registry", "show", "--stored").stdout
    world.holdfast("push", "--all-commits")
    versions = shown(world, "show", MODEL, "--stored")["models"][0]["versions"]
    explained = json.loads(world.holdfast("vault", "explain", f"md5:{versions[0]['oid']}", "--json").stdout)
    assert versions[0]["new_bytes"] == explained["own_bytes"] > 0
    assert versions[1]["new_bytes"] == 0  # both files are so small that they went into one blob


def test_a_list_that_is_remembered_notices_every_change(world: World) -> None:
    def listed() -> list[tuple[str, object]]:
        return [(model["model"], model["current"]) for model in shown(world, "list")["models"]]

    assert listed() == listed() == [(MODEL, "v2")]
    cache = world.root / ".dvc/tmp/holdfast/registry.sqlite"
    assert cache.exists()
    model = world.root / "registry/digits/classifier/model.yaml"
    model.write_text(model.read_text().replace("current: v2", "current: v1"))
    assert listed() == [(MODEL, "v1")]
    cache.write_bytes(b"no database")
    assert listed() == [(MODEL, "v1")]
    model.write_text("schema: 1\n[")
    assert "model.yaml, line" in error_of(world, "list", code=13)


def test_a_pipe_gets_the_tables_of_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("x", "1.5", ""), ("a longer name", "×2\ntwo lines", "日本"), ("", "\x1b[31m", "end")]
    blocks = [
        Table(("name", "metric", "in use"), rows, "A title", frozenset({"metric"})),
        "A sentence\nof two lines.",
        Table(("only", "a header"), []),
        Table(("a",), [("b",)]),
    ]
    emit("text", {}, blocks)
    expected = capsys.readouterr().out
    emit_quickly("text", {}, blocks)
    assert capsys.readouterr().out == expected


def test_register_a_file_with_metrics_and_params(world: World) -> None:
    path = weights(world.root / "outputs/run7/best.safetensors", 7.0)
    world.write("m.json", '{"accuracy": 0.5, "by_class": {"a": 0.4}}')
    world.write("p.yaml", "lr: 0.1\nname: big\n")
    answer = shown(
        world, "register", "album/scorer", "outputs/run7/best.safetensors", "--metrics", "m.json", "--metric", "accuracy=0.75",
        "--params", "p.yaml", "--param", "deep=true", "--alias", "staging", "--description", "Scores albums",
    )  # fmt: skip
    assert (answer["version"], answer["new"], answer["labels"]) == ("v1", True, ["current", "staging"])
    oid = hashlib.md5(path.read_bytes()).hexdigest()
    text = yaml.safe_load((world.root / "registry/album/scorer/v1.yaml").read_text())
    assert (text["path"], text["oid"], text["size"]) == ("outputs/run7/best.safetensors", oid, path.stat().st_size)
    assert text["metrics"] == {"accuracy": 0.75, "by_class": {"a": 0.4}}
    assert text["params"] == {"lr": 0.1, "name": "big", "deep": True}
    assert text["source"] == {"run": "outputs/run7", "rev": world.git("rev-parse", "HEAD")}
    assert (world.cache / "files/md5" / oid[:2] / oid[2:]).read_bytes() == path.read_bytes()
    assert "A  registry/album/scorer/v1.yaml" in world.git("status", "--porcelain")

    again = world.holdfast("registry", "register", "album/scorer", "outputs/run7/best.safetensors").stdout
    assert again.startswith("album/scorer@v1 has these weights already")
    weights(world.root / "outputs/run8/best.safetensors", 8.0)
    assert shown(world, "register", "album/scorer", "outputs/run8/best.safetensors")["labels"] == []
    assert labels(world, "album/scorer") == {"current": "v1", "staging": "v1"}
    weights(path, 9.0)
    # the current version's own path holds other bytes now
    assert shown(world, "register", "album/scorer", "outputs/run7/best.safetensors")["labels"] == ["current"]
    assert shown(world, "register", "album/scorer", "outputs/run7/best.safetensors")["new"] is False


def test_register_a_folder(world: World) -> None:
    folder = world.root / "models/medium"
    weights(folder / "best_model.safetensors", 1.0)
    world.write("models/medium/vocab.pkl", b"\x80\x04never loaded.")
    world.write("models/medium/info/model_info.json", "{}")
    answer = shown(world, "register", "health/medium", "models/medium")
    listing = json.dumps(
        [
            {"md5": hashlib.md5(path.read_bytes()).hexdigest(), "relpath": path.relative_to(folder).as_posix()}
            for path in sorted(path for path in folder.rglob("*") if path.is_file())
        ]
    )
    assert answer["oid"] == hashlib.md5(listing.encode()).hexdigest() + ".dir"
    assert answer["weights_file"] == "best_model.safetensors"
    # DVC names the same folder in the same way
    world.dvc("add", "models/medium")
    assert yaml.safe_load((world.root / "models/medium.dvc").read_text())["outs"][0]["md5"] == answer["oid"]
    assert shown(world, "verify", "health/medium")["read"] == 1
    world.holdfast("registry", "get", "health/medium", "-o", "copy")
    got = {
        path.relative_to(world.root / "copy").as_posix(): path.read_bytes()
        for path in (world.root / "copy").rglob("*.*")
    }
    assert got == {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}

    weights(folder / "second.pt.safetensors", 2.0)
    assert "has 2 checkpoints" in error_of(world, "register", "health/medium", "models/medium", code=2)
    answer = shown(world, "register", "health/medium", "models/medium", "--weights", "second.pt.safetensors")
    assert (answer["version"], answer["labels"]) == ("v2", ["current"])
    assert "has no file third" in error_of(
        world, "register", "health/medium", "models/medium", "--weights", "third", code=2
    )


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["register", "classifier", "params.yaml"], 2, "is no model name"),
        (["register", MODEL, "params.yaml"], 1, "params.yaml has no weights digest"),
        (["register", MODEL, "none.pt"], 2, "does not exist"),
        (["register", MODEL, "candidate.safetensors", "--metric", "accuracy"], 2, "is no name with a value"),
        (["register", MODEL, "candidate.safetensors", "--metrics", "promote.py"], 13, "promote.py"),
        (["register", MODEL, "candidate.safetensors", "--alias", "v3"], 2, "'v3' is no name for an alias"),
        (["register", MODEL, "candidate.safetensors", "--alias", "current"], 2, "no name for an alias"),
        (["show", "digits/other"], 1, "Registered are: digits/classifier"),
        (["assign", f"{MODEL}@v9", "staging"], 2, "has no version or alias v9"),
        (["assign", f"{MODEL}@v1", "v2"], 2, "is no name for an alias"),
        (["unassign", f"{MODEL}@staging"], 2, "has no alias staging"),
        (["deprecate", f"{MODEL}@v2", "--reason", "old"], 2, "digits/classifier@v2 is current"),
        (["deprecate", f"{MODEL}@v1"], 2, "Use --reason TEXT, or --undo"),
        (["rollback", "digits/other"], 1, "there is no model digits/other"),
        (["get", f"{MODEL}@v1", "-o", "params.yaml"], 2, "params.yaml is there already"),
        (["rm", MODEL], 2, "names no version"),
        (["rm"], 2, "name a version, or a saved plan"),
        (["select", MODEL, "accuracy>0.99"], 1, "no version of digits/classifier fits: accuracy>0.99"),
        (["select", MODEL, "accuracy"], 2, "'accuracy' is no criterion"),
        (["select", MODEL, "--ab", "production=1"], 2, "--ab and --key go together"),
        (["history", "--at", "yesterday"], 2, "'yesterday' is no day"),
        (["history", "--at", "1999-01-01"], 2, "has no commit of 1999-01-01 or before"),
        (["resolve"], 2, "no merge is under way"),
        (["verify", "digits/other"], 1, "there is no model digits/other"),
        (["import", "params.yaml"], 2, "does not say of which application"),
        (["diff", MODEL, "v1", "v9"], 2, "has no version or alias v9"),
    ],
)
def test_what_is_refused_names_the_way_out(two: World, arguments: list[str], code: int, words: str) -> None:
    before = registry_files(two)
    assert words in error_of(two, *arguments, code=code)
    assert registry_files(two) == before
    assert two.git("status", "--porcelain", "registry") == ""


def test_aliases_and_protection(world: World) -> None:
    assign = ["registry", "assign", f"{MODEL}@v1", "production"]
    assert world.holdfast(*assign).stdout == "production is on digits/classifier@v1.\n"
    assert world.holdfast(*assign).stdout == "production was on digits/classifier@v1 already.\n"
    world.holdfast("registry", "protect", f"{MODEL}@production")
    before = registry_files(world)
    weights(world.root / "b.safetensors", 9.0)
    for arguments in (
        ["assign", f"{MODEL}@v2", "production"],
        ["unassign", f"{MODEL}@production"],
        ["register", MODEL, "b.safetensors", "--alias", "production"],
    ):
        assert "is protected" in error_of(world, *arguments, code=1)
        assert registry_files(world) == before
    world.holdfast(*assign)  # nothing moves
    world.holdfast("registry", "assign", f"{MODEL}@v2", "production", "--force")
    assert labels(world)["production"] == "v2"
    world.holdfast("registry", "unprotect", f"{MODEL}@production")
    world.holdfast("registry", "unassign", f"{MODEL}@production")
    assert labels(world) == {"current": "v2"}


def test_a_deprecated_version_is_found_where_it_is_used(world: World) -> None:
    world.write("use.py", f'NAME = "{MODEL}@v1"\n')
    world.holdfast("registry", "deprecate", f"{MODEL}@v1", "--reason", "wrong split")
    assert (
        "`digits/classifier@v1` is deprecated (wrong split): use `digits/classifier@v2`"
        in world.holdfast("check", code=1).stdout
    )
    assert "deprecated" in world.holdfast("registry", "show", MODEL).stdout
    assert shown(world, "select", MODEL, "--best", "test_loss", "--max")["version"] == "v2"
    assert shown(world, "select", MODEL, "--best", "test_loss", "--max", "--deprecated")["version"] == "v1"
    world.holdfast("registry", "deprecate", f"{MODEL}@v1", "--undo")
    assert "No findings" in world.holdfast("check").stdout


def test_rm_lists_what_stands_in_its_way(world: World) -> None:
    world.holdfast("registry", "assign", f"{MODEL}@v1", "old")
    world.write("use.py", f'NAME = "{MODEL}@v1"\n')
    weights(world.root / "tuned.safetensors", 5.0)
    world.holdfast("registry", "register", "digits/tuned", "tuned.safetensors", "--run", f"{MODEL}@v1")
    plan = shown(world, "rm", f"{MODEL}@v1")
    assert [(need["kind"], need["place"]) for need in plan["needs"]] == [
        ("label", "old"), ("version", "digits/tuned@v1"), ("reference", "use.py:1:8"),
    ]  # fmt: skip
    before = registry_files(world)
    assert "is still needed: old" in error_of(world, "rm", f"{MODEL}@v1", "--apply", code=1)
    assert registry_files(world) == before
    # a path of its own counts as a reference, one that another version has does not
    weights(world.root / "weights/lone.safetensors", 6.0)
    world.holdfast("registry", "register", MODEL, "weights/lone.safetensors")
    world.write("use.py", f'A = "weights/lone.safetensors"\nB = "{STABLE}"\n')
    assert [need["place"] for need in shown(world, "rm", f"{MODEL}@v3")["needs"]] == ["use.py:1:5"]


def test_rm_takes_a_version_away_for_good(world: World, tmp_path: Path) -> None:
    weights(world.root / "b.safetensors", 9.0)
    world.holdfast("registry", "register", MODEL, "b.safetensors")
    world.holdfast("registry", "deprecate", f"{MODEL}@v3", "--reason", "bad")
    saved = tmp_path / "plan.json"
    saved.write_text(world.holdfast("registry", "rm", f"{MODEL}@v3", "--json").stdout)
    world.holdfast("registry", "deprecate", f"{MODEL}@v3", "--reason", "worse")
    assert "changed since the plan was made" in error_of(world, "rm", "--plan", str(saved), "--apply", code=14)
    saved.write_text(world.holdfast("registry", "rm", f"{MODEL}@v3", "--json").stdout)
    world.write("use.py", f'NAME = "{MODEL}@v3"\n')
    assert "since the plan was made, use.py:1:8" in error_of(world, "rm", "--plan", str(saved), "--apply", code=14)
    (world.root / "use.py").unlink()
    world.holdfast("registry", "rm", "--plan", str(saved), "--apply")
    model = shown(world, "show", MODEL)["models"][0]
    assert ([v["version"] for v in model["versions"]], list(model["removed"]), model["deprecations"]) == (
        ["v1", "v2"],
        ["v3"],
        {},
    )
    assert shown(world, "register", MODEL, "b.safetensors")["version"] == "v4"
    bad = json.loads(saved.read_text()) | {"digests": {"../../etc/passwd": "0"}}
    saved.write_text(json.dumps(bad))
    assert "changed since" in error_of(world, "rm", "--plan", str(saved), "--apply", code=14)
    saved.write_text("{}")
    assert "the plan cannot be read" in error_of(world, "rm", "--plan", str(saved), code=2)


def test_get_brings_bytes_from_anywhere_and_verifies_them(world: World, tmp_path: Path) -> None:
    world.dvc("remote", "add", "-d", "store", str(tmp_path / "store"))
    oid = shown(world, "show", f"{MODEL}@v1")["oid"]
    cached = world.cache / "files/md5" / oid[:2] / oid[2:]
    data = cached.read_bytes()
    world.holdfast("registry", "get", f"{MODEL}@v1", "-o", str(tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == data
    assert (tmp_path / "out").stat().st_mode & 0o200
    assert (tmp_path / "out").stat().st_nlink == 1

    cached.chmod(0o644)
    cached.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert "has the md5" in error_of(world, "get", f"{MODEL}@v1", "-o", str(tmp_path / "bad"), code=13)
    assert not (tmp_path / "bad").exists()
    assert "the cache has" in error_of(world, "verify", code=13)
    cached.unlink()
    assert "is not in DVC's cache, a vault or DVC's remote" in error_of(world, "get", f"{MODEL}@v1", "-o", "x", code=1)
    there = tmp_path / "store/files/md5" / oid[:2] / oid[2:]
    there.parent.mkdir(parents=True)
    there.write_bytes(data)
    assert shown(world, "get", f"{MODEL}@v1", "-o", "x.safetensors")["source"] == "store"
    assert (world.root / "x.safetensors").read_bytes() == data


def test_verify_names_every_fault(world: World) -> None:
    folder = world.root / "registry/digits/classifier"

    def faults(code: int = 13) -> str:
        return world.holdfast("registry", "verify", "--offline", code=code).stdout

    assert faults(0).startswith("0 faults in 2 versions of 1 model: 2 read in the cache")
    v1, model = (folder / "v1.yaml").read_text(), (folder / "model.yaml").read_text()

    (folder / "v1.yaml").write_text(v1.replace("size: 688", "size: 689"))
    told = faults()
    assert "its bytes in the cache are 688 instead of 689" in told
    assert "is a committed version, and was changed" in told
    (folder / "v1.yaml").write_text(
        v1.replace('weights: "blake3:', 'weights: "blake3:00').replace('"\ndate', '"\ndate')[: len(v1) + 2]
    )
    assert "should be a digest" in faults()
    digest = yaml.safe_load(v1)["weights"]
    (folder / "v1.yaml").write_text(v1.replace(digest, "blake3:" + "0" * 64))
    assert "its weights digest is" in faults()
    (folder / "v1.yaml").write_text(f"<<<<<<< HEAD\n{v1}")
    (folder / "v2.yaml").write_text("schema: 1\n")
    told = faults()
    assert "a merge left its conflict in the file" in told
    assert "v2.yaml" in told  # every broken file, not the first alone
    world.git("checkout", "--", "registry")

    (folder / "model.yaml").write_text(model.replace("current: v2", "current: v9"))
    assert "names 'v9', of which there is no file" in faults()
    (folder / "model.yaml").write_text(model.replace("current: v2", "current: v1"))
    told = faults()
    assert "v1 is current, and dvc.lock has other bytes" in told
    assert "holds other bytes than the current version" in told
    (folder / "model.yaml").write_text(model + "removed: {v1: '2026-11-20'}\n")
    assert "says that it was removed, and its file is there" in faults()
    (folder / "model.yaml").write_text(model)

    (folder / ".v3.yaml.0123456789abcdef.tmp").write_text("x")
    assert "is left over from a writer that was killed" in faults(0)
    (world.root / STABLE).unlink()
    assert "is not checked out" in faults(0)
    oid = yaml.safe_load(v1)["oid"]
    (world.cache / "files/md5" / oid[:2] / oid[2:]).unlink()
    assert "its bytes are not on this machine" in faults(0)
    assert f"its bytes (md5 {oid}) are not in" in world.holdfast("registry", "verify", code=13).stdout
