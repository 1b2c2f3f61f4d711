"""``holdfast serve``: what it refuses, how it ends, what survives its being killed, and many clients at once."""

import datetime as dt
import hashlib
import ipaddress
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from holdfast.objectstore.opening import open_store
from holdfast.vault.repository import init_vault, open_vault
from vault_servers import READ_TOKEN, WRITE_TOKEN, ServerProcess, ask, half_sent, metric, path_of, serving, until
from vaults import bf16_history, keys, noise, oid_of
from worlds import TOOLS, environment, make_home, make_repository, run


@dataclass(frozen=True)
class Place:
    """A folder to serve from, and the vault.

    Args:
        folder: no project.
        home: of its user.
        vault: a folder.
    """

    folder: Path
    home: Path
    vault: Path

    def serve(self, *arguments: str, code: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [str(TOOLS / "holdfast"), "serve", *arguments],
            cwd=self.folder,
            env=environment(self.home) | variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == code, done.stderr
        return done

    def has(self, data: bytes) -> bool:
        with open_vault(open_store(str(self.vault)), None) as vault:
            return bool(vault.exists([oid_of(data)]))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    folder, home = tmp_path / "folder", make_home(tmp_path)
    folder.mkdir()
    vault = tmp_path / "vault"
    init_vault(open_store(str(vault)), None).close()
    return Place(folder, home, vault)


@pytest.fixture
def server(place: Place) -> Iterator[ServerProcess]:
    with serving(str(place.vault), place.folder, place.home) as running:
        yield running


TOKEN = {"HOLDFAST_WRITE_TOKEN": WRITE_TOKEN}


@pytest.mark.parametrize(
    ("arguments", "variables", "says"),
    [
        (["--host", "0.0.0.0"], {}, "needs a token"),
        (["--host", "::"], {}, "needs a token"),
        (["--host", "example.org", "--tls-cert", "{cert}", "--tls-key", "{key}"], {}, "needs a token"),
        (["--host", "0.0.0.0"], TOKEN, "needs TLS"),
        (["--behind-proxy"], {}, "needs a token"),
        ([], {"HOLDFAST_WRITE_TOKEN": "short"}, "write token is no token"),
        ([], {"HOLDFAST_READ_TOKEN": ""}, "read token is no token"),
        ([], {"HOLDFAST_READ_TOKEN": WRITE_TOKEN, **TOKEN}, "the same"),
        (["--tls-cert", "{cert}"], {}, "belong together"),
        (["--tls-cert", "{key}", "--tls-key", "{cert}"], {}, "no certificate"),
        (["--max-size", "much"], {}, "no size"),
        (["--port", "70000"], {}, "--port"),
        (["--print-dvc-config", "--port", "0"], {}, "--port"),
    ],
)
def test_what_is_refused(
    place: Place, certificate: tuple[Path, Path], arguments: list[str], variables: dict[str, str], says: str
) -> None:
    names = {"cert": str(certificate[0]), "key": str(certificate[1])}
    done = place.serve(str(place.vault), *(text.format(**names) for text in arguments), code=2, **variables)
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not done.stdout


def test_what_fails(place: Place, server: ServerProcess) -> None:
    assert "no vault" in place.serve(str(place.folder), code=1).stderr
    assert "not inside a DVC project" in place.serve(code=10).stderr
    taken = place.serve(str(place.vault), "--port", str(server.port), code=1)
    assert f"127.0.0.1:{server.port} cannot be listened on" in taken.stderr
    assert "nothere" in place.serve(str(place.vault), "--read-token-file", "nothere", code=1).stderr


def test_a_server_is_no_place_for_a_vault(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    world.write(".dvc/config", "[core]\n    remote = v\n['remote \"v\"']\n    url = http://127.0.0.1:8765\n")
    done = world.holdfast("serve", code=2)
    assert "which is the server http://127.0.0.1:8765. Name the vault" in done.stderr


def test_how_dvc_is_set_up(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    lines = world.holdfast("serve", "--print-dvc-config", "--port", "9999").stdout
    assert lines.splitlines() == [
        "dvc remote add --default vault http://127.0.0.1:9999",
        "dvc remote modify vault method PUT",
    ]
    token = world.write("token", f"{WRITE_TOKEN}\n")
    options = ["--write-token-file", str(token), "--behind-proxy", "--allow-host", "models.example.org"]
    lines = world.holdfast("serve", "--print-dvc-config", *options).stdout
    assert WRITE_TOKEN not in lines
    run(["sh", "-ec", f"export HOLDFAST_WRITE_TOKEN={WRITE_TOKEN}\n{lines}"], world.root, world.home)
    config = (world.root / ".dvc" / "config").read_text()
    for line in ("remote = vault", "url = https://models.example.org", "method = PUT", "auth = basic", "user = dvc"):
        assert line in config
    assert WRITE_TOKEN not in config
    assert f"password = {WRITE_TOKEN}" in (world.root / ".dvc" / "config.local").read_text()


def test_a_project_s_own_vault(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    world.write("holdfast.yaml", "vault:\n  url: ../vault\n")
    world.holdfast("vault", "init")
    process = subprocess.Popen(
        [str(TOOLS / "holdfast"), "serve", "--port", "0", "-q"],
        cwd=world.root,
        env=environment(world.home),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline().partition("127.0.0.1:")[2].split()[0])
            assert ask(port, "PUT", path_of(b"x"), b"x").status == 201
            process.send_signal(signal.SIGTERM)
            output, errors = process.communicate(timeout=40)
        finally:
            process.kill()
    assert (process.returncode, output, errors) == (0, "", "")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One for 127.0.0.1 that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "holdfast test")])
    now = dt.datetime.now(dt.timezone.utc)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("certificate")
    (folder / "cert.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return folder / "cert.pem", folder / "key.pem"


def test_dvc_over_tls_to_every_address(place: Place, certificate: tuple[Path, Path], tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    cert, key = certificate
    options = ["--host", "0.0.0.0", "--tls-cert", str(cert), "--tls-key", str(key)]
    with serving(str(place.vault), place.folder, place.home, *options, HOLDFAST_WRITE_TOKEN=WRITE_TOKEN) as running:
        url = f"https://127.0.0.1:{running.port}"
        config = (
            f"[core]\n    remote = vault\n['remote \"vault\"']\n    url = {url}\n    method = PUT\n    auth = basic\n"
        )
        config += f"    user = dvc\n    password = {WRITE_TOKEN}\n    ssl_verify = {cert}\n"
        world.write(".dvc/config.local", config)
        world.write("data.bin", noise(100_000, 1))
        world.dvc("add", "data.bin")
        assert "1 file pushed" in world.dvc("push")
        assert place.has(noise(100_000, 1))
        # in clear text it says nothing
        with socket.create_connection(("127.0.0.1", running.port), timeout=10) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"ok" not in connection.recv(1000)
        assert running.end() == 0


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=10).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_server_that_is_told_to_end_ends_what_is_under_way(
    place: Place, server: ServerProcess, number: int, code: int
) -> None:
    data = noise(5_000_000, 1)
    with half_sent(server.port, data) as connection:
        server.process.send_signal(number)
        until(lambda: not listens(server.port))
        assert server.process.poll() is None
        connection.sendall(data[2_500_000:])
        assert connection.recv(12) == b"HTTP/1.1 201"
        assert server.process.wait(40) == code
    assert place.has(data)
    assert not list((place.home / "cache").rglob("spool/*"))


def test_a_second_signal_ends_it_at_once(place: Place, server: ServerProcess) -> None:
    data = noise(5_000_000, 1)
    with half_sent(server.port, data):
        server.process.send_signal(signal.SIGINT)
        until(lambda: not listens(server.port))
        assert server.process.poll() is None
        began = time.monotonic()
        assert server.end(signal.SIGINT) == 130
        assert time.monotonic() - began < 20  # half of the upload is never sent
    assert not place.has(data)


def test_a_killed_server_loses_nothing_that_it_acknowledged(place: Place) -> None:
    before, data = noise(200_000, 1), noise(20_000_000, 2)
    files = [noise(300_000, number) for number in range(10, 30)]
    for moment in (0.0, 0.05, 0.2):
        with serving(str(place.vault), place.folder, place.home) as running:
            assert ask(running.port, "PUT", path_of(before), before).status in (200, 201)
            with half_sent(running.port, data), ThreadPoolExecutor(4) as clients:
                acknowledged: list[bytes] = []

                def put(file: bytes, port: int = running.port, done: list[bytes] = acknowledged) -> None:
                    try:
                        if ask(port, "PUT", path_of(file), file).status in (200, 201):
                            done.append(file)
                    except OSError:
                        pass

                sending = [clients.submit(put, file) for file in files]
                time.sleep(moment)
                running.process.kill()
                for future in sending:
                    future.result()
            assert all(place.has(file) for file in [before, *acknowledged])
            assert not place.has(data)
    assert list((place.home / "cache").rglob("spool/*/*")), "what was being sent is left behind"
    with serving(str(place.vault), place.folder, place.home) as running:
        assert not list((place.home / "cache").rglob("spool/*/*")), "the next server tidies up"
        for file in [data, *files]:
            assert ask(running.port, "PUT", path_of(file), file).status in (200, 201)
        for file in [before, data, *files]:
            assert ask(running.port, "GET", path_of(file)).body == file
        assert running.end() == 0


def test_two_servers_of_one_user_and_one_vault(place: Place, server: ServerProcess) -> None:
    with serving(str(place.vault), place.folder, place.home) as other:
        files = [noise(50_000, number) for number in range(20)]
        with ThreadPoolExecutor(8) as clients:
            ports = [server.port, other.port] * 10
            replies = list(clients.map(lambda port, data: ask(port, "PUT", path_of(data), data), ports, files))
        assert {reply.status for reply in replies} == {201}, server.log.read_text() + other.log.read_text()
        time.sleep(1.1)
        for data in files:
            assert ask(server.port, "GET", path_of(data)).body == ask(other.port, "GET", path_of(data)).body == data
        assert other.end() == 0


def test_tokens_from_files_and_a_quiet_log(place: Place) -> None:
    for name, token in (("read", READ_TOKEN), ("write", WRITE_TOKEN)):
        (place.folder / name).write_text(f"{token}\n")
    options = ["--read-token-file", "read", "--write-token-file", "write", "-q"]
    with serving(str(place.vault), place.folder, place.home, *options) as running:
        assert ask(running.port, "GET", path_of(b"x")).status == 401
        assert ask(running.port, "PUT", path_of(b"x"), b"x", Authorization=f"Bearer {WRITE_TOKEN}").status == 201
        assert ask(running.port, "GET", path_of(b"x"), Authorization=f"Bearer {READ_TOKEN}").body == b"x"
        command = Path(f"/proc/{running.process.pid}/cmdline").read_bytes()
        assert WRITE_TOKEN.encode() not in command
        assert running.end() == 0
        assert running.log.read_text() == ""


def test_a_disk_that_is_full(place: Place) -> None:
    small, large = noise(50_000, 1), noise(5_000_000, 2)
    with serving(str(place.vault), place.folder, place.home, file_blocks=4096) as running:
        assert ask(running.port, "PUT", path_of(large), large).status == 507
        assert metric(running.port, "holdfast_spooled_bytes") == 0
        assert ask(running.port, "PUT", path_of(small), small).status == 201
        assert running.end() == 0
    assert not place.has(large)


def test_a_read_only_server(place: Place, server: ServerProcess) -> None:
    data = noise(100_000, 1)
    ask(server.port, "PUT", path_of(data), data)
    before = keys(open_store(str(place.vault)), "index")
    with serving(str(place.vault), place.folder, place.home, "--read-only") as running:
        assert ask(running.port, "GET", path_of(data)).body == data
        assert ask(running.port, "PUT", path_of(b"x"), b"x").status == 403
        assert running.end() == 0
    assert keys(open_store(str(place.vault)), "index") == before


def load(server: ServerProcess, clients: int, seconds: float) -> tuple[int, list[int]]:
    """Clients that put, ask, read and read parts of files, some of which they share; requests, and memory over time."""
    versions = bf16_history(6, 400_000)
    stop = time.monotonic() + seconds
    errors: list[str] = []
    counts = [0] * clients
    memory: list[int] = []

    def client(number: int) -> None:
        chance = random.Random(number)
        mine: list[bytes] = []
        while time.monotonic() < stop and not errors:
            kind = chance.random()
            if kind < 0.35 or not mine:
                data = chance.choice(
                    [
                        noise(chance.choice([0, 10, 5000, 70_000, 900_000]), chance.randrange(500)),
                        chance.choice(versions),
                    ]
                )
                status = ask(server.port, "PUT", path_of(data), data).status
                if status not in (200, 201):
                    errors.append(f"PUT {status}")
                if len(mine) < 40:
                    mine.append(data)
            elif kind < 0.45:
                wrong = chance.randbytes(1000)
                status = ask(server.port, "PUT", path_of(wrong + b"x"), wrong).status
                if status != 422:
                    errors.append(f"wrong PUT {status}")
            elif kind < 0.55:
                data = chance.choice(mine)
                reply = ask(server.port, "HEAD", path_of(data))
                if (reply.status, reply.headers.get("content-length")) != (200, str(len(data))):
                    errors.append(f"HEAD {reply.status}")
            elif kind < 0.7:
                data = chance.choice(mine)
                first = chance.randrange(len(data) + 1)
                reply = ask(server.port, "GET", path_of(data), Range=f"bytes={first}-{first + 999}")
                if first < len(data) and (reply.status, reply.body) != (206, data[first : first + 1000]):
                    errors.append(f"range {reply.status}")
            else:
                data = chance.choice(mine)
                reply = ask(server.port, "GET", path_of(data))
                if (reply.status, reply.body) != (200, data):
                    errors.append(f"GET {reply.status} {len(reply.body)} of {len(data)}")
            counts[number] += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        time.sleep(0.5)
        memory.append(server.resident_bytes())
    assert not errors, errors[:5]
    assert min(counts) > 0
    return sum(counts), memory


def check(place: Place, server: ServerProcess) -> None:
    """Nothing is left over, and all that is in the vault is what it should be."""
    metrics = ask(server.port, "GET", "/metrics").body.decode()
    assert "\nholdfast_spooled_bytes 0\n" in metrics
    assert 'result="failed"' not in metrics
    assert server.end() == 0
    with open_vault(open_store(str(place.vault)), None) as vault:
        vault.refresh()
        oids = list(vault.index.oids())
        assert oids
        for oid in oids:
            file = vault.open(oid)
            assert hashlib.md5(file.read(0, file.size)).hexdigest() == oid.removeprefix("md5:")
    assert not keys(open_store(str(place.vault)), "sessions")


def test_eight_clients_at_once(place: Place, server: ServerProcess) -> None:
    requests, _ = load(server, 8, 4)
    assert requests > 50
    check(place, server)


@pytest.mark.soak
def test_sixteen_clients_for_a_minute(place: Place, server: ServerProcess) -> None:
    requests, memory = load(server, 16, float(os.environ.get("HOLDFAST_SOAK_SECONDS", "60")))
    assert requests > 1000
    check(place, server)
    third = len(memory) // 3
    early, late = max(memory[third : 2 * third]), max(memory[2 * third :])
    print(f"{requests} requests; MiB: {[size >> 20 for size in memory[:: max(1, len(memory) // 12)]]}")
    assert late < early + (64 << 20), f"{early >> 20} MiB became {late >> 20} MiB"
    assert late < 1 << 30
