"""What DVC's files say, in the forms that DVC 1, 2 and 3 wrote them."""

import hashlib
import json

import pytest

from holdfast.repo.dvcfiles import (
    Out,
    StageDefinition,
    UnreadableFileError,
    load_yaml,
    read_definitions,
    read_dvc,
    read_listing,
    read_lock,
    read_version,
    version_name,
)

OID = "d41d8cd98f00b204e9800998ecf8427e"


def test_scalars_stay_what_they_are_written_as() -> None:
    digits = "01234567012345670123456701234567"
    text = f"a: {digits}\nb: 2026-11-20\nc: 1e5\nd: false\ne: ~\nf: no\ng: 0x10\nh: 1_0\ni: 'false'\nj:\n"
    assert load_yaml(text.encode()) == {
        "a": digits,
        "b": "2026-11-20",
        "c": "1e5",
        "d": False,
        "e": None,
        "f": "no",
        "g": "0x10",
        "h": "1_0",
        "i": "false",
        "j": None,
    }


def test_merge_keys_work_and_repeated_keys_do_not() -> None:
    assert load_yaml(b"a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\n")["b"] == {"x": "3", "y": "2"}
    with pytest.raises(UnreadableFileError, match="twice"):
        load_yaml(b"a: 1\na: 2\n")


def test_lock_of_dvc_3_2_and_1() -> None:
    new = f"schema: '2.0'\nstages:\n  t:\n    cmd: x\n    outs:\n    - {{path: m, hash: md5, md5: {OID}, size: 3}}\n"
    assert read_lock(new.encode(), "sub", {}) == [Out("sub/m", "md5", OID, 3, None, "t")]
    old = f"t:\n  cmd: x\n  outs:\n  - path: m\n    md5: {OID.upper()}\n"
    assert read_lock(old.encode(), "", {}) == [Out("m", "md5-dos2unix", OID, None, None, "t")]
    assert read_lock(b"", "", {}) == []
    assert read_lock(b"schema: '2.0'\n", "", {}) == []


def test_lock_with_its_definition() -> None:
    definitions = read_definitions(
        b"stages:\n  a:\n    cmd: x\n    wdir: src\n    outs: [m, n: {cache: false}]\n"
        b"    plots: [p: [{cache: false}]]\n"
        b"  many:\n    foreach: [1, 2]\n    do:\n      cmd: x\n      metrics: [n: {cache: false}]\n"
        b"  t:\n    cmd: x\n    wdir: ${where}\n"
    )
    assert definitions["a"] == StageDefinition("src", frozenset({"n"}))
    assert definitions["t"] == StageDefinition()
    outs = "".join(f"    - {{path: {path}, hash: md5, md5: {OID}}}\n" for path in ("m", "n", "../up"))
    lock = "schema: '2.0'\nstages:\n" + "".join(f"  {name}:\n    outs:\n{outs}" for name in ("a", "many@1", "other"))
    found = [(out.stage, out.path) for out in read_lock(lock.encode(), "sub", definitions)]
    assert found == [
        ("a", "sub/src/m"),
        ("a", "sub/up"),
        ("many@1", "sub/m"),
        ("many@1", "up"),
        ("other", "sub/m"),
        ("other", "sub/n"),
        ("other", "up"),
    ]


def test_cached_once_and_uncached_once_is_doubt() -> None:
    text = b"stages: {a: {outs: [n, n: {cache: false}], metrics: [k: {cache: 'false'}]}}"
    assert read_definitions(text)["a"].uncached == frozenset()


@pytest.mark.parametrize(
    "text", [b"stages: [", b"- 1", b"stages: 3", b"stages: {a: 3}", b"\xff\xfe", b"stages: {a: {outs: 3}}"]
)
def test_definitions_never_fail(text: bytes) -> None:
    assert all(definition == StageDefinition() for definition in read_definitions(text).values())


def test_dvc_file_with_its_folder_and_external_out() -> None:
    text = (
        f"wdir: ..\nouts:\n- {{md5: {OID}, path: d, hash: md5}}\n- {{md5: {OID}, path: no, cache: false}}\n"
        f"- {{md5: {OID}, path: /data/x}}\n- {{etag: abc, path: s3://b/x}}\n- {{path: partial}}\n"
    )
    found = [(out.path, out.hash_name) for out in read_dvc(text.encode(), "a/b")]
    assert found == [("a/d", "md5"), ("/data/x", "md5"), ("/data/x", "md5-dos2unix")]


def test_cloud_versioned_folder_names_its_members_and_its_listing() -> None:
    text = (
        f"outs:\n- path: d\n  hash: md5\n  files:\n  - {{relpath: b, md5: {OID}, size: 4, cloud: {{r: {{etag: x}}}}}}\n"
    )
    listing = json.dumps([{"md5": OID, "relpath": "b"}], sort_keys=True).encode()
    oid = hashlib.md5(listing, usedforsecurity=False).hexdigest() + ".dir"
    assert read_dvc(text.encode(), "") == [Out("d", "md5", oid, None, 1, None, True), Out("d/b", "md5", OID, 4)]


@pytest.mark.parametrize(
    "text",
    [b"- 1", b"outs: 3", b"outs: [3]", b"outs: [{md5: x}]", b"outs: [{path: [x]}]", b"a: [", b"\x00", b"\xff\xff"],
)
def test_what_is_no_dvc_file_is_said_so(text: bytes) -> None:
    with pytest.raises(UnreadableFileError):
        read_dvc(text, "")


def test_registry_version() -> None:
    path = "sub/registry/digits/classifier/v12.yaml"
    assert version_name(path) == "digits/classifier@v12"
    assert version_name("registry/classifier/v1.yaml") is None
    assert version_name("registry/digits/classifier/model.yaml") is None
    text = f"schema: 1\noid: '{OID}'\npath: models/m.safetensors\nsize: 7\n"
    assert read_version(text.encode(), path) == Out("sub/models/m.safetensors", "md5", OID, 7)
    assert read_version(b"kind: Service\n", path) is None


def test_listing() -> None:
    assert read_listing(json.dumps([{"md5": OID, "relpath": "a/b"}]).encode()) == [("a/b", OID)]
    for text in (b"", b"{}x", b"[1]", b"[{}]x", b'[{"md5": "x"}]', b"3"):
        with pytest.raises(UnreadableFileError):
            read_listing(text)


def test_deep_nesting_ends_no_process() -> None:
    """libyaml's own reader recurses in C."""
    for data in (b"[" * 200_000, b"outs: " + b"[" * 30_000 + b"]" * 30_000, b"- " * 5_000 + b"x"):
        with pytest.raises(UnreadableFileError, match="nests deeper"):
            load_yaml(data)
    assert load_yaml(b"a: [1]\n" + b"b: [1]\n") == {"a": ["1"], "b": ["1"]}
    many = b"\n".join(b"- {a: [%d]}" % number for number in range(1000))
    assert len(load_yaml(many)) == 1000


@pytest.mark.parametrize("oid", ["1" * 31, "g" * 32, "['x']"])
def test_what_is_no_oid_is_refused(oid: str) -> None:
    """What the entry really meant would be offered for removal."""
    with pytest.raises(UnreadableFileError, match="is no md5"):
        read_dvc(f"outs:\n- md5: {oid}\n  hash: md5\n  path: f\n".encode(), "")
    with pytest.raises(UnreadableFileError, match="is no md5"):
        read_version(f"schema: 1\noid: {oid}\n".encode(), "registry/a/b/v1.yaml")
