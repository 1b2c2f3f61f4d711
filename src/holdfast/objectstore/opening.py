"""Stores by their URL."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

from holdfast.errors import UsageError
from holdfast.objectstore.answers import Place
from holdfast.objectstore.bucket import BucketStore, Link
from holdfast.objectstore.credentials import settings
from holdfast.objectstore.folder import FolderStore
from holdfast.objectstore.location import R2_HOST, Location, is_loopback, locate
from holdfast.objectstore.options import StoreOptions
from holdfast.objectstore.parts import PartCopier, connector
from holdfast.objectstore.retry import Retry
from holdfast.objectstore.source import ObjectSource
from holdfast.objectstore.store import InvalidKeyError, ObjectStore, check_key

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig
    from obstore.store import ObjectStore as Client

    Maker: TypeAlias = Callable[[Link, ClientConfig, RetryConfig], Client]

R2_REGION, USUAL_REGION = "auto", "us-east-1"
USER_AGENT = "holdfast"


def open_store(url: str, options: StoreOptions | None = None, *, retry: Retry | None = None) -> ObjectStore:
    """The store that a URL names; nothing is asked of a server yet.

    Args:
        url: ``s3://bucket/folder``, ``r2://account/bucket/folder``, ``gs://…``, ``az://container/folder``,
            ``file:///folder``, ``memory://`` (a new one), or a path. Keys are relative to the folder.
        options: how to reach it and as whom.
        retry: when to ask again.

    Raises:
        UsageError: the URL is of no store, or the options do not go with it.
        DeniedError: there are no credentials.
    """
    location = locate(url)
    return _opened(location, location.path, options or StoreOptions(), retry or Retry())


def open_object(url: str, options: StoreOptions | None = None, *, retry: Retry | None = None) -> ObjectSource:
    """The object that a URL names, to be read in parts. It is asked for once.

    Raises:
        UsageError: the URL is of no object, or the options do not go with it.
        ObjectNotFoundError: there is no such object.
        StoreError: it cannot be reached.
    """
    location = locate(url)
    if location.scheme == "file":
        folder, _, key = location.path.rpartition("/")
        return ObjectSource(FolderStore(Path(folder or "/")), check_key(key))
    if not location.path or url.endswith("/"):
        hint = f"`holdfast scan {url}` lists what is in it"
        raise InvalidKeyError(f"{url} names a folder, and an object is wanted", hint=hint)
    store = _opened(location, "", options or StoreOptions(), retry or Retry())
    return ObjectSource(store, check_key(location.path))


def _opened(location: Location, prefix: str, options: StoreOptions, retry: Retry) -> ObjectStore:
    if location.scheme == "file":
        return FolderStore(Path(prefix))
    if prefix:
        check_key(prefix)
    if location.scheme == "memory":
        return BucketStore(Place("memory://", prefix), _memory(), retry)
    if location.scheme == "s3":
        make, server, link_parts = _s3(location, options)
    else:
        make, server = {"gs": _google, "az": _azure}[location.scheme](location, options)
        link_parts = None

    def connect(link: Link) -> "Client":
        return make(link, _client_options(link, options, server), _retry_config(link, retry))

    place = Place(location.written, prefix, urlsplit(server).netloc)
    copier = PartCopier(place, location.bucket, link_parts, retry, options.encryption) if link_parts else None
    return BucketStore(place, connect, retry, options.stall_seconds, copier)


def _s3(location: Location, options: StoreOptions) -> "tuple[Maker, str, Callable[[], Any]]":
    from obstore.store import S3Store

    endpoint = location.endpoint or options.endpoint
    keys = None if options.anonymous else settings(options, location.written, foreign=bool(endpoint))
    endpoint = endpoint or (keys.endpoint if keys else None)
    r2 = bool(endpoint) and (urlsplit(endpoint or "").hostname or "").endswith(R2_HOST)
    region = options.region or (keys.region if keys else None) or USUAL_REGION
    if r2:
        region = R2_REGION
        if options.encryption or options.sent_by_obstore:
            what = options.sent_by_obstore[0] if options.sent_by_obstore else "sse"
            raise UsageError(f"{location.written}: R2 takes no {what}", hint="Unset it: R2 does that by itself")
    if not endpoint:
        endpoint = f"https://s3.{region}.amazonaws.com{'.cn' if region.startswith('cn-') else ''}"
    config: dict[str, Any] = {
        "region": region,
        # both, since obstore would let AWS_ENDPOINT_URL_S3 win over the first
        "endpoint": endpoint,
        "aws_endpoint_url_s3": endpoint,
        "virtual_hosted_style_request": False,
        "skip_signature": options.anonymous,
        # TLS carries what is sent whole, and on this machine nothing lies between; else the signature does, for 0.4 s
        # a GB
        "unsigned_payload": endpoint.startswith("https:") or is_loopback(urlsplit(endpoint).hostname or ""),
        **options.encryption,
    }

    def make(link: Link, client: "ClientConfig", retry: "RetryConfig") -> "Client":
        return S3Store(
            location.bucket,
            config={**config, "disable_bulk_delete": not link.bulk_delete},  # type: ignore[arg-type]
            client_options=client,
            retry_config=retry,
            credential_provider=keys.credentials if keys else None,
        )

    return make, endpoint, connector(options, endpoint, region, keys.credentials if keys else None)


def _google(location: Location, options: StoreOptions) -> "tuple[Maker, str]":
    from obstore.store import GCSStore

    config: dict[str, Any] = {}
    if options.service_account_path:
        config["service_account"] = str(options.service_account_path)
    if options.anonymous:
        config["skip_signature"] = True

    def make(link: Link, client: "ClientConfig", retry: "RetryConfig") -> "Client":  # noqa: ARG001 - one form for all
        return GCSStore(location.bucket, config=config, client_options=client, retry_config=retry)  # type: ignore[arg-type]

    return make, "https://storage.googleapis.com"


def _azure(location: Location, options: StoreOptions) -> "tuple[Maker, str]":
    from obstore.store import AzureStore

    config: dict[str, Any] = {
        "account_name": options.account_name,
        "account_key": options.account_key,
        "sas_token": options.sas_token,
        "skip_signature": options.anonymous,
    }
    config = {name: value for name, value in config.items() if value}

    def make(link: Link, client: "ClientConfig", retry: "RetryConfig") -> "Client":  # noqa: ARG001 - one form for all
        return AzureStore(location.bucket, config=config, client_options=client, retry_config=retry)  # type: ignore[arg-type]

    return make, f"https://{options.account_name}.blob.core.windows.net" if options.account_name else ""


def _memory() -> "Callable[[Link], Client]":
    from obstore.store import MemoryStore

    store = MemoryStore()
    return lambda _: store


def _client_options(link: Link, options: StoreOptions, server: str) -> "ClientConfig":
    config: ClientConfig = {
        "allow_http": server.startswith("http:"),
        "allow_invalid_certificates": not options.verify_tls,
        "connect_timeout": timedelta(seconds=options.connect_seconds),
        "timeout": timedelta(seconds=link.seconds),
        "user_agent": USER_AGENT,
    }
    if link.stall_seconds is not None:
        config["read_timeout"] = timedelta(seconds=link.stall_seconds)
    if options.ca_path:
        config["root_certificate"] = options.ca_path.read_bytes()
    return config


def _retry_config(link: Link, retry: Retry) -> "RetryConfig":
    return {
        "max_retries": retry.attempts - 1 if link.retried else 0,
        "retry_timeout": timedelta(seconds=retry.limit_seconds),
        "backoff": {
            "init_backoff": timedelta(seconds=retry.first_seconds),
            "max_backoff": timedelta(seconds=retry.longest_seconds),
        },
    }
