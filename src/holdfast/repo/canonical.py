"""DVC's own form of ``dvc.lock`` and ``*.dvc`` files, read without a YAML reader.

DVC writes these files itself, nearly always in one form, and a history has thousands of them that differ in a line.
What is read here is that form and nothing else: whatever deviates by one character is left to the YAML reader.
"""

import re
from functools import lru_cache
from typing import NamedTuple

_HEADER = b"schema: '2.0'\nstages:\n"
_STAGE = re.compile(rb"  [A-Za-z0-9_][A-Za-z0-9_.@-]*")
_COMMAND_LINE = b"    cmd: "
_STAGE_END = b":\n" + _COMMAND_LINE  # between a stage's name and its command
# what the YAML reader would not take for a string
_NO_STRINGS = frozenset(b"true True TRUE false False FALSE null Null NULL ~ <<".split())
_PATH_CHARACTER = rb"[A-Za-z0-9_./@=+,()~-]"
_PATH = rb"(?!(?:true|True|TRUE|false|False|FALSE|null|Null|NULL)\n)[A-Za-z0-9_./](?:%s| (?=%s))*" % (
    _PATH_CHARACTER,
    _PATH_CHARACTER,
)
_MD5 = rb"(?:[0-9a-f]{32}(?:\.dir)?|'[0-9a-f]{32}(?:\.dir)?')"
_COUNTS = rb"(?:%(indent)ssize: (?P<size>[0-9]+)\n)?(?:%(indent)snfiles: (?P<nfiles>[0-9]+)\n)?"
_EXECUTABLE = rb"(?:%(indent)sisexec: true\n)?"
# one line of a command, or of what follows where it is folded: never read, but it must be plain text to YAML too
_TEXT = rb"[A-Za-z0-9_./$(+=^;](?:(?!: |:\n| #)[ -~])*"
_LATER_TEXT = rb"(?:(?!: |:\n| #)[!-~])(?:(?!: |:\n| #)[ -~])*"
_QUOTED = rb"'(?:[ -&(-~]|'')*'"
_COMMAND = rb"(?:%s(?:\n      (?!- |-\n|\? )%s)*|%s)" % (_TEXT, _LATER_TEXT, _QUOTED)
_VALUE = rb"(?:%s|\"[ !#-\[\]-~]*\"|\[\]|\{\}|-?[A-Za-z0-9_./+](?:(?!: |:\n| #)[ -~])*)" % _QUOTED


def _filled(pattern: bytes, indent: bytes) -> bytes:
    return pattern % {b"indent": indent}


_LOCK_ENTRY_TEXT = (
    rb"    - path: (?P<path>%s)\n" % _PATH
    + rb"(?:      hash: (?P<hash>md5)\n)?      md5: (?P<md5>%s)\n" % _MD5
    + _filled(_COUNTS + _EXECUTABLE, b"      ")
)
_LOCK_ENTRY = re.compile(_LOCK_ENTRY_TEXT)
_ANONYMOUS_ENTRY = re.sub(rb"\?P<[a-z0-9]+>", b"?:", _LOCK_ENTRY_TEXT)
_HEAD = re.compile(
    rb"    cmd: %s\n(?:    deps:\n(?:%s)+)?(?:    params:\n(?P<params>(?:      [^\n]*\n)+))?"
    % (_COMMAND, _ANONYMOUS_ENTRY)
)
_OUTS_LINE = b"\n    outs:\n"
_PARAM = re.compile(rb"( +)(?:([A-Za-z0-9_][A-Za-z0-9_./-]*):(?: (%s))?|- (?:%s))\n" % (_VALUE, _VALUE))
_DVC_ENTRY_TEXT = (
    rb"- md5: (?P<md5>%s)\n" % _MD5
    + _filled(_COUNTS + _EXECUTABLE, b"  ")
    + rb"(?:  hash: (?P<hash>md5)\n)?  path: (?P<path>%s)\n" % _PATH
)
_DVC_ENTRY = re.compile(_DVC_ENTRY_TEXT)


class Entry(NamedTuple):
    """An out as the file has it; no dataclass, since tens of thousands are made of a history.

    Args:
        path: from the file's folder, or the stage's.
        oid: ``<md5>`` or ``<md5>.dir``.
        hashed: whether ``hash: md5`` stands beside it.
        size: bytes, where recorded.
        nfiles: files in the folder, where recorded.
    """

    path: str
    oid: str
    hashed: bool
    size: int | None
    nfiles: int | None


def split_lock(data: bytes) -> list[tuple[str, bytes]] | None:
    """The stages of a ``dvc.lock``: name, and the lines below it, as `read_stage` takes them.

    None where the file is not in DVC's form; a stage may still turn out not to be.
    """
    if not data.startswith(_HEADER):
        return None
    # the end of each part is the name of the next one's stage; to look at every line for one takes three times as long
    line, *parts = data[len(_HEADER) :].split(_STAGE_END)
    name, result = _stage_name(line), list[tuple[str, bytes]]()
    for part in parts[:-1]:
        if name is None:
            return None
        lines, following = _cut(part)
        result.append((name, lines))
        name = following
    if name is None or not parts:
        return None
    result.append((name, _COMMAND_LINE + parts[-1]))
    return result if len({name for name, _ in result}) == len(result) else None


def read_stage(lines: bytes) -> list[Entry] | None:
    """The outs of a stage; None where its lines are not in DVC's form."""
    head, line, outs = lines.partition(_OUTS_LINE)
    if not _is_head(head + b"\n" if line else head) or (line and not outs):
        return None
    return _read_entries(_LOCK_ENTRY, outs)


def read_dvc_file(data: bytes) -> list[Entry] | None:
    """The outs of a ``*.dvc`` file; None where it is not in DVC's form."""
    before, _, outs = data.partition(b"outs:\n")
    return None if before or not outs else _read_entries(_DVC_ENTRY, outs)


def _read_entries(pattern: re.Pattern[bytes], outs: bytes) -> list[Entry] | None:
    result, place = [], 0
    while place < len(outs):
        match = pattern.match(outs, place)
        if match is None:
            return None
        place = match.end()
        found = match.groupdict()
        result.append(
            Entry(
                found["path"].decode("ascii"),
                found["md5"].strip(b"'").decode("ascii"),
                found["hash"] is not None,
                None if found["size"] is None else int(found["size"]),
                None if found["nfiles"] is None else int(found["nfiles"]),
            )
        )
    return result


@lru_cache(maxsize=4096)  # most stages are the same from one commit to the next
def _cut(part: bytes) -> tuple[bytes, str | None]:
    """The lines of a stage, and the name of the one whose first line is the part's last."""
    lines, _, line = part.rpartition(b"\n")
    return _COMMAND_LINE + lines + b"\n", _stage_name(line)


@lru_cache(maxsize=4096)  # the same in every commit
def _stage_name(line: bytes) -> str | None:
    """The name of the stage in the line above its command, without the colon; None where that is no name."""
    return None if _STAGE.fullmatch(line) is None or line[2:] in _NO_STRINGS else line[2:].decode("ascii")


@lru_cache(maxsize=4096)  # what comes before the outs is often the same from one commit to the next
def _is_head(lines: bytes) -> bool:
    match = _HEAD.fullmatch(lines)
    return match is not None and (match["params"] is None or _is_plain(match["params"]))


def _is_plain(lines: bytes) -> bool:
    """Whether the parameters are mappings and lists of plain values in which no key comes twice."""
    # levels that are open: indentation, keys that came, None for a list
    open_levels: list[tuple[int, set[bytes] | None]] = [(6, set())]
    deeper = False  # whether the last line was a key without a value, whose value may follow
    place = 0
    while place < len(lines):
        match = _PARAM.match(lines, place)
        if match is None:
            return False
        place = match.end()
        indent, key = len(match[1]), match[2]
        if key is not None and key in _NO_STRINGS:
            return False
        level = open_levels[-1]
        if key is None:
            if deeper and indent >= level[0]:
                open_levels.append((indent, None))
            else:
                while open_levels and open_levels[-1] != (indent, None):
                    open_levels.pop()
                if not open_levels:
                    return False
            deeper = False
            continue
        if indent > level[0]:
            if not deeper:
                return False
            open_levels.append((indent, set()))
        else:
            while open_levels and (open_levels[-1][0] != indent or open_levels[-1][1] is None):
                open_levels.pop()
            if not open_levels:
                return False
        keys = open_levels[-1][1]
        if keys is None or key in keys:
            return False
        keys.add(key)
        deeper = match[3] is None
    return True
