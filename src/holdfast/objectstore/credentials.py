"""Whose credentials an S3 bucket is asked with: keys as given, or what AWS's configuration files lead to."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from holdfast.objectstore.options import StoreOptions
from holdfast.objectstore.store import DeniedError

if TYPE_CHECKING:
    from botocore.session import Session
    from obstore.store import S3Credential

FRESH = timedelta(minutes=30)  # botocore refreshes what is about to expire when asked, so it is asked this often
OF_AWS_ALONE = ("container-role", "iam-role")  # the roles of Amazon's machines open nothing at another's endpoint


@dataclass(frozen=True)
class Settings:
    """What AWS's configuration says besides the credentials.

    Attributes:
        credentials: gives them, fresh; called from any thread.
        region: of the profile, or None.
        endpoint: of the profile, or None.
    """

    credentials: "Callable[[], S3Credential]"
    region: str | None = None
    endpoint: str | None = None


def settings(options: StoreOptions, name: str, *, foreign: bool) -> Settings:
    """The credentials for a bucket: the keys in ``options``, else its profile, else the default profile and its chain.

    Args:
        options: not anonymous.
        name: the bucket, for messages.
        foreign: the endpoint is not Amazon's.

    Raises:
        DeniedError: there are none, or half of them.
    """
    if options.access_key_id or options.secret_access_key:
        return _static(options, name)
    # 90 ms that keys in the environment need not pay
    from botocore.exceptions import BotoCoreError

    try:
        session = _session(options)
        scoped: dict[str, Any] = session.get_scoped_config()
        endpoint = _endpoint(session, scoped)
        resolver = session.get_component("credential_provider")
        for provider in ("env", *(OF_AWS_ALONE if foreign or endpoint else ())):
            resolver.remove(provider)  # what the environment says is in the options
        found = resolver.load_credentials()
    except BotoCoreError as error:
        raise DeniedError(f"{name}: AWS's configuration does not lead to credentials: {error}") from error
    if found is None:
        raise DeniedError(
            f"there are no credentials for {name}",
            hint="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE, or keep them at the DVC remote: "
            "`holdfast remote setup r2|s3 … --credentials FILE`",
        )

    def fresh() -> "S3Credential":
        keys = found.get_frozen_credentials()
        return {
            "access_key_id": keys.access_key,
            "secret_access_key": keys.secret_key,
            "token": keys.token,
            "expires_at": datetime.now(timezone.utc) + FRESH,
        }

    return Settings(fresh, scoped.get("region"), endpoint)


def _static(options: StoreOptions, name: str) -> Settings:
    key, secret, token = options.access_key_id, options.secret_access_key, options.session_token
    if not key or not secret:
        raise DeniedError(f"{name}: access_key_id and secret_access_key go together, and one of them is missing")
    return Settings(
        lambda: {"access_key_id": key, "secret_access_key": secret, "token": token, "expires_at": None},
    )


def _session(options: StoreOptions) -> "Session":
    from botocore.session import Session

    # as botocore has them, without the environment variables that it would look at
    session = Session(session_vars={"profile": (None, None, options.profile, None)})
    for variable, path, usual in (
        ("config_file", options.config_path, "config"),
        ("credentials_file", options.credentials_path, "credentials"),
    ):
        below_home = options.home / ".aws" / usual if options.home else None
        session.set_config_variable(variable, str(path or below_home or os.devnull))
    return session


def _endpoint(session: "Session", scoped: dict[str, Any]) -> str | None:
    """The profile's endpoint for S3: that of its ``services`` section before its general one."""
    services: dict[str, Any] = session.full_config.get("services", {}).get(scoped.get("services"), {})
    endpoint = services.get("s3", {}).get("endpoint_url") if isinstance(services.get("s3"), dict) else None
    return endpoint or scoped.get("endpoint_url")
