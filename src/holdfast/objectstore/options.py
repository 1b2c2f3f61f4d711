"""How to reach a store and as whom: from environment variables, from a section of DVC's configuration, or both."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from holdfast.errors import UsageError

# obstore reads these itself and cannot be told not to; R2 refuses what they ask for
SENT_BY_OBSTORE = (
    "AWS_CHECKSUM_ALGORITHM",
    "AWS_SERVER_SIDE_ENCRYPTION",
    "AWS_SSE_KMS_KEY_ID",
    "AWS_SSE_BUCKET_KEY_ENABLED",
    "AWS_SSE_CUSTOMER_KEY_BASE64",
)
CONNECT_SECONDS = 10.0
STALL_SECONDS = 30.0


@dataclass(frozen=True)
class StoreOptions:
    """How to reach a store and as whom; what is None or empty is looked up, or not needed.

    Attributes:
        endpoint: the server's URL, where it is not the one that goes with the scheme.
        region: of an S3 bucket.
        access_key_id: with the secret, S3's credentials.
        secret_access_key: never shown.
        session_token: never shown.
        profile: of AWS's configuration files, where there are no keys.
        config_path: AWS's configuration file, in place of ``~/.aws/config``.
        credentials_path: AWS's credentials file, in place of ``~/.aws/credentials``.
        service_account_path: JSON of a Google service account.
        anonymous: ask without credentials.
        account_name: of an Azure storage account.
        account_key: never shown.
        sas_token: never shown.
        verify_tls: check the server's certificate.
        ca_path: PEM of authorities to trust besides the system's.
        encryption: what S3 is to encrypt with: ``server_side_encryption``, ``sse_kms_key_id``,
            ``sse_customer_key_base64``; never shown.
        home: where ``~`` is.
        sent_by_obstore: variables that are set and that obstore acts upon whatever is said here.
        connect_seconds: how long a connection may take.
        stall_seconds: how long a server may say nothing.
    """

    endpoint: str | None = None
    region: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    profile: str | None = None
    config_path: Path | None = None
    credentials_path: Path | None = None
    service_account_path: Path | None = None
    anonymous: bool = False
    account_name: str | None = None
    account_key: str | None = field(default=None, repr=False)
    sas_token: str | None = field(default=None, repr=False)
    verify_tls: bool = True
    ca_path: Path | None = None
    encryption: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False)
    home: Path | None = None
    sent_by_obstore: tuple[str, ...] = ()
    connect_seconds: float = CONNECT_SECONDS
    stall_seconds: float = STALL_SECONDS

    def or_else(self, other: "StoreOptions") -> "StoreOptions":
        """These options, and for what they leave open the other ones.

        Who one is comes from one of the two alone: a key of one is never joined to a secret or a profile of the other.
        """
        identity = self if any(getattr(self, name) for name in IDENTITY) else other
        chosen: dict[str, Any] = {name: getattr(identity, name) for name in IDENTITY}
        for item in fields(self):
            if item.name not in IDENTITY:
                own = getattr(self, item.name)
                chosen[item.name] = getattr(other, item.name) if own == _default(item) else own
        return replace(self, **chosen)


IDENTITY = (
    "access_key_id", "secret_access_key", "session_token", "profile", "anonymous", "service_account_path",
    "account_key", "sas_token",
)  # fmt: skip


def from_environment(environment: Mapping[str, str]) -> StoreOptions:
    """The options that environment variables give; which these are, docs/reference/object-stores.md says.

    Args:
        environment: the variables; nothing else is read.
    """

    def first(*names: str) -> str | None:
        return next((environment[name] for name in names if environment.get(name)), None)

    keys = first("AWS_ACCESS_KEY_ID") if first("AWS_SECRET_ACCESS_KEY") else None
    return StoreOptions(
        endpoint=first("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
        region=first("AWS_REGION", "AWS_DEFAULT_REGION"),
        access_key_id=keys,
        secret_access_key=first("AWS_SECRET_ACCESS_KEY") if keys else None,
        session_token=first("AWS_SESSION_TOKEN") if keys else None,
        # as with AWS's own tools, keys in the environment win over a profile named there
        profile=None if keys else first("AWS_PROFILE", "AWS_DEFAULT_PROFILE"),
        config_path=_path(first("AWS_CONFIG_FILE")),
        credentials_path=_path(first("AWS_SHARED_CREDENTIALS_FILE")),
        service_account_path=_path(first("GOOGLE_APPLICATION_CREDENTIALS")),
        account_name=first("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT"),
        account_key=first("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_KEY"),
        sas_token=first("AZURE_STORAGE_SAS_TOKEN"),
        ca_path=_path(first("AWS_CA_BUNDLE")),
        home=_path(first("HOME")),
        sent_by_obstore=tuple(name for name in SENT_BY_OBSTORE if environment.get(name)),
    )


def from_dvc(section: Mapping[str, Any]) -> StoreOptions:
    """The options of a DVC remote, from its section of DVC's configuration as a dict.

    ``acl`` and ``grant_*`` are not taken over: Holdfast sets no access rules on single objects.

    Raises:
        UsageError: an option is of a kind that Holdfast cannot act upon.
    """

    def text(name: str) -> str | None:
        value = section.get(name)
        return str(value) if value not in (None, "") else None

    if section.get("connection_string"):
        raise UsageError(
            "Holdfast reads no connection_string of a DVC remote",
            hint="`holdfast remote setup azure --account NAME … --credentials FILE` says the same",
        )
    verify = section.get("ssl_verify")
    encryption = {
        "server_side_encryption": text("sse"),
        "sse_kms_key_id": text("sse_kms_key_id"),
        "sse_customer_key_base64": text("sse_customer_key"),
    }
    if encryption["sse_customer_key_base64"]:
        encryption["server_side_encryption"] = "sse-c"
    endpoint = text("endpointurl")
    if endpoint and "://" not in endpoint:
        endpoint = f"{'https' if section.get('use_ssl', True) else 'http'}://{endpoint}"
    google = str(section.get("url", "")).startswith(("gs:", "gcs:"))
    return StoreOptions(
        endpoint=endpoint,
        region=text("region"),
        access_key_id=text("access_key_id"),
        secret_access_key=text("secret_access_key"),
        session_token=text("session_token"),
        profile=text("profile"),
        config_path=_path(text("configpath")),
        credentials_path=None if google else _path(text("credentialpath")),
        service_account_path=_path(text("credentialpath")) if google else None,
        anonymous=bool(section.get("allow_anonymous_login", False)),
        account_name=text("account_name"),
        account_key=text("account_key"),
        sas_token=text("sas_token"),
        verify_tls=verify is not False,
        ca_path=_path(verify if isinstance(verify, str) else None),
        encryption={name: value for name, value in encryption.items() if value},
        connect_seconds=float(section.get("connect_timeout") or CONNECT_SECONDS),
        stall_seconds=float(section.get("read_timeout") or STALL_SECONDS),
    )


def _path(value: str | None) -> Path | None:
    return Path(value) if value else None


def _default(item: Any) -> Any:
    return item.default if item.default_factory is MISSING else item.default_factory()
