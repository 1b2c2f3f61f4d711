"""What an S3 server says to requests of botocore, the library that DVC speaks through: who we are, and what we may."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from holdfast.errors import HoldfastError
from holdfast.objectstore.answers import PASSING_CODES, THROTTLED_CODES
from holdfast.objectstore.probe import Trial, WatchedRetry
from holdfast.objectstore.retry import Retry
from holdfast.objectstore.store import RefusedError, ThrottledError, UnreachableError

Result = TypeVar("Result")
Checksums = Literal["when_required", "when_supported"]

NOT_IMPLEMENTED, THROTTLED, SERVER = 501, 429, 500
WRONG_KEY = frozenset({"InvalidAccessKeyId", "Unauthorized", "401", "UnrecognizedClientException"})
WRONG_SECRET = frozenset({"SignatureDoesNotMatch"})
SKEWED = frozenset({"RequestTimeTooSkewed", "RequestExpired"})
EXPIRED = frozenset({"ExpiredToken", "TokenRefreshRequired", "InvalidToken"})
NO_BUCKET = frozenset({"NoSuchBucket"})
WRONG_REGION = frozenset(
    {
        "AuthorizationHeaderMalformed",
        "InvalidRegionName",
        "PermanentRedirect",
        "301",
        "IllegalLocationConstraintException",
    }
)
DENIED = frozenset({"AccessDenied", "Forbidden", "403", "AllAccessDisabled"})


class AnswerError(RefusedError):
    """The server understood and refused.

    Args:
        code: S3's word for why.
        status: of HTTP.
        says: the server's own words.
    """

    def __init__(self, code: str, status: int, says: str) -> None:
        super().__init__(f"the server refuses: {status} {code}{f': {says}' if says else ''}")
        self.code, self.status, self.says = code, status, says


@dataclass(frozen=True)
class S3Probe:
    """Requests of botocore, counted by a trial.

    Args:
        connect: makes a client that sends checksums only where S3 wants them.
        bucket: the bucket's name.
        prefix: the remote's folder in it.
        trial: counts, and says which folder is its own.
        retry: when to ask again.
    """

    connect: Callable[[], Any]
    bucket: str
    prefix: str
    trial: Trial
    retry: Retry

    def list_some(self) -> list[str]:
        """Up to ten keys of the remote, from the top of the bucket.

        Raises:
            AnswerError: the server refuses; its code says why.
            UnreachableError: no answer, after all attempts.
        """
        client = self.connect()
        page = self._ask("list", lambda: client.list_objects_v2(Bucket=self.bucket, Prefix=self._path(""), MaxKeys=10))
        return [str(item["Key"]) for item in page.get("Contents", [])]

    def read_some(self, key: str) -> None:
        """Read at most one byte of an object; the key is from the bucket's top.

        Raises:
            AnswerError: the server refuses.
        """
        client = self.connect()
        with suppress(EmptyObjectError):
            self._ask("get", lambda: client.get_object(Bucket=self.bucket, Key=key, Range="bytes=0-0")["Body"].read())

    def lists_buckets(self) -> bool:
        """Whether these credentials may list all buckets, which nobody needs for one."""
        client = self.connect()
        try:
            self._ask("list", client.list_buckets)
        except HoldfastError:
            return False
        return True

    def put(self, name: str, checksums: Checksums) -> None:
        """Write, read and delete an object as botocore does with that setting.

        Raises:
            AnswerError: the server refuses.
        """
        client = with_checksums(self.connect(), checksums)
        key, body = self.trial.key(name), b"a few bytes of a doctor's"
        of = {"Bucket": self.bucket, "Key": self._path(key)}
        self._ask("put", lambda: client.put_object(**of, Body=body), key=key)
        found = self._ask("get", lambda: client.get_object(**of)["Body"].read())
        if found != body:
            raise AnswerError("OtherBytes", 200, "other bytes came back than were written")
        self._ask("delete", lambda: client.delete_object(**of))

    def delete_together(self, count: int = 3) -> None:
        """Delete several objects by one request, as DVC does.

        Raises:
            AnswerError: the server refuses, or could not delete one.
        """
        client = self.connect()
        keys = [self.trial.key(f"together/{number}") for number in range(count)]
        for key in keys:
            self._ask("put", lambda: client.put_object(Bucket=self.bucket, Key=self._path(key), Body=b""), key=key)  # noqa: B023
        doomed = {"Objects": [{"Key": self._path(key)} for key in keys], "Quiet": True}
        answer = self._ask("delete", lambda: client.delete_objects(Bucket=self.bucket, Delete=doomed))
        for error in answer.get("Errors", []):
            raise AnswerError(str(error.get("Code")), 200, str(error.get("Message", "")))

    def write_twice(self) -> bool:
        """Write one key twice at once; whether the server asked for patience (429) before it took the second.

        Raises:
            AnswerError: the server refuses.
        """
        client, key = self.connect(), self.trial.key("twice")
        waited = False
        for body in (b"1", b"2"):

            def put(body: bytes = body) -> None:
                nonlocal waited
                try:
                    self._once(lambda: client.put_object(Bucket=self.bucket, Key=self._path(key), Body=body))
                except ThrottledError:
                    waited = True
                    raise

            self.trial.ask("put", lambda: self.retry.run(put), key=key)
        found = self._ask("get", lambda: client.get_object(Bucket=self.bucket, Key=self._path(key))["Body"].read())
        if found != b"2":
            raise AnswerError("OtherBytes", 200, "the first write is there, and not the second")
        return waited

    def abort_uploads(self, folder: str) -> None:
        """End the unfinished uploads below a folder of the remote; also works when the trial was stopped.

        Raises:
            HoldfastError: the server refuses, or gives no answer.
        """
        client = self.connect()
        page = self._once(lambda: client.list_multipart_uploads(Bucket=self.bucket, Prefix=self._path(folder)))
        for upload in page.get("Uploads", []):
            of = {"Bucket": self.bucket, "Key": upload["Key"], "UploadId": upload["UploadId"]}
            self._once(lambda: client.abort_multipart_upload(**of))  # noqa: B023 - called at once

    def ask_once(self, request: Callable[[], Result]) -> Result:
        """An answer to a request that is none of the trial's, asked for as often as it takes.

        Raises:
            AnswerError: the server refuses.
            UnreachableError: no answer, after all attempts.
        """
        return self.retry.run(lambda: self._once(request))

    def _path(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    def _ask(self, verb: str, request: Callable[[], Any], *, key: str = "") -> Any:
        return self.trial.ask(verb, lambda: self.retry.run(lambda: self._once(request)), key=key)

    def _once(self, request: Callable[[], Result]) -> Result:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return request()
        except ClientError as error:
            raise _answer(error.response) from None
        except BotoCoreError as error:
            raise UnreachableError(
                f"{self.bucket}: no answer ({type(error).__name__})", hint="Try again later"
            ) from None


class EmptyObjectError(AnswerError):
    """An empty object has no first byte: reading it is allowed all the same."""


def with_checksums(client: Any, checksums: Checksums) -> Any:
    """A client as ``client``, but for when it sends checksums.

    botocore reads the setting from the client's own configuration at each request.
    """
    client.meta.config.request_checksum_calculation = checksums
    client.meta.config.response_checksum_validation = checksums
    return client


def probe_of(store: Any, trial: Trial, *, watched: bool = True) -> S3Probe | None:
    """A probe of the bucket that a store is over; None where that is none of S3's."""
    copier = getattr(store, "copier", None)
    if copier is None:
        return None
    retry = WatchedRetry(trial=trial) if watched else Retry()
    return S3Probe(copier.connect, copier.bucket, copier.place.prefix, trial, retry)


def _answer(response: Any) -> HoldfastError:
    said, meta = response.get("Error", {}), response.get("ResponseMetadata", {})
    status, code = int(meta.get("HTTPStatusCode", 0)), str(said.get("Code", ""))
    # its first line alone: some servers repeat the request behind it
    says = " ".join(str(said.get("Message", "")).split("\n")[0].split())[:200]
    if status == THROTTLED or code in THROTTLED_CODES:
        return ThrottledError(f"the store asks for fewer requests ({status} {code}: {says})", hint="Try again later")
    if (status >= SERVER and status != NOT_IMPLEMENTED) or code in PASSING_CODES:
        return UnreachableError(f"the store has a fault of its own ({status} {code}: {says})", hint="Try again later")
    if code == "InvalidRange":
        return EmptyObjectError(code, status, says)
    return AnswerError(code or str(status), status, says)
