"""The policy of `holdfast.yaml`: every key with good and bad values, and what each does to a plan."""

import json
from datetime import timedelta
from pathlib import Path

import pytest

import gc_world
from gc_world import NOW, add_remote, find, keys, oid_of, plan_of, send
from holdfast.gc.policy import Policy, find_policy
from holdfast.inventory.config import ConfigError
from worlds import World, make_repository

isolated = gc_world.isolated
DAY = 86400
HEAD = "gc:\n  "
KEEP = "gc:\n  keep:\n    "


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_repository(tmp_path)


def policy_of(tmp_path: Path, text: str) -> Policy:
    (tmp_path / "holdfast.yaml").write_text(text)
    return find_policy(tmp_path)


def register(world: World, number: int, oid: str) -> None:
    world.write(
        f"registry/digits/classifier/v{number}.yaml",
        f'schema: 1\noid: "{oid}"\npath: models/m.pt\nsize: 9\nweights: "blake3:{"0" * 64}"\ndate: "2026-01-0{number}"\n'
        f"source: {{}}\nparams: {{}}\nmetrics: {{}}\n",
    )


def fate(world: World, text: str) -> tuple[bool, str, str]:
    entry = find(plan_of(world), oid_of(text))
    return entry.kept, entry.reason, entry.why


# --- reading ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        (HEAD + "minimum_age: 3d", "minimum_age", timedelta(days=3)),
        (HEAD + "minimum_age: 0d", "minimum_age", timedelta(0)),
        (HEAD + "minimum_age: 36h", "minimum_age", timedelta(hours=36)),
        (HEAD + "quarantine: 2w", "quarantine", timedelta(weeks=2)),
        (KEEP + "branches: [main, 'release/*']", "branches", ("main", "release/*")),
        (KEEP + "tags: []", "tags", ()),
        (KEEP + "history: all", "history", None),
        (KEEP + "history: none", "history", timedelta(0)),
        (KEEP + "history: 90d", "history", timedelta(days=90)),
        (KEEP + "experiments: all", "experiments", None),
        (KEEP + "experiments: 0", "experiments", 0),
        (KEEP + "metric: loss\n    experiments: 3", "experiments", 3),
        (KEEP + "metric: metrics/eval.json:loss", "metric", "metrics/eval.json:loss"),
        (KEEP + "direction: max", "direction", "max"),
        (KEEP + "versions: all", "versions", None),
        (KEEP + "versions: 4", "versions", 4),
        (KEEP + "aliases: [production]", "aliases", ("production",)),
        (KEEP + "run_cache: false", "run_cache", False),
        ("repos: [../other]", "repos", ("../other",)),
        ("repos: []", "repos", ()),
        ("gc: {}", "repos", None),
        (HEAD + "auto: {max_remove_bytes: 50GB}", "max_remove_bytes", 50_000_000_000),
        (HEAD + "auto: {max_remove_share: 0.25}", "max_remove_share", 0.25),
        (HEAD + "auto: {max_remove_share: 1}", "max_remove_share", 1.0),
        (HEAD + "auto: {allow_last_copy: true}", "allow_last_copy", True),
    ],
)
def test_good_values(tmp_path: Path, text: str, name: str, value: object) -> None:
    assert getattr(policy_of(tmp_path, text + "\n"), name) == value


def test_ages_of_runs(tmp_path: Path) -> None:
    ages = policy_of(tmp_path, "gc:\n  runs:\n    debug: 1d\n    baseline: 30d\n    failed: never\n").runs
    assert ages["debug"] == timedelta(days=1)
    assert ages["baseline"] == timedelta(days=30)
    assert ages["failed"] is None
    assert ages["production candidate"] is None
    assert ages["incomplete"] == timedelta(days=14)


def test_defaults_count_without_a_file_and_for_what_it_leaves_out(tmp_path: Path) -> None:
    assert find_policy(tmp_path) == Policy()
    assert policy_of(tmp_path, "vault: {url: s3://bucket/vault}\n") == Policy()
    assert policy_of(tmp_path, "gc:\n") == Policy()


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        (HEAD + "minimum_age: soon", 2, "gc.minimum_age"),
        (HEAD + "minimum_age: -3d", 2, "gc.minimum_age"),
        (HEAD + "minimum_age: [3d]", 2, "gc.minimum_age"),
        (HEAD + "quarantine: 3 fortnights", 2, "gc.quarantine"),
        (HEAD + "minimun_age: 3d", 2, "gc.minimun_age"),
        (HEAD + "minimum_age: 3d\n  minimum_age: 4d", 3, "gc.minimum_age"),
        (HEAD + "keep: everything", 2, "gc.keep"),
        (KEEP + "branches: main", 3, "gc.keep.branches"),
        (KEEP + "branches: [1]", 3, "gc.keep.branches"),
        (KEEP + "tags: {v1: yes}", 3, "gc.keep.tags"),
        (KEEP + "history: some", 3, "gc.keep.history"),
        (KEEP + "experiments: few", 3, "gc.keep.experiments"),
        (KEEP + "experiments: -1", 3, "gc.keep.experiments"),
        (KEEP + "experiments: 3", 3, "gc.keep.experiments"),
        (KEEP + "experiments: 2.5\n    metric: loss", 3, "gc.keep.experiments"),
        (KEEP + "metric: [loss]", 3, "gc.keep.metric"),
        (KEEP + "direction: up", 3, "gc.keep.direction"),
        (KEEP + "versions: -2", 3, "gc.keep.versions"),
        (KEEP + "versions: true", 3, "gc.keep.versions"),
        (KEEP + "aliases: production", 3, "gc.keep.aliases"),
        (KEEP + "run_cache: maybe", 3, "gc.keep.run_cache"),
        (KEEP + "branch: [main]", 3, "gc.keep.branch"),
        (HEAD + "runs:\n    debug: often", 3, "gc.runs.debug"),
        (HEAD + "runs:\n    best: 3d", 3, "gc.runs.best"),
        (HEAD + "auto:\n    max_remove_bytes: lots", 3, "gc.auto.max_remove_bytes"),
        (HEAD + "auto:\n    max_remove_share: 1.5", 3, "gc.auto.max_remove_share"),
        (HEAD + "auto:\n    max_remove_share: -0.1", 3, "gc.auto.max_remove_share"),
        (HEAD + "auto:\n    allow_last_copy: 1", 3, "gc.auto.allow_last_copy"),
        ("repos: ../other", 1, "repos"),
        ("repos: [{path: ../other}]", 1, "repos"),
    ],
)
def test_bad_values_are_refused_with_file_line_and_key(tmp_path: Path, text: str, line: int, key: str) -> None:
    with pytest.raises(ConfigError) as raised:
        policy_of(tmp_path, text + "\n")
    assert raised.value.message.startswith(f"{tmp_path / 'holdfast.yaml'}:{line}: {key} ")
    assert "\n" not in str(raised.value)


def test_command_refuses_a_bad_policy_in_one_line(world: World) -> None:
    world.write("holdfast.yaml", KEEP + "history: some\n")
    done = world.holdfast("gc", "plan", code=1)
    assert len(done.stderr.splitlines()) == 1
    assert "holdfast.yaml:3: gc.keep.history" in done.stderr


# --- what each key does -------------------------------------------------------------------------------------------


def test_branches_and_tags_by_pattern(world: World) -> None:
    for branch in ("main", "release/1", "topic/a"):
        if branch != "main":
            world.git("checkout", "-q", "-b", branch, "main")
        world.track("data.csv", f"behind {branch}")
        world.commit()
        world.track("data.csv", f"tip of {branch}")
        world.commit()
    for tag in ("v1", "nightly-1"):
        world.git("checkout", "-q", "--detach", "main")
        world.track("data.csv", f"tagged {tag}")
        world.commit()
        world.git("tag", tag)
    world.git("checkout", "-q", "main")
    assert not plan_of(world).removed
    world.write("holdfast.yaml", KEEP + "branches: [main, 'release/*']\n    tags: ['v*']\n")
    assert fate(world, "tip of release/1")[:2] == (True, "branch")
    assert fate(world, "behind release/1")[:2] == (True, "history")
    assert fate(world, "tagged v1")[:2] == (True, "tag")
    assert fate(world, "tip of topic/a") == (False, "policy", "only branch topic/a, which the policy lets go")
    assert fate(world, "behind topic/a")[:2] == (False, "policy")
    assert fate(world, "tagged nightly-1") == (False, "policy", "only tag nightly-1, which the policy lets go")
    assert len(plan_of(world).removed) == 3
    assert find(plan_of(world), oid_of("tip of topic/a")).names[0].path == "data.csv"


def test_stashes_heads_and_the_workspace_stay_whatever_the_patterns_say(world: World) -> None:
    base = world.commit()
    world.git("checkout", "-q", "-b", "topic")
    world.track("data.csv", "on the branch that is checked out")
    world.commit()
    world.track("data.csv", "stashed")
    world.git("stash", "-q")
    world.track("data.csv", "dirty")
    world.git("worktree", "add", "-q", "--detach", str(world.root.parent / "linked"), base)
    linked = World(world.root.parent / "linked", world.home)
    linked.write("x.dvc", f"outs:\n- md5: {world.store('of a worktree')}\n  hash: md5\n  path: x\n")
    linked.commit()
    linked.git("rm", "-q", "x.dvc")
    world.write("holdfast.yaml", KEEP + "branches: [main]\n    tags: []\n    history: none\n")
    assert not plan_of(world).removed
    assert fate(world, "on the branch that is checked out")[:2] == (True, "workspace")
    assert fate(world, "stashed") == (True, "stash", "stash@{0}")
    assert fate(world, "of a worktree") == (True, "branch", "branch HEAD of linked")


def commit_days_ago(world: World, days: int, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version of the file that was committed so long before `NOW`."""
    world.track("data.csv", text)
    world.git("add", "--all")
    with monkeypatch.context() as patch:
        # worlds.environment hands the variables of this process on, those of git apart
        patch.setattr("worlds.environment", _dated(f"{int(NOW - days * DAY)} +0000"))
        world.git("commit", "-q", "-m", text)


def test_age_of_history(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for days in (400, 200, 20, 0):
        commit_days_ago(world, days, f"{days} days ago", monkeypatch)
    assert not plan_of(world).removed
    world.write("holdfast.yaml", KEEP + "history: 90d\n")
    plan = plan_of(world)
    assert keys(plan.removed) == {("md5", oid_of(f"{days} days ago")) for days in (400, 200)}
    assert fate(world, "20 days ago")[:2] == (True, "history")
    assert fate(world, "200 days ago") == (False, "policy", "only 2 commits back on main, which the policy lets go")
    world.write("holdfast.yaml", KEEP + "history: none\n")
    assert keys(plan_of(world).removed) == {("md5", oid_of(f"{days} days ago")) for days in (400, 200, 20)}
    assert fate(world, "0 days ago")[0]


def test_age_counts_behind_what_is_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that is young keeps nothing where no pattern names what it is behind."""
    for days in (400, 30, 20):
        commit_days_ago(world, days, f"main {days}", monkeypatch)
    for branch, place in (("topic", "-b"), ("release/1", "-b"), ("tagged", "--detach")):
        world.git("checkout", "-q", *([place, branch] if place == "-b" else [place]), "main")
        for days in (10, 5):
            commit_days_ago(world, days, f"{branch} {days}", monkeypatch)
        if place == "--detach":
            world.git("tag", "v1")
    world.git("checkout", "-q", "main")
    commit_days_ago(world, 0, "main 0", monkeypatch)

    def gone(policy: str) -> set[str]:
        world.write("holdfast.yaml", KEEP + policy)
        plan = plan_of(world)
        texts = {oid_of(text): text for text in ("main 0", "main 20", "main 30", "main 400")}
        texts |= {
            oid_of(text): text for name in ("topic", "release/1", "tagged") for text in (f"{name} 10", f"{name} 5")
        }
        return {texts[entry.oid] for entry in plan.removed}

    topic, release, tagged = ({f"{name} 10", f"{name} 5"} for name in ("topic", "release/1", "tagged"))
    assert gone("history: 90d\n") == {"main 400"}
    assert gone("history: 90d\n    branches: [main]\n") == {"main 400"} | topic | release
    assert fate(world, "topic 10") == (False, "policy", "only 1 commit back on topic, which the policy lets go")
    assert fate(world, "tagged 10")[:2] == (True, "history")
    assert gone("history: 90d\n    branches: [main, 'release/*']\n    tags: []\n") == {"main 400"} | topic | tagged
    others = topic | release | tagged
    assert gone("history: 25d\n    branches: [main]\n    tags: []\n") == {"main 400", "main 30"} | others
    # what the workspace has stays, and what is behind it goes
    world.git("checkout", "-q", "topic")
    assert gone("history: 90d\n    branches: [main]\n    tags: []\n") == {"main 400"} | others - {"topic 5"}


def _dated(when: str):  # type: ignore[no-untyped-def]
    from worlds import environment as real

    return lambda home: real(home) | {"GIT_AUTHOR_DATE": when, "GIT_COMMITTER_DATE": when}


def test_best_experiments_by_a_metric(world: World) -> None:
    world.write("dvc.yaml", "metrics:\n- eval.json\n- other.json\n")
    world.write("eval.json", "{}")
    world.track("model.pt", "base")
    base = world.commit()
    figures = {"one": 0.5, "two": 0.1, "three": 0.9, "four": 0.3, "five": float("nan"), "none": None}
    for name, loss in figures.items():
        world.track("model.pt", f"model {name}")
        world.write("eval.json", json.dumps({} if loss is None else {"val": {"loss": loss}}))
        world.write("other.json", json.dumps({"val": {"loss": 1 - (loss or 0)}}) if name != "five" else "{}")
        exp = world.commit(name)
        world.git("update-ref", f"refs/exps/{base[:2]}/{base[2:]}/{name}", exp)
        world.git("reset", "-q", "--hard", base)
    world.git("reflog", "expire", "--expire=now", "--all")

    def kept(policy: str) -> set[str]:
        world.write("holdfast.yaml", KEEP + policy)
        plan = plan_of(world)
        return {name for name in figures if find(plan, oid_of(f"model {name}")).kept}

    assert kept("experiments: all\n") == set(figures)
    # what has no finite figure cannot be called worse
    assert kept("metric: eval.json:val.loss\n    experiments: 2\n") == {"two", "four", "five", "none"}
    assert kept("metric: eval.json:val.loss\n    experiments: 1\n    direction: max\n") == {"three", "five", "none"}
    assert kept("metric: other.json:val.loss\n    experiments: 1\n") == {"three", "five"}
    assert kept("metric: nothing\n    experiments: 1\n") == set(figures)
    assert kept("experiments: 0\n") == set()
    assert fate(world, "model one") == (False, "policy", "only experiment one, which the policy lets go")


def test_newest_versions_and_aliases(world: World) -> None:
    for number in range(1, 6):
        register(world, number, world.store(f"version {number}"))
    world.write(
        "registry/digits/classifier/model.yaml", "schema: 1\ncurrent: v2\naliases: {production: v1, shadow-a: v3}\n"
    )
    world.commit()
    assert not plan_of(world).removed

    def gone(policy: str) -> set[int]:
        world.write("holdfast.yaml", KEEP + policy)
        plan = plan_of(world)
        return {number for number in range(1, 6) if not find(plan, oid_of(f"version {number}")).kept}

    assert gone("versions: all\n") == set()
    assert gone("versions: 1\n") == {4}
    assert gone("versions: 0\n") == {4, 5}
    assert gone("versions: 2\n    aliases: [production]\n") == {3}
    assert gone("versions: 1\n    aliases: ['shadow-*']\n") == {1, 4}
    assert gone("versions: 1\n    aliases: []\n") == {1, 3, 4}
    why = "only registry digits/classifier@v4, which the policy lets go"
    assert fate(world, "version 4") == (False, "policy", why)


def test_what_the_policy_lets_go_stays_for_another_reason(world: World) -> None:
    register(world, 1, world.track("models/m.pt", "version 1"))
    world.write("registry/digits/classifier/model.yaml", "schema: 1\naliases: {}\n")
    world.commit()
    world.write("holdfast.yaml", KEEP + "versions: 0\n")
    assert fate(world, "version 1")[:2] == (True, "workspace")


def test_run_cache(world: World) -> None:
    world.remember_run({"out.bin": "remembered"})
    assert fate(world, "remembered")[:2] == (True, "run cache")
    world.write("holdfast.yaml", KEEP + "run_cache: false\n")
    assert fate(world, "remembered") == (False, "nothing", "only run cache: `make it` (ignored)")


def test_minimum_age(world: World) -> None:
    world.store("nobody's")
    changed = (world.cache / "files/md5" / oid_of("nobody's")[:2] / oid_of("nobody's")[2:]).stat().st_ctime
    for text, age_days, kept in [("3d", 2.99, True), ("3d", 3.01, False), ("0d", 0.0, False), ("36h", 1.4, True)]:
        world.write("holdfast.yaml", HEAD + f"minimum_age: {text}\n")
        entry = find(plan_of(world, now=changed + age_days * DAY), oid_of("nobody's"))
        assert entry.kept is kept
        assert entry.reason == ("young" if kept else "nothing")
    assert entry.why == "younger than 1.5 days"
    assert find(plan_of(world, now=changed + 13 * DAY), oid_of("nobody's")).why == "nothing names it"


def test_default_minimum_age_is_two_weeks(world: World) -> None:
    world.store("nobody's")
    changed = (world.cache / "files/md5" / oid_of("nobody's")[:2] / oid_of("nobody's")[2:]).stat().st_ctime
    assert find(plan_of(world, now=changed + 13.9 * DAY), oid_of("nobody's")).why == "younger than 14 days"
    assert not find(plan_of(world, now=changed + 14.1 * DAY), oid_of("nobody's")).kept


def test_other_repositories_keep_what_they_name(world: World, tmp_path: Path) -> None:
    other = make_repository(tmp_path / "elsewhere")
    shared = world.store("of the other")
    other.write("data.csv.dvc", f"outs:\n- md5: {shared}\n  hash: md5\n  path: data.csv\n")
    other.commit()
    nobody = world.store("nobody's")
    assert keys(plan_of(world).removed) == {("md5", shared), ("md5", nobody)}
    world.write("holdfast.yaml", f"repos: [{other.root}]\n")
    plan = plan_of(world)
    assert keys(plan.removed) == {("md5", nobody)}
    assert "repository" in find(plan, shared).why
    world.write("holdfast.yaml", "repos: [../not-there]\n")
    done = world.holdfast("gc", "plan", code=13)
    assert "not-there" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_named_repositories_make_an_outside_cache_judgeable(world: World, tmp_path: Path) -> None:
    outside = tmp_path / "shared"
    oid = world.store("nobody's")
    world.cache.rename(outside)
    world.write(".dvc/config", f"[cache]\n    dir = {outside}\n")
    world.commit()
    assert find(plan_of(world), oid).reason == "undecided"
    world.write("holdfast.yaml", "repos: []\n")
    assert find(plan_of(world), oid).reason == "nothing"


def test_policy_counts_for_a_remote_too(world: World, tmp_path: Path) -> None:
    world.git("checkout", "-q", "-b", "topic")
    oid = world.track("data.csv", "of the topic")
    world.commit()
    world.git("checkout", "-q", "main")
    send(world, tmp_path / "store", oid)
    add_remote(world, "storage", str(tmp_path / "store"))
    asked = {"remotes": ("storage",)}
    assert find(plan_of(world, "remote", **asked), oid, scope="remote", place="storage").kept
    world.write("holdfast.yaml", KEEP + "branches: [main]\n")
    entry = find(plan_of(world, "remote", **asked), oid, scope="remote", place="storage")
    assert (entry.kept, entry.reason) == (False, "policy")
