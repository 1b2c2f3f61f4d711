"""The catalogue of data sources: one entry a source, one file a domain, and an index that names the domains.

``sources.yaml`` is the index; the sources of a domain are in ``sources/<domain>.yaml`` beside it, so that thousands of
them stay files that people can review.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast.errors import HoldfastError, UsageError

INDEX_FILE = "sources.yaml"
FOLDER = "sources"
SUFFIX = ".yaml"
SCHEMA = 1

# in the order in which they are written
FIELDS = (
    "name", "title", "url", "origin", "licence", "version", "updates", "prefix", "dvc", "checksum", "size", "files",
    "annotations",
)  # fmt: skip
NUMBERS = ("size", "files")
# what every source should say; the index may ask for others
REQUIRED = ("url", "licence", "version", "updates", "prefix")
# what lies in a bucket beside the sources: DVC's objects, a vault, releases
IGNORED = ("files", "vault", "releases")
_TOPS = (".git", ".dvc")


class CatalogueError(HoldfastError):
    """The catalogue cannot be read or changed; the message names file, line and field."""


@dataclass(frozen=True)
class Source:
    """An entry of the catalogue. Texts are empty and numbers None where it does not say.

    Attributes:
        name: names it within the whole catalogue.
        domain: the file that it is in.
        line: where the entry begins there, from 1 on.
        title: what people call it.
        url: where it was published.
        origin: where it comes from, in words, where there is no URL.
        licence: preferably an SPDX identifier.
        version: its publisher's version, as written.
        updates: how often it changes.
        prefix: its folder in the bucket, without slashes at its ends.
        dvc: the path that DVC tracks it at, from the catalogue's folder.
        checksum: ``md5:…`` of the one file, ``md5:….dir`` of a folder's listing as DVC has it, ``sha256:…`` or
            ``blake3:…`` of the one file.
        size: bytes in all.
        files: how many.
        annotations: whatever else there is to say, as JSON knows it.
        lines: of each field that is given.
    """

    name: str
    domain: str
    line: int = 0
    title: str = ""
    url: str = ""
    origin: str = ""
    licence: str = ""
    version: str = ""
    updates: str = ""
    prefix: str = ""
    dvc: str = ""
    checksum: str = ""
    size: int | None = None
    files: int | None = None
    annotations: Mapping[str, Any] = field(default_factory=dict)
    lines: Mapping[str, int] = field(default_factory=dict, compare=False, repr=False)

    @property
    def id(self) -> str:
        """``domain/name``."""
        return f"{self.domain}/{self.name}"

    def lacks(self, name: str) -> bool:
        """Whether it does not say a field; an origin in words stands for a URL."""
        if name == "url":
            return not self.url and not self.origin
        return getattr(self, name) in ("", None, {})

    def fields(self) -> dict[str, Any]:
        """What it says, in the order of `FIELDS`, as its file has it."""
        given = {name: getattr(self, name) for name in FIELDS}
        given = {name: value for name, value in given.items() if value not in ("", None, {})}
        if self.prefix:
            given["prefix"] = f"{self.prefix}/"
        return given

    def as_json(self) -> dict[str, Any]:
        """All of it, with its domain and place."""
        given = self.fields()
        return {"name": given.pop("name"), "domain": self.domain, **given, "line": self.line}


@dataclass(frozen=True)
class Problem:
    """What is wrong with a file of the catalogue.

    Attributes:
        file: from the catalogue's folder.
        line: from 1 on.
        fault: names the field.
        hint: the way out.
    """

    file: str
    line: int
    fault: str
    hint: str = ""

    def error(self) -> CatalogueError:
        """It as an error."""
        return CatalogueError(f"{self.file}:{self.line}: {self.fault}", hint=self.hint or None)


@dataclass(frozen=True)
class Catalogue:
    """What the files of a catalogue say.

    Attributes:
        root: the folder of the index.
        bucket: the URL of the store in which the prefixes lie; empty where none is named. A path is seen from ``root``.
        domains: in the order of the index.
        sources: domain by domain, in the order of the files.
        required: what every source should say.
        ignored: the folders of the bucket that hold no sources.
        by_domain: whether a source's prefix begins with its domain.
        problems: what could not be read.
    """

    root: Path
    bucket: str = ""
    domains: tuple[str, ...] = ()
    sources: tuple[Source, ...] = ()
    required: tuple[str, ...] = REQUIRED
    ignored: tuple[str, ...] = IGNORED
    by_domain: bool = True
    problems: tuple[Problem, ...] = ()

    def refuse_problems(self) -> "Catalogue":
        """The catalogue, if all of it could be read.

        Raises:
            CatalogueError: some of it could not; the first problem is named.
        """
        if self.problems:
            error = self.problems[0].error()
            if len(self.problems) > 1:
                error.message += f", and {len(self.problems) - 1} more; `holdfast sources verify` lists all"
            raise error
        return self

    def select(self, names: Sequence[str]) -> list[Source]:
        """The sources of domains, by name, or by ``domain/name``; all where no name is given.

        Raises:
            UsageError: there is no domain and no source of a name.
        """
        if not names:
            return list(self.sources)
        chosen: dict[tuple[str, int], Source] = {}
        for name in names:
            wanted = name.strip("/")
            found = [source for source in self.sources if wanted in (source.domain, source.name, source.id)]
            if wanted in self.domains:
                found = [source for source in found if source.domain == wanted]
            elif not found:
                raise UsageError(
                    f"{name} is neither a domain nor a source of the catalogue",
                    hint=f"Domains: {', '.join(self.domains) or 'none'}. `holdfast sources list` names the sources",
                )
            chosen |= {(source.domain, source.line): source for source in found}
        return [source for source in self.sources if (source.domain, source.line) in chosen]

    def file_of(self, domain: str) -> str:
        """The file of a domain, from the catalogue's folder."""
        return f"{FOLDER}/{domain}{SUFFIX}"

    def place(self, source: Source, name: str = "name") -> str:
        """``file:line`` of a field of a source; of the entry where it does not say it."""
        return f"{self.file_of(source.domain)}:{source.lines.get(name, source.line)}"


def find_catalogue(start: Path) -> Path | None:
    """The folder of the catalogue that counts for ``start``: its own, or the nearest above in the repository."""
    here = start.resolve()
    places = [here, *here.parents]
    top = next((place for place in places if any((place / mark).exists() for mark in _TOPS)), here)
    return next((place for place in places[: places.index(top) + 1] if (place / INDEX_FILE).is_file()), None)


def project_top(start: Path) -> Path:
    """Where a new catalogue belongs: the top of the project or repository, else ``start``."""
    here = start.resolve()
    return next((place for place in (here, *here.parents) if any((place / mark).exists() for mark in _TOPS)), here)


def name_of(text: str) -> str:
    """A title as a name of a source: lower case, with hyphens where no letter, digit, dot or underscore is."""
    return re.sub(r"[^a-z0-9._]+", "-", text.lower()).strip("-._")
