"""``holdfast version``."""

import platform
from importlib.metadata import PackageNotFoundError, version

import click

import holdfast
from holdfast.cli.output import emit

# what Holdfast stands on, and what its extras bring
PACKAGES = (
    "dvc", "dvc-s3", "pygit2", "obstore", "zstandard", "blake3", "numpy", "duckdb", "torch", "onnxruntime", "numba"
)  # fmt: skip


@click.command("version")
@click.option("-v", "--verbose", is_flag=True, help="Say what Holdfast stands on, too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: all that -v says.")
def command(verbose: bool, as_json: bool) -> None:
    """Print the version.

    With -v those of what it stands on, too, and which loops the vault's codec runs.

    \b
    Examples:
      holdfast version -v
      holdfast version --json
    """
    if not verbose and not as_json:
        click.echo(f"holdfast {holdfast.__version__}")
        return
    from holdfast.vault.codec import loops_in_use  # imported here: what the plain version need not wait for

    packages = {name: _installed(name) for name in PACKAGES}
    python, platform_ = platform.python_version(), f"{platform.system()} {platform.machine()}"
    payload = {
        "format": "holdfast version 1",
        "version": holdfast.__version__,
        "python": python,
        "platform": platform_,
        "packages": packages,
        "codec": loops_in_use(),
    }
    lines = [f"holdfast {holdfast.__version__}", f"Python {python} on {platform_}"]
    lines += [f"{name} {found}" if found else f"{name}: not installed" for name, found in packages.items()]
    lines.append(f"Vault codec: {payload['codec']} loops")
    emit("json" if as_json else "text", payload, ["\n".join(lines)])


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
