"""Sources out of tables, JSON and buckets: what each becomes, what stays, and where an error is."""

import json
from pathlib import Path

import pytest

from holdfast.data.catalogue import Catalogue, CatalogueError, Source
from holdfast.data.catalogue_import import merge, read_csv, read_json
from holdfast.data.catalogue_reading import read_catalogue
from holdfast.objectstore.opening import open_store
from servers import S3Server
from worlds import World, make_repository

TABLE = """\
Name;Domain;URL;License;Version;Frequency;Prefix;Size;Instrument
ERA5 reanalysis (ECMWF);climate;https://cds.climate.copernicus.eu/era5;CC-BY-4.0;5;Daily;/climate/era5/;1200;
kegg;biology;https://www.kegg.jp;"academic; ask";110.0;quarterly;biology/kegg;;"sequencer
of two lines"

jwst;astronomy;https://mast.stsci.edu;;1.10;;astronomy/jwst/;0;NIRSpec
"""


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_repository(tmp_path)


def test_a_table(world: World) -> None:
    world.write("in.csv", TABLE)
    payload = json.loads(world.holdfast("sources", "import", "in.csv", "--json").stdout)
    assert payload["added"] == ["climate/era5-reanalysis-ecmwf", "biology/kegg", "astronomy/jwst"]
    assert payload["written"] == [
        "sources/astronomy.yaml",
        "sources/biology.yaml",
        "sources/climate.yaml",
        "sources.yaml",
    ]
    by_id = {source.id: source for source in read_catalogue(world.root).refuse_problems().sources}
    era5 = by_id["climate/era5-reanalysis-ecmwf"]
    assert (era5.title, era5.updates, era5.prefix, era5.size) == (
        "ERA5 reanalysis (ECMWF)",
        "daily",
        "climate/era5",
        1200,
    )
    kegg = by_id["biology/kegg"]
    assert (kegg.licence, kegg.version, kegg.size) == ("academic; ask", "110.0", None)
    assert kegg.annotations == {"Instrument": "sequencer\nof two lines"}
    assert (by_id["astronomy/jwst"].version, by_id["astronomy/jwst"].size) == ("1.10", 0)

    # again: all there; changed: only with --update
    again = json.loads(world.holdfast("sources", "import", "in.csv", "--json").stdout)
    assert (again["added"], again["unchanged"], again["written"]) == ([], 3, [])
    world.write("in.csv", TABLE.replace("110.0", "111.0"))
    before = (world.root / "sources/biology.yaml").read_text()
    kept = world.holdfast("sources", "import", "in.csv").stdout
    assert "1 left as they are though they say something else (biology/kegg; --update changes them)" in kept
    assert (world.root / "sources/biology.yaml").read_text() == before
    dry = world.holdfast("sources", "import", "in.csv", "--update", "-n").stdout
    assert "1 would be changed" in dry
    assert (world.root / "sources/biology.yaml").read_text() == before
    updated = json.loads(world.holdfast("sources", "import", "in.csv", "--update", "--json").stdout)
    assert (updated["updated"], updated["written"]) == (["biology/kegg"], ["sources/biology.yaml"])
    assert (world.root / "sources/biology.yaml").read_text() == before.replace("110.0", "111.0")


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ("name,domain\na,climate\nb,climate,c\n", r"in\.csv:3: the row has 3 cells"),
        ("name,domain\na,climate\nA,climate\n", r"in\.csv:3: climate/A is there twice, first at in\.csv:2"),
        ("name\na\n", r"in\.csv:2: the source has no domain.*--domain"),
        ("name,domain,updates\na,climate,\nb,climate,often\n", r"in\.csv:3: updates is 'often', and may be never"),
        ('name,domain,note\na,climate,"x\ny"\nb,climate,\nc,Climate,\n', r"in\.csv:5: domain is 'Climate'"),
        ("name,domain,size\na,climate,12 GB\n", r"in\.csv:2: size is '12 GB', and must be a whole number"),
        ("url,domain\nhttps://x.org,climate\n", r"in\.csv:1: there is no column name"),
        ("name,license,licence\na,b,c\n", r"in\.csv:1: the column licence is there twice"),
        ('name,domain\n"a,climate\n', r"in\.csv:2: is no CSV"),
        ("name,domain\n", r"in\.csv has no source"),
        ("", r"in\.csv"),
        (b"name,domain\n\xe9,climate\n", r"in\.csv is no UTF-8"),
        ("name,domain\n,climate\n", r"in\.csv:2: name is missing"),
        ("name,domain\n???,climate\n", r"in\.csv:2: name is '\?\?\?'"),
    ],
)
def test_a_broken_table(table: str | bytes, fault: str) -> None:
    with pytest.raises(CatalogueError, match=fault):
        read_csv(table if isinstance(table, bytes) else table.encode(), "in.csv")


def test_separators_and_byte_order_marks() -> None:
    for separator in ",;\t":
        data = f"name{separator}domain{separator}licence\na{separator}climate{separator}MIT\n"
        for encoded in (data.encode(), data.encode("utf-8-sig"), data.replace("\n", "\r\n").encode()):
            (source,) = read_csv(encoded, "in.csv")
            assert (source.id, source.licence) == ("climate/a", "MIT")


def test_json_forms() -> None:
    entry = {"name": "a", "size": 5, "colour": {"r": 1}, "annotations": {"b": [1]}, "version": 1.5, "url": None}
    for document in ([entry], {"sources": [entry]}, {"climate": [entry]}):
        (source,) = read_json(json.dumps(document).encode(), "in.json", "climate")
        assert (source.id, source.size, source.version) == ("climate/a", 5, "1.5")
        assert source.annotations == {"b": [1], "colour": {"r": 1}}
    for broken, fault in (
        ('[{"name": "a",}]', r"in\.json:1: is no JSON"),
        ('{"climate": {"name": "a"}}', r"in\.json is no list of sources"),
        ('[{"name": "a"}, {"name": "b", "size": "x"}]', r"in\.json, entry 2: size is 'x'"),
        ('{"climate": [{"name": 5}]}', r"in\.json, entry 1 of climate: name is '5'"),
        ("[" * 100_000, r"in\.json: is no JSON"),
    ):
        with pytest.raises(CatalogueError, match=fault):
            read_json(broken.encode(), "in.json", "climate")


def test_what_list_prints_is_read(world: World) -> None:
    world.write("in.csv", TABLE)
    world.holdfast("sources", "import", "in.csv")
    before = read_catalogue(world.root).sources
    world.write("out.json", world.holdfast("sources", "list", "--json").stdout)
    world.git("clean", "-fdq", "sources", "sources.yaml")
    world.holdfast("sources", "import", "out.json")
    assert sorted(read_catalogue(world.root).sources, key=str) == sorted(before, key=str)


def test_a_bucket(world: World, s3_server: S3Server, s3_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    store = open_store(s3_folder, s3_server.options())
    for key, size in (
        ("climate/era5/2024/a.nc", 10), ("climate/era5/b.nc", 5), ("climate/Rocke 3D/c", 7), ("biology/era5/d", 1),
        ("climate/README", 3), ("vault/packs/x", 9), ("files/md5/ab/cd", 9), ("genomics/new/raw/e", 2),
    ):  # fmt: skip
        store.put(key, b"x" * size)
    payload = json.loads(world.holdfast("sources", "import", s3_folder, "--json").stdout)
    assert payload["added"] == ["biology/era5", "climate/rocke-3d", "climate/climate-era5", "genomics/new"]
    catalogue = read_catalogue(world.root).refuse_problems()
    assert catalogue.bucket == s3_folder
    by_id = {source.id: source for source in catalogue.sources}
    era5 = by_id["climate/climate-era5"]
    assert (era5.prefix, era5.size, era5.files) == ("climate/era5", 15, 2)
    assert (by_id["climate/rocke-3d"].prefix, by_id["climate/rocke-3d"].title) == ("climate/Rocke 3D", "Rocke 3D")

    # an entry is known by its prefix, whatever people call it since; new sizes are brought with --update alone
    world.holdfast("sources", "add", "genomics/gtdb", "--prefix", "genomics/gtdb/")
    text = (world.root / "sources/climate.yaml").read_text().replace("name: climate-era5", "name: reanalysis")
    world.write("sources/climate.yaml", text)
    store.put("climate/era5/c.nc", b"more")
    store.put("genomics/gtdb/x", b"new")
    payload = json.loads(world.holdfast("sources", "import", s3_folder, "--json").stdout)
    assert (payload["added"], payload["unchanged"]) == ([], 3)
    assert payload["kept"] == ["climate/reanalysis", "genomics/gtdb"]
    payload = json.loads(world.holdfast("sources", "import", s3_folder, "--update", "--json").stdout)
    assert payload["updated"] == ["climate/reanalysis", "genomics/gtdb"]
    by_id = {source.id: source for source in read_catalogue(world.root).sources}
    assert (by_id["climate/reanalysis"].size, by_id["climate/reanalysis"].files) == (19, 3)

    # a folder of it, whose folders are all of one domain
    payload = json.loads(
        world.holdfast("sources", "import", f"{s3_folder}/genomics/new", "--domain", "genomics", "--json").stdout
    )
    assert payload["added"] == ["genomics/raw"]
    assert read_catalogue(world.root).select(["genomics/raw"])[0].prefix == "genomics/new/raw"
    done = world.holdfast("sources", "import", s3_server.make_folder(), code=2)
    assert "is not in the catalogue's bucket" in done.stderr


def test_a_folder_beside_the_catalogue(world: World) -> None:
    world.write("store/climate/era5/a", "abc")
    world.holdfast("sources", "import", "store/")
    catalogue = read_catalogue(world.root)
    # not by the path that it has on this machine
    assert catalogue.bucket == "store"
    assert world.holdfast("sources", "verify", "--remote", "--json", code=1).stdout.count('"absent"') == 0
    assert "is no file" in world.holdfast("sources", "import", "store", code=2).stderr


def test_merging_keeps_what_is_not_told() -> None:
    known = Source("a", "climate", 3, licence="MIT", annotations={"x": 1}, size=5)
    catalogue = Catalogue(Path("/nowhere"), domains=("climate",), sources=(known,))
    told = Source("A", "climate", licence="CC0-1.0", annotations={"y": 2})
    merged = merge(catalogue, [told], update=True)
    (change,) = merged.changes
    assert change.before is known
    assert (change.source.name, change.source.licence, change.source.size) == ("a", "CC0-1.0", 5)
    assert change.source.annotations == {"x": 1, "y": 2}
    assert merge(catalogue, [told], update=False).kept == (known,)
