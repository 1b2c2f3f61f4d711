"""YAML that nests too deeply is refused before it is read: libyaml's reader recurses in C and would end the process."""

import re

import yaml

MAX_DEPTH = 200  # far beyond what people write; the C stack bears thousands
# fewer brackets than this, and no line that begins with so many levels, cannot nest deeper
_BRACKET = re.compile(rb"[\[{]")
_LONG_PREFIX = re.compile(rb"^[ \-?:\t]{%d,}" % MAX_DEPTH, re.MULTILINE)


class TooDeepError(ValueError):
    """The document nests deeper than `MAX_DEPTH`."""


def check_nesting(data: bytes) -> None:
    """Raise a `TooDeepError` where the YAML document in ``data`` nests deeper than `MAX_DEPTH`.

    Most documents are cleared by a look at their brackets and indentation; the others are parsed into events, which
    takes no recursion. What is no YAML passes, for the reader to say so.
    """
    if len(_BRACKET.findall(data)) < MAX_DEPTH and not _LONG_PREFIX.search(data):
        return
    depth = 0
    try:
        for event in yaml.parse(data, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            if isinstance(event, (yaml.CollectionStartEvent, yaml.CollectionEndEvent)):
                depth += 1 if isinstance(event, yaml.CollectionStartEvent) else -1
                if depth > MAX_DEPTH:
                    line = event.start_mark.line + 1 if event.start_mark else 1
                    raise TooDeepError(f"it nests deeper than {MAX_DEPTH} levels, in line {line}")
    except yaml.YAMLError:
        return
