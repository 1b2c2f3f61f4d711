"""``holdfast version``."""

import platform
from importlib.metadata import PackageNotFoundError, version

import click

import holdfast

# what Holdfast stands on, and what its extras bring
PACKAGES = (
    "dvc", "dvc-s3", "pygit2", "obstore", "zstandard", "blake3", "numpy", "duckdb", "torch", "onnxruntime", "numba"
)  # fmt: skip


@click.command("version")
@click.option("-v", "--verbose", is_flag=True, help="Say what Holdfast stands on, too.")
def command(verbose: bool) -> None:
    """Print the version.

    With -v those of what it stands on, too, and which loops the vault's codec runs.

    \b
    Example:
      holdfast version -v
    """
    click.echo(f"holdfast {holdfast.__version__}")
    if not verbose:
        return
    click.echo(f"Python {platform.python_version()} on {platform.system()} {platform.machine()}")
    for package in PACKAGES:
        try:
            click.echo(f"{package} {version(package)}")
        except PackageNotFoundError:
            click.echo(f"{package}: not installed")
    from holdfast.vault.codec import loops_in_use  # imported here: what the plain version need not wait for

    click.echo(f"Vault codec: {loops_in_use()} loops")
