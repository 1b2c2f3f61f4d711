"""The texts that an expression of a program may have: unknown parts stay unknown, alternatives are few or none."""

import re
import string
from collections.abc import Iterable
from dataclasses import dataclass, replace

from holdfast.inventory.ref_pattern import Form

MAX_FORMS = 128
MAX_PIECES = 64
MAX_CHARACTERS = 4096
MAX_ITEMS = 512

_PERCENT = re.compile(r"%(?:\((\w+)\))?([-+#0 ]*\d*(?:\.\d+)?)([sdifgrxe%])")


@dataclass(frozen=True, slots=True)
class Text:
    """A string or a path.

    Args:
        forms: what it may be, each with ``None`` for unknown parts.
        places: the references that it was made from.
    """

    forms: tuple[Form, ...]
    places: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Items:
    """A list, tuple, set, or what a loop goes through; ``whole`` unless there may be more."""

    values: "tuple[Value, ...]"
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Table:
    """A dict with its keys and values in order."""

    pairs: "tuple[tuple[Value, Value], ...]"


Value = Text | Items | Table
UNKNOWN = Text(((None,),))


def literal(text: str) -> Text:
    """A text that is known."""
    return Text(((text,),)) if len(text) <= MAX_CHARACTERS else UNKNOWN


def as_text(value: Value) -> Text:
    """The value as a text; a container is an unknown one."""
    return value if isinstance(value, Text) else UNKNOWN


def union(values: Iterable[Value]) -> Value:
    """What may be any of the values."""
    known = list(values)
    if not known:
        return UNKNOWN
    if len(known) == 1:
        return known[0]
    if all(isinstance(value, Items) for value in known):
        merged = [item for value in known if isinstance(value, Items) for item in value.values]
        return Items(tuple(dict.fromkeys(merged))[:MAX_ITEMS], all(v.whole for v in known if isinstance(v, Items)))
    if all(isinstance(value, Table) for value in known):
        return Table(tuple(pair for value in known if isinstance(value, Table) for pair in value.pairs)[:MAX_ITEMS])
    texts = [as_text(value) for value in known]
    forms = tuple(dict.fromkeys(form for text in texts for form in text.forms))
    return _bounded(forms, frozenset().union(*(text.places for text in texts)))


def concatenate(*texts: Text) -> Text:
    """The texts one after the other, in all combinations."""
    forms: list[Form] = [()]
    for text in texts:
        if len(forms) * len(text.forms) > MAX_FORMS:
            # too many: what varies becomes unknown
            forms = [_joined(form, (None,)) for form in forms]
        else:
            forms = [_joined(left, right) for left in forms for right in text.forms]
    return _bounded(tuple(dict.fromkeys(forms)), frozenset().union(*(text.places for text in texts)))


def join_path(*texts: Text) -> Text:
    """``os.path.join``: a part that begins with a separator starts anew."""
    result = texts[0]
    for text in texts[1:]:
        if all(form and isinstance(form[0], str) and form[0][:1] in ("/", "\\") for form in text.forms):
            result = replace(text, places=text.places | result.places)
            continue
        heads = Text(tuple(_with_slash(form) for form in result.forms), result.places)
        result = concatenate(heads, text)
    return result


def join_text(separator: Text, items: Value) -> Text:
    """``separator.join(items)``."""
    if not isinstance(items, Items) or not items.whole or len(items.values) > MAX_PIECES or not items.values:
        return UNKNOWN
    parts: list[Text] = []
    for item in items.values:
        parts += [separator, as_text(item)] if parts else [as_text(item)]
    return concatenate(*parts)


def percent_format(template: Text, arguments: Value) -> Text:
    """``template % arguments``."""
    result: list[Text] = []
    for form in template.forms:
        counter = iter(arguments.values if isinstance(arguments, Items) else (arguments,))
        parts: list[Text] = []
        for piece in form:
            if piece is None:
                parts.append(UNKNOWN)
                continue
            end = 0
            for found in _PERCENT.finditer(piece):
                parts.append(literal(piece[end : found.start()]))
                end = found.end()
                if found[3] == "%":
                    parts.append(literal("%"))
                elif found[1] is not None:
                    parts.append(formatted(lookup(arguments, literal(found[1])), f"{found[2]}{found[3]}", old=True))
                else:
                    parts.append(formatted(next(counter, UNKNOWN), f"{found[2]}{found[3]}", old=True))
            parts.append(literal(piece[end:]))
        result.append(concatenate(*parts[: 4 * MAX_PIECES]))
    return as_text(union([replace(text, places=text.places | template.places) for text in result]))


def brace_format(template: Text, arguments: list[Value], named: dict[str, Value]) -> Text:
    """``template.format(*arguments, **named)``."""
    result: list[Text] = []
    for form in template.forms:
        parts: list[Text] = []
        for piece in form:
            if piece is None:
                parts.append(UNKNOWN)
                continue
            counter = 0
            try:
                fields = list(string.Formatter().parse(piece))
            except ValueError:
                parts.append(literal(piece))
                continue
            for before, name, layout, _ in fields[:MAX_PIECES]:
                parts.append(literal(before))
                if name is None:
                    continue
                if name == "":
                    value = arguments[counter] if counter < len(arguments) else UNKNOWN
                    counter += 1
                elif name.isascii() and name.isdigit():
                    value = arguments[int(name)] if len(name) < 4 and int(name) < len(arguments) else UNKNOWN
                else:
                    value = named.get(name, UNKNOWN)
                parts.append(formatted(value, layout or ""))
        result.append(concatenate(*parts[: 4 * MAX_PIECES]))
    return as_text(union([replace(text, places=text.places | template.places) for text in result]))


def formatted(value: Value, layout: str, *, old: bool = False) -> Text:
    """A value in a format: known where it is a plain one, or a whole number with leading zeros."""
    text = as_text(value)
    plain = layout in ("", "s", "d", "i") if old else layout in ("", "s", "d")
    if plain:
        return text
    if not re.fullmatch(r"0?\d{1,2}d?", layout):
        return replace(UNKNOWN, places=text.places)
    forms: list[Form] = []
    for form in text.forms:
        piece = form[0] if len(form) == 1 else None
        number = piece is not None and re.fullmatch(r"\d{1,9}", piece) is not None
        forms.append((format(int(piece), layout),) if number and piece is not None else (None,))
    return Text(tuple(dict.fromkeys(forms)), text.places)


def lookup(container: Value, key: Value) -> Value:
    """``container[key]``: the one where the key is known, else any."""
    wanted = key.forms[0][0] if isinstance(key, Text) and len(key.forms) == 1 and len(key.forms[0]) == 1 else None
    if isinstance(container, Table):
        exact = [
            v for k, v in container.pairs if wanted is not None and isinstance(k, Text) and k.forms == ((wanted,),)
        ]
        return exact[-1] if exact else union(value for _, value in container.pairs)
    if isinstance(container, Items) and container.values:
        if wanted is not None and container.whole and re.fullmatch(r"-?\d{1,4}", wanted):
            index = int(wanted)
            return container.values[index] if -len(container.values) <= index < len(container.values) else UNKNOWN
        return union(container.values)
    return UNKNOWN


def elements(value: Value) -> list[Value]:
    """What a loop over the value binds, one after the other; one unknown where that is not known."""
    if isinstance(value, Items) and value.whole:
        return list(value.values)
    if isinstance(value, Items):
        return [union([*value.values, UNKNOWN])]
    if isinstance(value, Table):
        return [key for key, _ in value.pairs]
    return [UNKNOWN]


def path_part(text: Text, part: str) -> Text:
    """A part of a path: ``name``, ``stem``, ``suffix`` or ``parent``."""
    return Text(tuple(dict.fromkeys(_part(form, part) for form in text.forms)), text.places)


def _part(form: Form, part: str) -> Form:
    folder, name = split_path(form)
    if part == "parent":
        return folder or (".",)
    if part == "name":
        return name
    last = name[-1] if name else ""
    if last is None:
        return name if part == "stem" else (None,)
    dot = last.rfind(".")
    if part == "suffix":
        return (last[dot:] if dot > 0 or (dot == 0 and len(name) > 1) else "",)
    return (*name[:-1], last[:dot]) if dot > 0 or (dot == 0 and len(name) > 1) else name


def split_path(form: Form) -> tuple[Form, Form]:
    """The folder (without its last separator) and the name of a path."""
    for index in range(len(form) - 1, -1, -1):
        piece = form[index]
        if piece is None:
            continue
        cut = max(piece.rfind("/"), piece.rfind("\\"))
        if cut >= 0:
            head: Form = (*form[:index], piece[:cut]) if piece[:cut] else form[:index] or ("/",)
            rest = piece[cut + 1 :]
            return head, ((rest, *form[index + 1 :]) if rest else form[index + 1 :])
    return (), form


def with_name(text: Text, name: Text) -> Text:
    """The path beside it with that name."""
    folders = Text(tuple(dict.fromkeys(split_path(form)[0] for form in text.forms)), text.places)
    if all(not form for form in folders.forms):
        return replace(name, places=name.places | text.places)
    return join_path(folders, name)


def with_suffix(text: Text, suffix: Text) -> Text:
    """The path with another suffix."""
    folders = tuple(dict.fromkeys((*_slashed(split_path(form)[0]), *_part(form, "stem")) for form in text.forms))
    return concatenate(Text(folders, text.places), suffix)


def _slashed(form: Form) -> Form:
    return _with_slash(form) if form else ()


def _with_slash(form: Form) -> Form:
    last = form[-1] if form else None
    if not form or last == "":
        return form
    if last is not None and last.endswith(("/", "\\")):
        return form
    return _joined(form, ("/",))


def _joined(left: Form, right: Form) -> Form:
    if left and right and (first := left[-1]) is not None and (second := right[0]) is not None:
        return (*left[:-1], first + second, *right[1:])
    return left + right


def _bounded(forms: tuple[Form, ...], places: frozenset[int]) -> Text:
    if len(forms) > MAX_FORMS:
        return Text(((None,),), places)
    kept = []
    for form in forms:
        size = sum(len(piece) for piece in form if piece is not None)
        kept.append(form if len(form) <= MAX_PIECES and size <= MAX_CHARACTERS else (None,))
    return Text(tuple(dict.fromkeys(kept)) or ((None,),), places)
