"""What DVC's configuration of a remote says, looked at before anything is asked of a server."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from holdfast.objectstore.findings import Finding
from holdfast.objectstore.location import R2_HOST, Location

WANTED = "when_required"
REQUEST, RESPONSE = "request_checksum_calculation", "response_checksum_validation"
SECRETS = frozenset(
    {"access_key_id", "secret_access_key", "session_token", "account_key", "sas_token", "connection_string", "password"}
)
# the id of a key is no secret by itself, but a key that somebody looks for
_REFUSED_BY_R2 = ("acl", "sse", "sse_kms_key_id", "sse_customer_key", "grant_read", "grant_read_acp", "grant_write_acp",
    "grant_full_control")  # fmt: skip


@dataclass(frozen=True)
class ChecksumSetting:
    """Whether boto, as DVC runs it, sends checksums only where S3 wants them.

    Attributes:
        request, response: the values that count; empty where nothing sets them.
        origin: where they are set, or would have to be: a file's path, or the variables.
    """

    request: str
    response: str
    origin: str

    @property
    def quiet(self) -> bool:
        """Whether no checksum is sent that R2 refuses."""
        return self.request == WANTED and self.response == WANTED

    @property
    def missing(self) -> list[str]:
        """The lines that are missing."""
        values = ((REQUEST, self.request), (RESPONSE, self.response))
        return [f"{name} = {WANTED}" for name, value in values if value != WANTED]


@dataclass(frozen=True)
class Subject:
    """A remote that is looked at.

    Attributes:
        name: as DVC has it; empty for a bare URL.
        location: what its URL names.
        section: its options, of all levels of DVC's configuration.
        committed: the options that `.dvc/config` itself has, which git keeps.
        endpoint: the server's URL; empty for a folder.
        checksums: see there; None where boto is not used.
    """

    name: str
    location: Location
    section: Mapping[str, Any]
    committed: Collection[str]
    endpoint: str
    checksums: ChecksumSetting | None

    @property
    def r2(self) -> bool:
        """Whether the server is Cloudflare's R2."""
        return (urlsplit(self.endpoint).hostname or "").endswith(R2_HOST)

    @property
    def setup(self) -> str:
        """The command that sets the remote up anew."""
        name, bucket = self.name or "NAME", self.location.bucket
        folder = f" --prefix {self.location.path}" if self.location.path else ""
        if self.location.scheme == "file":
            return f"holdfast remote setup local --name {name} --folder {self.location.path}"
        if self.location.scheme == "az":
            return f"holdfast remote setup azure --name {name} --container {bucket}{folder}"
        if self.location.scheme == "gs":
            return f"holdfast remote setup gcs --name {name} --bucket {bucket}{folder}"
        if self.r2:
            account, _, jurisdiction = (urlsplit(self.endpoint).hostname or "").removesuffix(R2_HOST).partition(".")
            where = f" --jurisdiction {jurisdiction}" if jurisdiction else ""
            return f"holdfast remote setup r2 --name {name} --account-id {account} --bucket {bucket}{where}{folder}"
        server = f" --endpoint {self.endpoint}" if self.section.get("endpointurl") else ""
        return f"holdfast remote setup s3 --name {name} --bucket {bucket}{server}{folder}"


def checksum_setting(section: Mapping[str, Any], environment: Mapping[str, str]) -> ChecksumSetting:
    """What counts for DVC: variables first, then the one AWS configuration file that boto will read.

    That is ``AWS_CONFIG_FILE`` where it is set, though the remote names a ``configpath``; else that; else the user's.

    Args:
        section: of the remote.
        environment: the process's variables.
    """
    # DVC sets the variable from `configpath` only where it is not set
    path = environment.get("AWS_CONFIG_FILE") or section.get("configpath")
    path = str(path or Path(environment.get("HOME", "~")) / ".aws" / "config")
    profile = str(section.get("profile") or environment.get("AWS_PROFILE") or "default")
    lines = _profile(path, profile)
    from_variables = {name: environment.get(f"AWS_{name.upper()}", "").lower() for name in (REQUEST, RESPONSE)}
    origin = "the variables AWS_REQUEST_… and AWS_RESPONSE_…" if all(from_variables.values()) else path
    request, response = (from_variables[name] or str(lines.get(name, "")).lower() for name in (REQUEST, RESPONSE))
    return ChecksumSetting(request, response, origin)


def check_configuration(subject: Subject, environment: Mapping[str, str]) -> list[Finding]:
    """What the configuration alone shows to be wrong, or one finding that nothing is.

    Args:
        subject: the remote.
        environment: the process's variables.
    """
    found = [*_secrets(subject), *_of_s3(subject, environment), *(_of_r2(subject) if subject.r2 else ())]
    if not found:
        where = f" at {subject.endpoint}" if subject.endpoint else ""
        found.append(Finding("configuration", "ok", f"{subject.location.written or subject.location.path}{where}"))
    return found


def _secrets(subject: Subject) -> Iterator[Finding]:
    for option in sorted(SECRETS.intersection(subject.committed)):
        says = f".dvc/config holds {option}, and git shows it to everybody who has the repository"
        mend = f"`dvc remote modify --unset {subject.name} {option}`; revoke the key; `{subject.setup}` with a new one"
        yield Finding("secrets", "warning", says, mend)


def _of_s3(subject: Subject, environment: Mapping[str, str]) -> Iterator[Finding]:
    configured = subject.section.get("configpath")
    if not configured:
        return
    if not Path(str(configured)).is_file():
        says = f"configpath names {configured}, which does not exist"
        yield Finding("configuration", "warning", says, f"`{subject.setup}` writes it")
    other = environment.get("AWS_CONFIG_FILE")
    if other and Path(other).absolute() != Path(str(configured)).absolute():
        says = f"AWS_CONFIG_FILE is set to {other}, so that DVC does not read the remote's configpath"
        yield Finding("configuration", "warning", says, "`unset AWS_CONFIG_FILE`")


def _of_r2(subject: Subject) -> Iterator[Finding]:
    name = subject.name or "NAME"
    endpoint = urlsplit(subject.endpoint)
    if endpoint.path.strip("/"):
        says = f"the endpoint ends with {endpoint.path}: the bucket belongs into the URL alone"
        mend = f"`dvc remote modify {name} endpointurl {endpoint.scheme}://{endpoint.netloc}`"
        yield Finding("configuration", "fault", says, mend)
    region = subject.section.get("region")
    if region not in (None, "auto", "us-east-1"):
        yield Finding("configuration", "fault", f"the region is {region}, and R2 has but `auto`",
            f"`dvc remote modify {name} region auto`")  # fmt: skip
    for option in _REFUSED_BY_R2:
        if subject.section.get(option):
            mend = f"`dvc remote modify --unset {name} {option}`"
            yield Finding("configuration", "fault", f"{option} is set, and R2 refuses it", mend)


def _profile(path: str, profile: str) -> Mapping[str, Any]:
    # botocore takes 90 ms to import, which a remote that is a folder need not pay
    from botocore.configloader import load_config
    from botocore.exceptions import BotoCoreError

    try:
        profiles: dict[str, dict[str, Any]] = load_config(path)["profiles"]
    except BotoCoreError:
        return {}
    return profiles.get(profile, {})
