"""Run a notebook's cells, in a process that can be killed: `python notebook_child.py NOTEBOOK EXECUTED`.

The cells run in the notebook's folder. EXECUTED is written whether they end well or not; an error's last line goes to
stderr.
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

SECONDS = 300  # for one cell


def main() -> int:
    source, executed = map(Path, sys.argv[1:])
    notebook = nbformat.read(source, as_version=4)
    resources = {"metadata": {"path": str(source.parent)}}
    client = NotebookClient(
        notebook, timeout=SECONDS, kernel_name="python3", resources=resources, coalesce_streams=True
    )
    try:
        client.execute()
    except CellExecutionError as error:
        print(f"{error.ename}: {error.evalue}", file=sys.stderr)
        return 1
    finally:
        nbformat.write(notebook, executed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
