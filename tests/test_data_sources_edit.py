"""Changes of the catalogue: the lines of one entry, in its place, and nothing that somebody else wrote."""

import fcntl
import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.data.catalogue import Catalogue, CatalogueError, Source
from holdfast.data.catalogue_reading import read_catalogue
from holdfast.data.catalogue_writing import Change, changing, open_catalogue, write_changes
from holdfast.errors import LockedError
from worlds import TOOLS, World, environment, make_repository

CLIMATE = """\
# What the weather was.
# yaml-language-server: $schema=../sources.schema.json
description: reanalyses

sources:
# the large one
- name: era5   # ECMWF's
  url: "https://cds.climate.copernicus.eu/era5"
  size: 12_000   # of 2024
  annotations: {grid: [0.25, 0.25]}   # degrees

  # more to come

# asked for by the modellers
- name: rocke3d
  url: https://simplex.giss.nasa.gov   # see there
  version: '2.0'
# the end
"""


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = make_repository(tmp_path)
    made.write("sources.yaml", "# ours\nschema: 1\nbucket: s3://astro-data  # in Frankfurt\ndomains: [climate]\n")
    made.write("sources/climate.yaml", CLIMATE)
    made.commit()
    return made


def changed_lines(world: World) -> tuple[list[str], list[str]]:
    """The lines that went and those that came, as git sees them."""
    text = world.git("diff", "--unified=0").splitlines()
    gone = [line[1:] for line in text if line.startswith("-") and not line.startswith("---")]
    come = [line[1:] for line in text if line.startswith("+") and not line.startswith("+++")]
    return gone, come


def test_an_added_source_changes_no_other_line(world: World) -> None:
    done = world.holdfast(
        "sources", "add", "climate/noaa-gfs", "--url", "https://noaa.gov/gfs", "--version", "16", "-v"
    )
    assert "climate/noaa-gfs added in sources/climate.yaml:" in done.stdout
    # what `verify` would say of it is told at once
    assert "Note: noaa-gfs is mapped to no prefix in the bucket." in done.stdout
    assert "Note: noaa-gfs does not say its licence, updates." in done.stdout
    gone, come = changed_lines(world)
    assert gone == []
    assert [line for line in come if line] == ["- name: noaa-gfs", "  url: https://noaa.gov/gfs", "  version: '16'"]
    text = (world.root / "sources/climate.yaml").read_text()
    assert text.index("degrees") < text.index("noaa-gfs") < text.index("# asked for") < text.index("rocke3d")


@pytest.mark.parametrize(
    ("name", "before", "after"), [("aaa", "", "# the large one"), ("zzz", "version: '2.0'", "# the end")]
)
def test_first_and_last(world: World, name: str, before: str, after: str) -> None:
    world.holdfast("sources", "add", name, "-d", "climate")
    gone, come = changed_lines(world)
    assert (gone, [line for line in come if line]) == ([], [f"- name: {name}"])
    text = (world.root / "sources/climate.yaml").read_text()
    assert text.index(before) < text.index(f"name: {name}") < text.index(after)


def test_a_changed_source_keeps_its_comments(world: World) -> None:
    arguments = ["--update", "--licence", "CC-BY-4.0", "--size", "13000", "--annotate", "unit=K"]
    world.holdfast("sources", "add", "climate/era5", *arguments)
    gone, come = changed_lines(world)
    assert gone == ["  size: 12_000   # of 2024", "  annotations: {grid: [0.25, 0.25]}   # degrees"]
    assert [line.split("#")[0].rstrip() for line in come] == [
        "  licence: CC-BY-4.0", "  size: 13000", "  annotations: {grid: [0.25, 0.25], unit: K}",
    ]  # fmt: skip
    assert [line.rpartition("# ")[2] for line in come[1:]] == ["of 2024", "degrees"]
    # once more changes nothing, and says so
    world.commit()
    done = world.holdfast("sources", "add", "era5", *arguments)
    assert "climate/era5 says that already." in done.stdout
    assert world.git("status", "--short") == ""


def test_a_new_field_leaves_the_others_as_they_are(world: World) -> None:
    world.holdfast("sources", "add", "era5", "--update", "--version", "5")
    assert changed_lines(world) == ([], ["  version: '5'"])
    text = (world.root / "sources/climate.yaml").read_text()
    assert text.index("climate.copernicus") < text.index("version: '5'") < text.index("12_000")


def test_a_change_that_would_change_others_is_refused(tmp_path: Path) -> None:
    text = "sources:\n- name: a\n  origin: |+\n    here\n\n\n- name: c\n"  # the empty lines are part of it
    catalogue = write(tmp_path, text)
    with pytest.raises(CatalogueError, match="without changing other entries"):
        write_changes(catalogue, [Change(Source("b", "climate"))])
    assert (tmp_path / "sources/climate.yaml").read_text() == text


def test_a_new_domain(world: World) -> None:
    payload = json.loads(world.holdfast("sources", "add", "biology/kegg", "--version", "110.0", "--json").stdout)
    assert payload["written"] == ["sources/biology.yaml", "sources.yaml"]
    assert (world.root / "sources/biology.yaml").read_text() == "sources:\n- name: kegg\n  version: '110.0'\n"
    index = (world.root / "sources.yaml").read_text()
    assert "# ours" in index
    assert "# in Frankfurt" in index
    assert yaml.safe_load(index)["domains"] == ["climate", "biology"]


def test_the_first_source_makes_the_catalogue(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    (world.root / "deep").mkdir()
    subprocess.run(
        [str(TOOLS / "holdfast"), "sources", "add", "climate/era5", "--bucket", "s3://astro-data"],
        cwd=world.root / "deep", env=environment(world.home), check=True, capture_output=True,
    )  # fmt: skip
    catalogue = read_catalogue(world.root)
    assert (catalogue.bucket, [source.id for source in catalogue.sources]) == ("s3://astro-data", ["climate/era5"])
    assert catalogue.problems == ()


def test_refusals(world: World) -> None:
    def refused(*arguments: str, code: int) -> str:
        return world.holdfast("sources", "add", *arguments, code=code).stderr

    assert "climate/era5 is there already (sources/climate.yaml:7). Change it with --update" in refused(
        "climate/ERA5", code=2
    )
    assert "there is no source climate/noaa to change" in refused("climate/noaa", "--update", code=2)
    assert "the domain of noaa is not said" in refused("noaa", code=2)
    assert "climate/era5 is not of the domain biology" in refused("climate/era5", "-d", "biology", code=2)
    assert "checksum is 'md5:1'" in refused("climate/x", "--checksum", "md5:1", code=1)
    assert "domain is 'Climate Data'" in refused("x", "-d", "Climate Data", code=1)
    assert "is no annotation" in refused("climate/x", "--annotate", "a", code=2)
    assert world.git("status", "--short") == ""
    world.holdfast("sources", "add", "climate/noaa", "--dry-run")
    assert world.git("status", "--short") == ""


def test_another_command_at_work(world: World) -> None:
    folder = os.open(world.root / "sources", os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        assert "another command changes" in world.holdfast("sources", "add", "climate/x", code=11).stderr
        with pytest.raises(LockedError), changing(world.root):
            pass
    finally:
        os.close(folder)
    world.holdfast("sources", "add", "climate/x")


def test_many_at_once_lose_nothing(world: World) -> None:
    """Processes that add at the same time: each source is there, or its command said that it was locked."""
    running = [
        subprocess.Popen(
            [str(TOOLS / "holdfast"), "sources", "add", f"climate/s{number}"],
            cwd=world.root, env=environment(world.home), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for number in range(5)
    ]  # fmt: skip
    done = {number for number, process in enumerate(running) if process.wait() == 0}
    assert done
    assert all(process.returncode in (0, 11) for process in running)
    names = {source.name for source in read_catalogue(world.root).refuse_problems().sources}
    assert names == {"era5", "rocke3d", *(f"s{number}" for number in done)}


def write(root: Path, text: str) -> Catalogue:
    (root / "sources").mkdir(exist_ok=True)
    (root / "sources.yaml").write_text("schema: 1\ndomains: [climate]\n")
    (root / "sources/climate.yaml").write_text(text)
    return open_catalogue(root)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("sources: []\n", "sources:\n- name: b\n"),
        ("sources:   # none yet\n", "sources:\n- name: b\n"),
        ("description: x\nsources:", "description: x\nsources:\n- name: b\n"),
        ("sources:\n- name: a", "sources:\n- name: a\n\n- name: b\n"),
        ("sources:\n- name: c\n", "sources:\n- name: b\n\n- name: c\n"),
        # as editors indent lists, too
        ("sources:\n  - name: a\n    size: 1\n", "sources:\n  - name: a\n    size: 1\n\n  - name: b\n"),
        ("sources:\n- name: a\n  origin: |\n    here\n    there\n\n# end\n", "sources:\n- name: a\n  origin: |\n    here\n    there\n\n- name: b\n\n# end\n"),
        ("sources:\n- name: a\n  annotations:\n    k:\n    - x\n    - y\ndescription: d\n", "sources:\n- name: a\n  annotations:\n    k:\n    - x\n    - y\n\n- name: b\ndescription: d\n"),
        # out of order already: in front of the first that comes behind it
        ("sources:\n- name: c\n- name: a\n", "sources:\n- name: b\n\n- name: c\n- name: a\n"),
    ],
)  # fmt: skip
def test_forms_of_files(tmp_path: Path, text: str, wanted: str) -> None:
    write_changes(write(tmp_path, text), [Change(Source("b", "climate"))])
    assert (tmp_path / "sources/climate.yaml").read_text() == wanted


@pytest.mark.parametrize(
    "text",
    [
        "sources: [{name: a}, {name: c}]\n",
        "sources:\n- {name: a, size: 1}\n- name: c\n",
        "sources:\n- &a\n  name: a\n  annotations: &x {k: 1}\n- name: c\n  annotations: *x\n",
    ],
)
def test_what_cannot_be_edited_stays_as_it_is(tmp_path: Path, text: str) -> None:
    catalogue = write(tmp_path, text)
    last = catalogue.sources[-1]
    with pytest.raises(CatalogueError, match=r"cannot be edited"):
        write_changes(catalogue, [Change(replace(last, size=5), last)])
    assert (tmp_path / "sources/climate.yaml").read_text() == text


NAMES = st.sampled_from(["era5", "rocke3d", "a"]) | st.text(alphabet="abcXYZ019.-_", min_size=1, max_size=6).filter(
    lambda name: name[0] not in ".-_"
)
TEXTS = st.text(
    alphabet=st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Co", "Cn")), min_size=1, max_size=30
)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "title": TEXTS
        | st.sampled_from(["yes", "1.0", "# no", "- a", "a: b", "'", "|", "~", "2024-01-01", " x ", "a\nb", "x\n"]),
        "licence": st.sampled_from(["MIT", "CC-BY-4.0"]),
        "version": st.sampled_from(["1", "1.10", "0x10", "1e3", "v2", "1_000", "2024-01-01", "null"]),
        "size": st.integers(0, 10**15),
        "annotations": st.dictionaries(
            TEXTS, st.one_of(TEXTS, st.integers(), st.booleans(), st.lists(TEXTS, max_size=3)), min_size=1, max_size=3
        ),
    },
)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(st.lists(st.tuples(NAMES, FIELDS), min_size=1, max_size=8))
def test_any_sequence_of_changes(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, dict[str, object]]]
) -> None:
    """The files say what was written last, whatever the texts are; entries that are not meant keep their lines."""
    root = tmp_path_factory.mktemp("catalogue")
    catalogue = write(root, CLIMATE)
    wanted = {source.name: source for source in catalogue.sources}
    for name, fields in steps:
        catalogue = open_catalogue(root)
        before = next((source for source in catalogue.sources if source.name == name), None)
        after = Source(name, "climate", **fields) if before is None else replace(before, **fields)  # type: ignore[arg-type]
        write_changes(catalogue, [Change(after, before)])
        wanted[name] = after
    found = read_catalogue(root)
    assert found.problems == ()
    assert {source.name: replace(source, line=0) for source in found.sources} == {
        name: replace(source, line=0) for name, source in wanted.items()
    }
    text = (root / "sources/climate.yaml").read_text()
    if not {"era5", "rocke3d"} & {name for name, _ in steps}:
        kept = [line for line in CLIMATE.splitlines() if line]
        assert [line for line in text.splitlines() if line in kept] == kept
    assert [line for line in text.splitlines() if line.lstrip().startswith("# ")] == [
        line for line in CLIMATE.splitlines() if line.lstrip().startswith("# ")
    ]
