"""``holdfast init`` on three projects that grew for years: proposed, written, right, undone, and not done twice."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import jsonschema
import pytest
import yaml

from holdfast.gc.policy import find_policy
from holdfast.inventory.canonical import find_canon
from holdfast.inventory.run_rules import find_rules
from holdfast.objectstore.setup import AWS_CONFIG
from holdfast.project.dvc_files import first_remote
from holdfast.project.setup import Wishes, footprint, propose, write
from init_world import GROWN, call, content, make_grown, make_plain, prepared, proposed, survey_of, undo
from registry_world import copy_of
from test_registry_consolidate import FIRST, MEDIUM, SMALL
from test_registry_promote import SIAMESE_RUN
from worlds import World

SCHEMA = json.loads((Path(__file__).parent.parent / "src/holdfast/cli/schemas/init.schema.json").read_text())
WRITTEN = {
    ".dvc/.gitignore", ".dvc/config", ".dvcignore", "holdfast.yaml", "registry/README.md", "CODEOWNERS",
    ".pre-commit-config.yaml", ".gitignore",
}  # fmt: skip
# the runs that a consolidation keeps
KEPT = {"cleanup": set(), "experiments": {SMALL, MEDIUM, FIRST}, "production": {SIAMESE_RUN}}


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], World]:
    """Each of the three worlds, made when it is first asked for; not to be changed."""
    return cache(lambda kind: make_grown(tmp_path_factory.mktemp(kind), kind))


@pytest.fixture
def cleanup(planted: Callable[[str], World], tmp_path: Path) -> World:
    """The world of two families of models, prepared."""
    world = copy_of(planted("cleanup"), tmp_path)
    prepared(world.root)
    return world


@pytest.fixture
def plain(tmp_path: Path) -> World:
    return make_plain(tmp_path)


def said(world: World, *arguments: str) -> dict[str, object]:
    """What `init --json` says, by its schema."""
    payload: dict[str, object] = json.loads(call(world, "init", "--json", *arguments))
    jsonschema.Draft202012Validator(SCHEMA).validate(payload)
    return payload


@pytest.mark.parametrize("kind", GROWN)
def test_a_grown_project_from_nothing_to_its_reports(
    planted: Callable[[str], World], kind: str, tmp_path: Path
) -> None:
    """Prepared, undone, prepared again, which is no change; then the scan, the consolidation and the page are right."""
    world = copy_of(planted(kind), tmp_path)
    before = content(world.root)
    commit = world.git("rev-parse", "HEAD")

    done = said(world, "--yes")

    assert {item["path"] for item in done["files"]} == WRITTEN  # type: ignore[attr-defined]
    after = content(world.root)
    assert set(after) == set(before) | WRITTEN
    assert {path for path in before if before[path] != after[path]} == {".gitignore"}
    assert world.git("rev-parse", "HEAD") == commit
    assert world.git("diff", "--cached", "--name-only") == ""

    undo(world, str(done["undo"]))
    assert content(world.root) == before
    assert world.git("status", "--porcelain") == ""
    assert said(world, "--yes")["files"] == done["files"]
    assert content(world.root) == after

    again = said(world, "--yes")
    assert (again["files"], again["left"], again["written"]) == ([], [], False)
    assert content(world.root) == after

    for arguments in (("scan", "--json"), ("registry", "consolidate", "--plan", "--json")):
        answer = json.loads(world.holdfast(*arguments).stdout)
        if arguments[0] == "registry":
            assert {step["source"] for step in answer["steps"] if step["kind"] == "keep"} == KEPT[kind]
        else:
            assert len(answer["models"]) == done["found"]["models"]  # type: ignore[index]
            assert not any(model["path"] in WRITTEN for model in answer["models"])
    page = tmp_path / "report.html"
    world.holdfast("report", "html", "-o", str(page))
    assert page.read_text().rstrip().endswith("</html>")
    assert content(world.root) == after


def test_the_family_that_scripts_use_becomes_the_rule(cleanup: World) -> None:
    world = cleanup
    (rule,) = find_canon(world.root).rules
    assert rule.forbids("models/miyawaki_cccv1_best.pth")
    assert not rule.forbids("models/miyawaki_cv_best.pth")
    assert rule.right_name("models/crell_cccv1_best.pth") == "models/crell_cv_best.pth"
    text = (world.root / "holdfast.yaml").read_text()
    assert "36 references in 18 scripts" in text
    assert "6 references in 3 scripts" in text
    found = json.loads(call(world, "check", "--json", code=1))
    assert {item["file"] for item in found["findings"]} == {"analysis/a.py", "analysis/list.py", "analysis/verify.py"}


def test_runs_are_found_and_a_metric_of_their_own_is_put_first(tmp_path: Path) -> None:
    world = make_plain(tmp_path)
    for number in range(3):
        run = f"runs/try_2026010{number + 1}_120000"
        world.write(f"{run}/results.json", json.dumps({"mcc": 0.5 + number / 10}))
        world.write(f"{run}/config.json", json.dumps({"model": {"num_layers": 4}, "epochs": 2, "train_samples": 9000}))
        world.write(f"{run}/history.csv", "epoch,mcc\n1,0.1\n2,0.3\n")
    prepared(world.root)

    rules = find_rules(world.root)
    assert rules.metrics[0] == "mcc"
    assert len(rules.metrics) > 10
    (best,) = [item for item in survey_of(world.root).sorting.runs if item.place == 0]
    assert (best.found.metric, best.found.value) == ("mcc", pytest.approx(0.7))
    find_policy(world.root)


def test_a_dry_run_shows_every_line_and_writes_none(plain: World) -> None:
    wishes = ("--ci", "github", "--remote", "s3://bucket/models")
    plain.write("CODEOWNERS", "* @team\n")
    plain.write(".gitignore", "*.pyc\n")
    plain.commit()
    before = content(plain.root)
    shown = call(plain, "init", "--dry-run", *wishes)
    assert content(plain.root) == before
    assert said(plain, "--dry-run", *wishes)["written"] is False
    unasked = call(plain, "init")
    assert "Nothing is written. `--yes` writes it" in unasked
    assert content(plain.root) == before

    patch = plain.root.parent / "patch"
    diffs = said(plain, *wishes)["files"]
    patch.write_text("".join(item["diff"] for item in diffs))  # type: ignore[attr-defined]
    assert all(line in shown for line in patch.read_text().splitlines())
    # what is shown is what is written: git makes the same files of it
    plain.git("apply", "--whitespace=nowarn", str(patch))
    by_git = content(plain.root)
    plain.git("checkout", "--", ".")
    plain.git("clean", "-fdq")
    call(plain, "init", "--yes", *wishes)
    assert content(plain.root) == by_git
    assert str(by_git["CODEOWNERS"], "utf-8").endswith("/registry/ @team\n")  # type: ignore[call-overload]
    assert {".github/workflows/model-report.yml", ".github/workflows/gc.yml"} <= set(by_git)


def test_dvc_takes_the_project_as_its_own(plain: World, tmp_path: Path) -> None:
    prepared(plain.root)
    other = make_plain(tmp_path / "other")
    other.dvc("init", "--quiet")
    assert (plain.root / ".dvcignore").read_bytes() == (other.root / ".dvcignore").read_bytes()
    lines = (other.root / ".dvc/.gitignore").read_text().splitlines()
    assert (plain.root / ".dvc/.gitignore").read_text().splitlines() == [*lines, "/storage"]

    plain.write("data.csv", "1,2\n")
    plain.dvc("add", "--quiet", "data.csv")
    plain.dvc("push", "--quiet")
    assert plain.dvc("status", "-c") == "Cache and remote 'storage' are in sync."
    assert ".dvc/storage" not in plain.git("status", "--porcelain", "-uall")


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("s3://bucket/folder", {"url": "s3://bucket/folder"}),
        ("gs://bucket", {"url": "gs://bucket"}),
        ("r2://" + "a" * 32 + "/bucket", {"url": "s3://bucket", "region": "auto", "configpath": AWS_CONFIG}),
    ],
)
def test_a_remote_is_written_as_dvc_writes_it(plain: World, place: str, expected: dict[str, str]) -> None:
    from holdfast.repo.dvc import default_remote, remotes

    write(propose(survey_of(plain.root), Wishes(first_remote(plain.root, place), owner="@team")))
    name = default_remote(plain.root)
    section = remotes(plain.root)[name or ""]
    if "configpath" in expected:
        expected["configpath"] = str(plain.root / ".dvc" / AWS_CONFIG)
        assert "when_required" in (plain.root / ".dvc" / AWS_CONFIG).read_text()
    assert expected.items() <= section.items()
    # DVC, which is asked where a file is not plain, reads the same
    from dvc.config import Config

    assert Config(str(plain.root / ".dvc"))["remote"][name]["url"] == expected["url"]


@pytest.mark.parametrize("place", ["ssh://host/x", "s3://", "r2://short/bucket", "https://example.org/x"])
def test_a_place_that_can_be_no_remote(plain: World, place: str) -> None:
    error = call(plain, "init", "--yes", "--remote", place, code=2)
    assert len(error.splitlines()) == 1
    assert not (plain.root / ".dvc").exists()


def test_folders_as_remotes(plain: World, tmp_path: Path) -> None:
    from holdfast.repo.dvc import remotes

    far = tmp_path / "mounted drive, ü"
    write(propose(survey_of(plain.root), Wishes(first_remote(plain.root, str(far)), owner="@team")))
    assert remotes(plain.root)["storage"]["url"] == str(far)
    assert not far.exists()
    assert "/storage" not in (plain.root / ".dvc/.gitignore").read_text().splitlines()


def test_settings_that_are_there_stay(plain: World) -> None:
    plain.write(".dvc/config", "# ours\n[core]\n    autostage = true\n[cache]\n    type = copy\n")
    plain.write(".dvc/.gitignore", "/config.local\n/tmp\n/cache\n")
    plain.write("holdfast.yaml", "gc:\n  minimum_age: 30d\n")
    plain.write("registry/a/b/model.yaml", "schema: 1\n")
    plain.write("CODEOWNERS", "*       @ada @grace  # all\n/registry/ @hopper\n")
    plain.write(
        ".pre-commit-config.yaml",
        "repos:\n- repo: https://example.org/holdfast\n  rev: v1\n  hooks:\n  - id: holdfast-check\n",
    )
    plain.commit()
    setup = prepared(plain.root)

    config = (plain.root / ".dvc/config").read_text()
    assert config.startswith("# ours\n[core]\n    remote = storage\n    autostage = true\n[cache]\n    type = copy\n")
    paths = {item.path for item in setup.proposals}
    assert not paths & {"holdfast.yaml", "CODEOWNERS", "registry/README.md"}
    hooks = yaml.safe_load((plain.root / ".pre-commit-config.yaml").read_text())["repos"]
    assert [hook["id"] for repo in hooks for hook in repo["hooks"]] == [
        "holdfast-check",
        "holdfast-registry-verify",
        "dvc-pre-push",
    ]
    assert proposed(plain.root, remotes={"storage": "x"}).proposals == ()


def test_owners_are_those_of_everything_else(plain: World) -> None:
    plain.write(".github/CODEOWNERS", "# who\n*       @ada @grace  # all")
    plain.commit()
    setup = propose(survey_of(plain.root), Wishes(first_remote(plain.root, None)))
    (owners,) = [item for item in setup.proposals if item.path.endswith("CODEOWNERS")]
    assert owners.path == ".github/CODEOWNERS"
    assert owners.after.endswith(b"# all\n# who approves a change of the registry\n/registry/ @ada @grace\n")


def test_nobody_owns_it_and_nobody_is_made_up(plain: World) -> None:
    assert "+/registry/ ada@example.org" in call(plain, "init", "--dry-run")
    plain.git("config", "user.email", "")
    done = said(plain, "--yes")
    assert [item["path"] for item in done["left"]] == ["CODEOWNERS"]  # type: ignore[attr-defined]
    assert not (plain.root / "CODEOWNERS").exists()
    assert "--owner" in call(plain, "init", "--owner", "team", code=2)
    call(plain, "init", "--yes", "--owner", "@org/team")
    assert (plain.root / "CODEOWNERS").read_text().endswith("/registry/ @org/team\n")


def test_a_second_push_hook_is_not_added_to_dvcs_own(plain: World) -> None:
    plain.write(".git/hooks/pre-push", "#!/bin/sh\nexec dvc git-hook pre-push $@\n")
    setup = proposed(plain.root)
    (hooks,) = [item for item in setup.proposals if item.path == ".pre-commit-config.yaml"]
    assert b"dvc-pre-push" not in hooks.after
    assert b"holdfast-check" in hooks.after


def test_the_hooks_do_what_they_are_for(cleanup: World) -> None:
    """Each entry is run as pre-commit runs it: split as by a shell, from git's top, with the files that fit."""
    world = cleanup
    config = yaml.safe_load((world.root / ".pre-commit-config.yaml").read_text())
    assert config["default_install_hook_types"] == ["pre-commit", "pre-push"]
    hooks = {hook["id"]: hook for repo in config["repos"] for hook in repo["hooks"]}
    entry = hooks["holdfast-check"]["entry"].split()[1:]
    assert call(world, *entry, "scripts/loop.py").startswith("No findings")
    assert "cccv1_best.pth` is not canonical" in call(world, *entry, "analysis/a.py", code=1)
    call(world, *hooks["holdfast-registry-verify"]["entry"].split()[1:])
    files = re.compile(hooks["holdfast-registry-verify"]["files"])
    assert [
        bool(files.search(name)) for name in ("registry/a/b/v1.yaml", "dvc.lock", "x/dvc.lock", "myregistry/x")
    ] == [True, True, True, False]


def test_what_others_left_is_said(plain: World) -> None:
    plain.write(".gitattributes", "*.pt filter=lfs diff=lfs merge=lfs -text\n# *.bin filter=lfs\n")
    plain.write("mlruns/0/meta.yaml", "name: Default\n")
    plain.write("big.bin", b"\0" * 10_000_001)
    plain.write("models_registry.json", json.dumps({"models": {"a": {"path": "x"}}}))
    plain.git("remote", "add", "origin", "git@gitlab.example.org:a/b.git")
    plain.commit()
    found = said(plain)["found"]
    assert found == {
        "models": 0, "model_bytes": 0, "runs": 0, "registries": ["models_registry.json"], "dvc": False, "remotes": {},
        "git_lfs": ["*.pt"], "mlflow": ["mlruns"], "large_in_git": [{"path": "big.bin", "bytes": 10_000_001}],
        "service": "gitlab",
    }  # fmt: skip
    text = call(plain, "init", "--yes")
    assert all(word in text for word in ("Git LFS: *.pt", "MLflow: mlruns", "big.bin", "models_registry.json"))
    assert yaml.safe_load((plain.root / ".gitlab-ci.yml").read_text())["include"]


def test_gitlabs_pipeline_is_included_into_the_one_that_is_there(plain: World) -> None:
    plain.write(".gitlab-ci.yml", "include:\n  - local: ours.yml  # first\nstages: [test]\n")
    plain.commit()
    setup = propose(survey_of(plain.root), Wishes(first_remote(plain.root, None), "gitlab", "@team"))
    write(setup)
    text = (plain.root / ".gitlab-ci.yml").read_text()
    assert text == "include:\n  - local: ours.yml  # first\n  - local: .gitlab/holdfast.yml\nstages: [test]\n"
    assert (plain.root / ".gitlab/holdfast.yml").is_file()


def test_interrupted_it_is_completed_by_another_run(plain: World, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {item.path: item.after for item in proposed(plain.root).proposals}
    for cut in range(len(whole)):
        undo(plain, _cut_off(plain, monkeypatch, cut))
    prepared(plain.root)
    assert {path: (plain.root / path).read_bytes() for path in whole} == whole


def _cut_off(world: World, monkeypatch: pytest.MonkeyPatch, cut: int) -> str:
    """Stop before the file number ``cut``, complete it, and see that all is there; the line that undoes it."""
    from holdfast.atomic import write_atomically

    setup = proposed(world.root)
    line = footprint(setup)
    left = cut

    def dying(path: Path, data: bytes) -> None:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        write_atomically(path, data)

    with monkeypatch.context() as patched:
        patched.setattr("holdfast.project.setup.write_atomically", dying)
        with pytest.raises(KeyboardInterrupt):
            write(setup)
    rest = prepared(world.root)
    assert len(rest.proposals) == len(setup.proposals) - cut
    assert all((world.root / item.path).read_bytes() == item.after for item in setup.proposals)
    return line.undo(world.root)


def test_each_file_is_asked_for(plain: World) -> None:
    """A terminal: `e` asks for each file; what is refused is not written. Lines for a shell are whole in a narrow one."""
    script = (
        "import os, pty, sys, select, time\n"
        "pid, terminal = pty.fork()\n"
        "if pid == 0:\n"
        "    os.execvp(sys.argv[1], sys.argv[1:])\n"
        "said, answers = b'', [b'e\\n', b'y\\n', b'y\\n', b'y\\n', b'n\\n', b'n\\n', b'n\\n', b'n\\n', b'n\\n', b'n\\n']\n"
        "asked = 0\n"
        "while True:\n"
        "    try:\n"
        "        part = os.read(terminal, 4096)\n"
        "    except OSError:\n"
        "        break\n"
        "    if not part:\n"
        "        break\n"
        "    said += part\n"
        "    if (said.count(b'?') and said.rstrip().endswith((b'[Y/n]:', b'[y]:'))) and asked < len(answers):\n"
        "        os.write(terminal, answers[asked]); asked += 1; said += b'\\n'\n"
        "sys.stdout.buffer.write(said)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    )
    from worlds import TOOLS, environment

    done = subprocess.run(
        [sys.executable, "-c", script, str(TOOLS / "holdfast"), "init"],
        cwd=plain.root, env=environment(plain.home) | {"TERM": "xterm", "COLUMNS": "30"}, capture_output=True, text=True,
        check=False, timeout=30,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    written = plain.git("status", "--porcelain", "-uall").replace("?? ", "").splitlines()
    assert set(written) == {".dvc/.gitignore", ".dvc/config", ".dvcignore"}
    assert "git clean -q -fd -- .dvc .dvcignore" in done.stdout
