"""What a remote of each kind is to be: its URL, its options for DVC, and the file that tells boto to be quiet."""

import configparser
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from holdfast.errors import UsageError
from holdfast.objectstore.doctor_configuration import REQUEST, RESPONSE, WANTED
from holdfast.objectstore.location import R2_HOST
from holdfast.objectstore.store import check_folder

Kind = Literal["r2", "s3", "gcs", "azure", "local"]
Jurisdiction = Literal["eu", "fedramp"]

AWS_CONFIG = "aws-config"  # below .dvc/, committed
ACCOUNT = re.compile(r"[0-9a-f]{32}")
BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
R2_BUCKET = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
CONTAINER = re.compile(r"[a-z0-9](?:-?[a-z0-9]){2,62}")
DOMAIN = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
HEADER = re.compile(r"\s*\[(.*)\]\s*")
KEPT_FOLDERS = frozenset({"vault", "files", "runs", "releases"})  # what DVC and Holdfast have there
KEY_NAMES = {
    "aws_access_key_id": "access_key_id", "access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key", "secret_access_key": "secret_access_key",
    "aws_session_token": "session_token", "session_token": "session_token",
    "azure_storage_account_key": "account_key", "account_key": "account_key",
    "azure_storage_sas_token": "sas_token", "sas_token": "sas_token",
}  # fmt: skip


@dataclass(frozen=True)
class RemotePlan:
    """A remote as it is to be.

    Attributes:
        kind: see there.
        url: for DVC.
        options: besides the URL; what is None must not be set.
        quiet: boto has to be told to send no checksums.
        keys: the options that hold credentials, which have to come from somewhere; empty where none are needed.
        bucket: its name; empty for a folder.
    """

    kind: Kind
    url: str
    options: Mapping[str, str | None]
    quiet: bool = False
    keys: tuple[str, ...] = ()
    bucket: str = ""


S3_KEYS = ("access_key_id", "secret_access_key")


def plan_r2(
    account: str, bucket: str, prefix: str = "", jurisdiction: Jurisdiction | None = None, endpoint: str | None = None
) -> RemotePlan:
    """A bucket of Cloudflare R2.

    Args:
        account: the account's id, 32 hex digits.
        bucket: its name.
        prefix: a folder in it.
        jurisdiction: where the bucket was made to stay.
        endpoint: another server that is as R2 is, for trials.

    Raises:
        UsageError: one of them cannot be.
    """
    if not ACCOUNT.fullmatch(account.lower()):
        raise UsageError(
            f"{account!r} is no account id of Cloudflare", hint="It has 32 hex digits: `npx wrangler whoami` shows it"
        )
    _check(bucket, R2_BUCKET, "of an R2 bucket", "3 to 63 lower-case letters, digits and hyphens")
    where = f".{jurisdiction}" if jurisdiction else ""
    server = endpoint or f"https://{account.lower()}{where}{R2_HOST}"
    refused: dict[str, str | None] = dict.fromkeys(("acl", "sse", "sse_kms_key_id", "sse_customer_key"))
    options = {"endpointurl": server.rstrip("/"), "region": "auto", "configpath": AWS_CONFIG, **refused}
    return RemotePlan("r2", _url("s3", bucket, prefix), options, True, S3_KEYS, bucket)


def plan_s3(
    bucket: str, prefix: str = "", region: str | None = None, endpoint: str | None = None, profile: str | None = None
) -> RemotePlan:
    """A bucket of Amazon S3, or of another server that has its API.

    Raises:
        UsageError: one of them cannot be.
    """
    _check(bucket, BUCKET, "of an S3 bucket", "3 to 63 lower-case letters, digits, dots and hyphens")
    if endpoint and not re.match(r"https?://[^/]+/?$", endpoint):
        raise UsageError(f"{endpoint} is no endpoint", hint="It is https://HOST, without the bucket")
    options: dict[str, str | None] = {}
    if region:
        options["region"] = region
    if endpoint:
        # servers that are not Amazon's seldom know the newest checksums
        options |= {"endpointurl": endpoint.rstrip("/"), "configpath": AWS_CONFIG}
    if profile:
        options["profile"] = profile
    return RemotePlan("s3", _url("s3", bucket, prefix), options, bool(endpoint), () if profile else S3_KEYS, bucket)


def plan_gcs(bucket: str, prefix: str = "", project: str | None = None) -> RemotePlan:
    """A bucket of Google Cloud Storage; DVC needs dvc-gs for it.

    Raises:
        UsageError: the name cannot be.
    """
    _check(bucket, re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]"), "of a bucket", "3 or more lower-case characters")
    return RemotePlan("gcs", _url("gs", bucket, prefix), {"projectname": project} if project else {}, bucket=bucket)


def plan_azure(container: str, account: str, prefix: str = "") -> RemotePlan:
    """A container of Azure Blob Storage; DVC needs dvc-azure for it.

    Raises:
        UsageError: one of them cannot be.
    """
    _check(container, CONTAINER, "of a container", "3 to 63 lower-case letters, digits and single hyphens")
    _check(account, re.compile(r"[a-z0-9]{3,24}"), "of a storage account", "3 to 24 lower-case letters and digits")
    url = _url("azure", container, prefix)
    return RemotePlan("azure", url, {"account_name": account}, keys=("account_key",), bucket=container)


def plan_local(folder: str) -> RemotePlan:
    """A folder of this machine, or one that is mounted.

    Args:
        folder: absolute, or as it is written in ``.dvc/config``: from ``.dvc/``.
    """
    return RemotePlan("local", folder, {})


def check_domains(domains: tuple[str, ...]) -> tuple[str, ...]:
    """The domains, ordered, each once.

    Raises:
        UsageError: one cannot be a folder's name, or is one that DVC or Holdfast has.
    """
    for domain in domains:
        if not DOMAIN.fullmatch(domain):
            raise UsageError(f"{domain!r} cannot be a domain", hint="It is one folder's name: climate, biology, …")
        if domain in KEPT_FOLDERS:
            raise UsageError(f"{domain} cannot be a domain: DVC or Holdfast keeps that folder for itself")
    return tuple(sorted(set(domains)))


def quiet_config(text: str = "") -> str:
    """An AWS configuration file's text with the two lines that R2 needs in its default section.

    What else is in it stays, comments too. A file that has them is given back as it is.

    Raises:
        UsageError: it cannot be read.
    """
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(text)
    except configparser.Error as error:
        raise UsageError(f".dvc/{AWS_CONFIG} is no configuration file of AWS: {str(error).splitlines()[0]}") from error
    if all(parser.get("default", name, fallback="") == WANTED for name in (REQUEST, RESPONSE)):
        return text
    wanted = [f"{name} = {WANTED}" for name in (REQUEST, RESPONSE)]
    lines: list[str] = []
    section = ""
    for line in text.splitlines():
        if header := HEADER.fullmatch(line):
            section = header[1].strip()
        if section == "default" and line.partition("=")[0].strip() in (REQUEST, RESPONSE):
            continue
        lines.append(line)
        if header and section == "default":
            lines += wanted
            wanted = []
    if wanted:
        lines += ["[default]", *wanted]
    return "\n".join(lines) + "\n"


def read_keys(text: str) -> dict[str, str]:
    """Credentials out of a file: ``NAME=VALUE`` lines, or a credentials file of AWS with its default section.

    Args:
        text: of the file; names in any case, with or without ``AWS_``, quotes and ``export``.

    Raises:
        UsageError: there are none; never repeats what the file says.
    """
    found: dict[str, str] = {}
    section = "default"
    for line in text.splitlines():
        if header := HEADER.fullmatch(line):
            section = header[1].strip().lower()
        match = re.fullmatch(r"\s*(?:export\s+)?([A-Za-z_]+)\s*[=:]\s*(.*?)\s*", line)
        if match and section == "default" and (option := KEY_NAMES.get(match[1].lower())):
            found[option] = match[2].strip("\"'")
    found = {option: value for option, value in found.items() if value}
    if not found:
        raise UsageError(
            "the file of credentials names none",
            hint="It has lines such as AWS_ACCESS_KEY_ID=… and AWS_SECRET_ACCESS_KEY=…",
        )
    if ("access_key_id" in found) != ("secret_access_key" in found):
        raise UsageError("the file of credentials has one of access_key_id and secret_access_key, and not the other")
    return found


def _url(scheme: str, bucket: str, prefix: str) -> str:
    folder = check_folder(prefix.strip("/"))
    return f"{scheme}://{bucket}{f'/{folder}' if folder else ''}"


def _check(name: str, form: re.Pattern[str], what: str, rule: str) -> None:
    if not form.fullmatch(name):
        raise UsageError(f"{name!r} cannot be the name {what}", hint=f"It has {rule}")
