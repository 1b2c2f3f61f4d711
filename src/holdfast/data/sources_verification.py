"""Whether the catalogue is true: of itself, of what DVC tracks, and of what lies in the bucket."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from holdfast.data.catalogue import Catalogue, Source
from holdfast.data.sources_bytes import MD5_PREFIX, form_of
from holdfast.data.sources_survey import Survey

# what is wrong, in the order in which it is told; those of the second group are about bytes
KINDS = (
    "unreadable", "duplicate-name", "duplicate-url", "duplicate-prefix", "duplicate-path", "overlapping-prefix",
    "misplaced-prefix", "no-prefix", "missing-metadata", "not-tracked", "not-pushed", "absent", "empty",
    "unverifiable", "orphan", "size-differs", "checksum-differs",
)  # fmt: skip
INTEGRITY = frozenset({"size-differs", "checksum-differs"})
_SAME = re.compile(r"[-_. +]+")


@dataclass(frozen=True)
class Finding:
    """Something that is wrong.

    Attributes:
        kind: one of `KINDS`.
        source: ``domain/name``; empty where it is about no source.
        where: ``file:line``, or a URL.
        fault: what is wrong.
        hint: the way out.
    """

    kind: str
    source: str
    where: str
    fault: str
    hint: str = ""


@dataclass(frozen=True)
class Tracked:
    """What DVC has written down at a path.

    Attributes:
        oid: of the file or folder; of the whole folder for a part of one. None where DVC has none yet, or one of
            version 2, which is no md5 of the bytes.
        size: bytes in all, where recorded.
        whole: it is no part of a tracked folder.
    """

    oid: str | None
    size: int | None = None
    whole: bool = True


@dataclass(frozen=True)
class Evidence:
    """What is known besides the catalogue; None for what was not looked at.

    Attributes:
        tracked: for each ``dvc`` path of the catalogue that DVC tracks, what it says.
        pushed: the oids that a remote or the vault has.
        survey: what lies in the bucket.
        checksums: for each prefix whose bytes were read, its checksums by algorithm.
    """

    tracked: Mapping[str, Tracked] | None = None
    pushed: frozenset[str] | None = None
    survey: Survey | None = None
    checksums: Mapping[str, Mapping[str, str]] | None = None


def verify(
    catalogue: Catalogue, evidence: Evidence = Evidence(), only: Sequence[Source] | None = None
) -> list[Finding]:
    """What is wrong with a catalogue, by place; what is twice is told where it is the second time.

    Args:
        catalogue: all of it: duplicates are sought everywhere.
        evidence: what it is compared with.
        only: what findings are wanted of; with it, what is about no source is left out.
    """
    findings = [
        Finding("unreadable", "", f"{problem.file}:{problem.line}", problem.fault, problem.hint)
        for problem in catalogue.problems
    ]
    for check in (_duplicates, _prefixes, _metadata):
        findings += check(catalogue)
    if evidence.tracked is not None:
        findings += _against_dvc(catalogue, evidence.tracked, evidence.pushed)
    if evidence.survey is not None:
        findings += _against_bucket(catalogue, evidence.survey, evidence.tracked or {})
    if evidence.checksums is not None:
        findings += _against_bytes(catalogue, evidence.checksums, evidence.tracked or {})
    if only is not None:
        wanted = {source.id for source in only}
        findings = [finding for finding in findings if finding.source in wanted]
    domains = {catalogue.file_of(domain): number for number, domain in enumerate(catalogue.domains)}

    def order(finding: Finding) -> tuple[int, str, int, int]:
        file, _, line = finding.where.rpartition(":")
        return domains.get(file, len(domains)), file, int(line) if line.isdigit() else 0, KINDS.index(finding.kind)

    return sorted(findings, key=order)


def normal_url(url: str) -> str:
    """What two URLs of one place have in common: neither the scheme's s, nor case of the host, nor a last slash."""
    try:
        parts = urlsplit(url)
    except ValueError:  # a bracket without its other one
        return url
    scheme = "http" if parts.scheme == "https" else parts.scheme
    query = f"?{parts.query}" if parts.query else ""
    return f"{scheme}://{parts.netloc.lower()}{parts.path.rstrip('/')}{query}"


def normal_name(name: str) -> str:
    """What two ways to write a name have in common: neither case nor what stands between its words."""
    return _SAME.sub("-", name.casefold())


def _duplicates(catalogue: Catalogue) -> Iterator[Finding]:
    def twice(kind: str, name: str, key: Callable[[Source], str], hint: str) -> Iterator[Finding]:
        first: dict[str, Source] = {}
        for source in catalogue.sources:
            value = key(source)
            if not value:
                continue
            other = first.setdefault(value, source)
            if other is not source:
                same = f"the {name} {getattr(source, name)} is that of {other.id}, too ({catalogue.place(other, name)})"
                yield Finding(kind, source.id, catalogue.place(source, name), same, hint)

    yield from twice(
        "duplicate-name", "name", lambda source: normal_name(source.name), "Leave one of the two, or rename one"
    )
    yield from _duplicate_urls(catalogue)
    yield from twice("duplicate-prefix", "prefix", lambda source: source.prefix, "Give each source a folder of its own")
    yield from twice("duplicate-path", "dvc", lambda source: source.dvc, "Leave one of the two entries")


def _duplicate_urls(catalogue: Catalogue) -> Iterator[Finding]:
    """Of one URL there may be several versions, if each entry says which."""
    met: dict[str, list[Source]] = {}
    for source in catalogue.sources:
        if not source.url:
            continue
        others = met.setdefault(normal_url(source.url), [])
        other = next(
            (one for one in others if not one.version or not source.version or one.version == source.version), None
        )
        others.append(source)
        if other is not None:
            same = f"the url {source.url} is that of {other.id}, too ({catalogue.place(other, 'url')})"
            hint = "Leave one of the two, or give each its version"
            yield Finding("duplicate-url", source.id, catalogue.place(source, "url"), same, hint)


def _prefixes(catalogue: Catalogue) -> Iterator[Finding]:
    taken: dict[str, Source] = {}
    for source in catalogue.sources:
        if source.prefix:
            taken.setdefault(source.prefix, source)
    for source in catalogue.sources:
        if not source.prefix:
            # one that is given and cannot be read is told of already
            if "prefix" in catalogue.required and "prefix" not in source.lines:
                hint = f"`holdfast sources add {source.id} --update --prefix …`"
                fault = f"{source.name} is mapped to no prefix in the bucket"
                yield Finding("no-prefix", source.id, catalogue.place(source), fault, hint)
            continue
        where = catalogue.place(source, "prefix")
        # the same prefix twice is one fault, not also an overlap
        if taken[source.prefix] is source:
            above = next((taken[folder] for folder in _above(source.prefix) if folder in taken), None)
            if above is not None:
                fault = f"the prefix {source.prefix}/ lies within that of {above.id} ({above.prefix}/)"
                hint = "Whose its objects are cannot be told: give each source a folder of its own"
                yield Finding("overlapping-prefix", source.id, where, fault, hint)
        if catalogue.by_domain and source.prefix.split("/")[0] != source.domain:
            fault = f"the prefix {source.prefix}/ does not begin with the domain, {source.domain}/"
            hint = "Move the objects or the entry; `layout: free` in sources.yaml allows any prefix"
            yield Finding("misplaced-prefix", source.id, where, fault, hint)


def _above(prefix: str) -> Iterator[str]:
    """The folders that a prefix lies in, the nearest first."""
    while "/" in prefix:
        prefix = prefix.rpartition("/")[0]
        yield prefix


def _metadata(catalogue: Catalogue) -> Iterator[Finding]:
    required = [name for name in catalogue.required if name != "prefix"]  # told by itself
    for source in catalogue.sources:
        missing = ["url or origin" if name == "url" else name for name in required if _missing(source, name)]
        if missing:
            fault = f"{source.name} does not say its {', '.join(missing)}"
            hint = f"`holdfast sources add {source.id} --update --{missing[0].split()[0]} …`"
            yield Finding("missing-metadata", source.id, catalogue.place(source), fault, hint)


def _missing(source: Source, name: str) -> bool:
    """Whether a field is not given; one that is and cannot be read is told of already."""
    given = ("url", "origin") if name == "url" else (name,)
    return source.lacks(name) and not any(field in source.lines for field in given)


def _against_dvc(
    catalogue: Catalogue, tracked: Mapping[str, Tracked], pushed: frozenset[str] | None
) -> Iterator[Finding]:
    for source in catalogue.sources:
        if not source.dvc:
            continue
        where = catalogue.place(source, "dvc")
        out = tracked.get(source.dvc)
        if out is None:
            hint = f"`dvc add {source.dvc}`, or `dvc import-url`, tracks it"
            yield Finding("not-tracked", source.id, where, f"DVC tracks nothing at {source.dvc}", hint)
            continue
        if out.oid is None:
            continue
        said = source.checksum if out.whole else ""
        if said.startswith(MD5_PREFIX) and said != f"{MD5_PREFIX}{out.oid}":
            fault = f"the checksum is {said}, and that of {source.dvc} in DVC is {MD5_PREFIX}{out.oid}"
            hint = "One of the two is out of date: see `dvc status`, or write the new one with --update --checksum"
            yield Finding("checksum-differs", source.id, catalogue.place(source, "checksum"), fault, hint)
        elif out.whole and source.size is not None and out.size is not None and source.size != out.size:
            fault = f"the size is {source.size}, and that of {source.dvc} in DVC is {out.size}"
            hint = "One of the two is out of date: see `dvc status`, or write the new one with --update --size"
            yield Finding("size-differs", source.id, catalogue.place(source, "size"), fault, hint)
        if pushed is not None and out.oid not in pushed:
            fault = f"{source.dvc} is in no remote ({out.oid})"
            yield Finding("not-pushed", source.id, where, fault, f"`dvc push {source.dvc}` sends it")


def _against_bucket(catalogue: Catalogue, survey: Survey, tracked: Mapping[str, Tracked]) -> Iterator[Finding]:
    for source in catalogue.sources:
        if not source.prefix:
            continue
        where = catalogue.place(source, "prefix")
        held = survey.held.get(source.prefix)
        if held is None:
            hint = f"Upload it, or take {source.name} out of the catalogue"
            yield Finding("absent", source.id, where, f"there is nothing at {survey.url_of(source.prefix)}/", hint)
            continue
        if held.empty:
            which = f"{held.empty} of the {held.files} objects" if held.files > 1 else "the one object"
            fault = f"{which} at {survey.url_of(source.prefix)}/ ha{'ve' if held.empty > 1 else 's'} no byte"
            yield Finding("empty", source.id, where, fault, f"First: {held.first_empty}. Upload it again")
        for name, said, found in (("size", source.size, held.size), ("files", source.files, held.files)):
            if said is not None and said != found:
                what = "bytes" if name == "size" else "objects"
                fault = f"{survey.url_of(source.prefix)}/ holds {found:,} {what}, and the entry says {said:,}"
                hint = f"Upload what is missing, or write the new {name} with --update --{name}"
                yield Finding("size-differs", source.id, catalogue.place(source, name), fault, hint)
                break
        if not source.checksum and not (source.dvc and source.dvc in tracked):
            fault = f"{source.name} is neither tracked by DVC nor has it a checksum: nobody could tell damage"
            hint = f"`holdfast sources pull {source.id} --record` writes its checksum down"
            yield Finding("unverifiable", source.id, catalogue.place(source), fault, hint)
    for place in survey.orphans:
        fault = f"no source of the catalogue has {'this folder' if place.endswith('/') else 'this object'}"
        hint = "Catalogue it (`holdfast sources add`, `import`), delete it, or name it in sources.yaml under `ignore:`"
        yield Finding("orphan", "", survey.url_of(place), fault, hint)


def _against_bytes(
    catalogue: Catalogue, checksums: Mapping[str, Mapping[str, str]], tracked: Mapping[str, Tracked]
) -> Iterator[Finding]:
    for source in catalogue.sources:
        said = expected_checksum(source, tracked)
        if source.prefix not in checksums or not said:
            continue
        found = checksums[source.prefix]
        if said not in found.values():
            name = form_of(said)
            told = found.get(name) or f"several files, of which there is no {name} of one"
            fault = f"{source.prefix}/ has {told} in the bucket, and {said} is expected"
            hint = "They are damaged or of another version: upload them again, or write the new checksum with --update"
            yield Finding("checksum-differs", source.id, catalogue.place(source, "checksum"), fault, hint)


def expected_checksum(source: Source, tracked: Mapping[str, Tracked]) -> str:
    """The checksum that a source's bytes should have: its own, else what DVC has written down; empty where neither."""
    if source.checksum:
        return source.checksum
    out = tracked.get(source.dvc) if source.dvc else None
    return f"{MD5_PREFIX}{out.oid}" if out is not None and out.oid and out.whole else ""


def find_tracked(paths: Iterable[str], outs: Mapping[str, Tracked]) -> dict[str, Tracked]:
    """What DVC says of paths: an out, or a part of one that is a folder.

    Args:
        paths: of the catalogue.
        outs: all outs of the workspace by path, seen from the same folder.
    """
    result = {}
    for path in paths:
        if path in outs:
            result[path] = outs[path]
        elif (above := next((above for above in _above(path) if above in outs), None)) is not None:
            result[path] = Tracked(outs[above].oid, whole=False)
    return result
