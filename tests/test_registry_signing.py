"""Signatures of versions, with real keys and the library that signs; its own command reads them, too."""

import base64
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from registry_world import MODEL, copy_of, error_of, registry_files, shown, weights
from worlds import TOOLS, World, make_repository, run

# an extra: what needs it is tested where it is installed, as CI does
pytest.importorskip("model_signing.signing")

NAME = f"{MODEL}@v1"


def make_keys(folder: Path, name: str, password: bytes | None = None) -> tuple[str, str]:
    """A private and a public key in PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return str(private), str(public)


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A file as v1 and a folder, with a .gitignore in it, as v1 of another model, both signed."""
    folder = tmp_path_factory.mktemp("signed")
    world = make_repository(folder)
    private, _ = make_keys(folder, "team")
    weights(world.root / "best.safetensors", 1.0)
    weights(world.root / "scorer/model.safetensors", 2.0)
    world.write("scorer/deep/vocabulary.txt", "a b c")
    world.write("scorer/.gitignore", "*.tmp\n")
    world.holdfast("registry", "register", MODEL, "best.safetensors")
    world.holdfast("registry", "register", "album/scorer", "scorer")
    for name in (NAME, "album/scorer@v1"):
        world.holdfast("registry", "sign", name, "--private-key", private)
    world.write(".gitignore", "/best.safetensors\n/scorer\n")
    world.commit("signed")
    return world


@pytest.fixture
def world(signed: World, tmp_path: Path) -> World:
    return copy_of(signed, tmp_path)


@pytest.fixture
def keys(signed: World) -> tuple[str, str]:
    folder = signed.root.parent
    return str(folder / "team.pem"), str(folder / "team.pub")


def verify(world: World, public: str, *arguments: str, code: int = 13) -> str:
    return world.holdfast("registry", "verify", *arguments, "--signature", "--public-key", public, code=code).stderr


def cached(world: World, oid: str) -> Path:
    return world.cache / "files/md5" / oid[:2] / oid[2:]


def test_a_signature_is_right_and_others_read_it(world: World, keys: tuple[str, str], tmp_path: Path) -> None:
    assert verify(world, keys[1], code=0) == ""
    assert world.holdfast("registry", "verify").stdout.startswith("0 faults in 2 versions of 2 models: 2 read")
    assert "is no file of the registry" not in world.holdfast("registry", "verify").stdout
    assert world.git("status", "--porcelain") == ""
    for name, target in ((NAME, "best.safetensors"), ("album/scorer@v1", "scorer")):
        world.holdfast("registry", "get", name, "-o", str(tmp_path / target))
        file = world.root / "registry" / name.replace("@v1", "/v1.sig")
        key = ["--public_key", keys[1], "--signature", str(file), "--no-ignore-git-paths", str(tmp_path / target)]
        told = run([str(TOOLS / "model_signing"), "verify", "key", *key], tmp_path, world.home)
        assert "succeeded" in told.stdout + told.stderr
    assert shown(world, "show", NAME)["version"] == "v1"
    assert list((world.root / ".dvc/tmp/holdfast").glob("signing-*")) == []


def test_a_changed_byte_is_found(world: World, keys: tuple[str, str]) -> None:
    """In the cache; and where the registry's file was made to fit the changed bytes."""
    place = cached(world, shown(world, "show", NAME)["oid"])
    data = place.read_bytes()
    place.chmod(0o644)
    place.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert f"{NAME}: the cache has" in verify(world, keys[1])
    place.write_bytes(data)
    (world.root / "best.safetensors").unlink()
    weights(world.root / "best.safetensors", 3.0)
    signature = (world.root / f"registry/{MODEL}/v1.sig").read_bytes()
    (world.root / f"registry/{MODEL}/v1.yaml").unlink()
    (world.root / f"registry/{MODEL}/model.yaml").unlink()
    world.holdfast("registry", "register", MODEL, "best.safetensors")
    world.commit("other bytes under v1")
    assert (world.root / f"registry/{MODEL}/v1.sig").read_bytes() == signature
    world.holdfast("registry", "verify")
    assert f"{NAME}: its signature (v1.sig) is of other bytes. `holdfast registry sign {NAME}" in verify(world, keys[1])


def test_another_key_and_no_signature_are_found(world: World, keys: tuple[str, str], tmp_path: Path) -> None:
    _, other = make_keys(tmp_path, "other")
    assert f"{NAME}: its signature (v1.sig) is of another key" in verify(world, other, MODEL)
    assert "and 1 more fault" in verify(world, other)
    file = world.root / f"registry/{MODEL}/v1.sig"
    bundle = json.loads(file.read_bytes())
    # whoever takes the key's name out of the bundle still has no signature of that key
    del bundle["verificationMaterial"]["publicKey"]["hint"]
    file.write_text(json.dumps(bundle))
    told = world.holdfast("registry", "verify", MODEL, "--signature", "--public-key", other, "--json", code=13)
    assert json.loads(told.stdout)["findings"][0]["fault"] == "its signature (v1.sig) was changed, or is of another key"
    file.unlink()
    assert f"{NAME}: has no signature beside it (v1.sig). `holdfast registry sign {NAME} --private-key FILE`" in verify(
        world, keys[1]
    )


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b'{"dsseEnvelope": {"payload": 1}}',
        b"[" * 90_000,
        pytest.param(b"{}", marks=pytest.mark.soak),
        pytest.param(b"[]", marks=pytest.mark.soak),
        pytest.param(b"\xff\xfe", marks=pytest.mark.soak),
    ],
)
def test_a_broken_signature_is_found(world: World, keys: tuple[str, str], broken: bytes) -> None:
    (world.root / f"registry/{MODEL}/v1.sig").write_bytes(broken)
    assert f"{NAME}: its signature (v1.sig) is no bundle of Sigstore's" in verify(world, keys[1])


def test_what_was_signed_cannot_be_put_in_by_hand(world: World, keys: tuple[str, str]) -> None:
    file = world.root / f"registry/{MODEL}/v1.sig"
    whole = json.loads(file.read_bytes())
    payload = json.loads(base64.b64decode(whole["dsseEnvelope"]["payload"]))
    payload["predicate"]["resources"][0]["digest"] = "0" * 64
    whole["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()
    file.write_text(json.dumps(whole))
    assert "its signature (v1.sig) was changed, or is of another key" in verify(world, keys[1])
    file.write_bytes((world.root / "registry/album/scorer/v1.sig").read_bytes())
    assert "its signature (v1.sig) is of other bytes" in verify(world, keys[1])


def test_every_file_of_a_folder_is_covered(world: World, keys: tuple[str, str], tmp_path: Path) -> None:
    """The library's own command leaves git's files out; such a signature does not vouch for the version."""
    world.holdfast("registry", "get", "album/scorer@v1", "-o", str(tmp_path / "scorer"))
    file = world.root / "registry/album/scorer/v1.sig"
    key = ["--private_key", keys[0], "--signature", str(file), str(tmp_path / "scorer")]
    run([str(TOOLS / "model_signing"), "sign", "key", *key], tmp_path, world.home)
    assert "album/scorer@v1: its signature does not cover .gitignore" in verify(world, keys[1])


def test_bytes_come_from_elsewhere_or_are_missed(world: World, keys: tuple[str, str], tmp_path: Path) -> None:
    world.dvc("remote", "add", "-d", "store", str(tmp_path / "store"))
    place = cached(world, shown(world, "show", NAME)["oid"])
    there = tmp_path / "store/files/md5" / place.parent.name / place.name
    there.parent.mkdir(parents=True)
    there.write_bytes(place.read_bytes())
    place.unlink()
    assert verify(world, keys[1], code=0) == ""
    place.unlink()
    assert f"{NAME}: its signature was not checked: {NAME} (md5" in verify(world, keys[1], "--offline")
    world.holdfast("registry", "sign", NAME, "--private-key", keys[0], "--force")
    assert verify(world, keys[1], code=0) == ""


def test_keys_with_passwords_and_files_that_are_no_keys(world: World, keys: tuple[str, str], tmp_path: Path) -> None:
    private, public = make_keys(tmp_path, "locked", b"secret")
    before = registry_files(world)
    sign = ["sign", NAME, "--force", "--private-key"]
    assert "has a password. Name a file with it" in error_of(world, *sign, private, code=2)
    (tmp_path / "word").write_text("wrong\n")
    assert "holds no private key that can be used" in error_of(
        world, *sign, private, "--password-file", str(tmp_path / "word"), code=2
    )
    assert "holds no private key" in error_of(world, *sign, public, code=2)
    edwards = ed25519.Ed25519PrivateKey.generate()
    (tmp_path / "ed.pem").write_bytes(
        edwards.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    assert "holds no private key" in error_of(world, *sign, str(tmp_path / "ed.pem"), code=2)
    assert f"{NAME} has a signature" in error_of(world, "sign", NAME, "--private-key", keys[0], code=2)
    assert "names no version" in error_of(world, "sign", MODEL, "--private-key", keys[0], code=2)
    assert registry_files(world) == before
    (tmp_path / "word").write_text("secret\n")
    world.holdfast("registry", *sign, private, "--password-file", str(tmp_path / "word"))
    assert verify(world, public, MODEL, code=0) == ""
    assert f"registry/{MODEL}/v1.sig" in world.git("diff", "--cached", "--name-only")
    assert "holds no public key" in verify(world, private, code=2)
    assert "go together" in error_of(world, "verify", "--signature", code=2)
    assert "go together" in error_of(world, "verify", "--public-key", public, code=2)
