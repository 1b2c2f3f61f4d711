"""Whose requests they are and what they may do: each refusal as a finding that names its cause."""

from collections.abc import Iterator

from holdfast.errors import HoldfastError
from holdfast.objectstore.doctor_configuration import Subject
from holdfast.objectstore.findings import Finding
from holdfast.objectstore.probe_s3 import (
    DENIED,
    EXPIRED,
    NO_BUCKET,
    SKEWED,
    WRONG_KEY,
    WRONG_REGION,
    WRONG_SECRET,
    AnswerError,
    S3Probe,
)
from holdfast.objectstore.store import BucketNotFoundError, UnreachableError

R2_TOKENS = "https://dash.cloudflare.com/?to=/:account/r2/api-tokens"


def check_access(subject: Subject, probe: S3Probe) -> list[Finding]:
    """Whether the credentials are right, what they may, and what of S3 the server takes.

    Args:
        subject: the remote.
        probe: asks its server.
    """
    return list(_access(subject, probe))


def denial(subject: Subject, error: HoldfastError) -> Finding:
    """A refusal as a finding: what is wrong, and what mends it."""
    if isinstance(error, BucketNotFoundError):
        return _no_bucket(subject)
    if not isinstance(error, AnswerError):
        return Finding("credentials", "fault", error.message, error.hint or f"`{subject.setup}`")
    said = f"{error.status} {error.code}"
    name = subject.name or "NAME"
    if error.code in WRONG_KEY:
        says = f"the server does not know this access key id ({said})"
        return Finding("credentials", "fault", says, _renewal(subject))
    if error.code in WRONG_SECRET:
        says = f"the secret is not the one of this access key id ({said})"
        return Finding("credentials", "fault", says, _renewal(subject))
    if error.code in EXPIRED:
        says = f"the session token has expired ({said})"
        return Finding("credentials", "fault", says, f"Log in again, or `{subject.setup} --credentials FILE`")
    if error.code in SKEWED:
        says = f"the server refuses what was signed by this machine's clock ({said})"
        return Finding("clock", "fault", says, "`sudo timedatectl set-ntp true`, or set the clock by hand")
    if error.code in NO_BUCKET:
        return _no_bucket(subject)
    if error.code in WRONG_REGION:
        region = "auto" if subject.r2 else "REGION"
        says = f"the bucket is not in the region that is configured ({said})"
        return Finding("configuration", "fault", says, f"`dvc remote modify {name} region {region}`")
    return Finding("credentials", "fault", error.message, _renewal(subject))


def _access(subject: Subject, probe: S3Probe) -> Iterator[Finding]:
    try:
        keys = probe.list_some()
    except AnswerError as error:
        if error.code in DENIED:
            yield _permission(subject, f"the key may not list the bucket ({error.status} {error.code})")
        else:
            yield denial(subject, error)
        return
    except UnreachableError as error:
        yield Finding("server", "fault", error.message, error.hint or "Try again later")
        return
    yield Finding("credentials", "ok", "the server knows the key, and its secret is right")
    try:
        probe.put("plain", "when_required")
    except AnswerError as error:
        yield _unwritten(subject, probe, keys, error)
        return
    except UnreachableError as error:
        yield Finding("server", "fault", error.message, error.hint or "Try again later")
        return
    except HoldfastError as error:
        yield denial(subject, error)
        return
    if probe.lists_buckets():
        says = "the key may list, read, write and delete; it may list all buckets, too, which no remote needs"
        yield Finding("permissions", "note", says, f"Enough is {_key(subject)}")
    else:
        yield Finding("permissions", "ok", "the key may list, read, write and delete here, and not see other buckets")
    yield _checksums(subject, probe)
    yield from _habits(probe)


def _unwritten(subject: Subject, probe: S3Probe, keys: list[str], error: AnswerError) -> Finding:
    if error.code not in DENIED:
        return denial(subject, error)
    may = "list"
    if keys:
        try:
            probe.read_some(keys[0])
            may = "list and read"
        except HoldfastError:
            may = "list alone"
    return _permission(subject, f"the key may {may}, and not write or delete ({error.status} {error.code})")


def _permission(subject: Subject, says: str) -> Finding:
    return Finding("permissions", "fault", says, _renewal(subject))


def _checksums(subject: Subject, probe: S3Probe) -> Finding:
    """Whether what boto sends on its own account is taken, and if not, whether DVC is told not to."""
    setting = subject.checksums
    refused = ""
    try:
        probe.put("checksums", "when_supported")
    except AnswerError as error:
        refused = f"{error.status} {error.code}"
    except HoldfastError as error:
        return Finding("checksums", "note", f"could not be tried: {error.message}")
    if setting is None or setting.quiet:
        says = f"refuses the checksums that boto adds ({refused})" if refused else "takes the checksums that boto adds"
        return Finding(
            "checksums", "ok", f"the server {says}; DVC sends none, by {setting.origin if setting else 'none'}"
        )
    lines = " and ".join(f"`{line}`" for line in setting.missing)
    missing = f"{setting.origin} lacks {lines}"
    if refused:
        says = f"the server refuses the checksums that boto adds ({refused}), and {missing}: `dvc push` fails for it"
        return Finding("checksums", "fault", says, f"`{subject.setup}`")
    if subject.r2:
        return Finding(
            "checksums", "warning", f"R2 refuses boto's checksums at times, and {missing}", f"`{subject.setup}`"
        )
    return Finding("checksums", "ok", "the server takes the checksums that boto adds")


def _habits(probe: S3Probe) -> Iterator[Finding]:
    try:
        probe.delete_together()
    except AnswerError as error:
        says = f"deletions by one request are refused ({error.status} {error.code}): `dvc gc -c` fails here"
        yield Finding("deletions", "note", says, "`holdfast gc plan --scope remote` and `gc apply` delete one by one")
    except HoldfastError as error:
        yield Finding("deletions", "note", f"deletions by one request could not be tried: {error.message}")
    else:
        yield Finding("deletions", "ok", "several objects are deleted by one request")
    try:
        waited = probe.write_twice()
    except HoldfastError as error:
        yield Finding("rewrites", "note", f"an object could not be written twice: {error.message}")
        return
    says = "one key is written once a second: a second write was put off (429), and went through"
    yield Finding("rewrites", "ok", says if waited else "one key may be written again at once")


def _no_bucket(subject: Subject) -> Finding:
    bucket = subject.location.bucket
    says = f"there is no bucket {bucket} at {subject.endpoint}"
    if subject.r2:
        place = subject.endpoint.partition("//")[2].split(".")[1]
        where = f" --jurisdiction {place}" if place in ("eu", "fedramp") else ""
        hint = "" if where else "; one of a jurisdiction is only found with `--jurisdiction eu`"
        return Finding("bucket", "fault", says, f"`npx wrangler r2 bucket create {bucket}{where}`{hint}")
    server = f" --endpoint-url {subject.endpoint}" if subject.section.get("endpointurl") else ""
    return Finding("bucket", "fault", says, f"`aws s3 mb s3://{bucket}{server}`, or mend its name: `dvc remote list`")


def _renewal(subject: Subject) -> str:
    """How to come by keys that are right, without a shell that remembers them."""
    return f"Make {_key(subject)}, write its two keys to FILE, and `{subject.setup} --credentials FILE`"


def _key(subject: Subject) -> str:
    if subject.r2:
        return f"a token with Object Read & Write for {subject.location.bucket} ({R2_TOKENS})"
    return f"a key that may list, read, write and delete in {subject.location.bucket}"
