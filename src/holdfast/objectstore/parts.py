"""Copies within an S3 bucket of what is too long for one request, by botocore: obstore has no UploadPartCopy."""

from base64 import b64decode
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from holdfast.errors import HoldfastError
from holdfast.objectstore.answers import Place, answered, failure_of
from holdfast.objectstore.parallel import concurrently, interruptibly
from holdfast.objectstore.retry import Retry
from holdfast.objectstore.store import (
    ChangedError,
    NotConnectedError,
    ObjectInfo,
    ObjectNotFoundError,
    RefusedError,
    UnreachableError,
)

if TYPE_CHECKING:
    from obstore.store import S3Credential

    from holdfast.objectstore.options import StoreOptions

Result = TypeVar("Result")

COPY_SINGLE_BYTES = 5 * 1024**3  # the most that S3's CopyObject takes, and R2's
COPY_PART_BYTES = 512 * 1024**2
COPY_JOBS = 8
COPY_BYTES_PER_SECOND = 4 * 1024 * 1024  # a server that copies more slowly is given up
MAX_PARTS = 10_000
MISSING, FAILED_CONDITION = 404, 412
# what a copy in parts has to say again; CopyObject takes it over by itself
KEPT = (
    "ContentType", "CacheControl", "ContentDisposition", "ContentEncoding", "ContentLanguage", "Expires", "Metadata",
)  # fmt: skip


@dataclass(frozen=True)
class PartCopier:
    """Copies an object part by part; all parts are as long but the last, as R2 wants them.

    An upload that cannot be ended is aborted. One whose process is killed stays with the server, unseen, until the
    bucket's rules end it: after 7 days on R2, by a lifecycle rule on S3.

    Args:
        place: the bucket.
        bucket: its name.
        connect: makes a client of botocore, with credentials that are fresh.
        retry: when to ask again.
        encryption: what S3 is to encrypt with, as in `StoreOptions`.
        part_bytes: how long parts are; longer where there would be more than 10,000.
    """

    place: Place
    bucket: str
    connect: Callable[[], Any]
    retry: Retry
    encryption: Mapping[str, str]
    part_bytes: int = COPY_PART_BYTES

    def copy(self, source: ObjectInfo, path: str, goal: str) -> None:
        """Copy the object at ``path``, as ``source`` describes it, to ``goal``: both from the bucket's top.

        Raises:
            ObjectNotFoundError: there is no source.
            ChangedError: the source is no longer that one.
            StoreError: the server will not, or gave no answer.
        """
        # one client a copy, whose credentials may be short-lived
        client = interruptibly(self.connect)
        sealed, opened = self._keys()

        def ask(request: Callable[[], Result]) -> Result:
            return self.retry.run(lambda: self._once(source.key, request))

        there = ask(lambda: client.head_object(Bucket=self.bucket, Key=path, **sealed))
        kept = {name: there[name] for name in KEPT if there.get(name)}
        upload = ask(
            lambda: client.create_multipart_upload(Bucket=self.bucket, Key=goal, **kept, **self._wanted(), **sealed)
        )["UploadId"]
        of_upload = {"Bucket": self.bucket, "Key": goal, "UploadId": upload}
        condition = {"CopySourceIfMatch": source.etag} if source.etag else {}

        def copy_part(number: int) -> dict[str, object]:
            nonlocal condition
            start = (number - 1) * length
            end = min(start + length, source.size)
            part = {
                **of_upload,
                "PartNumber": number,
                "CopySource": {"Bucket": self.bucket, "Key": path},
                "CopySourceRange": f"bytes={start}-{end - 1}",
                **sealed,
                **opened,
            }
            pinned = condition
            try:
                answer = ask(lambda: client.upload_part_copy(**part, **pinned))
            except RefusedError:
                if not pinned:
                    raise
                # R2 takes no condition here; what is refused for another reason is refused again
                condition = {}
                answer = ask(lambda: client.upload_part_copy(**part))
            return {"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]}

        length = part_bytes(source.size, self.part_bytes)
        count = -(-source.size // length)
        try:
            parts = list(concurrently(copy_part, range(1, count + 1), min(COPY_JOBS, count)))
            if source.etag and not condition:
                # nothing held the source still: it is looked at before the copy comes to be
                now = ask(lambda: client.head_object(Bucket=self.bucket, Key=path, **sealed))
                if now["ETag"] != source.etag:
                    raise self._changed(source.key)
            try:
                ask(lambda: client.complete_multipart_upload(**of_upload, MultipartUpload={"Parts": parts}))
            except ObjectNotFoundError:
                # it is gone because an attempt whose answer was lost has completed it
                done = ask(lambda: client.head_object(Bucket=self.bucket, Key=goal, **sealed))
                if done["ContentLength"] != source.size:
                    raise
        except BaseException:
            with suppress(Exception):
                client.abort_multipart_upload(**of_upload)
            raise

    def _once(self, key: str, request: Callable[[], Result]) -> Result:
        return answered(request, lambda error: self._failure(error, key))

    def _failure(self, error: Exception, key: str) -> HoldfastError:
        from botocore.exceptions import BotoCoreError, ClientError, ConnectTimeoutError, EndpointConnectionError

        name = self.place.name(key)
        if isinstance(error, (EndpointConnectionError, ConnectTimeoutError)):
            return NotConnectedError(f"{name}: the server cannot be reached", hint="See the URL and the network")
        if isinstance(error, ClientError):
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            said = error.response.get("Error", {})
            if status == FAILED_CONDITION:
                return self._changed(key)
            text = f"status code: {status} <Code>{said.get('Code')}</Code><Message>{said.get('Message')}</Message>"
            return failure_of(FileNotFoundError(text) if status == MISSING else RuntimeError(text), self.place, key)
        if isinstance(error, BotoCoreError):
            return UnreachableError(f"{name}: the connection broke", hint="Try again later")
        return failure_of(error, self.place, key)

    def _changed(self, key: str) -> ChangedError:
        says = f"{self.place.name(key)} was replaced while it was being copied"
        return ChangedError(says, hint="Run the command again")

    def _wanted(self) -> dict[str, str]:
        """What a new object is encrypted with by the server's own keys."""
        method = self.encryption.get("server_side_encryption", "")
        found = {"ServerSideEncryption": method} if method and method != "sse-c" else {}
        key = self.encryption.get("sse_kms_key_id")
        return {**found, **({"SSEKMSKeyId": key} if key else {})}

    def _keys(self) -> tuple[dict[str, str], dict[str, str]]:
        """The customer's key, where there is one: for what is written or asked for, and for what is copied from."""
        key = self.encryption.get("sse_customer_key_base64")
        if not key:
            return {}, {}
        plain = b64decode(key)  # botocore encodes it again, and adds its md5
        there: dict[str, Any] = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": plain}
        return there, {f"CopySource{name}": value for name, value in there.items()}


def part_bytes(size: int, least: int) -> int:
    """How long the parts of ``size`` bytes are: ``least``, or as many whole MiB as make 10,000 of them at most."""
    mebibyte = 1024 * 1024
    return max(least, -(-size // (MAX_PARTS * mebibyte)) * mebibyte)


def connector(
    options: "StoreOptions", endpoint: str, region: str, credentials: "Callable[[], S3Credential] | None"
) -> Callable[[], Any]:
    """What makes clients of botocore for an S3 server, asking nothing of the environment.

    Args:
        options: how to reach it.
        endpoint: the server's URL.
        region: the bucket's.
        credentials: gives them, fresh; None to ask without.
    """

    def connect() -> Any:
        # a quarter of a second that only copies above 5 GiB need
        from botocore import UNSIGNED
        from botocore.config import Config
        from botocore.session import Session

        keys = credentials() if credentials else None
        session = Session(session_vars={"profile": (None, None, None, None)})
        for variable in ("config_file", "credentials_file"):
            session.set_config_variable(variable, "/dev/null")
        return session.create_client(
            "s3",
            region,
            endpoint_url=endpoint,
            aws_access_key_id=keys["access_key_id"] if keys else None,
            aws_secret_access_key=keys["secret_access_key"] if keys else None,
            aws_session_token=keys.get("token") if keys else None,
            verify=str(options.ca_path) if options.ca_path and options.verify_tls else options.verify_tls,
            config=Config(
                signature_version=UNSIGNED if keys is None else "s3v4",
                s3={"addressing_style": "path"},
                retries={"total_max_attempts": 1},  # `Retry` asks again
                connect_timeout=options.connect_seconds,
                # the server says nothing until it has copied a part
                read_timeout=max(options.stall_seconds, COPY_PART_BYTES / COPY_BYTES_PER_SECOND),
                max_pool_connections=COPY_JOBS,
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    return connect
