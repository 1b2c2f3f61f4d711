"""What a bucket is given once: a folder for each domain, an end for unfinished uploads, a lock on releases."""

import base64
import hashlib
import http.client
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import quote, urlsplit

from holdfast.errors import UsageError
from holdfast.objectstore.probe import Trial
from holdfast.objectstore.probe_s3 import DENIED, AnswerError, S3Probe, probe_of
from holdfast.objectstore.store import DeniedError, ObjectStore, RefusedError, UnreachableError

Outcome = Literal["made", "there", "not allowed", "not known"]

MARKER = ".keep"
UPLOAD_RULE, LOCK_RULE = "holdfast-unfinished-uploads", "holdfast-releases"
UPLOAD_DAYS = 7  # as R2 does by itself
CLOUDFLARE = "https://api.cloudflare.com/client/v4"
LOCKED_PREFIX = "releases/"
ANSWER_LIMIT = 4 * 1024 * 1024
NOT_FOUND_CODES = frozenset({"NoSuchLifecycleConfiguration"})
UNKNOWN_CODES = frozenset({"NotImplemented", "MethodNotAllowed", "501", "405", "MalformedXML"})


@dataclass(frozen=True)
class Cloudflare:
    """Cloudflare's own API, for what S3's cannot say.

    Args:
        account: the account's id.
        bucket: its name.
        token: never shown.
        jurisdiction: of the bucket; empty for none.
        base: the API's URL.
    """

    account: str
    bucket: str
    token: str = field(repr=False)
    jurisdiction: str = ""
    base: str = CLOUDFLARE

    def lock_releases(self, days: int) -> Outcome:
        """Let nothing below ``releases/`` be replaced or deleted for so many days; other rules stay as they are.

        Raises:
            DeniedError: the token does not allow it.
            StoreError: the API refuses, or gives no answer.
        """
        rules = list((self._ask("GET") or {}).get("rules") or [])
        wanted = {
            "id": LOCK_RULE,
            "enabled": True,
            "prefix": LOCKED_PREFIX,
            "condition": {"type": "Age", "maxAgeSeconds": days * 86400},
        }
        if wanted in rules:
            return "there"
        kept = [rule for rule in rules if rule.get("id") != LOCK_RULE]
        self._ask("PUT", {"rules": [*kept, wanted]})
        return "made"

    def _ask(self, method: str, body: Any = None) -> Any:
        parts = urlsplit(self.base)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=30)
        path = f"{parts.path}/accounts/{quote(self.account)}/r2/buckets/{quote(self.bucket)}/lock"
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        if self.jurisdiction:
            headers["cf-r2-jurisdiction"] = self.jurisdiction
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            text, status = answer.read(ANSWER_LIMIT), answer.status
        except (OSError, http.client.HTTPException) as error:
            raise UnreachableError(
                f"{parts.hostname} gives no answer ({type(error).__name__})", hint="Try again later"
            ) from None
        finally:
            connection.close()
        if status in (401, 403):
            raise DeniedError(
                f"Cloudflare's API refuses the token ({status})",
                hint="A token that may edit R2's configuration: https://dash.cloudflare.com/profile/api-tokens",
            )
        try:
            said = json.loads(text)
            if status != 200 or not said.get("success", False):
                codes = ", ".join(str(item.get("code")) for item in said.get("errors") or [])
                raise RefusedError(f"Cloudflare's API refuses the lock rule ({status}, codes {codes or 'none'})")
            return said.get("result")
        except (ValueError, AttributeError):
            raise UnreachableError(f"{parts.hostname} answers with what is no JSON ({status})") from None


def make_layout(store: ObjectStore, domains: Sequence[str]) -> dict[str, Outcome]:
    """Make each domain's folder visible by an empty object ``.keep``; what is there stays.

    Raises:
        StoreError: the store refuses, or gives no answer.
    """
    return {f"{domain}/": "made" if store.put_if_absent(f"{domain}/{MARKER}", b"") else "there" for domain in domains}


def end_uploads(store: ObjectStore, days: int = UPLOAD_DAYS) -> Outcome:
    """Have the server end uploads that were not finished within so many days; other rules stay as they are.

    Raises:
        UsageError: the store is no bucket of S3's kind.
        StoreError: the server gives no answer.
    """
    probe = probe_of(store, Trial(""))
    if probe is None:
        raise UsageError(f"{store.url} has no rules for uploads")
    try:
        return _end_uploads(probe, days)
    except AnswerError as error:
        if error.code in DENIED:
            return "not allowed"
        if error.code in UNKNOWN_CODES:
            return "not known"
        raise


def _end_uploads(probe: S3Probe, days: int) -> Outcome:
    client = probe.connect()
    # botocore would send a CRC32, which R2 refuses; the md5 that S3 has always wanted serves as well
    client.meta.events.register("before-call.s3.PutBucketLifecycleConfiguration", _with_md5)
    try:
        found = probe.ask_once(lambda: client.get_bucket_lifecycle_configuration(Bucket=probe.bucket))
        rules = list(found.get("Rules", []))
    except AnswerError as error:
        if error.code not in NOT_FOUND_CODES:
            raise
        rules = []
    if any(_ends_uploads(rule, days) for rule in rules):
        return "there"
    rule = {
        "ID": UPLOAD_RULE,
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": days},
    }
    kept = [item for item in rules if item.get("ID") != UPLOAD_RULE]
    probe.ask_once(
        lambda: client.put_bucket_lifecycle_configuration(
            Bucket=probe.bucket, LifecycleConfiguration={"Rules": [*kept, rule]}
        )
    )
    return "made"


def _ends_uploads(rule: Any, days: int) -> bool:
    """Whether a rule does it already for the whole bucket, as R2's own does."""
    prefix = rule.get("Filter", {}).get("Prefix", rule.get("Prefix", ""))
    after = rule.get("AbortIncompleteMultipartUpload", {}).get("DaysAfterInitiation")
    return rule.get("Status") == "Enabled" and prefix == "" and after is not None and int(after) <= days


def _with_md5(params: Any, **_: Any) -> None:
    params.get("context", {}).pop("checksum", None)
    body = params["body"]
    digest = hashlib.md5(body if isinstance(body, bytes) else body.encode(), usedforsecurity=False).digest()
    params["headers"]["Content-MD5"] = base64.b64encode(digest).decode()
