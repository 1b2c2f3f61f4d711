"""Signatures of versions: who holds a private key vouches for a version's bytes.

A signature is a Sigstore bundle as the ``model-signing`` library of OpenSSF writes it, beside the version's file
(``v3.sig``). It covers the bytes alone, every file of a folder by its name, and not what the registry says of them, nor
the version's number: it stays right where a merge gives the version another one.
"""

import base64
import contextlib
import importlib
import io
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from holdfast.atomic import write_atomically
from holdfast.errors import HoldfastError, IntegrityError, UsageError
from holdfast.registry.entries import Version
from holdfast.registry.objects import NotHereError, Stores
from holdfast.registry.store import Registry
from holdfast.registry.verification_findings import Finding

SIGNATURE_SUFFIX = ".sig"
# where the library names the one file of a version that is no folder
_ITSELF = "."


class SigningMissingError(HoldfastError):
    """The library that signs is not installed."""


class KeyFileError(UsageError):
    """A file holds no key that can be used."""


class SignatureError(IntegrityError):
    """A version's signature is missing, of another key, or of other bytes."""


def signature_file(registry: Registry, model_id: str, version: str) -> Path:
    """Where the signature of a version (``v3``) lies; it goes with the version's file, under whatever number."""
    return registry.files(model_id, version)[1].with_suffix(SIGNATURE_SUFFIX)


def sign_version(
    stores: Stores,
    registry: Registry,
    model_id: str,
    version: Version,
    private_key: Path,
    password: bytes | None = None,
    *,
    force: bool = False,
) -> Path:
    """Sign a version's bytes, brought from wherever they are, and write its signature.

    Args:
        stores: where bytes are.
        registry: the registry.
        model_id: ``app/name``.
        version: of that model.
        private_key: a PEM file with a key of the curve P-256, P-384 or P-521.
        password: that of the key; None where it has none.
        force: also where there is a signature.

    Returns:
        The signature's file, replaced in one step.

    Raises:
        SigningMissingError: the library is not installed.
        KeyFileError: the key cannot be read, or the password is wrong.
        UsageError: there is a signature already.
        NotHereError: the bytes are nowhere.
        IntegrityError: the bytes are not what the registry says.
        OSError: a file cannot be read or written.
    """
    library = _library("signing")
    target = signature_file(registry, model_id, version.name)
    if target.exists() and not force:
        hint = f"`holdfast registry verify {model_id} --signature --public-key FILE` checks it; --force replaces it"
        raise UsageError(f"{model_id}@{version.name} has a signature", hint=hint)
    data = private_key.read_bytes()
    if b"ENCRYPTED" in data and password is None:
        raise KeyFileError(f"the key {private_key} has a password", hint="Name a file with it: --password-file FILE")
    try:
        # the library's annotation says text; what it hands on to must have bytes
        signer = library.Config().use_elliptic_key_signer(private_key=private_key, password=password)
    except (ValueError, TypeError, AttributeError) as error:
        raise _no_key(private_key, "private", error) from error
    with _bytes_of(stores, version, f"{model_id}@{version.name}") as (place, scratch):
        written = scratch / target.name
        signer.set_hashing_config(_hashing()).sign(place, written)
        write_atomically(target, written.read_bytes())
    return target


def verify_signatures(
    stores: Stores, registry: Registry, public_key: Path, model_ids: list[str] | None = None
) -> list[Finding]:
    """What is wrong with the signatures of models' versions; every version should have one.

    Bytes that are not in DVC's cache are brought; where they are nowhere, or must not be asked for, that is a finding.

    Args:
        stores: where bytes are.
        registry: the registry.
        public_key: a PEM file.
        model_ids: of which models; None for all. Of those whose files are broken nothing is said.

    Raises:
        SigningMissingError: the library is not installed.
        KeyFileError: the key cannot be read.
        HoldfastError: a vault or remote cannot be reached.
        OSError: a file cannot be read.
    """
    library = _library("verifying")
    try:
        library.Config().use_elliptic_key_verifier(public_key=public_key)
    except (ValueError, TypeError, AttributeError) as error:
        raise _no_key(public_key, "public", error) from error
    findings = []
    for model_id in registry.model_ids() if model_ids is None else model_ids:
        try:
            model = registry.model(model_id)
        except IntegrityError:
            continue  # `verification.verify` says which file is broken
        for version in model.versions:
            name = f"{model_id}@{version.name}"
            try:
                check_signature(stores, registry, model_id, version, public_key)
            except NotHereError as error:
                findings.append(Finding(name, f"its signature was not checked: {error.message}", error.hint or ""))
            except IntegrityError as error:
                findings.append(Finding(name, error.message, error.hint or ""))
    return findings


def check_signature(stores: Stores, registry: Registry, model_id: str, version: Version, public_key: Path) -> None:
    """Check that a version's signature is of this key and covers its bytes, all of them.

    Raises:
        SignatureError: it is missing, broken, of another key or of other bytes.
        NotHereError: the bytes are nowhere.
        IntegrityError: the bytes are not what the registry says.
        OSError: a file cannot be read.
    """
    library = _library("verifying")
    file = signature_file(registry, model_id, version.name)
    name = f"{model_id}@{version.name}"
    again = f"`holdfast registry sign {name} --private-key FILE --force` signs it anew"
    if not file.exists():
        told = f"has no signature beside it ({file.name})"
        raise SignatureError(told, hint=f"`holdfast registry sign {name} --private-key FILE`")
    covered = _covered(file)
    with _bytes_of(stores, version, name) as (place, _):
        verifier = library.Config().use_elliptic_key_verifier(public_key=public_key).set_hashing_config(_hashing())
        try:
            # the library warns of its older signatures on stdout, which belongs to what the command says
            with contextlib.redirect_stdout(io.StringIO()):
                verifier.verify(place, file)
        except Exception as error:  # it hands through whatever its readers of JSON, protobuf and keys raise
            raise _refused(file, error, again) from error
        here = {path.relative_to(place).as_posix() for path in _files(place)}
    if here - covered:
        missing = ", ".join(sorted(here - covered))
        raise SignatureError(f"its signature does not cover {missing}", hint=again)


def _refused(file: Path, error: Exception, again: str) -> SignatureError:
    told = " ".join(str(error).split())
    if told.startswith("Key mismatch"):
        return SignatureError(f"its signature ({file.name}) is of another key", hint="Name the key of who signed it")
    if told.startswith("Signature mismatch"):
        return SignatureError(f"its signature ({file.name}) is of other bytes", hint=again)
    if type(error).__name__ == "InvalidSignature":
        return SignatureError(f"its signature ({file.name}) was changed, or is of another key", hint=again)
    told = told or type(error).__name__
    return SignatureError(f"its signature ({file.name}) cannot be read: {told}", hint=again)


def _covered(file: Path) -> set[str]:
    """The files that a signature names; it is checked elsewhere that the key's owner says so."""
    try:
        payload = json.loads(base64.b64decode(json.loads(file.read_bytes())["dsseEnvelope"]["payload"]))
        return {str(item["name"]) for item in payload["predicate"]["resources"]}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        hint = f"`git checkout HEAD -- {file.name}` in its folder takes it back"
        raise SignatureError(f"its signature ({file.name}) is no bundle of Sigstore's", hint=hint) from error


@contextmanager
def _bytes_of(stores: Stores, version: Version, name: str) -> Iterator[tuple[Path, Path]]:
    """A version's file or folder under its own name, verified, and a folder to write to; both go afterwards."""
    stores.bring(version.oid, name)
    # beside the cache, so that the file system may share the bytes
    scratch = stores.root / ".dvc" / "tmp" / "holdfast"
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="signing-", dir=scratch) as folder:
        place = Path(folder) / "bytes" / PurePosixPath(version.path).name
        stores.write(version, place)
        yield place, Path(folder)


def _files(place: Path) -> list[Path]:
    return [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]


def _hashing() -> Any:
    hashing = _library("hashing").Config().use_file_serialization(hashing_algorithm="sha256")
    # by default files such as .gitignore are left out, of which a version may have one
    return hashing.set_ignored_paths(paths=(), ignore_git_paths=False)


def _no_key(file: Path, kind: str, error: Exception) -> KeyFileError:
    told = " ".join(str(error).split()).split(". ")[0].rstrip(".") or type(error).__name__
    hint = "A PEM file with a key of the curve P-256, P-384 or P-521: `openssl ecparam -name prime256v1 -genkey`"
    return KeyFileError(f"{file} holds no {kind} key that can be used: {told}", hint=hint)


def _library(module: str) -> Any:
    """A module of ``model_signing``, which is an extra, takes half a second to import, and is only half annotated."""
    try:
        return importlib.import_module(f"model_signing.{module}")
    except ImportError as error:
        hint = "`pip install 'holdfast[sign]'` brings what is needed"
        raise SigningMissingError(f"model-signing cannot be used: {error}", hint=hint) from error
