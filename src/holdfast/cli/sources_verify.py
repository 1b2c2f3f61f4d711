"""``holdfast sources verify``."""

from collections import Counter
from dataclasses import asdict
from typing import Any

import click

from holdfast.cli import completion_values
from holdfast.cli.groups import Verb
from holdfast.cli.output import Form, Table, emit, form_options, human_bytes, plural, printable
from holdfast.cli.progress import bar, counted
from holdfast.cli.sources_places import catalogue_root, open_bucket, pushed_oids, tracked_paths
from holdfast.data.catalogue import Catalogue, Source
from holdfast.data.catalogue_reading import read_catalogue
from holdfast.data.sources_verification import INTEGRITY, KINDS, Evidence, Finding, Tracked, expected_checksum, verify
from holdfast.errors import IntegrityError, UsageError

FOUND = 1


@click.command("verify", cls=Verb)
@click.argument("names", nargs=-1, metavar="[DOMAIN|NAME...]", shell_complete=completion_values.sources)
@click.option("--remote", is_flag=True, help="Look into the bucket and DVC's remotes, too.")
@click.option("--read", is_flag=True, help="With --remote, read the bytes and compare their checksums.")
@click.option("--bucket", metavar="URL", help="Look into this bucket instead of the catalogue's.")
@click.option("-j", "--jobs", metavar="N", type=click.IntRange(min=1), default=8, show_default=True, help="Requests.")
@form_options
def verify_sources(names: tuple[str, ...], remote: bool, read: bool, bucket: str | None, jobs: int, form: Form) -> int:
    """Check the catalogue, and with --remote what DVC and the bucket have of it.

    Here: that every file keeps to the schema; every source has a prefix of its own, within its domain and not within
    another's, its metadata, and no other name or URL in common; that DVC tracks what it is said to, with the same
    checksum and size. With --remote: that every prefix holds objects, none of them empty, as many and as large as is
    said; that each source is tracked or has a checksum; that a remote has what DVC tracks; that no folder belongs to
    nobody. With --read the bytes themselves.

    Ends with 1 where something is found, with 13 where bytes are not what they are said to be.

    \b
    Examples:
      holdfast sources verify
      holdfast sources verify climate --md
      holdfast sources verify --remote --json
    """
    if (read or bucket) and not remote:
        raise UsageError(f"--{'read' if read else 'bucket'} goes with --remote")
    catalogue = read_catalogue(catalogue_root())
    only = catalogue.select(names) if names else None
    tracked = tracked_paths(catalogue)
    evidence = Evidence(tracked)
    if remote:
        evidence = _remote_evidence(
            catalogue, tracked, catalogue.sources if only is None else only, bucket, jobs, read=read
        )
    findings = verify(catalogue, evidence, only)
    checked = len(catalogue.sources if only is None else only)
    counts = Counter(finding.kind for finding in findings)
    payload: dict[str, Any] = {
        "format": "holdfast sources verify 1",
        "sources": checked,
        "domains": len(catalogue.domains),
        "objects": evidence.survey.objects if evidence.survey else None,
        "counts": {kind: counts[kind] for kind in KINDS if counts[kind]},
        "findings": [asdict(finding) for finding in findings],
        "ok": not findings,
    }
    if form == "text":
        # not through a console, which would break them at the width of the terminal: one line is one finding
        for finding in findings:
            click.echo(printable(f"{finding.where}: {finding.kind}: {finding.fault}"))
            if finding.hint:
                click.echo(printable(f"    {finding.hint}"))
    emit(form, payload, _blocks(catalogue, evidence, findings, checked, form))
    wrong = [finding for finding in findings if finding.kind in INTEGRITY]
    if wrong:
        more = f", and {plural(len(wrong) - 1, 'more of its kind', 'more of their kind')}" if len(wrong) > 1 else ""
        raise IntegrityError(f"{wrong[0].where}: {wrong[0].fault}{more}", hint=wrong[0].hint or None)
    return FOUND if findings else 0


def _remote_evidence(
    catalogue: Catalogue,
    tracked: dict[str, Tracked],
    sources: "tuple[Source, ...] | list[Source]",
    bucket: str | None,
    jobs: int,
    *,
    read: bool,
) -> Evidence:
    # imported here: with obstore, which a look at the catalogue alone need not pay for
    from holdfast.data.sources_bytes import checksums_of, read_objects
    from holdfast.data.sources_pull import list_source
    from holdfast.data.sources_survey import survey

    oids = {tracked[source.dvc].oid for source in sources if source.dvc in tracked}
    pushed = pushed_oids(catalogue, {oid for oid in oids if oid is not None})
    store = open_bucket(catalogue, bucket)
    with bar("Listing", counted) as progress:
        found = survey(store, catalogue, jobs=jobs, progress=lambda count: progress(count, 0))
    if not read:
        return Evidence(tracked, pushed, found)
    wanted = [source for source in sources if source.prefix in found.held and expected_checksum(source, tracked)]
    whole = sum(found.held[source.prefix].size for source in wanted)
    checksums = {}
    with bar("Reading", human_bytes) as progress:
        done = 0

        def tell(count: int) -> None:
            nonlocal done
            done += count
            progress(done, whole)

        for source in wanted:
            objects = list_source(store, source.prefix)
            said = expected_checksum(source, tracked)
            digests = read_objects(store, objects, source.prefix, said, jobs=jobs, progress=tell)
            checksums[source.prefix] = checksums_of(digests)
    return Evidence(tracked, pushed, found, checksums)


def _blocks(
    catalogue: Catalogue, evidence: Evidence, findings: list[Finding], checked: int, form: Form
) -> list[str | Table]:
    faults = plural(len(findings), "finding") if findings else "No findings"
    sentence = f"{faults} in {plural(checked, 'source')} of {plural(len(catalogue.domains), 'domain')}"
    mapped = sum(bool(source.prefix) for source in catalogue.sources)
    if evidence.survey is not None:
        held = evidence.survey.held.values()
        size = human_bytes(sum(one.size for one in held))
        sentence += f"; {len(held):,} of {mapped:,} prefixes hold {size} in {plural(evidence.survey.objects, 'object')}"
    blocks: list[str | Table] = [f"{sentence}."]
    if findings and form == "md":
        rows = [(finding.where, finding.kind, finding.fault, finding.hint) for finding in findings]
        blocks.append(Table(("where", "kind", "what is wrong", "what helps"), rows))
    if findings:
        counts = Counter(finding.kind for finding in findings)
        if len(findings) > 1:
            blocks.append(", ".join(f"{counts[kind]:,} {kind}" for kind in KINDS if counts[kind]) + ".")
    return blocks
