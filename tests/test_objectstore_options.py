"""URLs of stores, and whose credentials they are asked with."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import UsageError
from holdfast.objectstore.bucket import BucketStore, Link
from holdfast.objectstore.location import Location, is_url, locate
from holdfast.objectstore.opening import open_store
from holdfast.objectstore.options import StoreOptions, from_dvc, from_environment
from holdfast.objectstore.store import DeniedError, ObjectStore
from holdfast.repo.dvc import DvcConfigError, remotes
from servers import ACCESS_KEY, SECRET_KEY, S3Server
from worlds import make_repository

R2 = "https://account.r2.cloudflarestorage.com"
KEYS = StoreOptions(access_key_id="key", secret_access_key="secret")


@pytest.mark.parametrize(
    ("url", "scheme", "bucket", "path", "endpoint", "written"),
    [
        ("s3://bucket", "s3", "bucket", "", None, "s3://bucket"),
        ("s3://bucket/", "s3", "bucket", "", None, "s3://bucket"),
        ("S3A://bucket/a/b/", "s3", "bucket", "a/b", None, "s3a://bucket"),
        ("s3://bucket/a b#c?d=e%20f", "s3", "bucket", "a b#c?d=e%20f", None, "s3://bucket"),
        ("r2://account/bucket/a", "s3", "bucket", "a", R2, "r2://account/bucket"),
        ("r2://account.eu/bucket", "s3", "bucket", "", "https://account.eu.r2.cloudflarestorage.com", "r2://account.eu/bucket"),
        (f"{R2}/bucket/a/b", "s3", "bucket", "a/b", R2, f"{R2}/bucket"),
        ("gs://bucket/a", "gs", "bucket", "a", None, "gs://bucket"),
        ("gcs://bucket/a", "gs", "bucket", "a", None, "gcs://bucket"),
        ("az://container/a", "az", "container", "a", None, "az://container"),
        ("azure://container/a", "az", "container", "a", None, "azure://container"),
        ("file:///a%20b/c", "file", "", "/a b/c", None, ""),
        ("/a b/c", "file", "", "/a b/c", None, ""),
        ("memory://", "memory", "", "", None, ""),
    ],
)  # fmt: skip
def test_urls(url: str, scheme: str, bucket: str, path: str, endpoint: str | None, written: str) -> None:
    assert locate(url) == Location(scheme, bucket, path, endpoint, written)
    assert is_url(url) == ("://" in url)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("s3://", "names no bucket"),
        ("s3:///key", "names no bucket"),
        ("r2://account", "names no bucket"),
        ("r2:///bucket/key", "names no bucket"),
        ("ssh://host/path", "objects of ssh:// cannot be read"),
        ("https://example.org/bucket", "only those of R2's buckets are known"),
        ("file://relative/path", "three slashes"),
    ],
)
def test_urls_that_name_no_store(url: str, text: str) -> None:
    for call in (locate, open_store):
        with pytest.raises(UsageError, match=text):
            call(url)


def test_a_url_with_a_secret_is_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError, match="do not belong") as caught:
        locate("s3://key:hunter2@bucket/path")
    assert "hunter2" not in str(caught.value)


def test_options_of_the_environment() -> None:
    assert from_environment({}) == StoreOptions()
    found = from_environment(
        {
            "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "token", "AWS_REGION": "eu",
            "AWS_DEFAULT_REGION": "us", "AWS_ENDPOINT_URL": "http://a", "AWS_ENDPOINT_URL_S3": "http://b", "HOME": "/home/ada",
            "AWS_PROFILE": "ignored", "AWS_CONFIG_FILE": "/config", "AWS_SHARED_CREDENTIALS_FILE": "/credentials",
            "AWS_CA_BUNDLE": "/ca.pem", "AWS_CHECKSUM_ALGORITHM": "SHA256", "GOOGLE_APPLICATION_CREDENTIALS": "/google.json",
            "AZURE_STORAGE_ACCOUNT_NAME": "ada", "AZURE_STORAGE_KEY": "azure", "AZURE_STORAGE_SAS_TOKEN": "sas",
        }
    )  # fmt: skip
    assert found == StoreOptions(
        endpoint="http://b", region="eu", access_key_id="key", secret_access_key="secret", session_token="token",
        config_path=Path("/config"), credentials_path=Path("/credentials"), service_account_path=Path("/google.json"),
        account_name="ada", account_key="azure", sas_token="sas", ca_path=Path("/ca.pem"), home=Path("/home/ada"),
        sent_by_obstore=("AWS_CHECKSUM_ALGORITHM",),
    )  # fmt: skip
    for secret in ("secret", "token", "azure", "sas"):
        assert f"'{secret}'" not in repr(found)
    half = from_environment({"AWS_ACCESS_KEY_ID": "key", "AWS_SESSION_TOKEN": "token", "AWS_PROFILE": "work"})
    assert half == StoreOptions(profile="work")


def test_options_of_a_dvc_remote() -> None:
    assert from_dvc({"url": "s3://bucket", "use_ssl": True, "listobjects": False}) == StoreOptions()
    found = from_dvc(
        {
            "url": "s3://bucket/dvc", "endpointurl": "minio:9000", "use_ssl": False, "region": "eu", "profile": "work",
            "credentialpath": "/credentials", "configpath": "/config", "access_key_id": "key", "secret_access_key": "secret",
            "session_token": "token", "ssl_verify": "/ca.pem", "sse": "aws:kms", "sse_kms_key_id": "id", "acl": "private",
            "read_timeout": 7, "connect_timeout": 3, "allow_anonymous_login": True,
        }
    )  # fmt: skip
    assert found == StoreOptions(
        endpoint="http://minio:9000", region="eu", access_key_id="key", secret_access_key="secret", session_token="token",
        profile="work", config_path=Path("/config"), credentials_path=Path("/credentials"), ca_path=Path("/ca.pem"),
        encryption={"server_side_encryption": "aws:kms", "sse_kms_key_id": "id"}, anonymous=True, stall_seconds=7.0,
        connect_seconds=3.0,
    )  # fmt: skip
    assert not from_dvc({"url": "s3://bucket", "ssl_verify": False}).verify_tls
    customer = from_dvc({"url": "s3://bucket", "sse_customer_key": "a2V5"}).encryption
    assert customer == {"server_side_encryption": "sse-c", "sse_customer_key_base64": "a2V5"}
    google = from_dvc({"url": "gs://bucket", "credentialpath": "/google.json"})
    assert (google.credentials_path, google.service_account_path) == (None, Path("/google.json"))
    with pytest.raises(UsageError, match="connection_string") as caught:
        from_dvc({"url": "azure://container", "connection_string": "AccountKey=hunter2"})
    assert "hunter2" not in str(caught.value)


def test_one_identity_is_never_mixed_with_another() -> None:
    environment = replace(KEYS, session_token="token", endpoint="http://b", home=Path("/home"), region="us")
    assert StoreOptions().or_else(environment) == environment
    other = StoreOptions(access_key_id="other", secret_access_key="different", endpoint="http://a")
    assert other.or_else(environment) == replace(other, home=Path("/home"), region="us")
    profile = StoreOptions(profile="work").or_else(environment)
    assert (profile.profile, profile.access_key_id, profile.session_token) == ("work", None, None)
    nobody = StoreOptions(anonymous=True).or_else(environment)
    assert (nobody.anonymous, nobody.access_key_id) == (True, None)
    # where the file lies does not say who one is
    file = StoreOptions(credentials_path=Path("/credentials")).or_else(environment)
    assert (file.access_key_id, file.credentials_path) == ("key", Path("/credentials"))


def config_of(store: ObjectStore, link: Link | None = None) -> dict[str, Any]:
    assert isinstance(store, BucketStore)
    client: Any = store.connect(link or Link(30))
    return dict(client.config) | {"client": dict(client.client_options), "retry": client.retry_config}


@pytest.mark.parametrize(
    ("endpoint", "signed"),
    [
        ("http://10.0.0.1:9000", True),
        ("http://storage.example:9000", True),
        ("http://localhost.example", True),
        ("https://storage.example", False),
        ("http://127.0.0.1:9000", False),
        ("http://[::1]:9000", False),
        ("http://localhost:9000", False),
    ],
)
def test_what_goes_over_a_wire_without_tls_is_signed(endpoint: str, signed: bool) -> None:
    config = config_of(open_store("s3://bucket/a", replace(KEYS, endpoint=endpoint)))
    assert config["unsigned_payload"] in ((False, "false") if signed else (True, "true"))


def test_the_rules_of_r2() -> None:
    for url, options in (
        ("r2://account/bucket/a", KEYS),
        ("s3://bucket/a", replace(KEYS, endpoint=R2)),
        (f"{R2}/bucket", replace(KEYS, region="eu-west-1")),
    ):
        config = config_of(open_store(url, options))
        assert config["region"] == "auto"
        assert config["endpoint"] == R2
        assert config["unsigned_payload"] in (True, "true")
        assert "checksum_algorithm" not in config
        assert config["disable_bulk_delete"] in (True, "true")
        assert config["client"]["allow_http"] in (False, "false")
        for refused in (
            {"sent_by_obstore": ("AWS_CHECKSUM_ALGORITHM",)},
            {"encryption": {"server_side_encryption": "AES256"}},
        ):
            with pytest.raises(UsageError, match=r"R2 takes no (AWS_CHECKSUM_ALGORITHM|sse)"):
                open_store(url, replace(options, **refused))
    assert config_of(open_store("s3://bucket", KEYS))["endpoint"] == "https://s3.us-east-1.amazonaws.com"
    china = open_store(
        "s3://bucket", replace(KEYS, region="cn-north-1", encryption={"server_side_encryption": "AES256"})
    )
    assert config_of(china)["endpoint"] == "https://s3.cn-north-1.amazonaws.com.cn"
    # a host that only looks like R2's
    other = replace(KEYS, endpoint="https://account.r2.cloudflarestorage.com.example.org")
    assert config_of(open_store("s3://bucket", other))["region"] == "us-east-1"


def test_time_for_an_upload_grows_with_it(s3_server: S3Server) -> None:
    store = open_store("s3://bucket", s3_server.options(stall_seconds=10))
    assert isinstance(store, BucketStore)
    deadlines = [store._deadline(nbytes) for nbytes in (0, 100_000, 1 << 20, 64 << 20, 256 << 20)]
    assert deadlines == [10, 10, 20, 640, 2560]
    for nbytes, seconds in zip((1 << 20, 64 << 20, 256 << 20), deadlines[2:], strict=True):
        assert seconds >= nbytes / (128 * 1024)


def aws_files(folder: Path, config: str, credentials: str = "") -> None:
    (folder / ".aws").mkdir()
    (folder / ".aws" / "config").write_text(config)
    (folder / ".aws" / "credentials").write_text(credentials)


def test_a_profile(s3_server: S3Server, s3_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "other")  # the process's own variables count for nothing
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "other")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "other")
    aws_files(
        tmp_path,
        f"[default]\nendpoint_url = {s3_server.endpoint}\n"
        "[profile work]\nregion = eu-central-1\nservices = ours\nendpoint_url = http://127.0.0.1:1\n"
        f"[services ours]\ns3 =\n  endpoint_url = {s3_server.endpoint}\n"
        "[profile process]\ncredential_process = "
        f"""echo '{{"Version": 1, "AccessKeyId": "{ACCESS_KEY}", "SecretAccessKey": "{SECRET_KEY}"}}'\n"""
        f"endpoint_url = {s3_server.endpoint}\n",
        f"[work]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n"
        f"[default]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n",
    )
    home = {"HOME": str(tmp_path)}
    for number, variables in enumerate((home, home | {"AWS_PROFILE": "work"}, home | {"AWS_PROFILE": "process"})):
        store = open_store(s3_folder, from_environment(variables))
        store.put(f"{number}", b"1")
        assert store.get(f"{number}") == b"1"
        assert config_of(store)["region"] == ("eu-central-1" if number == 1 else "us-east-1")
    moved = tmp_path / "elsewhere"
    (tmp_path / ".aws").rename(moved)
    files = {"AWS_CONFIG_FILE": str(moved / "config"), "AWS_SHARED_CREDENTIALS_FILE": str(moved / "credentials")}
    assert open_store(s3_folder, from_environment(files | {"AWS_PROFILE": "work"})).get("0") == b"1"
    by_dvc = from_dvc(
        {"profile": "work", "configpath": str(moved / "config"), "credentialpath": str(moved / "credentials")}
    )
    assert open_store(s3_folder, by_dvc).get("0") == b"1"
    # options say more than the profile
    assert config_of(open_store(s3_folder, replace(by_dvc, endpoint="http://other")))["endpoint"] == "http://other"


def test_profiles_that_lead_nowhere(tmp_path: Path) -> None:
    aws_files(tmp_path, "[profile broken]\ncredential_process = false\n")
    for profile, text in (("missing", "does not lead to credentials"), ("broken", "does not lead to credentials")):
        with pytest.raises(DeniedError, match=text):
            open_store("s3://bucket", StoreOptions(profile=profile, home=tmp_path))
    start = time.monotonic()
    with pytest.raises(DeniedError, match="there are no credentials for s3://bucket"):
        open_store("s3://bucket", StoreOptions(home=tmp_path, endpoint="http://127.0.0.1:1"))
    assert time.monotonic() - start < 0.9  # nobody asks whether this is one of Amazon's machines: that takes a second


def test_remotes_of_dvc(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    assert remotes(world.folder) == {}
    world.dvc("remote", "add", "--default", "store", "s3://bucket/dvc")
    world.dvc("remote", "modify", "store", "endpointurl", "http://127.0.0.1:9")
    world.dvc("remote", "modify", "--local", "store", "access_key_id", "key")
    world.dvc("remote", "modify", "--local", "store", "secret_access_key", "secret")
    world.dvc("remote", "add", "images", "remote://store/images")
    world.dvc("remote", "modify", "images", "region", "eu")
    found = remotes(world.folder)
    assert list(found) == ["images", "store"]
    assert found["store"]["url"] == "s3://bucket/dvc"
    assert found["images"]["url"] == "s3://bucket/dvc/images"
    expected = StoreOptions(endpoint="http://127.0.0.1:9", access_key_id="key", secret_access_key="secret")
    assert from_dvc(found["store"]) == expected
    assert from_dvc(found["images"]) == replace(expected, region="eu")
    for url in ("remote://nothing/x", "remote://images/x"):
        world.write(".dvc/config", f"['remote \"images\"']\n    url = {url}\n")
        world.write(".dvc/config.local", "")
        with pytest.raises(DvcConfigError, match="which leads nowhere"):
            remotes(world.folder)
