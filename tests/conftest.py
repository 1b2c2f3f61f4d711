"""Worlds that several test modules build: real git, real DVC, real files, real servers."""

import os
import signal
from collections.abc import Iterator

import pytest

from servers import S3Server, shared_server

# a shell that starts the tests in the background has them ignore Ctrl-C, and so would all that they start and interrupt
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


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
