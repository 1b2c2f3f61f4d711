"""What the name of a run folder says: when it started, and to which series it belongs.

A *series* is what is left of a name without time stamps, dates, seeds, run numbers and hashes:
``small_data_10k_20250525_130522`` belongs to ``small_data_10k``. ``v2`` stays, as it names a model, not a run.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone

SEPARATORS = "_-. "

_GAP = r"[-_.]?"
_STAMP = re.compile(
    rf"(?<!\d)(?P<year>(?:19|20)\d\d){_GAP}(?P<month>\d\d){_GAP}(?P<day>\d\d)"
    r"(?:[T_\-. ]?(?P<hour>\d\d)[-_:.h]?(?P<minute>\d\d)(?:[-_:.m]?(?P<second>\d\d)(?:\.\d+)?s?)?Z?)?(?!\d)"
    # what some trackers write behind their time stamp: eight characters, letters and digits
    r"(?:[_\-](?=[a-z]*\d)(?=\d*[a-z])[0-9a-z]{8}(?![0-9a-z]))?"
)
_UNIX_SECONDS = re.compile(r"(?<![0-9a-zA-Z.])(1\d{9})(?:\d{3})?(?![0-9a-zA-Z])")
_NUMBER = re.compile(
    r"(?<![a-z0-9])(?:seed|run|trial|version|exp|experiment|fold|rank|try|attempt|rep|repeat|repetition|job|task|id)"
    r"[_\-=. ]?\d+(?![a-z0-9])",
    re.IGNORECASE,
)
_UUID = re.compile(r"(?<![0-9a-f])[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}(?![0-9a-f])", re.IGNORECASE)
# two digits and two letters at least: `decade`, `2000000` and `d2000000` are no hashes
_HASH = re.compile(r"(?<![0-9a-z])(?=(?:[a-f]*\d){2})(?=(?:\d*[a-f]){2})[0-9a-f]{7,40}(?![0-9a-z])", re.IGNORECASE)
_COUNTED = re.compile(r"^(?P<stem>.*[^0-9])(?P<number>\d{1,4})$")
_CONTAINERS = frozenset({"lightning_logs", "multirun"})


def started_from_name(name: str) -> datetime | None:
    """The time that a name carries, in UTC where it names no zone; None where it carries none."""
    for match in _STAMP.finditer(name):
        if (moment := _moment(match)) is not None:
            return moment
    seconds = _UNIX_SECONDS.search(name)
    return None if seconds is None else datetime.fromtimestamp(int(seconds[1]), timezone.utc)


def strip_run(name: str) -> str:
    """A name without time stamps, seeds, run numbers and hashes; empty where nothing else is in it."""
    before = None
    while name != before:
        before = name
        name = _STAMP.sub(_cut_stamp, _UUID.sub("", name))
        for pattern in (_UNIX_SECONDS, _NUMBER, _HASH):
            name = pattern.sub("", name)
        name = re.sub(r"([_\-. ])[_\-. ]+", r"\1", name).strip(SEPARATORS)
    return name


def series_of(paths: Iterable[Sequence[str]]) -> dict[tuple[str, ...], tuple[str, str]]:
    """The series of each run, from the parts of its path.

    Args:
        paths: the parts of each run's path, the folder that was looked at first.

    Returns:
        For each path: the series with the folders that it lies in, which tells two series of one name apart, and the
        series' name alone. A run whose name is all numbers (``version_3``) takes its folder's name. A number at the
        end counts runs where it goes on from 0 or 1 without a gap among the runs beside it (``pilot_1``, ``pilot_2``),
        so that ``resnet_18`` and ``resnet_50`` stay two.
    """
    stripped = {tuple(path): _strip_parts(path) for path in paths}
    beside: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for parts in stripped.values():
        beside[parts[:-1]].add(parts[-1])
    stems = {place: _count_stems(names) for place, names in beside.items()}
    found = {}
    for path, parts in stripped.items():
        name = stems[parts[:-1]].get(parts[-1], parts[-1])
        found[path] = ("/".join((*parts[:-1], name)), name)
    return found


def run_name(parts: Sequence[str]) -> str:
    """What to call a run: its folder's name, behind its series' where the name alone is all numbers."""
    if strip_run(parts[-1]) or len(parts) == 1:
        return parts[-1]
    return f"{_strip_parts(parts)[-1]}/{parts[-1]}"


def words_of(name: str) -> tuple[str, ...]:
    """The words of a name in lower case: ``Safe_Test-2`` → ``safe``, ``test``, ``2``."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return tuple(word for word in re.split(r"[^a-z0-9]+", apart.lower()) if word)


def named_like(name: str, tokens: Iterable[str]) -> str | None:
    """The first of ``tokens`` (a word, or words with ``_`` between) that ``name`` holds as whole words, or None."""
    text = f"_{'_'.join(words_of(name))}_"
    return next((token for token in tokens if f"_{'_'.join(words_of(token))}_" in text), None)


def _strip_parts(path: Sequence[str]) -> tuple[str, ...]:
    first, *rest = path
    kept = [part for part in map(strip_run, rest) if part and part not in _CONTAINERS]
    return (first, *kept)


def _count_stems(names: Iterable[str]) -> Mapping[str, str]:
    groups: dict[str, dict[int, str]] = defaultdict(dict)
    for name in names:
        if match := _COUNTED.match(name):
            groups[match["stem"]][int(match["number"])] = name
    stems = {}
    for stem, counted in groups.items():
        first = min(counted)
        if len(counted) > 1 and first in (0, 1) and max(counted) == first + len(counted) - 1 and stem.strip(SEPARATORS):
            stems.update(dict.fromkeys(counted.values(), stem.strip(SEPARATORS)))
    return stems


def _cut_stamp(match: re.Match[str]) -> str:
    return match[0] if _moment(match) is None else "_"


def _moment(match: re.Match[str]) -> datetime | None:
    numbers = [int(number) for number in match.groups() if number is not None]
    try:
        return datetime(*numbers, tzinfo=timezone.utc)  # type: ignore[arg-type, misc]
    except ValueError:
        return None
