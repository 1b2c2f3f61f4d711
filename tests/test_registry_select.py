"""`registry select`, `history` and `diff` as a user runs them: what they answer, and what they say where they cannot."""

import subprocess
from pathlib import Path

import pytest

import holdfast
from holdfast.registry.entries import UnknownVersionError
from registry_world import error_of, shown
from test_registry_show import draft, on_a_terminal, write
from worlds import World, make_repository

MODEL = "mental_health/medium"
KEYS = 100_000
LONG = "Put version three into production, because the per-class gate passed on the new split (#123)"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Three versions, of which production went from v1 to v2 and v1 is deprecated, each step a commit."""
    world = make_repository(tmp_path_factory.mktemp("select"))
    # the gate says so, though of accuracy more is better by its name
    world.write("params.yaml", "promote:\n  metrics: {accuracy: {direction: min, ceiling: 1}}\n")
    versions = [
        draft(1, {"accuracy": 0.9, "val_loss": 0.3}),
        draft(2, {"accuracy": 0.95, "val_loss": 0.1}, params={"lr": 0.2}),
        draft(3, {"accuracy": 0.93, "val_loss": 0.2}),
    ]
    write(world.root, versions)
    world.commit("Three versions")
    for label, name in (("production", "v1"), ("staging", "v3"), ("production", "v2")):
        world.holdfast("registry", "assign", f"{MODEL}@{name}", label)
        world.commit(LONG)
    world.holdfast("registry", "deprecate", f"{MODEL}@v1", "--reason", "wrong split")
    return world


@pytest.mark.parametrize(
    ("arguments", "chosen"),
    [
        ([], "v3"),
        (["--best", "accuracy"], "v2"),
        (["--best", "accuracy", "--min"], "v3"),
        (["--best", "accuracy", "--min", "--deprecated"], "v1"),
        (["--best", "val_loss"], "v2"),
        (["--best", "val_loss", "accuracy<0.95"], "v3"),
        (["accuracy>0.9", "val_loss>=0.2"], "v3"),
        (["--ab", "production=1,staging=0", "--key", "u"], "v2"),
        (["--ab", "production=0%,staging=100%", "--key", "u"], "v3"),
        (["--ab", "v1=1", "--key", "u"], "v1"),
        (["--ab", "production=1%,v1=1", "--key", "w"], "v1"),  # of 1 and 1 production would have it
    ],
)
def test_a_version_is_chosen(world: World, arguments: list[str], chosen: str) -> None:
    assert world.holdfast("registry", "select", MODEL, *arguments).stdout == f"{MODEL}@{chosen}\n"
    assert shown(world, "select", MODEL, *arguments)["version"] == chosen


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["select", MODEL, "accuracy>0.99"], 1, "fits: accuracy>0.99. Accuracy reaches from 0.93 to 0.95"),
        (["select", MODEL, "acuracy>0.9"], 1, "None has acuracy: the metrics are accuracy, val_loss"),
        (["select", MODEL, "--best", "f1"], 1, "fits: with the metric f1. None has f1: the metrics are"),
        (["select", MODEL, "--max"], 2, "--max and --min belong to --best"),
        (["select", MODEL, "--ab", "production=1"], 2, "--ab and --key go together"),
        (["select", MODEL, "--ab", "production=1", "--key", ""], 2, "--key is empty"),
        (["select", MODEL, "--ab", "production=0,v1=0", "--key", "u"], 2, "these are no shares: production=0, v1=0"),
        (["select", MODEL, "--ab", "production=x", "--key", "u"], 2, "'production=x' is no share"),
        (["select", MODEL, "--ab", "production=-5%", "--key", "u"], 2, "'production=-5%' is no share"),
        (["diff", MODEL, "v1"], 2, f"a version to compare {MODEL}@v1 with is missing"),
    ],
)
def test_what_cannot_be_chosen_says_why(world: World, arguments: list[str], code: int, words: str) -> None:
    assert words in error_of(world, *arguments, code=code)


def test_a_split_over_a_label_that_is_not_there_is_an_error_for_every_key(world: World) -> None:
    registry = holdfast.load_registry(world.root)
    for number in range(100):
        with pytest.raises(UnknownVersionError, match="no version or alias canary"):
            registry.select(MODEL, ab={"production": 0.99, "canary": 0.01}, key=str(number))
    assert "no version or alias canary" in error_of(
        world, "select", MODEL, "--ab", "production=1,canary=0", "--key", "u", code=2
    )


def test_a_split_keeps_its_weights_and_its_keys(world: World) -> None:
    registry = holdfast.load_registry(world.root)
    shares = {"production": 0.7, "staging": 0.2, "v1": 0.1}
    counts: dict[str, int] = {}
    answers = {}
    for number in range(KEYS):
        name = registry.select(MODEL, ab=shares, key=f"user-{number}").version.name
        counts[name] = counts.get(name, 0) + 1
        if number % 10_000 == 0:
            answers[f"user-{number}"] = name
    for name, share in (("v2", 0.7), ("v3", 0.2), ("v1", 0.1)):
        assert abs(counts[name] / KEYS - share) < 0.01 * share + 0.003, counts
    # the same in another process, whatever the order of the shares
    for key, name in answers.items():
        told = world.holdfast("registry", "select", MODEL, "--ab", "v1=1,staging=2,production=7", "--key", key).stdout
        assert told == f"{MODEL}@{name}\n"


@pytest.mark.parametrize("width", [80, 90, 110, 200])
def test_history_cuts_messages_to_the_terminal(world: World, width: int) -> None:
    lines = on_a_terminal(world, width, "history")
    assert max(map(len, lines)) <= width
    assert lines[0].strip() == MODEL  # of one model it is the title
    rows = [line for line in lines if line.startswith(" 20")]
    assert len(rows) == 4
    assert "production v1 → v2" in rows[0]
    assert " not committed" in lines[4]
    assert "v1 deprecated: wrong split" in lines[4]
    if width >= 90:
        message = rows[0].rpartition("   ")[2].strip().removesuffix("…")
        assert len(message) > 12
        assert LONG.startswith(message)
        assert (message == LONG) == (width == 200)
    # a pipe has all of it
    assert LONG in world.holdfast("registry", "history").stdout


def test_of_several_models_each_line_names_its_own(world: World, tmp_path: Path) -> None:
    copied = World(tmp_path / "repository", world.home)
    subprocess.run(["cp", "-r", str(world.root), str(copied.root)], check=True)
    write(copied.root, [draft(9, {"accuracy": 0.5})], "other/model")
    copied.commit("Another model")
    for width in (80, 200):
        lines = on_a_terminal(copied, width, "history")
        assert any("other/model" in line and "v9 registered" in line for line in lines)
        assert any(MODEL in line and "production v1 → v2" in line for line in lines)


def test_diff_takes_directions_from_the_gate(world: World) -> None:
    text = world.holdfast("registry", "diff", MODEL, "v1", "v2").stdout
    rows = {
        line.split()[0]: line.split()[-1] for line in text.splitlines() if line.startswith((" accuracy", " val_loss"))
    }
    assert rows == {"accuracy": "worse", "val_loss": "better"}
    assert "; 1.0 kB → 2.0 kB." in text
    answer = shown(world, "diff", MODEL, "v1", "v2")
    assert [(item["name"], item["better"]) for item in answer["metrics"]] == [("accuracy", False), ("val_loss", True)]
    assert [(item["name"], item["a"], item["b"]) for item in answer["params"]] == [("lr", 0.1, 0.2)]
    same = world.holdfast("registry", "diff", f"{MODEL}@production", f"{MODEL}@v2").stdout
    assert same == f"{MODEL}@v2 and {MODEL}@v2 are one version.\n"
