"""What a merge makes of the files that go along with versions: signatures, and what lies beside the stable path."""

import posixpath
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from holdfast.registry.cards import PART, README_PART, CardFacts, card_path, readme_path, render_card
from holdfast.registry.cards_files import has_part, readme_text
from holdfast.registry.entries import VERSION_NAME, Version
from holdfast.registry.resolving_trees import SIDES, STATES, Side, Sides, merge_texts, other_side, three_ways
from holdfast.registry.signing import SIGNATURE_SUFFIX
from holdfast.registry.store import Registry

# a file by its path from git's root; None for one that goes
Files = dict[str, bytes | None]


def merge_signatures(
    sides: Sides,
    model_id: str,
    taken: Sequence[tuple[Version, Version, Side, str]],
    kept: Collection[str],
    keeper: Side,
) -> tuple[Files, list[str]]:
    """Where signatures go, and what there is to say of it.

    A signature covers a version's bytes and not its number: it goes with the version that was signed. Git puts one that
    a single side has beside whatever version has that number in the end.

    Args:
        sides: of the merge.
        model_id: ``app/name``.
        taken: for numbers that both sides took: the version that keeps it, the other one, whose side keeps it, and the
            other one's new name; the same name where both have the same weights.
        kept: names of the versions that are there in the end.
        keeper: the side that counts where both changed a signature.
    """
    place = f"{sides.place}/{model_id}"
    found = {
        state: {
            name.removesuffix(SIGNATURE_SUFFIX): sides.blob(state, model_id, name)
            for name in sides.names(state, place)
            if name.endswith(SIGNATURE_SUFFIX) and VERSION_NAME.fullmatch(name.removesuffix(SIGNATURE_SUFFIX))
        }
        for state in STATES
    }
    files: Files = {}
    notes = []
    for stays, moves, side, new in taken:
        name = stays.name
        mine, other = found[side].get(name), found[other_side(side)].get(name)
        if mine is None and other is None:
            continue
        if new != name:
            files[f"{place}/{name}{SIGNATURE_SUFFIX}"] = mine
            if other is not None:
                files[f"{place}/{new}{SIGNATURE_SUFFIX}"] = other
                notes.append(f"the signature of {other_side(side)}' {name} is {new}{SIGNATURE_SUFFIX} now")
        elif mine is not None:
            files[f"{place}/{name}{SIGNATURE_SUFFIX}"] = mine
            if other not in (None, mine):
                notes.append(f"{model_id}@{name} was signed on both sides, and has the signature of {side}")
        elif stays.oid == moves.oid:
            files[f"{place}/{name}{SIGNATURE_SUFFIX}"] = other
        else:
            files[f"{place}/{name}{SIGNATURE_SUFFIX}"] = None
            notes.append(
                f"{model_id}@{name} is not signed: the signature of {other_side(side)} covers other bytes of it"
            )
    for name in sorted({*found["ours"], *found["theirs"]} - {stays.name for stays, *_ in taken}):
        path = f"{place}/{name}{SIGNATURE_SUFFIX}"
        states = [found[state].get(name) for state in STATES]
        _, clash = three_ways(*states)
        if name not in kept:
            files[path] = None
            notes.append(f"the signature of {model_id}@{name} goes: one side removed the version")
        elif clash:
            files[path] = found[keeper].get(name)
            notes.append(f"both sides changed the signature of {model_id}@{name}, and that of {keeper} counts")
    return files, notes


def merge_beside(sides: Sides, version: Version, side: Side) -> Files:
    """Files beside the stable path, its ``.dvc`` file among them, which both sides changed: as the side has them whose
    version is current. The card is not among them."""
    folder, stem = posixpath.split(sides.path(PurePosixPath(version.path).with_suffix("").as_posix()))
    if version.is_folder:
        stem = posixpath.basename(version.path)
    files: Files = {}
    for name in sorted({name for state in SIDES for name in sides.names(state, folder)}):
        if name.startswith(f"{stem}.") and name != f"{stem}.md":
            path = posixpath.join(folder, name)
            if three_ways(*(sides.data(state, path) for state in STATES))[1]:
                files[path] = sides.data(side, path)
    return files


def merge_cards(sides: Sides, registry: Registry, facts: Mapping[str, CardFacts]) -> Iterator[tuple[str, bytes | None]]:
    """The cards and READMEs of merged models, from git's root: what is generated says what is current, the rest is as
    git merges it.

    Args:
        sides: of the merge.
        registry: after the merge.
        facts: of each merged model.

    Yields:
        Path and text; None where people wrote into the same lines on both sides.

    Raises:
        CardError: one cannot be edited.
        EntryError: a model of the application is broken.
    """
    for model_id, told in sorted(facts.items()):
        for path, part in ((card_path(model_id), PART), (readme_path(model_id), README_PART)):
            place = sides.path(path.as_posix())
            states = [sides.data(state, place) for state in STATES]
            if states[1] == states[2]:
                continue
            texts = []
            for state in states:
                text = None if state is None else state.decode("utf-8", "replace")
                if text is None or not has_part(text, part):
                    texts.append(state or b"")  # people's own, or none: git's business
                else:
                    made = render_card(told, text) if part == PART else readme_text(registry, told, text)
                    texts.append(made.encode())
            base, ours, theirs = texts
            yield place, merge_texts(base or (ours if states[2] is None else theirs), ours, theirs)
