"""Worlds that several test modules build: real git, real DVC, real files, real servers."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers import S3Server, shared_server

# a shell that starts the tests in the background has them ignore Ctrl-C, and so would all that they start and interrupt
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# the modules that take longest, longest first: one of them at the end would leave the other processes with nothing to do
LONGEST = (
    "test_pipeline",
    "test_notebook",
    "test_registry_promote",
    "test_registry_promote_stage",
    "test_objectstore",
    "test_remote_matrix",
    "test_registry_rollback",
    "test_registry_promote_first",
    "test_tutorial",
    "test_report_html_browser",
    "test_docs_how_to_recover",
    "test_init",
    "test_schemas",
    "test_terminal_commands",
    "test_workflows_github",
    "test_docs",
    "test_vault_transfer",
    "test_registry_resolve",
    "test_remote_doctor",
    "test_remote_faults",
    "test_compare_equivalence_cli",
    "test_vault_sequences",
    "test_vault_sequences_more",
    "test_remote_interrupted",
    "test_registry_tags",
    "test_vault_faults",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let long modules begin first; with xdist's ``--no-loadscope-reorder`` this is the order in which they are given out."""
    assert all((Path(__file__).parent / f"{name}.py").exists() for name in LONGEST)
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server on loopback, one for all processes of the run."""
    base = tmp_path_factory.getbasetemp()
    # xdist's workers have folders of their own below that of the run
    with shared_server((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "s3-server") as server:
        yield server


@pytest.fixture
def s3_folder(s3_server: S3Server) -> str:
    """The URL of a new, empty folder of a bucket."""
    return s3_server.make_folder()
