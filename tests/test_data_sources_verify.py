"""A catalogue of thousands of sources with faults planted in it: all are found, and nothing else, in little time."""

import json
import random
import resource
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from holdfast.data.catalogue import Catalogue, CatalogueError, Source, find_catalogue
from holdfast.data.catalogue_reading import read_catalogue
from holdfast.data.sources_verification import Evidence, Finding, Tracked, find_tracked, normal_name, normal_url, verify
from worlds import TOOLS, World, environment, make_repository

DOMAINS = ("astronomy", "biology", "climate", "genomics", "spectroscopy")
SOURCES = 3600
EACH = 5

Entries = dict[str, list[dict[str, object]]]


def make_entries(count: int = SOURCES, tracked: int = 0) -> Entries:
    """Sources without a fault; DVC tracks the first of each domain."""
    result: Entries = {domain: [] for domain in DOMAINS}
    for number in range(count):
        domain = DOMAINS[number % len(DOMAINS)]
        name = f"{domain[:3]}-survey-{number:04d}"
        entry: dict[str, object] = {
            "name": name,
            "title": f"Survey number {number}: what it saw",
            "url": f"https://data.example.org/{domain}/{name}",
            "licence": ("CC-BY-4.0", "CC0-1.0", "public domain")[number % 3],
            "version": f"{number % 9}.{number % 4}",
            "updates": ("never", "daily", "yearly")[number % 3],
            "prefix": f"{domain}/{name}/",
            "checksum": f"md5:{number:032x}.dir",
            "size": 1000 * number + 1,
            "files": number % 40 + 1,
            "annotations": {"instrument": f"spectrometer {number % 7}", "variables": ["t2m", "tp"]},
        }
        if number // len(DOMAINS) < tracked:
            entry["dvc"] = f"data/{domain}/{name}"
        result[domain].append(entry)
    return result


def write_catalogue(root: Path, entries: Entries, **index: object) -> None:
    """The files as people and Holdfast write them, without the writer that is under test."""
    (root / "sources").mkdir(exist_ok=True)
    (root / "sources.yaml").write_text(yaml.safe_dump({"schema": 1, "domains": list(entries), **index}))
    for domain, sources in entries.items():
        blocks = "\n".join(yaml.safe_dump([source], sort_keys=False, width=1000) for source in sources)
        (root / f"sources/{domain}.yaml").write_text(f"# {domain}\nsources:\n{blocks or '  []'}")


@dataclass(frozen=True)
class Fault:
    kind: str
    plant: Callable[[dict[str, object], dict[str, object]], object]


FAULTS = (
    Fault("duplicate-name", lambda entry, other: entry.update(name=str(other["name"]).upper().replace("-", "_"))),
    Fault("duplicate-url", lambda entry, other: entry.update(url=f"{other['url']}/", version=other["version"])),
    Fault("duplicate-prefix", lambda entry, other: entry.update(prefix=str(other["prefix"]).rstrip("/"))),
    Fault("overlapping-prefix", lambda entry, other: entry.update(prefix=f"{other['prefix']}raw/")),
    Fault("no-prefix", lambda entry, _: entry.pop("prefix")),
    Fault("missing-metadata", lambda entry, _: entry.pop("licence")),
    Fault("unreadable", lambda entry, _: entry.update(updates="now and then")),
    Fault("not-tracked", lambda entry, _: entry.update(dvc=f"nowhere/{entry['name']}")),
)


def plant(entries: Entries, chooser: random.Random) -> set[tuple[str, str]]:
    """Plant each fault in some entries, none of which has another one; the (kind, domain/name) to be found."""
    planted = set()
    free = {domain: chooser.sample(range(len(entries[domain])), 2 * EACH * len(FAULTS)) for domain in entries}
    for fault in FAULTS:
        for domain in chooser.choices(DOMAINS, k=EACH):
            # that a later entry has what an earlier one has is told of the later one
            first, second = sorted((free[domain].pop(), free[domain].pop()))
            entry, other = entries[domain][second], entries[domain][first]
            fault.plant(entry, other)
            planted.add((fault.kind, f"{domain}/{entry['name']}"))
    return planted


def track_all(world: World, entries: Entries) -> None:
    for domain in entries:
        for entry in entries[domain]:
            path = str(entry.get("dvc", "nowhere"))
            if not path.startswith("nowhere"):
                oid = str(entry["checksum"]).removeprefix("md5:")
                name, size = path.rsplit("/", 1)[-1], entry["size"]
                world.write(
                    f"{path}.dvc", f"outs:\n- md5: {oid}\n  size: {size}\n  nfiles: 3\n  hash: md5\n  path: {name}\n"
                )


def run_counted(world: World, *arguments: str) -> tuple[subprocess.CompletedProcess[str], float]:
    """A command, and the seconds of CPU that all of its process took, start-up included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [str(TOOLS / "holdfast"), *arguments],
        cwd=world.folder,
        env=environment(world.home),
        capture_output=True,
        text=True,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_repository(tmp_path)


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.soak)])
def test_forty_faults_among_thousands(world: World, seed: int) -> None:
    entries = make_entries(tracked=20)
    track_all(world, entries)
    planted = plant(entries, random.Random(seed))
    write_catalogue(world.root, entries)
    assert len(planted) == len(FAULTS) * EACH == 40
    done, _ = run_counted(world, "sources", "verify", "--json")
    assert done.returncode == 1, done.stderr
    payload = json.loads(done.stdout)
    assert (payload["sources"], payload["domains"]) == (SOURCES, len(DOMAINS))
    found = []
    for finding in payload["findings"]:
        file, _, line = finding["where"].partition(":")
        text = (world.root / file).read_text().splitlines()
        block = next(text[place] for place in range(int(line) - 1, -1, -1) if text[place].startswith("- name:"))
        found.append((finding["kind"], f"{Path(file).stem}/{block.split()[-1]}"))
        assert finding["hint"], finding
        if finding["kind"] == "unreadable":
            assert "updates is 'now and then', and may be never, continuous, hourly" in finding["fault"]
            assert text[int(line) - 1] == "  updates: now and then"
    assert len(found) == 40
    assert set(found) == planted
    assert payload["counts"] == {fault.kind: EACH for fault in FAULTS}


def test_a_clean_catalogue_ends_with_0(world: World) -> None:
    entries = make_entries(300, tracked=3)
    track_all(world, entries)
    write_catalogue(world.root, entries)
    done = world.holdfast("sources", "verify")
    assert done.stdout == "No findings in 300 sources of 5 domains.\n"
    assert json.loads(world.holdfast("sources", "verify", "--json").stdout)["ok"] is True


def test_findings_of_a_domain_alone(world: World) -> None:
    entries = make_entries(50)
    del entries["climate"][3]["licence"], entries["biology"][0]["version"]
    entries["climate"][4]["url"] = entries["biology"][4]["url"]
    entries["climate"][4]["version"] = entries["biology"][4]["version"]
    write_catalogue(world.root, entries)
    done = world.holdfast("sources", "verify", "climate", "--json", code=1)
    # a duplicate is sought in all domains
    assert Counter(finding["kind"] for finding in json.loads(done.stdout)["findings"]) == {
        "missing-metadata": 1,
        "duplicate-url": 1,
    }
    text = world.holdfast("sources", "verify", "bio-survey-0001", code=1).stdout
    assert "bio-survey-0001 does not say its version" in text
    assert text.endswith("1 finding in 1 source of 5 domains.\n")
    markdown = world.holdfast("sources", "verify", "--md", code=1).stdout
    assert "| where | kind | what is wrong | what helps |" in markdown


def catalogue_of(*sources: Source, **more: object) -> Catalogue:
    domains = tuple(dict.fromkeys(source.domain for source in sources))
    return Catalogue(Path("/nowhere"), domains=domains, sources=sources, required=("prefix",), **more)  # type: ignore[arg-type]


def kinds(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.kind, finding.source) for finding in findings]


def test_versions_of_one_url_are_no_duplicates() -> None:
    def source(name: str, version: str, url: str = "https://x.org/a") -> Source:
        return Source(name, "climate", len(name), url=url, version=version, prefix=f"climate/{name}")

    assert verify(catalogue_of(source("a", "1"), source("bb", "2"))) == []
    found = verify(catalogue_of(source("a", "1"), source("bb", "2"), source("ccc", "2", "http://X.org/a/")))
    assert kinds(found) == [("duplicate-url", "climate/ccc")]
    assert "climate/bb" in found[0].fault
    # without a version nobody can tell
    assert kinds(verify(catalogue_of(source("a", "1"), source("bb", "")))) == [("duplicate-url", "climate/bb")]


def test_prefixes() -> None:
    def source(name: str, prefix: str) -> Source:
        return Source(name, "climate", len(name), prefix=prefix)

    # a name that begins like another one is no folder of it
    assert verify(catalogue_of(source("a", "climate/era5"), source("bb", "climate/era5-land"))) == []
    found = verify(
        catalogue_of(source("a", "climate/era5/x/y"), source("bb", "climate/era5"), source("ccc", "climate/era5"))
    )
    assert kinds(found) == [("overlapping-prefix", "climate/a"), ("duplicate-prefix", "climate/ccc")]
    # the same prefix twice within another one is one fault of the second
    found = verify(catalogue_of(source("a", "climate/b/a"), source("bb", "climate/b"), source("ccc", "climate/b/a")))
    assert kinds(found) == [("overlapping-prefix", "climate/a"), ("duplicate-prefix", "climate/ccc")]
    elsewhere = source("a", "weather/era5")
    assert kinds(verify(catalogue_of(elsewhere))) == [("misplaced-prefix", "climate/a")]
    assert verify(catalogue_of(elsewhere, by_domain=False)) == []


def test_what_cannot_be_read_is_told_once(world: World) -> None:
    fields = {"url": "no url", "licence": "", "version": [1], "updates": "often", "prefix": "/x"}
    write_catalogue(world.root, {"climate": [{"name": "a", **fields}]})
    assert [finding.kind for finding in verify(read_catalogue(world.root))] == ["unreadable"] * len(fields)


def test_what_dvc_has_written_down() -> None:
    md5 = "0" * 31
    sources = (
        Source("a", "climate", 1, prefix="climate/a", dvc="data/a", checksum=f"md5:{md5}1"),
        Source("b", "climate", 2, prefix="climate/b", dvc="data/b", checksum=f"md5:{md5}9"),
        Source("c", "climate", 3, prefix="climate/c", dvc="data/c", size=5),
        Source("d", "climate", 4, prefix="climate/d", dvc="data/folder/d", checksum=f"md5:{md5}7", size=1),
        Source("e", "climate", 5, prefix="climate/e", dvc="data/e"),
        Source("f", "climate", 6, prefix="climate/f", dvc="data/a"),
    )
    outs = {
        "data/a": Tracked(f"{md5}1"),
        "data/b": Tracked(f"{md5}2"),
        "data/c": Tracked(f"{md5}3", 6),
        "data/folder": Tracked(f"{md5}4.dir", 100),
    }
    tracked = find_tracked([source.dvc for source in sources], outs)
    assert kinds(verify(catalogue_of(*sources), Evidence(tracked))) == [
        ("checksum-differs", "climate/b"),
        ("size-differs", "climate/c"),
        ("not-tracked", "climate/e"),
        ("duplicate-path", "climate/f"),
    ]
    pushed = frozenset({f"{md5}1", f"{md5}2", f"{md5}3"})
    found = verify(catalogue_of(*sources), Evidence(tracked, pushed))
    assert [finding.source for finding in found if finding.kind == "not-pushed"] == ["climate/d"]


def test_bytes_that_differ_end_with_13(world: World) -> None:
    entries = make_entries(5, tracked=1)
    track_all(world, entries)
    entries["biology"][0]["checksum"] = f"md5:{'a' * 32}.dir"
    write_catalogue(world.root, entries)
    done = world.holdfast("sources", "verify", code=13)
    assert "1 finding in 5 sources" in done.stdout
    assert "holdfast: sources/biology.yaml:" in done.stderr


def test_same_name_and_url() -> None:
    assert normal_name("NASA GCM") == normal_name("nasa_gcm") == normal_name("Nasa-GCM") != normal_name("nasagcm")
    assert normal_url("https://Data.Example.org/a/") == normal_url("http://data.example.org/a#top")
    assert normal_url("https://x.org/a?id=1") != normal_url("https://x.org/a?id=2")
    assert normal_url("https://x.org/A") != normal_url("https://x.org/a")
    assert normal_url("doi:10.1/a") != normal_url("doi:10.1/b")


def test_required_fields_are_the_catalogues_own(world: World) -> None:
    entries: Entries = {"climate": [{"name": "era5", "origin": "our own station", "annotations": {"a": 1}}]}
    write_catalogue(world.root, entries, require=["url", "checksum"])
    (finding,) = verify(read_catalogue(world.root))
    assert finding.fault == "era5 does not say its checksum"
    write_catalogue(world.root, entries, require=["url", "annotations"])
    assert verify(read_catalogue(world.root)) == []


def test_where_the_catalogue_is(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    write_catalogue(world.root, {"climate": []})
    below = world.root / "a" / "b"
    below.mkdir(parents=True)
    assert find_catalogue(below) == world.root
    inner = world.root / "inner"
    (inner / ".git").mkdir(parents=True)
    # another repository's catalogue is not ours
    assert find_catalogue(inner) is None
    with pytest.raises(CatalogueError, match=r"there is no sources\.yaml"):
        read_catalogue(inner)


def test_a_shallow_clone_is_enough(world: World, tmp_path: Path) -> None:
    entries = make_entries(5, tracked=1)
    track_all(world, entries)
    write_catalogue(world.root, entries)
    world.commit()
    world.commit("another")
    world.git("clone", "--quiet", "--depth", "1", f"file://{world.root}", str(tmp_path / "shallow"))
    clone = World(tmp_path / "shallow", world.home)
    assert clone.holdfast("sources", "verify").stdout.startswith("No findings")
    (clone.root / "data/climate/cli-survey-0002.dvc").unlink()
    assert "DVC tracks nothing at data/climate/cli-survey-0002" in clone.holdfast("sources", "verify", code=1).stdout


def test_another_worktree_does_not_speak_for_this_one(world: World, tmp_path: Path) -> None:
    entries = make_entries(5, tracked=1)
    track_all(world, entries)
    write_catalogue(world.root, entries)
    world.commit()
    world.git("worktree", "add", "--quiet", "--detach", str(tmp_path / "other"))
    (world.root / "data/climate/cli-survey-0002.dvc").unlink()
    assert "DVC tracks nothing at data/climate/cli-survey-0002" in world.holdfast("sources", "verify", code=1).stdout


def test_a_project_in_a_folder_of_the_repository(tmp_path: Path) -> None:
    world = make_repository(tmp_path, project="models")
    entries = make_entries(5, tracked=1)
    for source in (source for sources in entries.values() for source in sources):
        oid, size, name = str(source["checksum"]).removeprefix("md5:"), source["size"], source["name"]
        world.write(
            f"models/{source['dvc']}.dvc", f"outs:\n- md5: {oid}\n  size: {size}\n  hash: md5\n  path: {name}\n"
        )
    write_catalogue(world.folder, entries)
    assert world.holdfast("sources", "verify").stdout.startswith("No findings in 5 sources")
    # of the same path from the repository's top nobody speaks
    (world.root / "data/climate").mkdir(parents=True)
    name = "data/climate/cli-survey-0002.dvc"
    (world.folder / name).rename(world.root / name)
    assert "not-tracked" in world.holdfast("sources", "verify", code=1).stdout
