"""``registry resolve``: what goes along with versions: signatures, cards, READMEs, ``.dvc`` files, in any folder."""

import json
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from holdfast.formats.digest import file_md5
from holdfast.registry.store import Registry
from registry_world import copy_of, shown, weights
from worlds import World, make_repository

MODEL = "app/scorer"
FOLDER = f"registry/{MODEL}"
CARD, README, STABLE = "models/app/scorer.md", "models/app/README.md", "models/app/scorer.safetensors"
CLEAN = "Data and pipelines are up to date."


def promote(world: World, number: int, model: str = MODEL) -> None:
    """Promote weights of that number, with a configuration and predictions of their own."""
    run = f"outputs/run_{number}"
    weights(world.folder / f"{run}/best.safetensors", float(number))
    prefix = "" if world.project == "." else f"{world.project}/"
    world.write(f"{prefix}{run}/m.json", json.dumps({"accuracy": number / 100}))
    world.write(f"{prefix}{run}/c.yaml", f"width: {number}\n")
    world.write(f"{prefix}{run}/p.csv", "id,label,prediction\n" + "".join(f"s{row},a,a\n" for row in range(number)))
    files = ["--config", f"{run}/c.yaml", "--metrics", f"{run}/m.json", "--predictions", f"{run}/p.csv"]
    world.holdfast("registry", "promote", f"{run}/best.safetensors", "--as", model, *files, "--yes")


@pytest.fixture(scope="module", params=[".", pytest.param("vision", marks=pytest.mark.soak)])
def parted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Branches ``main`` and ``theirs`` that each promoted a v2, in a project that is git's root or a folder in it."""
    world = make_repository(tmp_path_factory.mktemp("parted"), project=request.param)
    world.write(".gitignore", "outputs/\n")
    promote(world, 1)
    world.holdfast("registry", "tag", "--artifacts")
    world.commit("v1")
    world.git("branch", "theirs")
    promote(world, 20)
    world.commit("our v2")
    world.git("checkout", "-q", "theirs")
    promote(world, 30)
    world.commit("their v2")
    world.git("checkout", "-q", "main")
    world.dvc("checkout")
    return world


@pytest.fixture
def world(parted: World, tmp_path: Path) -> World:
    return copy_of(parted, tmp_path)


def resolve(world: World, *arguments: str) -> dict[str, object]:
    """Let production, which both sides moved, be on the version that keeps the number."""
    arguments = (*arguments, "--alias", "production=v2")
    answer = shown(world, "resolve", *arguments)
    assert world.git("diff", "--name-only", "--diff-filter=U") == ""
    assert shown(world, "resolve", *arguments) == answer  # once more, the same
    return answer


def in_use(world: World, number: int) -> None:
    """Everything at the stable path and beside it is of the weights of that number."""
    folder = world.folder
    run = folder / f"outputs/run_{number}"
    model = Registry(folder).model(MODEL)
    current = model.named(None)
    assert current.metrics["accuracy"] == number / 100
    assert file_md5(folder / STABLE) == current.oid == file_md5(run / "best.safetensors")
    assert yaml.safe_load((folder / f"{STABLE}.dvc").read_text())["outs"][0]["md5"] == current.oid
    assert (folder / "models/app/scorer.yaml").read_text() == f"width: {number}\n"
    predictions = folder / "models/app/scorer.predictions.csv.dvc"
    assert yaml.safe_load(predictions.read_text())["outs"][0]["md5"] == file_md5(run / "p.csv")
    card, readme = (folder / CARD).read_text(), (folder / README).read_text()
    assert f"| version | `{current.name}` |" in card
    assert f"| md5 | `{current.oid}` |" in card
    assert f"| accuracy | {number / 100:.6g} |" in card
    assert f"| {current.name} | {current.date} |" in readme
    assert f"accuracy {number / 100:.6g}" in readme
    assert "<<<<<<<" not in card + readme


@pytest.mark.parametrize(
    ("parted", "keeper"),
    [
        (".", "ours"),
        (".", "theirs"),
        ("vision", "tag"),
        pytest.param(".", "tag", marks=pytest.mark.soak),
        pytest.param("vision", "ours", marks=pytest.mark.soak),
        pytest.param("vision", "theirs", marks=pytest.mark.soak),
    ],
    indirect=["parted"],
)
def test_all_that_lies_beside_is_of_what_is_current(world: World, keeper: str) -> None:
    if keeper == "tag":  # as `registry tag` writes it: with the project's folder before the name
        world.git("checkout", "-q", "theirs")
        world.dvc("checkout")
        world.holdfast("registry", "tag")
        name = f"{world.project}={MODEL}" if world.project != "." else MODEL
        assert f"{name}@v2.0.0" in world.git("tag").split()
        world.git("checkout", "-q", "main")
        world.dvc("checkout")
    world.git("merge", "-q", "theirs", code=1)
    answer = resolve(world, *(["--theirs"] if keeper == "theirs" else []))
    (moved,) = answer["renumbered"]  # type: ignore[misc]
    assert moved["side"] == ("theirs" if keeper == "ours" else "ours")
    if keeper == "tag":
        assert moved["why"] == f"the tag {name}@v2.0.0 is on that side"
    assert [version.name for version in Registry(world.folder).model(MODEL).versions] == ["v1", "v2", "v3"]
    in_use(world, 20 if keeper == "ours" else 30)
    world.git("commit", "-q", "--no-edit")
    world.dvc("checkout")
    assert world.dvc("status") == CLEAN
    assert shown(world, "verify", "--offline")["findings"] == []
    assert world.git("status", "--porcelain") == ""


def test_what_people_wrote_on_both_sides_stays(world: World) -> None:
    prefix = "" if world.project == "." else f"{world.project}/"
    texts = {
        "main": ("## Intended use\n\n", "Ranking albums.\n", "# app\n", "# app\n\nOwner: Ada.\n"),
        "theirs": ("## Limitations\n\n", "Bad at night.\n", "holdfast: models ends -->\n", None),
    }
    for branch, (heading, words, before, after) in texts.items():
        world.git("checkout", "-q", branch)
        card = world.root / prefix / CARD
        card.write_text(card.read_text().replace(heading, f"{heading}{words}\n"))
        readme = world.root / prefix / README
        readme.write_text(readme.read_text().replace(before, after or f"{before}\nAsk Bob.\n"))
        world.commit("words")
    world.git("checkout", "-q", "main")
    world.git("merge", "-q", "theirs", code=1)
    resolve(world)
    in_use(world, 20)
    card, readme = (world.folder / CARD).read_text(), (world.folder / README).read_text()
    assert "## Intended use\n\nRanking albums.\n" in card
    assert "## Limitations\n\nBad at night.\n" in card
    assert "Owner: Ada." in readme
    assert "Ask Bob." in readme


def test_words_in_one_place_are_for_people(world: World) -> None:
    for branch, words in (("main", "Ranking albums."), ("theirs", "Sorting pictures.")):
        world.git("checkout", "-q", branch)
        card = world.folder / CARD
        card.write_text(card.read_text().replace("## Intended use\n", f"## Intended use\n\n{words}\n"))
        world.commit("words")
    world.git("checkout", "-q", "main")
    world.git("merge", "-q", "theirs", code=1)
    answer = shown(world, "resolve", "--alias", "production=v2")
    place = CARD if world.project == "." else f"{world.project}/{CARD}"
    assert answer["notes"] == [f"people wrote into {place} on both sides: mend it by hand, and `git add` it"]
    assert world.git("diff", "--name-only", "--diff-filter=U") == place


def make_keys(folder: Path, name: str) -> tuple[str, str]:
    """A private and a public key in PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    private.write_bytes(key.private_bytes(*form))
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return str(private), str(public)


def sign(world: World, branch: str, version: str, private: str) -> bytes:
    world.git("checkout", "-q", branch)
    world.holdfast("registry", "sign", f"{MODEL}@{version}", "--private-key", private, "--force")
    world.commit(f"{version} signed")
    return (world.folder / FOLDER / f"{version}.sig").read_bytes()


def signatures(world: World) -> dict[str, bytes]:
    found = {path.name: path.read_bytes() for path in (world.folder / FOLDER).glob("*.sig")}
    assert {Path(name).name for name in world.git("ls-files", "*.sig").split()} == set(found)
    return found


@pytest.mark.parametrize("signed", ["ours", "theirs", "both"])
def test_a_signature_goes_with_the_version_that_was_signed(world: World, tmp_path: Path, signed: str) -> None:
    pytest.importorskip("model_signing.signing")
    private, public = make_keys(tmp_path, "team")
    base = sign(world, "main", "v1", private) if signed == "both" else None
    theirs = sign(world, "theirs", "v2", private) if signed != "ours" else None
    ours = sign(world, "main", "v2", private) if signed != "theirs" else None
    world.git("checkout", "-q", "main")
    world.git("merge", "-q", "theirs", code=1)
    answer = resolve(world)
    expected = {"v1.sig": base, "v2.sig": ours, "v3.sig": theirs}
    assert signatures(world) == {name: data for name, data in expected.items() if data is not None}
    moved = ["the signature of theirs' v2 is v3.sig now"]
    assert answer["notes"] == (moved if theirs else [])
    place = FOLDER if world.project == "." else f"{world.project}/{FOLDER}"
    assert answer["gone"] == ([f"{place}/v2.sig"] if signed == "theirs" else [])
    # each is of the bytes beside which it lies: nothing but a missing one is said
    told = world.holdfast(
        "registry", "verify", "--signature", "--public-key", public, code=0 if signed == "both" else 13
    )
    assert "of other bytes" not in told.stdout
    assert told.stdout.count("has no signature") == {"ours": 2, "theirs": 2, "both": 0}[signed]


@pytest.fixture
def plain(tmp_path: Path) -> World:
    """A project in which both branches have v1 and v2, which are not signed."""
    world = make_repository(tmp_path / "plain")
    world.write(".gitignore", "*.safetensors\n")
    for number in (1, 2):
        weights(world.root / f"w{number}.safetensors", float(number))
        world.holdfast("registry", "register", MODEL, f"w{number}.safetensors")
    world.commit("two")
    world.git("branch", "theirs")
    return world


def test_a_removed_version_leaves_no_signature(plain: World) -> None:
    plain.holdfast("registry", "assign", f"{MODEL}@v1", "old")
    plain.commit("labels")
    plain.git("checkout", "-q", "theirs")
    plain.write(f"{FOLDER}/v2.sig", "theirs\n")
    plain.commit("signed")
    plain.git("checkout", "-q", "main")
    plain.holdfast("registry", "rm", f"{MODEL}@v2", "--apply")
    plain.commit("removed")
    plain.git("merge", "-q", "--no-commit", "theirs")
    assert (plain.root / FOLDER / "v2.sig").exists()  # what git makes of it
    answer = resolve(plain)
    assert answer["notes"] == [f"the signature of {MODEL}@v2 goes: one side removed the version"]
    assert answer["gone"] == [f"{FOLDER}/v2.sig"]
    assert signatures(plain) == {}
    plain.git("commit", "-q", "--no-edit")
    assert shown(plain, "verify", "--offline")["ok"]


@pytest.mark.parametrize("side", ["ours", "theirs"])
def test_signed_anew_on_both_sides(plain: World, side: str) -> None:
    for branch in ("theirs", "main"):
        plain.git("checkout", "-q", branch)
        plain.write(f"{FOLDER}/v1.sig", f"{branch}\n")
        plain.commit("signed")
    plain.git("merge", "-q", "theirs", code=1)
    answer = resolve(plain, f"--{side}")
    assert signatures(plain) == {"v1.sig": b"main\n" if side == "ours" else b"theirs\n"}
    assert answer["notes"] == [f"both sides changed the signature of {MODEL}@v1, and that of {side} counts"]


@pytest.mark.parametrize("same_file", [True, False])
@pytest.mark.parametrize("signed", ["ours", "theirs"])
def test_the_same_weights_under_one_number(plain: World, signed: str, same_file: bool) -> None:
    """A signature covers a file, not weights: it stays where the file that is kept is the one that was signed."""
    weights(plain.root / "a.safetensors", 3.0)
    data = (plain.root / "a.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    padded = (length + 8).to_bytes(8, "little") + data[8 : 8 + length] + b" " * 8 + data[8 + length :]
    for branch, name in (("theirs", "theirs"), ("main", "ours")):
        plain.git("checkout", "-q", branch)
        (plain.root / "b.safetensors").write_bytes(data if same_file or name == "ours" else padded)
        plain.holdfast("registry", "register", MODEL, "b.safetensors", "--metric", f"of={len(name)}")
        if signed == name:
            plain.write(f"{FOLDER}/v3.sig", f"{name}\n")
        plain.commit("v3")
    plain.git("merge", "-q", "theirs", code=1)
    answer = resolve(plain)
    (item,) = answer["renumbered"]  # type: ignore[misc]
    assert (item["before"], item["after"]) == ("v3", "v3")
    stays = signed == "ours" or same_file
    assert signatures(plain) == ({"v3.sig": f"{signed}\n".encode()} if stays else {})
    dropped = [f"{MODEL}@v3 is not signed: the signature of theirs covers other bytes of it"]
    assert answer["notes"] == ([] if stays else dropped)
