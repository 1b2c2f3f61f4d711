"""What a URL of a store, or of an object in one, names."""

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from holdfast.errors import UsageError

URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>.*)", re.DOTALL)
SCHEMES = {
    "s3": "s3", "s3a": "s3", "r2": "r2", "gs": "gs", "gcs": "gs", "az": "az", "azure": "az", "file": "file",
    "memory": "memory",
}  # fmt: skip
R2_HOST = ".r2.cloudflarestorage.com"
BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
EXAMPLES = "Name s3://BUCKET/FOLDER, r2://ACCOUNT/BUCKET/FOLDER, gs://…, az://CONTAINER/FOLDER, file:///… or a folder"


@dataclass(frozen=True)
class Location:
    """What a URL names.

    Attributes:
        scheme: ``s3``, ``gs``, ``az``, ``file`` or ``memory``.
        bucket: the bucket or container; empty for ``file`` and ``memory``.
        path: what follows, without slashes at its ends; for ``file`` an absolute path.
        endpoint: the server, where the URL says it.
        written: the bucket as the URL has it, for messages.
    """

    scheme: str
    bucket: str
    path: str
    endpoint: str | None = None
    written: str = ""


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, and nobody else reaches a server that listens there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_url(name: str) -> bool:
    """Whether a name is a URL, of whatever scheme, and no path."""
    return URL.fullmatch(name) is not None


def locate(url: str) -> Location:
    """Take a URL of a store, a folder in it or an object apart. Without a scheme, it is a path of this machine.

    Raises:
        UsageError: the scheme is unknown, or there is no bucket in it.
    """
    match = URL.fullmatch(url)
    if match is None:
        return Location("file", "", str(Path(url).absolute()))
    scheme, rest = match["scheme"].lower(), match["rest"]
    if "@" in rest.split("/")[0]:
        raise UsageError(f"credentials do not belong into a URL ({scheme}://…)", hint="Keep them in the environment")
    if scheme == "https":
        return _of_r2(url, rest)
    kind = SCHEMES.get(scheme)
    if kind is None:
        raise UsageError(f"{url}: objects of {scheme}:// cannot be read", hint=EXAMPLES)
    if kind == "memory":
        return Location("memory", "", rest.strip("/"))
    if kind == "file":
        if not rest.startswith("/"):
            raise UsageError(f"{url}: a file URL has three slashes and an absolute path", hint=EXAMPLES)
        return Location("file", "", unquote(rest))
    account = ""
    if kind == "r2":
        account, _, rest = rest.partition("/")
    bucket, _, path = rest.partition("/")
    if not BUCKET.fullmatch(bucket) or (kind == "r2" and not BUCKET.fullmatch(account)):
        raise UsageError(f"{url} names no bucket", hint=EXAMPLES)
    if kind == "r2":
        return Location("s3", bucket, path.strip("/"), f"https://{account}{R2_HOST}", f"r2://{account}/{bucket}")
    return Location(kind, bucket, path.strip("/"), None, f"{scheme}://{bucket}")


def _of_r2(url: str, rest: str) -> Location:
    """As Cloudflare's dashboard shows it: ``https://<account>.r2.cloudflarestorage.com/<bucket>``."""
    host, _, rest = rest.partition("/")
    bucket, _, path = rest.partition("/")
    if not host.endswith(R2_HOST) or not BUCKET.fullmatch(bucket):
        raise UsageError(f"{url}: of https:// URLs, only those of R2's buckets are known", hint=EXAMPLES)
    return Location("s3", bucket, path.strip("/"), f"https://{host}", f"https://{host}/{bucket}")
