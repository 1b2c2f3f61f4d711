"""``holdfast remote du``, ``ls`` and ``cost``: what lies in a remote, and what it costs."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import click

from holdfast.cli import completion_values
from holdfast.cli.groups import Verb
from holdfast.cli.output import Form, Table, emit, form_options, human_bytes, plural
from holdfast.cli.remote_places import RemotePlace, find_remote
from holdfast.objectstore.store import ObjectInfo
from holdfast.objectstore.usage import GB, R2_PRICES, Prices, Usage, measure_usage, totals
from holdfast.objectstore.usage_listing import list_folder

RIGHT = frozenset({"objects", "size", "$ a month"})
LISTED = 1000

_PRICE = click.option(
    "--price",
    metavar="DOLLARS",
    type=click.FloatRange(min=0),
    default=R2_PRICES.gb_month,
    show_default=True,
    help="Of a GB a month; R2's.",
)


@click.command(cls=Verb)
@click.argument("name", required=False, shell_complete=completion_values.remotes)
@click.argument("prefix", default="")
@click.option("--depth", metavar="N", type=click.IntRange(min=1), default=1, show_default=True, help="Folders deep.")
@_PRICE
@form_options
def du(name: str | None, prefix: str, depth: int, price: float, form: Form) -> None:
    """Say how much lies in the remote NAME, or at a URL, below PREFIX: by folder and by what wrote it.

    \b
    Examples:
      holdfast remote du
      holdfast remote du storage climate --depth 2
    """
    place = find_remote(name)
    usages = measure_usage(place.open().list_objects(prefix), base=prefix, depth=depth)
    prices = Prices(gb_month=price)
    payload = {
        "format": "holdfast remote du 1",
        "remote": place.name,
        "url": place.url,
        "prefix": prefix,
        "usages": [_usage(usage, prices) for usage in usages],
        "totals": [_usage(usage, prices) for usage in totals(usages).values()],
        "objects": sum(usage.objects for usage in usages),
        "nbytes": sum(usage.nbytes for usage in usages),
    }
    emit(form, payload, list(_used(place, prefix, usages, prices)))


@click.command(cls=Verb)
@click.argument("name", required=False, shell_complete=completion_values.remotes)
@click.argument("prefix", default="")
@click.option("-R", "--recursive", is_flag=True, help="All objects below, not the folders and objects right there.")
@click.option("--limit", metavar="N", type=click.IntRange(min=1), default=LISTED, show_default=True, help="Show N.")
@form_options
def ls(name: str | None, prefix: str, recursive: bool, limit: int, form: Form) -> None:
    """List the folders and objects of the remote NAME, or at a URL, below PREFIX.

    \b
    Examples:
      holdfast remote ls
      holdfast remote ls storage climate -R
    """
    place = find_remote(name)
    store = place.open()
    folders: list[str] = []
    objects: list[ObjectInfo] = []
    more = False
    if recursive:
        for info in store.list_objects(prefix):
            if len(objects) == limit:
                more = True
                break
            objects.append(info)
    else:
        folders, objects = list_folder(store, prefix)
        objects, more = objects[:limit], len(objects) > limit
    payload = {
        "format": "holdfast remote ls 1",
        "remote": place.name,
        "url": place.url,
        "prefix": prefix,
        "folders": folders,
        "objects": [{"key": info.key, "nbytes": info.size, "modified": info.modified.isoformat()} for info in objects],
        "more": more,
    }
    rows = [(f"{folder}/", "", "") for folder in folders]
    rows += [(info.key, human_bytes(info.size), f"{info.modified:%Y-%m-%d %H:%M}") for info in objects]
    blocks: list[str | Table] = [Table(("name", "size", "written (UTC)"), rows, right=RIGHT)]
    if not rows:
        blocks = [f"Nothing lies below {place.label}{f' in {prefix}' if prefix else ''}."]
    if more:
        blocks.append(f"There are more than {limit:,}: `--limit` shows them.")
    emit(form, payload, blocks)


@click.command(cls=Verb)
@click.argument("name", required=False, shell_complete=completion_values.remotes)
@_PRICE
@form_options
def cost(name: str | None, price: float, form: Form) -> None:
    """Say what the remote NAME, or the one at a URL, costs a month, and what it costs to read all of it once.

    \b
    Examples:
      holdfast remote cost
      holdfast remote cost storage --price 0.023
    """
    place = find_remote(name)
    kinds = totals(measure_usage(place.open().list_objects()))
    prices = Prices(gb_month=price)
    nbytes = sum(usage.nbytes for usage in kinds.values())
    count = sum(usage.objects for usage in kinds.values())
    written, read = prices.requests(count, 0), prices.requests(0, 2 * count, nbytes)
    payload = {
        "format": "holdfast remote cost 1",
        "remote": place.name,
        "url": place.url,
        "prices": asdict(prices),
        "kinds": [_usage(usage, prices) for usage in kinds.values()],
        "nbytes": nbytes,
        "objects": count,
        "dollars_a_month": prices.month(nbytes),
        "dollars_to_write": written,
        "dollars_to_read": read,
    }
    rows = [
        (kind, f"{usage.objects:,}", human_bytes(usage.nbytes), f"{prices.month(usage.nbytes):.2f}")
        for kind, usage in kinds.items()
    ]
    month = f"${prices.month(nbytes):.2f} a month for {nbytes / GB:.2f} GB at ${price:g} a GB"
    once = f"Requests to write all of it once cost ${written:.4f}, to read it ${read:.4f}, at R2's prices"
    table = Table(("what", "objects", "size", "$ a month"), rows, right=RIGHT)
    emit(
        form,
        payload,
        [
            f"{place.label}: {month}, in {plural(count, 'object')}.",
            table,
            f"{once}; R2 takes nothing for what is read.",
        ],
    )


def _usage(usage: Usage, prices: Prices) -> dict[str, Any]:
    newest = usage.newest.isoformat() if usage.newest else None
    return {**asdict(usage), "newest": newest, "dollars_a_month": prices.month(usage.nbytes)}


def _used(place: RemotePlace, prefix: str, usages: list[Usage], prices: Prices) -> Iterator[str | Table]:
    nbytes, count = sum(usage.nbytes for usage in usages), sum(usage.objects for usage in usages)
    below = f" below {prefix}" if prefix else ""
    month = f"${prices.month(nbytes):.2f} a month"
    yield f"{place.label}: {human_bytes(nbytes)} in {plural(count, 'object')}{below}, {month}."
    if not usages:
        return
    yield Table(
        ("folder", "what", "objects", "size", "$ a month", "newest"),
        [
            (
                usage.prefix or "(top)",
                usage.kind,
                f"{usage.objects:,}",
                human_bytes(usage.nbytes),
                f"{prices.month(usage.nbytes):.2f}",
                f"{usage.newest:%Y-%m-%d}" if usage.newest else "",
            )
            for usage in usages
        ],
        right=RIGHT,
        spare=("newest",),
    )
