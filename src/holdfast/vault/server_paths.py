"""Which path of DVC's HTTP remote is which file.

=============================================  =============================  =====
path                                           oid                            verbs
=============================================  =============================  =====
``/files/md5/<2 hex>/<30 hex>[.dir]``          ``md5:<32 hex>[.dir]``         GET, HEAD, PUT
``/<2 hex>/<30 hex>[.dir]``                    ``md5-dos2unix:…`` (DVC < 3)   GET, HEAD, PUT
``/runs/<2 hex>/<64 hex>/<64 hex>``            ``runs:<64 hex>/<64 hex>``     GET, HEAD
=============================================  =============================  =====

There is one spelling of each: what is percent-encoded, has a query, empty or dotted parts, or is in capitals, is none.
"""

import re

_FILE = re.compile(r"/(?P<md5>files/md5/)?(?P<head>[0-9a-f]{2})/(?P<rest>[0-9a-f]{30}(?:\.dir)?)")
_RUN = re.compile(r"/runs/(?P<head>[0-9a-f]{2})/(?P<key>(?P=head)[0-9a-f]{62})/(?P<value>[0-9a-f]{64})")
_TWISTED = re.compile(r"[^!-~]|[%?#\\]|//|/\.{1,2}(?:/|$)")

# the longest request line that means anything has less; a longer one is refused before it is read
MAX_LINE_BYTES = 1024
RUNS = "runs:"


def oid_of_path(path: str) -> str | None:
    """The oid of the file that a request target names, exactly as it was sent; None of any other."""
    if match := _FILE.fullmatch(path):
        return f"{'md5' if match['md5'] else 'md5-dos2unix'}:{match['head']}{match['rest']}"
    if match := _RUN.fullmatch(path):
        return f"{RUNS}{match['key']}/{match['value']}"
    return None


def is_twisted(path: str) -> bool:
    """Whether a request target is written in a way that no client of ours writes one, but one that wants out does."""
    return not path.startswith("/") or _TWISTED.search(path) is not None
