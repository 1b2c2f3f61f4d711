"""One page of a project in one file: models, experiments, runs, storage, lineage, what could go.

The file needs no other and asks nobody: styles, scripts and the charting library are in it, and its policy forbids the
browser to load or send anything. All that a project says reaches the page as text or as JSON in a block that no browser
runs. Equal facts give equal bytes.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from holdfast.errors import HoldfastError

EXTRA = "pip install 'holdfast[report]'"
_SCRIPTS = ("format.js", "tables.js", "experiments.js", "models.js", "page.js")
_CHARTS = ("charts.js", "draw.js")
_PLACE = "page"
# what would end a block of a page, or a line of a script
_UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
_UNSAFE_PATTERN = re.compile("[<>&\u2028\u2029]")


class NoReportExtraError(HoldfastError):
    """What draws the page is not installed."""


@dataclass(frozen=True)
class Fault:
    """Something that the page cannot show, and why.

    Attributes:
        part: of the page: ``models``, ``experiments``, ``runs``, ``storage``, ``plan``.
        text: what is wrong, and the way out.
    """

    part: str
    text: str


@dataclass(frozen=True)
class Facts:
    """What the page says.

    Attributes:
        project: its name.
        branch: that is checked out; empty where none is.
        commit: 40 hex digits; empty before the first.
        subject: its first line.
        moment: that ages are counted to, ISO 8601 in UTC.
        models: from `holdfast.report.html_models.models_json`; None where they could not be read.
        experiments: from `holdfast.report.html_experiments.experiments_json`; likewise, as all that follow.
        runs: from `holdfast.report.html_runs.runs_json`.
        scan: from `holdfast.report.html_storage.scan_json`.
        vault: from `holdfast.report.html_storage.vault_json`; None where there is none.
        plan: from `holdfast.report.html_storage.plan_json`.
        faults: what could not be read.
        notes: what was passed over.
    """

    project: str
    branch: str
    commit: str
    subject: str
    moment: str
    models: list[dict[str, Any]] | None = None
    experiments: dict[str, Any] | None = None
    runs: dict[str, Any] | None = None
    scan: dict[str, Any] | None = None
    vault: dict[str, Any] | None = None
    plan: dict[str, Any] | None = None
    faults: tuple[Fault, ...] = ()
    notes: tuple[str, ...] = field(default=())


def html_report(facts: Facts, charts: str, *, state: str = "") -> str:
    """The page as HTML.

    Args:
        facts: what it says.
        charts: the charting library, from `charting_library`.
        state: names the state of the repository, for a page that is served and follows what changes; empty for a file.

    Raises:
        NoReportExtraError: Jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, StrictUndefined  # imported here: of an extra
        from markupsafe import Markup, escape
    except ImportError as error:
        raise NoReportExtraError(
            "Jinja2, which writes the page, is not installed", hint=f"`{EXTRA}` brings it"
        ) from error

    def prose(text: str) -> Markup:
        return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "size": size_text,
        "count": count_text,
        "dollars": dollars_text,
        "day": day_text,
        "plural": _plural,
        "prose": prose,
    }
    style = _part("page.css")
    scripts = ["\n".join(map(_part, _SCRIPTS)), _apart(charts), "\n".join(map(_part, _CHARTS))]
    if state:
        scripts.append(_part("live.js"))
    return environment.from_string(_part("page.html")).render(
        facts=facts,
        state=state,
        overview=_overview(facts),
        faults={part: [fault.text for fault in facts.faults if fault.part == part] for part in _parts(facts)},
        policy=policy_of(style, scripts, live=bool(state)),
        style=Markup(style),
        scripts=[Markup(script) for script in scripts],
        data=Markup(
            embedded(
                {
                    "models": facts.models,
                    "experiments": facts.experiments,
                    "runs": facts.runs,
                    "scan": facts.scan,
                    "plan": facts.plan,
                    "moment": facts.moment,
                }
            )
        ),
    )


def charting_library() -> str:
    """Vega, Vega-Lite and Vega-Embed with Vega's interpreter of expressions, as one script.

    It takes a second to put together; `charting_version` says when that is to be done again.

    Raises:
        NoReportExtraError: vl-convert-python is not installed.
    """
    return str(_vl_convert().javascript_bundle())


def charting_version() -> str:
    """What names the library's bytes.

    Raises:
        NoReportExtraError: vl-convert-python is not installed.
    """
    return str(_vl_convert().__version__)


def policy_of(style: str, scripts: list[str], *, live: bool) -> str:
    """The page's Content-Security-Policy: these very scripts and styles, nothing from elsewhere.

    Vega's interpreter makes do without `eval`. Its charts set attributes of style, which run nothing.
    """
    hashes = " ".join(_hash(script) for script in scripts)
    parts = [
        "default-src 'none'",
        f"script-src {hashes}",
        f"style-src-elem {_hash(style)}",
        "style-src-attr 'unsafe-inline'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    return "; ".join([*parts, "connect-src 'self'"] if live else parts)


def embedded(values: Any) -> str:
    """Values as JSON that may stand in any block of a page; what JSON has no number for is null."""
    text = json.dumps(_finite(values), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    safe = _UNSAFE_PATTERN.sub(lambda match: _UNSAFE[match[0]], text)
    return safe.encode("utf-8", "backslashreplace").decode()  # names of files need not be text


def size_text(count: float) -> str:
    """Bytes in decimal units: ``351.5 MB``, ``17 B``."""
    size, unit = float(count), 0
    units = ("B", "kB", "MB", "GB", "TB", "PB")
    while abs(size) >= 999.95 and unit < len(units) - 1:
        size, unit = size / 1000, unit + 1
    return f"{count:.0f} B" if unit == 0 else f"{size:.1f} {units[unit]}"


def count_text(number: int) -> str:
    """``12,345``."""
    return f"{number:,}"


def dollars_text(amount: float) -> str:
    """``$1.25``, or that it is less than a cent."""
    return f"${amount:,.2f}" if amount >= 0.005 else "less than $0.01"


def day_text(moment: str) -> str:
    """The day of a moment in ISO 8601."""
    return moment[:10]


def _overview(facts: Facts) -> list[dict[str, str]]:
    """The figures at the top, each with where it leads."""
    models, plan, scan = facts.models or [], facts.plan, facts.scan
    versions = sum(len(model["versions"]) for model in models)
    rows = (facts.experiments or {}).get("rows", [])
    experiments = sum(bool(row["baseline"]) for row in rows)
    runs = (facts.runs or {}).get("runs", [])
    kept = sum(run["verdict"] == "keep" for run in runs)
    tiles = [
        {"name": "Models", "value": count_text(len(models)), "note": _plural(versions, "version"), "to": "models"},
        {
            "name": "Experiments",
            "value": count_text(experiments),
            "note": f"from {_plural(len(rows) - experiments, 'baseline')}" if experiments else "none yet",
            "to": "experiments",
        },
        {
            "name": "Runs",
            "value": count_text(len(runs)),
            "note": f"{count_text(kept)} to keep" if runs else "none yet",
            "to": "runs",
        },
    ]
    if scan is not None:
        twice = f"{size_text(scan['twice'])} of it twice" if scan["twice"] else "nothing twice"
        tiles.append({"name": "Model files", "value": size_text(scan["bytes"]), "note": twice, "to": "storage"})
    if plan is not None:
        going = f"{size_text(plan['frees'])} could go" if plan["going"] else "nothing could go"
        tiles.append({"name": "DVC’s cache", "value": size_text(plan["bytes"]), "note": going, "to": "plan"})
    return tiles


def _plural(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _parts(facts: Facts) -> tuple[str, ...]:
    return ("models", "experiments", "runs", "storage", "plan", *(fault.part for fault in facts.faults))


def _part(name: str) -> str:
    return (resources.files(__package__) / _PLACE / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _apart(text: str) -> str:
    """A library as a script: its names are its own, and no text in it ends the block."""
    return "(()=>{" + re.sub(r"<(?=/script|!--)", r"\\x3c", text, flags=re.IGNORECASE) + "})();"


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def _vl_convert() -> Any:
    try:
        import vl_convert  # imported here: of an extra, and 40 MB of it
    except ImportError as error:
        raise NoReportExtraError(
            "vl-convert-python, which holds the charting library, is not installed", hint=f"`{EXTRA}` brings it"
        ) from error
    return vl_convert
