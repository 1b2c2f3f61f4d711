"""Who may do what on a server, and the names that it answers to."""

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.errors import UsageError
from holdfast.objectstore.location import is_loopback
from holdfast.vault.server_access import Access, Right
from vault_servers import READ_TOKEN, WRITE_TOKEN, Running, ask, in_process, path_of, say
from vaults import noise


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    with in_process(tmp_path) as running:
        yield running


def basic(user: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


ACCESS_BOTH = Access(READ_TOKEN, WRITE_TOKEN)


@pytest.mark.parametrize(
    ("access", "header", "right"),
    [
        (Access(), None, Right.WRITE),
        (Access(read_only=True), None, Right.READ),
        (ACCESS_BOTH, None, Right.NOTHING),
        (ACCESS_BOTH, "", Right.NOTHING),
        (ACCESS_BOTH, f"Bearer {READ_TOKEN}", Right.READ),
        (ACCESS_BOTH, f"bearer {WRITE_TOKEN}", Right.WRITE),
        (ACCESS_BOTH, f"Bearer {WRITE_TOKEN}x", Right.NOTHING),
        (ACCESS_BOTH, f"Bearer {WRITE_TOKEN[:-1]}", Right.NOTHING),
        (ACCESS_BOTH, WRITE_TOKEN, Right.NOTHING),
        (ACCESS_BOTH, "Basic !!!", Right.NOTHING),
        (ACCESS_BOTH, "Basic //4=", Right.NOTHING),
        (ACCESS_BOTH, basic("anybody", WRITE_TOKEN), Right.WRITE),
        (ACCESS_BOTH, basic("anybody", READ_TOKEN), Right.READ),
        (ACCESS_BOTH, basic(WRITE_TOKEN, ""), Right.NOTHING),
        (Access(None, WRITE_TOKEN), None, Right.NOTHING),
        (Access(None, WRITE_TOKEN), "Bearer ", Right.NOTHING),
        (Access(None, WRITE_TOKEN), f"Bearer {WRITE_TOKEN}", Right.WRITE),
        (Access(READ_TOKEN), f"Bearer {READ_TOKEN}", Right.READ),
        (Access(READ_TOKEN), "Bearer ", Right.NOTHING),
        (Access(READ_TOKEN, WRITE_TOKEN, read_only=True), f"Bearer {WRITE_TOKEN}", Right.READ),
    ],
)
def test_tokens(access: Access, header: str | None, right: Right) -> None:
    assert access.right(header) is right


def test_tokens_that_are_none() -> None:
    for token in ("", "short", "with a blank in the middle", "ä" * 20):
        with pytest.raises(UsageError):
            Access(write_token=token)
    with pytest.raises(UsageError, match="the same"):
        Access(READ_TOKEN, READ_TOKEN)
    assert READ_TOKEN not in repr(ACCESS_BOTH)


def test_tokens_on_the_line(tmp_path: Path) -> None:
    with in_process(tmp_path, ACCESS_BOTH) as server:
        _check_tokens(server)


def _check_tokens(server: Running) -> None:
    data = noise(1000, 1)
    assert server.put(data).status == 401
    assert server.put(data, Authorization=f"Bearer {READ_TOKEN}").status == 403
    assert server.put(data, Authorization=f"Bearer {WRITE_TOKEN}").status == 201
    refused = server.get(data)
    assert (refused.status, refused.headers["www-authenticate"][:5]) == (401, "Basic")
    assert server.get(data, Authorization=f"Bearer {READ_TOKEN}").body == data
    assert ask(server.port, "GET", "/metrics").status == 401
    assert ask(server.port, "GET", "/health").status == 200
    # nobody without a token learns which paths there are
    assert ask(server.port, "GET", "/nowhere").status == 401


@pytest.mark.parametrize(
    ("host", "answers"),
    [
        ("127.0.0.1:8765", True),
        ("localhost", True),
        ("LOCALHOST.:1", True),
        ("[::1]:8765", True),
        ("10.1.2.3", True),
        ("models.example.org:443", True),
        ("evil.example.org", False),
        ("localhost.evil.example.org", False),
        ("models.example.org@evil.example.org", False),
        ("127.0.0.1.evil.example.org", False),
        ("", False),
        (None, False),
        ("a:b:c", False),
        ("[::1", False),
    ],
)
def test_names_that_are_answered_to(host: str | None, answers: bool) -> None:
    assert Access(hosts=["Models.example.org"]).answers_to(host) is answers


def test_another_name_on_the_line(server: Running) -> None:
    data = noise(1000, 1)
    server.put(data)
    assert server.get(data, Host="evil.example.org").status == 421
    twice = f"GET {path_of(data)} HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    assert say(server.port, twice.encode())[9:12] in (b"400", b"421")
    assert say(server.port, f"GET {path_of(data)} HTTP/1.0\r\n\r\n".encode())[9:12] == b"421"


def test_loopback() -> None:
    assert all(is_loopback(host) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "::", "10.0.0.1", "example.org", "localhost.example.org"))
