"""Where the bytes are, for the page: families of model files, what is there twice, what keeps DVC's cache, the plan."""

from collections.abc import Mapping
from typing import Any

from holdfast.gc.plan import Plan
from holdfast.inventory.models import ScanReport
from holdfast.objectstore.usage import R2_PRICES
from holdfast.vault.stats import VaultStats

FAMILIES_SHOWN = 60
GROUPS_SHOWN = 20
PATHS_SHOWN = 6
ROWS_SHOWN = 200
NAMES_SHOWN = 3


def scan_json(report: ScanReport) -> dict[str, Any]:
    """The inventory of model files as the page reads it, the largest families first.

    ``twice`` is what equal files take beyond the first of each; links take nothing.
    """
    families: list[dict[str, Any]] = [
        {
            "name": family.name,
            "files": family.files,
            "bytes": family.bytes,
            "status": max(
                family.statuses, key=lambda status: (family.statuses[status], status), default="unreferenced"
            ),
            "scripts": family.used.scripts,
        }
        for family in report.families
    ]
    families.sort(key=lambda family: (-family["bytes"], family["name"]))
    statuses: dict[str, list[int]] = {}
    for model in report.models:
        counted = statuses.setdefault(model.status, [0, 0])
        counted[0] += 1
        counted[1] += model.size
    groups: list[dict[str, Any]] = [
        {
            "paths": list(group.paths[:PATHS_SHOWN]),
            "more": max(0, len(group.paths) - PATHS_SHOWN),
            "size": group.size,
            "twice": group.size * (len(group.paths) - 1),
        }
        for group in report.duplicates
    ]
    rest = families[FAMILIES_SHOWN:]
    return {
        "files": len(report.models),
        "bytes": sum(model.size for model in report.models),
        "looked": report.looked,
        "families": families[:FAMILIES_SHOWN],
        "others": {"families": len(rest), "bytes": sum(family["bytes"] for family in rest)},
        "statuses": {status: statuses[status] for status in sorted(statuses)},
        "groups": sorted(groups, key=lambda group: (-group["twice"], group["paths"]))[:GROUPS_SHOWN],
        "twice": sum(group["twice"] for group in groups),
        "notes": list(report.notes),
    }


def vault_json(stats: VaultStats) -> dict[str, Any]:
    """A vault as the page reads it."""
    return {
        "files": stats.files,
        "raw": stats.raw_bytes,
        "plain": stats.plain_bytes,
        "stored": stats.stored_bytes,
        "condemned": stats.condemned_bytes,
        "ratio": stats.ratio,
        "dollars": stats.dollars_a_month,
        "saved": R2_PRICES.month(max(0, stats.raw_bytes - stats.stored_bytes)),
    }


def plan_json(plan: Plan, reasons: Mapping[str, str]) -> dict[str, Any]:
    """A plan of a collection as the page reads it: totals by reason, and what would go, the largest first.

    Args:
        plan: of DVC's cache.
        reasons: what to call each reason; others stand for themselves.
    """
    going = [*plan.removed, *plan.archived]
    return {
        "objects": len(plan.objects),
        "bytes": sum(entry.size for entry in plan.objects),
        "going": len(going),
        "frees": sum(entry.frees for entry in going),
        "totals": [
            {
                "tier": total.tier,
                "reason": reasons.get(total.reason, total.reason),
                "objects": total.objects,
                "bytes": total.bytes,
            }
            for total in plan.totals
        ],
        "rows": [
            {
                "object": entry.oid[:8] or entry.path,
                "names": [name.path for name in entry.names[:NAMES_SHOWN]],
                "more": max(0, len(entry.names) - NAMES_SHOWN),
                "size": entry.frees,
                "days": max(0, int(entry.age_days)),
                "why": entry.why,
            }
            for entry in going[:ROWS_SHOWN]
        ],
        "left_out": max(0, len(going) - ROWS_SHOWN),
        "doubts": [{"text": doubt.text, "way_out": doubt.way_out} for doubt in plan.doubts],
    }
