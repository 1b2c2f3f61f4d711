"""Writes this repository's model-report.yml and gc.yml again, from the templates that `holdfast init` uses."""

from pathlib import Path

from holdfast.project.workflows import WorkflowOptions, workflow_files

OPTIONS = WorkflowOptions(
    install=(
        "python -m pip install --quiet -c constraints.txt --extra-index-url https://download.pytorch.org/whl/cpu "
        "torch==2.13.0\n"
        "python -m pip install --quiet -c constraints.txt -e '.[train,report]'"
    ),
    python="3.11",
    # the pipeline makes its data itself, and `storage` is a folder of one's own clone
    pull="",
    repro=True,
    remote="r2",
)


def main() -> None:
    """Write the files."""
    for path, text in workflow_files("github", OPTIONS).items():
        (Path(__file__).parents[1] / path).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
