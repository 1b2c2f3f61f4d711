"""Flat names of things: each gives its key back, fits a file system, and is none of DVC's."""

import hashlib
import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import UsageError
from holdfast.removal.batches import batch_id, check_batch
from holdfast.removal.names import (
    MAX_NAME_BYTES,
    UnsafeKeyError,
    check_apart,
    check_key,
    digest_in,
    flat_name,
    is_safe,
    key_bytes,
    key_of,
)

PARTS = st.binary(min_size=1, max_size=120).map(lambda data: os.fsdecode(data.replace(b"/", b"-").replace(b"\0", b"0")))
KEYS = st.lists(PARTS.filter(lambda part: part not in (".", "..")), min_size=1, max_size=6).map("/".join)
PLAIN = re.compile(r"[A-Za-z0-9_~-][A-Za-z0-9._~-]*")
DVC = re.compile(r"(.*/)?[0-9a-f]{2}/[0-9a-f]{30}(\.dir)?")


def given_back(name: str, key: str) -> str | None:
    return key_of(name, key_bytes(key) if digest_in(name) else None)


@given(KEYS)
@settings(max_examples=500)
def test_a_name_gives_its_key_back(key: str) -> None:
    name = flat_name(check_key(key))
    assert PLAIN.fullmatch(name)
    assert len(name) <= MAX_NAME_BYTES
    assert given_back(name, key) == key


@given(
    st.text(alphabet="aA.~/_-%é2F", min_size=1, max_size=12), st.text(alphabet="aA.~/_-%é2F", min_size=1, max_size=12)
)
@settings(max_examples=500)
def test_two_keys_have_two_names(one: str, other: str) -> None:
    if is_safe(one) and is_safe(other):
        assert (flat_name(one) == flat_name(other)) == (one == other)


@given(st.text(alphabet="aA.~/_-%2Ff\0é", max_size=70))
@settings(max_examples=500)
def test_a_name_is_that_of_one_key_or_none(name: str) -> None:
    key = key_of(name)
    if key is not None:
        assert is_safe(key)
        assert flat_name(key) == name


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("files/md5/ab/" + "c" * 30, "files~2Fmd5~2Fab~2F" + "c" * 30),
        ("ab/" + "c" * 30, "ab~2F" + "c" * 30),
        (".dvc/tmp", "~2Edvc~2Ftmp"),
        ("a~b", "a~7Eb"),
        ("ä", "~C3~A4"),
        (os.fsdecode(b"\xff"), "~FF"),
        ("x" * 231, f"~~{hashlib.sha256(b'x' * 231).hexdigest()}"),
    ],
)
def test_names(key: str, name: str) -> None:
    assert flat_name(key) == name
    assert not DVC.fullmatch(f"things/{name}")


@pytest.mark.parametrize(
    "key", ["", "/", "/etc/passwd", "a/", "a//b", ".", "..", "../a", "a/../../b", "a/.", "a\0b", "\ud800"]
)
def test_keys_that_lead_out(key: str) -> None:
    with pytest.raises(UnsafeKeyError, match="does not lie in the place"):
        check_key(key)


@pytest.mark.parametrize(
    "name", ["..", ".", "..~2F..~2Fetc", "~2Fetc", "a~2F~2Fb", "a~2f", "~61", ".a", "a b", "é", "~", "a~", "a~00", ""]
)
def test_names_that_are_no_keys(name: str) -> None:
    assert key_of(name) is None


def test_a_long_key_that_is_not_that_of_its_name() -> None:
    key = "deep/" * 80 + "file"
    name = flat_name(key)
    assert digest_in(name)
    assert key_of(name, key_bytes(key)) == key
    assert key_of(name, b"deep/other") is None
    assert key_of(name, b"../" * 80 + b"etc") is None
    assert key_of(name, b"") is None
    # the digest of something that leads out is no way out either
    outside = "../" * 90 + "etc"
    assert key_of(flat_name(outside), key_bytes(outside)) is None


def test_every_name_fits_a_file_system(tmp_path: Path) -> None:
    for key in ("ü" * 100, "a" * 230, "a" * 231, "/".join("ab" * 50), "~" * 200):
        (tmp_path / flat_name(key)).touch()
    assert len(list(tmp_path.iterdir())) == 5


def test_things_lie_apart() -> None:
    check_apart(["a", "ab", "a.b", "b/c"], "q")
    with pytest.raises(UnsafeKeyError, match=r"'a/b/c' lies in 'a'"):
        check_apart(["a/b/c", "a"], None)
    for key in ("q", "q/batch/things/x", "up", "up/q2"):
        with pytest.raises(UnsafeKeyError, match="the quarantine is there"):
            check_apart([key], "up/q2/deep" if key.startswith("up") else "q")


def test_ids() -> None:
    assert check_batch(batch_id(b"plan")) == batch_id(b"plan") != batch_id(b"plan ")
    for bad in ("", "..", "0123456789abcde", "A" * 16, "a" * 65, "a" * 15 + "/", "things"):
        with pytest.raises(UsageError, match="is not the id of a batch"):
            check_batch(bad)
