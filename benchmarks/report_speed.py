"""How long the reports take over start-up: ``report pr`` on this repository, ``report html`` with 300 experiments.

    python benchmarks/report_speed.py [--rounds 7]

Whole processes, output into a file; start-up (`holdfast version`) is measured in turn with them, and taken off; their
time on processors, which other work on the machine changes less, stands beside. `report pr` compares HEAD with the
commit before the newest one that registered a version: with its objects as they are in DVC's cache here, and in a
clone without any. Then, where Chromium is installed, how long a page of 500 experiments and 200 versions takes from
its opening to a first click that it answers. Writes benchmarks/results/report_speed.json. Goals: `report pr` 3 s,
`report html` 5 s, the first click 1 s.
"""

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from harness import judge, machine, print_goals, quantity, reducible, versions, write_results

TOOLS = Path(sys.executable).parent
REPOSITORY = Path(__file__).parent.parent
EXPERIMENTS, MANY_EXPERIMENTS = 300, 500
CLICK_SECONDS = 1.0
SORT = """() => {
    const header = () => document.querySelector('#exp-table th[data-key="accuracy"]');
    header().querySelector('button').click();
    return header().getAttribute('aria-sort');
}"""
GOALS = {
    "report pr": 3.0,
    "report pr with plots": 3.0,
    "report pr, nothing cached": 3.0,
    f"report html, {EXPERIMENTS} experiments": 5.0,
}


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds, after one that is not counted")
    parser.add_argument("--many", type=int, default=MANY_EXPERIMENTS, help="experiments of the page that is opened")
    options = reducible(parser, rounds=2, many=50)
    base = base_commit()
    over: dict[str, list[float]] = {name: [] for name in GOALS}
    processors: dict[str, list[float]] = {name: [] for name in GOALS}
    start_up = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        clone = place / "clone"
        subprocess.run(["git", "clone", "-q", str(REPOSITORY), str(clone)], check=True)
        # experiments as `report html` shows them; made once, for it takes longer than the report
        project = make_experiments(place / "experiments", EXPERIMENTS)
        commands = {
            "report pr": (REPOSITORY, "report", "pr", "--base", base, "-o", str(place / "pr.md")),
            "report pr with plots": (
                *(REPOSITORY, "report", "pr", "--base", base),
                *("-o", str(place / "pr.md"), "--plots", str(place / "plots")),
            ),
            "report pr, nothing cached": (clone, "report", "pr", "--base", base, "-o", str(place / "pr.md")),
            f"report html, {EXPERIMENTS} experiments": (project, "report", "html", "-o", str(place / "report.html")),
        }
        for number in range(1 + options.rounds):
            wall, used = timed(REPOSITORY, "version")
            measured = {name: timed(*command) for name, command in commands.items()}
            if number:
                start_up.append(wall)
                for name, (seconds, busy) in measured.items():
                    over[name].append(seconds - wall)
                    processors[name].append(busy - used)
        clicks = first_clicks(make_experiments(place / "many", options.many), options.rounds)
    goals = {name: judge(round(median(over[name]), 3), "≤", goal) for name, goal in GOALS.items()}
    if clicks:
        goals["first click on a page"] = judge(round(median(clicks), 3), "≤", CLICK_SECONDS)
    result = {
        "what": "wall seconds over start-up; of a page from its opening to its first answer to a click",
        "machine": machine(),
        "versions": versions("matplotlib"),
        "base": base,
        "measured": {
            "start-up": quantity(start_up, "s"),
            **{name: quantity(seconds, "s over start-up") for name, seconds in over.items()},
            **{f"{name}, on processors": quantity(busy, "s over start-up") for name, busy in processors.items()},
            **({"first click on a page": quantity(clicks, "s")} if clicks else {}),
        },
        "goals": goals,
    }
    write_results("report_speed", result, options)
    print(f"start-up {median(start_up):.3f} s")
    print_goals(goals)


def base_commit() -> str:
    """The commit before the newest one that registered a version: a pull request that brings a model."""
    log = ["git", "-C", str(REPOSITORY), "log", "-1", "--format=%H", "--", "registry"]
    newest = subprocess.run(log, check=True, capture_output=True, text=True).stdout.strip()
    return f"{newest}~1"


def first_clicks(project: Path, rounds: int) -> list[float]:
    """Seconds from the opening of a page to the answer to a click, in a new tab each; none without Chromium."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        print("There is no Chromium: no page is opened", file=sys.stderr)
        return []
    from playwright.sync_api import sync_playwright  # imported here: needed for this alone

    page = project / "report.html"
    timed(project, "report", "html", "-o", str(page))
    seconds = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for _ in range(rounds):
            tab = browser.new_page()
            start = time.perf_counter()
            tab.goto(page.as_uri())
            answer = tab.evaluate(SORT)
            seconds.append(time.perf_counter() - start)
            if answer != "descending":
                raise SystemExit(f"the page answered {answer!r}")
            tab.close()
        browser.close()
    return seconds


def make_experiments(folder: Path, count: int) -> Path:
    """A project with many experiments, as the tests of the HTML report build it."""
    sys.path.insert(0, str(REPOSITORY / "tests"))
    from html_world import make_world  # not in a package: found through the path above

    folder.mkdir()
    return Path(make_world(folder, experiments=count).world.root)


def timed(root: Path, *arguments: str) -> tuple[float, float]:
    """Wall and processor seconds of one command."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([str(TOOLS / "holdfast"), *arguments], cwd=root, stdout=subprocess.PIPE, check=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
