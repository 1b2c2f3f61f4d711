"""`holdfast remote setup`: what it writes and where, and that everything works with it through the strict server."""

import http.server
import json
import os
import pty
import select
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from holdfast.errors import UsageError
from holdfast.objectstore.setup import check_domains, plan_azure, plan_gcs, plan_r2, plan_s3, quiet_config, read_keys
from holdfast.repo.dvc import default_remote, remotes
from remote_world import ACCOUNT, Remote, strict_remote
from servers import ACCESS_KEY, BUCKET, SECRET_KEY, S3Server
from worlds import TOOLS, environment, make_repository

QUIET = "[default]\nrequest_checksum_calculation = when_required\nresponse_checksum_validation = when_required\n"
TOKEN = "cloudflare-token-that-nobody-may-see"


@pytest.fixture
def remote(tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Remote]:
    with strict_remote(tmp_path, s3_server, monkeypatch) as found:
        yield found


def test_what_is_written(remote: Remote) -> None:
    root = remote.world.root
    assert (root / ".dvc" / "aws-config").read_text() == QUIET
    config = (root / ".dvc" / "config").read_text()
    assert config == (
        f"[core]\n    remote = r2\n['remote \"r2\"']\n    url = s3://{BUCKET}/{remote.folder}\n"
        f"    endpointurl = {remote.link.endpoint}\n    region = auto\n    configpath = aws-config\n"
    )
    private = (root / ".dvc" / "config.local").read_text()
    assert private.count("=") == 2
    assert ACCESS_KEY in private
    assert SECRET_KEY in private
    assert remote.world.git("status", "--porcelain").splitlines() == ["M .dvc/config", "?? .dvc/aws-config"]
    assert remotes(root)["r2"]["configpath"] == str(root / ".dvc" / "aws-config")


def test_twice_is_once(remote: Remote) -> None:
    folder = remote.world.root / ".dvc"
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.glob("*") if path.is_file()}
    done = remote.world.holdfast(*remote.setup, "--offline", "--yes")
    assert "The configuration is as it should be." in done.stdout
    assert "Nothing had to be written" in done.stdout
    after = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.glob("*") if path.is_file()}
    assert after == before
    # what somebody added stays, what R2 refuses goes
    remote.world.dvc("remote", "modify", "r2", "jobs", "3")
    remote.world.dvc("remote", "modify", "r2", "acl", "private")
    assert "(taken away)" in remote.world.holdfast(*remote.setup, "--offline", "--yes").stdout
    section = remotes(remote.world.root)["r2"]
    assert section["jobs"] == 3
    assert "acl" not in section


def test_new_keys_take_the_place_of_old_ones_and_nobody_else_reads_them(remote: Remote) -> None:
    private = remote.world.root / ".dvc" / "config.local"
    remote.world.dvc("remote", "modify", "--local", "r2", "jobs", "5")
    private.chmod(0o644)
    remote.keys.write_text("AWS_ACCESS_KEY_ID=NEW\nAWS_SECRET_ACCESS_KEY=new-secret\n")
    done = remote.world.holdfast(*remote.setup, "--offline", "--yes")
    assert "new-secret" not in done.stdout
    section = remotes(remote.world.root)["r2"]
    assert (section["access_key_id"], section["secret_access_key"], section["jobs"]) == ("NEW", "new-secret", 5)
    assert SECRET_KEY not in private.read_text()
    assert private.stat().st_mode & 0o777 == 0o600


def test_nothing_is_written_without_yes(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    command = ("remote", "setup", "r2", "--account-id", ACCOUNT, "--bucket", "models", "--jurisdiction", "eu")
    for more in ((), ("--dry-run", "--yes")):
        shown = world.holdfast(*command, *more).stdout
        assert f"https://{ACCOUNT}.eu.r2.cloudflarestorage.com" in shown
        assert "when_required" in shown
        assert "Nothing is written." in shown
        assert world.git("status", "--porcelain") == ""
    world.holdfast(*command, "--offline", "--yes")
    assert remotes(world.root)["r2"]["endpointurl"] == f"https://{ACCOUNT}.eu.r2.cloudflarestorage.com"
    assert not (world.root / ".dvc" / "config.local").exists()


def test_another_place_needs_force_and_a_second_remote_is_no_default(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    world.holdfast("remote", "setup", "s3", "--bucket", "models", "--region", "eu-west-1", "--offline", "--yes")
    again = ("remote", "setup", "s3", "--bucket", "other", "--offline", "--yes")
    assert "the remote s3 exists and is at s3://models" in world.holdfast(*again, code=2).stderr
    world.holdfast(*again, "--force")
    assert remotes(world.root)["s3"]["url"] == "s3://other"
    world.holdfast("remote", "setup", "gcs", "--bucket", "models", "--offline", "--yes")
    assert default_remote(world.root) == "s3"
    world.holdfast(
        "remote", "setup", "azure", "--container", "models", "--account", "ada", "--default", "--offline", "-y"
    )
    assert default_remote(world.root) == "azure"
    assert remotes(world.root)["gcs"]["url"] == "gs://models"
    assert remotes(world.root)["azure"]["account_name"] == "ada"
    world.holdfast("remote", "setup", "local", "--folder", "store", "--yes")
    assert "url = ../store" in (world.root / ".dvc" / "config").read_text()
    assert "local" in world.dvc("remote", "list")


def test_keys_of_the_environment_stay_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_repository(tmp_path)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    done = world.holdfast("remote", "setup", "s3", "--bucket", "models", "--offline", "--yes")
    assert "in the environment, where they stay" in done.stdout
    assert not (world.root / ".dvc" / "config.local").exists()


def test_keys_are_asked_for_and_not_shown(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    command = [str(TOOLS / "holdfast"), "remote", "setup", "s3", "--bucket", "models", "--offline"]
    main, other = pty.openpty()
    process = subprocess.Popen(
        command, cwd=world.root, env=environment(world.home), stdin=other, stdout=other, stderr=other
    )
    os.close(other)
    seen = ""

    def read_until(words: str) -> None:
        nonlocal seen
        end = time.monotonic() + 30
        while words not in seen:
            assert time.monotonic() < end, seen
            if select.select([main], [], [], 0.2)[0]:
                seen += os.read(main, 65536).decode()

    for words, answer in (("access key id:", ACCESS_KEY), ("secret access key:", SECRET_KEY), ("[Y/n]:", "y")):
        read_until(words)
        os.write(main, f"{answer}\n".encode())
    read_until("Written")
    assert process.wait(30) == 0
    os.close(main)
    assert SECRET_KEY not in seen
    assert remotes(world.root)["s3"]["secret_access_key"] == SECRET_KEY


def test_the_bucket_is_given_folders_and_an_end_for_uploads(remote: Remote) -> None:
    world = remote.world
    world.write("holdfast.yaml", "remote:\n  domains: [climate, biology]\n")
    bucket = remote.server.make_bucket()
    command = ("remote", "setup", "r2", "--name", "own", "--account-id", ACCOUNT, "--bucket", bucket, "--endpoint",
        remote.link.endpoint, "--credentials", str(remote.keys), "--domain", "space", "--yes", "--json")  # fmt: skip
    payload = json.loads(world.holdfast(*command).stdout)
    folders = ["biology/", "climate/", "space/"]
    assert [item["what"] for item in payload["bucket"][:3]] == folders
    assert {item["outcome"] for item in payload["bucket"]} == {"made"}
    client = remote.server.client()
    keys = [item["Key"] for item in client.list_objects_v2(Bucket=bucket)["Contents"]]
    assert keys == [f"{folder}.keep" for folder in folders]
    (rule,) = client.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}
    assert rule["Status"] == "Enabled"
    assert "Expiration" not in rule
    payload = json.loads(world.holdfast(*command).stdout)
    assert {item["outcome"] for item in payload["bucket"]} == {"there"}
    assert not [said for said in remote.rules.refused if "checksum" in said], "no CRC was sent"


def test_rules_that_somebody_made_stay(remote: Remote) -> None:
    bucket, client = remote.server.make_bucket(), remote.server.client()
    theirs = {"ID": "old-logs", "Status": "Enabled", "Filter": {"Prefix": "logs/"}, "Expiration": {"Days": 30}}
    client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [theirs]})
    remote.world.holdfast("remote", "setup", "s3", "--bucket", bucket, "--endpoint", remote.link.endpoint,
        "--credentials", str(remote.keys), "--yes")  # fmt: skip
    rules = {rule["ID"]: rule for rule in client.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]}
    assert rules["old-logs"]["Expiration"] == {"Days": 30}
    assert len(rules) == 2


def test_a_bucket_that_is_not_there_is_told(remote: Remote) -> None:
    command = ("remote", "setup", "r2", "--name", "none", "--account-id", ACCOUNT, "--bucket", "no-such-bucket",
        "--endpoint", remote.link.endpoint, "--credentials", str(remote.keys), "--domain", "space", "--yes")  # fmt: skip
    done = remote.world.holdfast(*command, code=3)
    assert "the configuration is written, but not everything at the bucket" in done.stderr
    assert "`holdfast remote doctor none` says why" in done.stderr
    assert remotes(remote.world.root)["none"]["url"] == "s3://no-such-bucket"


class Api(http.server.BaseHTTPRequestHandler):
    """Cloudflare's lock rules of one bucket, as its API answers."""

    rules: ClassVar[list[Any]] = []
    seen: ClassVar[list[tuple[str, str, str | None]]] = []

    def _answer(self) -> None:
        kind = type(self)
        kind.seen.append((self.command, self.path, self.headers.get("cf-r2-jurisdiction")))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        allowed = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if allowed and self.command == "PUT":
            kind.rules[:] = json.loads(body)["rules"]
        said = {"success": allowed, "errors": [] if allowed else [{"code": 10000}], "result": {"rules": kind.rules}}
        text = json.dumps(said).encode()
        self.send_response(200 if allowed else 403)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_PUT = _answer  # noqa: N815 - http.server's names

    def log_message(self, *_: object) -> None:
        pass


def test_a_lock_on_releases_alone(remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = {"id": "theirs", "enabled": True, "prefix": "audit/", "condition": {"type": "Indefinite"}}
    Api.rules[:], Api.seen[:] = [theirs], []
    server = http.server.HTTPServer(("127.0.0.1", 0), Api)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("CLOUDFLARE_API_BASE_URL", f"http://127.0.0.1:{server.server_port}/client/v4")
    token = tmp_path / "token"
    token.write_text(f"{TOKEN}\n")
    bucket = remote.server.make_bucket()
    command = ("remote", "setup", "r2", "--name", "locked", "--account-id", ACCOUNT, "--bucket", bucket, "--jurisdiction",
        "eu", "--endpoint", remote.link.endpoint, "--credentials", str(remote.keys), "--lock-releases", "90",
        "--yes")  # fmt: skip
    try:
        assert "a lock takes an API token" in remote.world.holdfast(*command, code=2).stderr
        command = (*command, "--api-token", str(token))
        done = remote.world.holdfast(*command)
        ours = {"id": "holdfast-releases", "enabled": True, "prefix": "releases/"}
        assert Api.rules == [theirs, ours | {"condition": {"type": "Age", "maxAgeSeconds": 90 * 86400}}]
        assert Api.seen[-1] == ("PUT", f"/client/v4/accounts/{ACCOUNT}/r2/buckets/{bucket}/lock", "eu")
        remote.world.holdfast(*command)
        assert [method for method, _, _ in Api.seen] == ["GET", "PUT", "GET"]
        token.write_text("another-token")
        refused = remote.world.holdfast(*command, code=3)
        assert "Cloudflare's API refuses the token (403)" in refused.stderr
        assert not [text for text in (done.stdout, refused.stderr, refused.stdout) if "token-that" in text]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(30)


def test_names_that_cannot_be() -> None:
    for make in (
        lambda: plan_r2("account", "models"),
        lambda: plan_r2(ACCOUNT, "Models"),
        lambda: plan_r2(ACCOUNT, "models", "a/../b"),
        lambda: plan_s3("models", endpoint="https://host/models"),
        lambda: plan_s3("no"),
        lambda: plan_gcs("No"),
        lambda: plan_azure("two--hyphens", "ada"),
        lambda: plan_azure("models", "Ada"),
        lambda: check_domains(("vault",)),
        lambda: check_domains(("a/b",)),
    ):
        with pytest.raises(UsageError):
            make()
    assert (
        plan_r2(ACCOUNT.upper(), "models", "/team/").options["endpointurl"]
        == f"https://{ACCOUNT}.r2.cloudflarestorage.com"
    )
    assert plan_r2(ACCOUNT, "models", "/team/").url == "s3://models/team"
    assert check_domains(("b", "a", "b")) == ("a", "b")


def test_files_of_keys() -> None:
    both = {"access_key_id": "A", "secret_access_key": "S=+/"}
    assert read_keys("export AWS_ACCESS_KEY_ID='A'\nAWS_SECRET_ACCESS_KEY=\"S=+/\"\n") == both
    assert (
        read_keys("[default]\naws_access_key_id = A\naws_secret_access_key = S=+/\n[other]\naws_access_key_id = B\n")
        == both
    )
    assert read_keys("AZURE_STORAGE_ACCOUNT_KEY=K\n") == {"account_key": "K"}
    for text in ("", "secret: topsecret\n", "AWS_ACCESS_KEY_ID=topsecret\n"):
        with pytest.raises(UsageError) as caught:
            read_keys(text)
        assert "topsecret" not in str(caught.value)


def test_a_file_of_boto_that_is_there_keeps_its_lines() -> None:
    assert quiet_config() == QUIET
    assert quiet_config(QUIET) == QUIET
    theirs = "# ours\n[profile x]\nrequest_checksum_calculation = y\n[default]\nregion = auto\nrequest_checksum_calculation = x\ns3 =\n  a = 1\n"
    mended = quiet_config(theirs)
    assert mended == (f"# ours\n[profile x]\nrequest_checksum_calculation = y\n{QUIET}region = auto\ns3 =\n  a = 1\n")
    assert quiet_config(mended) == mended
    assert quiet_config("[profile x]\nregion = eu\n") == f"[profile x]\nregion = eu\n{QUIET}"
    with pytest.raises(UsageError, match="no configuration file of AWS"):
        quiet_config("nonsense\n")
