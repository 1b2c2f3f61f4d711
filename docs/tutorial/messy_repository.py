"""Make the messy repository of the tutorial: `python messy_repository.py FOLDER`.

Real files of a made-up project: eight training runs, each trained here within a moment, under the names that people
give in a hurry; copies of models that nobody dares to delete; programs that name a model by its run's folder. Needs
NumPy and git.
"""

import shutil
import subprocess
import sys
from pathlib import Path

SOURCES = Path(__file__).parent / "messy"
DAY = "2026-05-20T18:00:00+00:00"

RUNS = {
    "baseline_20260428_101200": {"hidden": 8, "epochs": 20},
    "wide_20260512_091500": {"hidden": 96, "epochs": 40},
    "wide_20260512_141000": {"hidden": 96, "epochs": 40, "seed": 2},
    "wide_20260513_082000": {"hidden": 96, "epochs": 40, "seed": 3},
    "debug_20260514_170300": {"hidden": 4, "epochs": 2, "samples": 100},
    "debug_20260514_170900": {"hidden": 4, "epochs": 2, "samples": 100, "lr": 0.01},
    "overfit_check_20260515_093000": {"hidden": 64, "epochs": 60, "samples": 30, "check": True},
    "high_lr_20260516_111500": {"hidden": 96, "epochs": 3, "lr": 1e30},
}

COPIES = {
    "models/states_final.safetensors": "baseline_20260428_101200",
    "models/states_final_v2.safetensors": "wide_20260512_091500",
    "models/backup/states_final_v2.safetensors": "wide_20260512_091500",
    "models/states_final_old.safetensors": "wide_20260512_141000",
}


def build(folder: Path) -> None:
    """The whole repository, with its one commit."""
    if folder.exists():
        raise SystemExit(f"{folder} is there already; name a new folder")
    shutil.copytree(SOURCES, folder, ignore=shutil.ignore_patterns("__pycache__", "gitignore"))
    shutil.copyfile(SOURCES / "gitignore", folder / ".gitignore")
    for name, options in RUNS.items():
        words = [f"--{option}" if value is True else f"--{option}={value}" for option, value in options.items()]
        command = [sys.executable, "-B", "-W", "ignore", "train.py", "--out", f"outputs/{name}", *words]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    for copy, run in COPIES.items():
        target = folder / copy
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / "outputs" / run / "best_model.safetensors", target)
    git = ["env", f"GIT_AUTHOR_DATE={DAY}", f"GIT_COMMITTER_DATE={DAY}", "git"]
    for words in (["init", "--quiet", "-b", "main"], ["add", "."], ["commit", "--quiet", "-m", "It works"]):
        subprocess.run([*git, *words], cwd=folder, check=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    build(Path(sys.argv[1]))
    print(f"Made {sys.argv[1]}: {len(RUNS)} runs, {len(COPIES)} copies of models.")
