"""The catalogue's files: what is wrong in them is told with file, line and field, and the schema that says so."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.data.catalogue import Catalogue, CatalogueError
from holdfast.data.catalogue_reading import read_catalogue
from holdfast.data.catalogue_schema import DOMAIN_SCHEMA, INDEX_SCHEMA, SOURCE_SCHEMA, UPDATES, check
from worlds import World, make_repository

INDEX = "schema: 1\ndomains: [climate]\n"


def read(root: Path, text: str, index: str = INDEX) -> Catalogue:
    (root / "sources").mkdir(exist_ok=True)
    (root / "sources.yaml").write_text(index)
    (root / "sources/climate.yaml").write_bytes(text.encode())
    return read_catalogue(root)


def told(catalogue: Catalogue) -> list[str]:
    return [f"{problem.file}:{problem.line}: {problem.fault}" for problem in catalogue.problems]


def test_an_entry_with_all_that_can_be_said(tmp_path: Path) -> None:
    text = """\
description: What the weather was
sources:
- name: era5
  title: ERA5 reanalysis
  url: https://cds.climate.copernicus.eu/era5
  origin: ECMWF
  licence: CC-BY-4.0
  version: 5.10
  updates: daily
  prefix: climate/era5/
  dvc: data/era5/
  checksum: sha256:{digest}
  size: 12345678901
  files: 12
  annotations: {{grid: [0.25, 0.25], since: 1940-01-01, ok: yes, note: null}}
""".format(digest="a" * 64)
    catalogue = read(tmp_path, text)
    assert told(catalogue) == []
    (source,) = catalogue.sources
    assert source.version == "5.10"  # not the number 5.1
    assert (source.prefix, source.dvc) == ("climate/era5", "data/era5")
    assert source.annotations == {"grid": [0.25, 0.25], "since": "1940-01-01", "ok": True, "note": None}
    assert source.size == 12345678901
    assert (source.line, source.lines["checksum"]) == (3, 12)
    assert catalogue.place(source, "checksum") == "sources/climate.yaml:12"
    json.dumps(source.as_json())


@pytest.mark.parametrize(
    ("line", "fault", "hint"),
    [
        ("updates: dayly", "updates is 'dayly', and may be never", "Did you mean daily?"),
        ("licens: MIT", "licens is no field", "Did you mean licence?"),
        ("colour: red", "colour is no field", "below annotations"),
        ("size: large", "size is 'large', and must be a whole number", "Bytes in all"),
        ("size: -1", "size is -1, and must be at least 0", "Bytes in all"),
        ("size: 1.5", "size is '1.5', and must be a whole number", "Bytes in all"),
        ("licence:", "licence is empty, and must be a text", "SPDX"),
        ('licence: ""', "licence is empty, and must be a text", "SPDX"),
        ("licence: [MIT]", "licence is a list, and must be a text", "SPDX"),
        ("licence: yes", "licence is 'yes', and must be a text in quotes", "SPDX"),
        ("url: example.org/a", "url is 'example.org/a', which is not its form", "URL without credentials"),
        ("url: https://ada:secret@example.org/a", "url is", "URL without credentials"),
        ("prefix: /climate/era5", "prefix is '/climate/era5', which is not its form", "climate/era5/"),
        ("prefix: climate/../era5", "prefix is", "climate/era5/"),
        ("prefix: climate//era5", "prefix is", "climate/era5/"),
        ('prefix: "climate/era5\\n"', "prefix is", "climate/era5/"),
        ("checksum: md5:123", "checksum is 'md5:123', which is not its form", "md5:"),
        ("annotations: good", "annotations is 'good', and must be a mapping", "Whatever"),
        ("name: other", "name is there twice, first in line 2", "Leave one"),
    ],
)
def test_a_wrong_field_is_told_with_its_line(tmp_path: Path, line: str, fault: str, hint: str) -> None:
    catalogue = read(tmp_path, f"sources:\n- name: era5\n  # a comment\n  {line}\n- name: next\n")
    (problem,) = catalogue.problems
    assert problem.file == "sources/climate.yaml"
    assert problem.line == 4
    assert f"era5.{fault}" in problem.fault
    assert hint in problem.hint
    # the others are read all the same
    assert [source.name for source in catalogue.sources] == ["era5", "next"]
    with pytest.raises(CatalogueError, match=r"sources/climate\.yaml:4: era5\."):
        catalogue.refuse_problems()


def test_an_entry_without_a_name(tmp_path: Path) -> None:
    catalogue = read(tmp_path, "sources:\n- name: a\n- url: https://x.org\n- 12\n- name: 2024\n- name: a b\n")
    assert told(catalogue) == [
        "sources/climate.yaml:3: sources[2].name is missing",
        "sources/climate.yaml:4: sources[3] is '12', and must be a mapping",
        "sources/climate.yaml:5: 2024.name is '2024', and must be a text in quotes",
        "sources/climate.yaml:6: a b.name is 'a b', which is not its form",
    ]
    assert [source.name for source in catalogue.sources] == ["a"]
    with pytest.raises(CatalogueError, match="and 3 more; `holdfast sources verify` lists all"):
        catalogue.refuse_problems()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "sources/climate.yaml:1: is empty"),
        ("- name: a\n", "sources/climate.yaml:1: is no mapping"),
        ("sources:\n- name: a\n  b\n  url: c\n", "sources/climate.yaml:4: is no YAML"),
        ("sources: no\n", "sources/climate.yaml:1: sources is 'no', and must be a list"),
        ("source:\n- name: a\n", "sources/climate.yaml:1: source is no field"),
        ("sources:\n- name: a\nsources:\n- name: b\n", "sources/climate.yaml:3: sources is there twice"),
        ("sources:\n<<<<<<< HEAD\n- name: a\n=======\n- name: b\n>>>>>>> other\n", "is no YAML"),
        ("sources: [a\n", "is no YAML"),
        ("sources: " + "[" * 3000 + "]" * 3000, "nests deeper"),
        ("sources:\n- name: \x00a\n", "is no YAML"),
    ],
)
def test_a_broken_file(tmp_path: Path, text: str, fault: str) -> None:
    assert any(fault in one for one in told(read(tmp_path, text)))


def test_conflict_markers_are_named(tmp_path: Path) -> None:
    text = "sources:\n<<<<<<< HEAD\n- name: a\n=======\n- name: b\n>>>>>>> other\n"
    assert "conflict markers" in read(tmp_path, text).problems[0].hint


def test_aliases_make_no_billions(tmp_path: Path) -> None:
    bomb = "".join(f"    a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
    text = f"sources:\n- name: a\n  annotations:\n    a0: &a0 [x]\n{bomb}"
    faults = told(read(tmp_path, text))
    assert any("annotations.a11 holds more than 10,000 values" in fault for fault in faults)
    loop = "sources:\n- name: a\n  annotations:\n    b: &b [*b]\n"
    assert "nests deeper than 20 levels" in told(read(tmp_path, loop))[0]


@pytest.mark.parametrize(
    ("index", "fault"),
    [
        ("schema: 2\n", "sources.yaml:1: schema is 2, and must be 1"),
        ("domains: [climate]\n", "sources.yaml:1: schema is missing"),
        ("schema: 1\ndomains: [Climate Data]\n", "sources.yaml:2: domains[1] is 'Climate Data', which is not its form"),
        ("schema: 1\ndomains: [climate, climate]\n", "sources.yaml:2: the domain climate is there twice"),
        ("schema: 1\ndomains: [climate, biology]\n", "sources.yaml:2: sources/biology.yaml is missing"),
        ("schema: 1\ndomains: []\n", "sources/climate.yaml:1: the index has no such domain"),
        ("schema: 1\ndomains: [climate]\nrequire: [licens]\n", "sources.yaml:3: require[1] is 'licens', and may be"),
        ("schema: 1\ndomains: [climate]\nbuckets: x\n", "sources.yaml:3: buckets is no field"),
    ],
)
def test_a_wrong_index(tmp_path: Path, index: str, fault: str) -> None:
    assert any(one.startswith(fault) for one in told(read(tmp_path, "sources: []\n", index)))


def test_the_schema_is_printed(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    assert json.loads(world.holdfast("sources", "schema").stdout) == DOMAIN_SCHEMA
    assert json.loads(world.holdfast("sources", "schema", "index").stdout) == INDEX_SCHEMA


FORMS = (
    *UPDATES, "a/b/", "a//b", "../a", "a/..", ".", "https://x.org", "https://a@x.org/", "doi:10.1/x", "a b", "é",
    f"md5:{'0' * 32}", f"md5:{'0' * 32}.dir", f"sha256:{'f' * 64}", "CC-BY-4.0", "1.0", "true", "null", "",
)  # fmt: skip
# of a last line end Python's $ is not JSON Schema's: that one is tested above
TEXTS = st.one_of(st.text(max_size=8).filter(lambda text: not text.endswith("\n")), st.sampled_from(FORMS))
VALUES: Any = st.one_of(
    TEXTS, st.integers(-5, 5), st.floats(-2, 2), st.booleans(), st.none(), st.lists(TEXTS, max_size=2),
    st.dictionaries(TEXTS, TEXTS, max_size=2),
)  # fmt: skip


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.dictionaries(st.sampled_from([*SOURCE_SCHEMA["properties"], "other"]), VALUES, max_size=5))
def test_as_another_reader_of_json_schema_judges(entry: dict[str, object]) -> None:
    """The schema that is printed is the one that is enforced: editors and we agree."""
    jsonschema = pytest.importorskip("jsonschema")
    problems: list[str] = []
    node = yaml.compose(yaml.safe_dump(entry, allow_unicode=True))
    check(node, SOURCE_SCHEMA, "", lambda _, fault, __: problems.append(fault))
    faults = list(jsonschema.Draft202012Validator(SOURCE_SCHEMA).iter_errors(entry))
    # 1.0 is a whole number in JSON Schema, and YAML's own reader takes it for none: we are the stricter ones
    whole = {name for name in ("size", "files") if isinstance(entry.get(name), float)}
    if not whole:
        assert bool(problems) == bool(faults), (problems, faults)


def test_the_schemas_are_schemas() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    for schema in (DOMAIN_SCHEMA, INDEX_SCHEMA):
        jsonschema.Draft202012Validator.check_schema(schema)
    known = {"name": "era5", "version": 5.1, "updates": "daily", "prefix": "climate/era5/"}
    jsonschema.validate({"sources": [known]}, DOMAIN_SCHEMA)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"sources": [{**known, "updates": "dayly"}]}, DOMAIN_SCHEMA)


def test_list_by_domain_licence_and_what_is_missing(tmp_path: Path) -> None:
    world: World = make_repository(tmp_path)
    (world.root / "sources").mkdir()
    world.write("sources.yaml", "schema: 1\ndomains: [climate, biology]\n")
    climate = (
        "sources:\n- {name: era5, licence: CC-BY-4.0, url: 'https://x.org'}\n- {name: own, origin: us, licence: MIT}\n"
    )
    world.write("sources/climate.yaml", climate)
    world.write("sources/biology.yaml", "sources:\n- {name: kegg, version: '110.0', size: 2500000}\n")

    def names(*arguments: str) -> list[str]:
        found = json.loads(world.holdfast("sources", "list", *arguments, "--json").stdout)["sources"]
        return [f"{source['domain']}/{source['name']}" for source in found]

    assert names() == ["climate/era5", "climate/own", "biology/kegg"]
    assert names("biology") == names("--domain", "biology") == names("kegg") == ["biology/kegg"]
    assert names("--licence", "cc-by-4.0") == ["climate/era5"]
    assert names("--missing", "licence") == ["biology/kegg"]
    # an origin in words stands for a URL
    assert names("--missing", "url") == ["biology/kegg"]
    assert names("--missing", "version", "--domain", "climate") == ["climate/era5", "climate/own"]
    text = world.holdfast("sources", "list", "biology").stdout
    assert "1 of 3 sources." in text
    assert "2.5 MB" in text
    done = world.holdfast("sources", "list", "geology", code=2)
    assert "geology is neither a domain nor a source" in done.stderr
    assert "climate, biology" in done.stderr
    world.write("sources/climate.yaml", "sources:\n- {name: era5, updates: dayly}\n")
    done = world.holdfast("sources", "list", code=1)
    assert "sources/climate.yaml:2: era5.updates is 'dayly'" in done.stderr
