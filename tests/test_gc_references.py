"""Names, and lines of a plan, that are made when they are asked for: the same as those that are made at once."""

import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.cli.gc_text import plan_blocks
from holdfast.gc.plan import Plan, Request, plan_of
from holdfast.gc.planned import PlannedObject, Staying
from holdfast.gc.references import RANKS, Key, Naming, References, name_of
from holdfast.repo.answers import Answer, Sighting, dump, load
from holdfast.repo.cache import CacheObject
from holdfast.repo.dvcfiles import Out
from holdfast.repo.records import Named
from holdfast.repo.refs import Kind, Origin

KINDS: tuple[Kind, ...] = ("branch", "tag", "experiment", "stash", "ref", "history", "reflog", "workspace")
PASSED = frozenset({"app/m@v1"})

oids = st.sampled_from([letter * 32 for letter in "abcdef"] + ["0" * 32 + ".dir", "1" * 32 + ".dir"])
outs = st.builds(
    Out,
    path=st.sampled_from(["a", "b", "folder/c"]),
    hash_name=st.sampled_from(["md5", "md5-dos2unix"]),
    oid=oids,
    size=st.sampled_from([None, 0, 12]),
    nfiles=st.sampled_from([None, 2]),
    stage=st.sampled_from([None, "train"]),
    listed=st.booleans(),
)
named = st.builds(
    Named, outs, st.sampled_from(["dvc.lock", "a.dvc"]), st.sampled_from([None, None, None, "app/m@v1", "app/m@v2"])
)
origins = st.builds(
    Origin,
    st.sampled_from(KINDS),
    st.sampled_from(["main", "x"]),
    st.sampled_from(["1" * 40, "2" * 40]),
    st.integers(0, 2),
)
met = st.lists(st.tuples(named, origins), max_size=12)


def answer_of(entries: list[tuple[Named, Origin]]) -> Answer:
    answer = Answer(reached=["1" * 40])
    for entry, origin in entries:
        answer.add(entry, origin)
    return answer


def sighting_of(entry: Named, origin: Origin) -> Sighting:
    return Sighting(entry.out, entry.file, origin, entry.version)


def add_one_by_one(references: References, sightings: list[Sighting], naming: Callable[[Sighting], Any]) -> None:
    for sighting in sightings:
        references.add(sighting.out, naming(sighting), sighting.file)


@settings(max_examples=120, deadline=None)
@given(met, met, met, st.booleans(), st.booleans(), st.integers(0, 1000))
def test_names_are_those_that_would_be_made_at_once(
    before: list[tuple[Named, Origin]],
    commits: list[tuple[Named, Origin]],
    after: list[tuple[Named, Origin]],
    remembered: bool,
    narrow: bool,
    order: int,
) -> None:
    """Before and after what commits say comes what the workspace, the index and reflogs say; under both policies."""
    naming = Naming(PASSED) if narrow else Naming()
    first, last = ([sighting_of(*one) for one in some] for some in (before, after))
    answer = answer_of(commits)
    at_once = References()
    add_one_by_one(at_once, [*first, *answer, *last], naming.name)

    late = References()
    add_one_by_one(late, first, naming.name)
    late.add_answer(load(dump(answer)) if remembered else answer, naming)
    add_one_by_one(late, last, naming.name)

    keys = sorted({(entry.out.hash_name, entry.out.oid) for entry, _ in (*before, *commits, *after)})
    random.Random(order).shuffle(keys)
    expected = {key: at_once.of(key) for key in keys}
    # some are asked for before all that is kept is asked for, and some after
    assert {key: late.of(key) for key in keys[::2]} == {key: expected[key] for key in keys[::2]}
    assert late.keepers() == {key: names[0].kind for key, names in expected.items() if names[0].kind in RANKS}
    assert {key: late.of(key) for key in keys} == expected
    assert late.keepers() == at_once.keepers()
    assert late.listings == at_once.listings
    assert late.of(("md5", "9" * 32)) == ()


@settings(max_examples=100, deadline=None)
@given(met)
def test_an_answer_in_columns_says_what_it_said(entries: list[tuple[Named, Origin]]) -> None:
    answer = answer_of(entries)
    files = {"key": [entry for entry, _ in entries[:3]], "none": []}
    answer.files = files
    kept = load(dump(answer))
    expected = [sighting_of(*one) for one in entries]
    assert len(kept) == len(answer) == len(expected)
    assert [kept.sighting(number) for number in range(len(kept))] == expected
    assert list(kept) == list(answer) == expected
    assert (kept.keys, kept.named, list(kept.versions)) == (answer.keys, answer.named, list(answer.versions))
    assert (kept.reached, kept.files) == (answer.reached, files)


def test_names_are_made_for_those_who_ask() -> None:
    """What is not asked for is not made: else a plan of ten thousand objects that stay makes ten thousand names."""
    made: list[Key] = []

    class Told(Naming):
        def name(self, sighting: Sighting) -> Any:
            made.append((sighting.out.hash_name, sighting.out.oid))
            return name_of(sighting)

    origin = Origin("history", "main", "1" * 40, 3)
    answer = answer_of([(Named(Out(letter, "md5", letter * 32), "dvc.lock", None), origin) for letter in "abc"])
    references = References()
    references.add_answer(load(dump(answer)), Told())
    assert references.keepers() == {("md5", letter * 32): "history" for letter in "abc"}
    assert made == []
    assert references.of(("md5", "b" * 32))[0].source == "3 commits back on main"
    assert references.of(("md5", "b" * 32))[0].path == "b"
    assert made == [("md5", "b" * 32)]


# --- lines --------------------------------------------------------------------------------------------------------

sizes = st.integers(0, 3)
stored = st.builds(
    lambda letter, size: CacheObject("md5", letter * 32, f"files/md5/{letter * 2}/{letter * 30}", size, 0.0),
    st.sampled_from("abcdefgh"),
    sizes,
)
groups = st.lists(stored, max_size=8, unique_by=lambda entry: entry.path)


def line_of(scope: Any, entry: CacheObject, tier: Any, reason: str) -> PlannedObject:
    return PlannedObject(
        scope, "", entry.path, entry.size, 1.0, tier, reason, f"says {reason}", entry.hash_name, entry.oid
    )


def plan_with(lines: list[PlannedObject], *staying: Staying) -> Plan:
    return plan_of(lines, staying, time=0.0, revision=None, request=Request(("cache", "remote")))


@settings(max_examples=150, deadline=None)
@given(groups, groups, st.sampled_from(["history", "young"]))
def test_a_plan_is_the_same_whether_lines_of_what_stays_were_made(
    here: list[CacheObject], there: list[CacheObject], reason: str
) -> None:
    """A third of the objects goes, a third stays for some other reason, maybe of the same name, a third is needed."""
    lines, needed = [], dict[str, dict[str, list[CacheObject]]]()
    for scope, entries in (("cache", here), ("remote", there)):
        needed[scope] = {"history": entries[::3], "tag": []}
        lines += [line_of(scope, entry, "remove", "nothing") for entry in entries[1::3]]
        lines += [line_of(scope, entry, "keep", reason) for entry in entries[2::3]]
    staying = [
        Staying(scope, "", kinds, lambda entry, scope=scope: line_of(scope, entry, "keep", "history"))  # type: ignore[arg-type, misc]
        for scope, kinds in needed.items()
    ]
    late = plan_with(lines, *staying)
    at_once = plan_with([*lines, *staying[0], *staying[1]])
    assert (late.to_file(), late.digest) == (at_once.to_file(), at_once.digest)
    assert (late.objects, late.kept, late.removed) == (at_once.objects, at_once.kept, at_once.removed)
    assert late.to_json() == at_once.to_json()


def test_nobody_makes_lines_of_what_a_plan_only_counts() -> None:
    """As text, in its file and in its digest a plan has sums of what stays; JSON lists it."""

    def refuse(entry: CacheObject) -> PlannedObject:
        raise AssertionError(f"nobody asked for {entry.path}")

    kept = [CacheObject("md5", "a" * 32, f"files/md5/aa/{number}", 10, 0.0) for number in range(3)]
    plan = plan_with(
        [line_of("cache", kept[0]._replace(path="files/md5/bb/0", size=5), "remove", "nothing")],
        Staying("cache", "", {"history": kept}, refuse),
    )
    text = "\n".join(str(block) for block in plan_blocks(plan, None, None))
    assert text.startswith("1 of 4 objects (5 B of 35 B) is needed by nothing and could go.")
    assert "in the history of a ref" in text
    assert json.loads(plan.to_file())["totals"][0]["bytes"] == 30
    assert len(plan.digest) == 32
    with pytest.raises(AssertionError, match="nobody asked for files/md5/aa/0"):
        plan.to_json()


def torn(column: str, value: Any) -> bytes:
    """An answer with two outs and a file, of which one column is another one."""
    origin = Origin("branch", "main", "1" * 40)
    entries = [Named(Out(letter, "md5", letter * 32, 1), "dvc.lock", None) for letter in "ab"]
    answer = answer_of([(entry, origin) for entry in entries])
    answer.files = {"key": entries[:1]}
    values = json.loads(dump(answer))
    assert load(json.dumps(values).encode()).files == answer.files
    return json.dumps(values | {column: value}).encode()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("file", [0, 0]),
        ("file", [0, 0, 9]),
        ("path", [1, 2, -1]),
        ("path", [1, 2, 1, 1]),
        ("shape", [0, 0, 1]),
        ("shape", []),
        ("size", [1]),
        ("size", [1, 1, 1, 1]),
        ("oid", "a b"),
        ("oid", "a b c d"),
        ("at", [0, 1]),
        ("at", [0]),
        ("at", [-1, 0]),
        ("origins", []),
        ("origins", [["branch"]]),
        ("shapes", [["md5"]]),
        ("files", [["key", 2]]),
        ("files", []),
        ("files", [["key"]]),
    ],
)
def test_a_torn_answer_is_none(column: str, value: Any) -> None:
    """Whoever keeps answers then finds out anew: half of an answer would let go what the other half names."""
    with pytest.raises((ValueError, TypeError, KeyError, IndexError)):
        load(torn(column, value))
