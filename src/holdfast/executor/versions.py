"""Whether all processes of a cluster have the versions of this one: other code gives other bytes, or none."""

from typing import Any

from holdfast.executor.executor import WorkersLostError

PACKAGES = ("holdfast", "dask", "distributed")


def check_versions(client: Any, address: str) -> None:
    """See that scheduler and workers have the same versions as this process of Python, Dask and Holdfast.

    Args:
        client: Dask's, connected.
        address: of the scheduler, for the message.

    Raises:
        WorkersLostError: one has others; a worker has no Holdfast.
    """
    try:
        found: dict[str, Any] = client.get_versions(check=False, packages=["holdfast"])
    except OSError:  # the scheduler went away meanwhile: it is looked at again when it is back
        return
    ours = _versions(found["client"])
    theirs = {f"worker {name}": _versions(worker) for name, worker in found["workers"].items() if worker}
    theirs[f"scheduler {address}"] = _versions(found["scheduler"])
    different = {name: versions for name, versions in theirs.items() if versions != ours}
    if not different:
        return
    name, versions = sorted(different.items())[0]
    more = f", as {len(different) - 1} more do" if len(different) > 1 else ""
    says = [f"{package} {versions[package] or 'not at all'} (here {ours[package]})"
            for package in ours if versions[package] != ours[package]]  # fmt: skip
    raise WorkersLostError(
        f"{name} has {', '.join(says)}{more}",
        hint=f"Install there what is here: `pip install 'holdfast[cluster]=={ours['holdfast']}'` under the same Python",
    )


def _versions(process: dict[str, Any]) -> dict[str, str | None]:
    packages = process["packages"]
    python = ".".join(str(packages.get("python", "")).split(".")[:2])
    return {"Python": python, **{name: packages.get(name) for name in PACKAGES}}
