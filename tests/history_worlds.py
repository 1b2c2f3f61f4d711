"""Random histories of DVC projects, written by one `git fast-import` each: all that DVC's files and git's refs can say."""

import random
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worlds import World, environment, make_home

FOLDERS = ("", "data/", "data/deep/", "models/", "other/")
FIRST_DAY = 1_735_732_800  # 2025-01-01T12:00:00Z
HALF_DAY = 43_200
Files = dict[str, str | None]


@dataclass
class Line:
    """A line of commits as it stands: the files of its last one, and that one's number."""

    files: dict[str, str]
    commit: int


@dataclass
class Maker:
    """Writes one repository.

    Args:
        world: where.
        chance: draws.
        outside: a folder for the remote `other` and for data that is imported.
    """

    world: World
    chance: random.Random
    outside: Path
    stream: list[str] = field(default_factory=list)
    lines: dict[str, Line] = field(default_factory=dict)
    commits: int = 0
    contents: int = 0
    pending: list[tuple[int, int, str]] = field(default_factory=list)

    def make(self) -> None:
        """All of it."""
        start = {
            f"{self.prefix}.dvc/config": f"['remote \"other\"']\n    url = {self.outside / 'other'}\n",
            f"{self.prefix}.dvc/.gitignore": "/config.local\n/tmp\n/cache\n",
            f"{self.prefix}.dvcignore": "# patterns\n",
            ".gitignore": "ignored/\n/scratch\n",
        }
        if self.prefix:
            self.commit("main", {"readme.md": "before there was a project"})
        self.commit("main", start)
        self.commit("main", self.change(self.lines["main"].files))
        for _ in range(self.chance.randint(5, 9)):
            self.step()
        self.experiments()
        git = ["git", "-C", str(self.world.root)]
        options: dict[str, Any] = {"env": environment(self.world.home), "check": True}
        marks = self.world.home / "marks"
        text = "".join(self.stream)
        subprocess.run([*git, "fast-import", "--quiet", f"--export-marks={marks}"], input=text.encode(), **options)
        ids = dict(line.split() for line in marks.read_text().splitlines())
        refs = ""
        for base, tip, name in self.pending:
            baseline = ids[f":{base}"]
            refs += f"create refs/exps/{baseline[:2]}/{baseline[2:]}/{name} {ids[f':{tip}']}\n"
            refs += f"delete refs/temporary/{name}\n"
        if self.pending:  # a ref of DVC's own, which is no experiment
            refs += f"create refs/exps/exec/EXEC_BRANCH {ids[f':{self.pending[-1][1]}']}\n"
        subprocess.run([*git, "update-ref", "--stdin"], input=refs.encode(), **options)
        subprocess.run([*git, "checkout", "-q", "-f", "main"], **options)
        self.disturb_workspace()

    @property
    def prefix(self) -> str:
        return "" if self.world.project == "." else f"{self.world.project}/"

    def step(self) -> None:
        """A commit, a branch, a tag or a merge."""
        line = self.chance.choice([*self.lines])
        kind = self.chance.random()
        if kind < 0.12 and len(self.lines) < 4:
            name = f"topic/{len(self.lines)}"
            self.lines[name] = Line(dict(self.lines[line].files), self.lines[line].commit)
            self.commit(name, self.change(self.lines[name].files))
        elif kind < 0.25 and len(self.lines) > 1:
            other = self.chance.choice([name for name in self.lines if name != line])
            self.commit(line, {**self.lines[other].files}, merged=self.lines[other].commit)
        else:
            self.commit(line, self.change(self.lines[line].files))
        mark = self.lines[line].commit
        if self.chance.random() < 0.25:
            self.stream.append(f"reset refs/tags/light-{self.commits}\nfrom :{mark}\n\n")
        if self.chance.random() < 0.2:
            who = f"tagger A <a@example.org> {self.now} +0000\ndata 3\ntag\n"
            self.stream.append(f"tag v{self.commits}\nfrom :{mark}\n{who}")
        if self.chance.random() < 0.15:
            self.stream.append(f"reset refs/remotes/origin/seen-{self.commits}\nfrom :{mark}\n\n")

    def experiments(self) -> None:
        """Experiments of one and two commits."""
        for number in range(self.chance.randint(0, 2)):
            line = self.lines[self.chance.choice([*self.lines])]
            name = f"exp-{number}"
            self.lines[name] = Line(dict(line.files), line.commit)
            for _ in range(self.chance.randint(1, 2)):
                self.commit(name, self.change(self.lines[name].files), ref=f"refs/temporary/{name}")
            self.pending.append((line.commit, self.lines.pop(name).commit, name))

    def commit(self, line: str, changed: Files, *, merged: int | None = None, ref: str | None = None) -> None:
        """One commit on a line of commits."""
        known = self.lines.get(line)
        files = known.files if known else {}
        self.commits += 1
        self.stream.append(
            f"commit {ref or f'refs/heads/{line}'}\nmark :{self.commits}\n"
            f"committer A <a@example.org> {self.now} +0000\ndata 6\nchange\n"
        )
        if known:
            self.stream.append(f"from :{known.commit}\n")
        if merged:
            self.stream.append(f"merge :{merged}\n")
        for path, text in changed.items():
            if text is None:
                self.stream.append(f"D {path}\n")
                files.pop(path, None)
            else:
                self.stream.append(f"M 100644 inline {path}\ndata {len(text.encode())}\n{text}\n")
                files[path] = text
        self.lines[line] = Line(files, self.commits)

    @property
    def now(self) -> int:
        return FIRST_DAY + self.commits * HALF_DAY

    # --- what is in a commit ---------------------------------------------------------------------------------------

    def change(self, files: dict[str, str]) -> Files:
        """One to three changes of the files of a commit."""
        changed: Files = {}
        for _ in range(self.chance.randint(1, 3)):
            made = self.chance.choice(
                [self.data_file] * 3
                + [self.pipeline] * 3
                + [self.templates, self.import_file, self.sub_project, self.patterns, self.remove, self.rename]
                + [self.edit_pipeline] * 2
            )(files | {path: text for path, text in changed.items() if text is not None})
            changed.update(made)
        return changed

    def data_file(self, _: dict[str, str]) -> Files:
        """A `.dvc` file: of a file or folder, of DVC 2 or 3, with several outs and every option."""
        folder = self.folder()
        name = self.chance.choice(["a", "b", "c d", "e.tar.gz"])
        outs = ""
        for number in range(self.chance.choice([1, 1, 1, 2])):
            path = name if not number else f"{name}-{number}"
            outs += f"- {self.entry('  ', path, order='dvc')}"
            if self.chance.random() < 0.2:
                outs += f"  {self.chance.choice(['cache: false', 'push: false', 'remote: other', 'persist: true'])}\n"
        wdir = "wdir: ..\n" if folder and self.chance.random() < 0.1 else ""
        return {f"{folder}{name}.dvc": f"{wdir}outs:\n{outs}"}

    def pipeline(self, _: dict[str, str]) -> Files:
        """A `dvc.yaml` and its `dvc.lock`, as DVC writes them or as a person would."""
        folder = self.folder()
        definitions, locks = "", ""
        for number in range(self.chance.randint(1, 3)):
            stage = f"stage{number}"
            wdir = self.chance.choice(["", "", "src"])
            definitions += f"  {stage}:\n    cmd: make {number}\n" + (f"    wdir: {wdir}\n" if wdir else "")
            locks += f"  {stage}:\n    cmd: make {number}\n    outs:\n"
            for section in ("outs", "metrics", "plots"):
                if section == "outs" or self.chance.random() < 0.3:
                    path = f"{section}/{stage}.bin"
                    flag = self.chance.choice(["", "", "", "cache: false", "remote: other", "push: false"])
                    declared = f"{path}:\n        {flag}" if flag else path
                    definitions += f"    {section}:\n    - {declared}\n"
                    if self.chance.random() < 0.9:
                        locks += f"    - {self.entry('      ', path, order='lock')}"
        lock = f"schema: '2.0'\nstages:\n{locks}"
        if self.chance.random() < 0.15:
            lock = f"# merged by hand\n{lock}"
        # a stage of which nothing is locked has no list of outs
        lock = lock.replace("    outs:\n  stage", "  stage").removesuffix("    outs:\n")
        return {f"{folder}dvc.yaml": f"stages:\n{definitions}", f"{folder}dvc.lock": lock}

    def templates(self, _: dict[str, str]) -> Files:
        """A `dvc.yaml` that is filled in: from params, from a file that `vars` names, for each of a list, a matrix."""
        folder = self.folder()
        kind = self.chance.randint(0, 3)
        names = self.chance.sample(["x", "y", "z"], 2)
        if kind == 0:
            head, body = "", "  t:\n    cmd: make\n    outs:\n    - ${where}/m.bin\n"
            stages = {"t": [f"{self.chance.choice(names)}/m.bin"]}
        elif kind == 1:
            head, body = "", "  t:\n    foreach: ${all}\n    do:\n      cmd: make\n      outs:\n      - ${item}.bin\n"
            stages = {f"t@{name}": [f"{name}.bin"] for name in ("x", "y", "z")}
        elif kind == 2:
            head = f"vars:\n- {'../' * folder.count('/')}shared.yaml\n" if not self.prefix else ""
            outs = (
                "- ${item.path}.bin:\n          cache: ${item.keep}\n" if not head else "- ${item.path}-${shared}.bin\n"
            )
            body = (
                "  t:\n    foreach:\n      one: {path: p1, keep: true}\n      two: {path: p2, keep: false}\n"
                f"    do:\n      cmd: make\n      outs:\n      {outs}"
            )
            tail = "-7" if head else ""
            stages = {"t@one": [f"p1{tail}.bin"], "t@two": [f"p2{tail}.bin"]}
            if not head:
                body = body.replace("          cache: ${item.keep}\n", "          cache: true\n")
        else:
            head = ""
            body = "  t:\n    matrix:\n      a: [1, 2]\n      b: ${all}\n    cmd: make\n    outs:\n    - ${item.a}-${item.b}\n"
            stages = {f"t@{a}-{b}": [f"{a}-{b}"] for a in (1, 2) for b in "xyz"}
        lock = "schema: '2.0'\nstages:\n"
        for stage, paths in stages.items():
            lock += f"  {stage}:\n    cmd: make\n    outs:\n"
            lock += "".join(f"    - {self.entry('      ', path, order='lock')}" for path in paths)
        made: Files = {
            f"{folder}dvc.yaml": f"{head}stages:\n{body}",
            f"{folder}dvc.lock": lock,
            f"{folder}params.yaml": f"where: {names[0]}\nall: [{', '.join(names)}]\n",
        }
        if head:
            made["shared.yaml"] = f"shared: {self.chance.choice([7, 8])}\n"
        return made

    def edit_pipeline(self, files: dict[str, str]) -> Files:
        """What people do to a `dvc.yaml` and forget to reproduce: a stage goes, an out is renamed, one comes."""
        found = [path for path, text in files.items() if path.endswith("dvc.yaml") and "  stage0:" in text]
        if not found:
            return {}
        path = self.chance.choice(sorted(found))
        text = files[path]
        kind = self.chance.randint(0, 2)
        if kind == 0 and "  stage1:" in text:
            return {path: text[: text.index("  stage1:")]}
        if kind == 1:
            return {path: text.replace("outs/stage0.bin", "outs/renamed.bin")}
        name = f"fresh{text.count('fresh')}"
        return {path: f"{text}  {name}:\n    cmd: new\n    outs:\n    - {name}.bin\n"}

    def import_file(self, _: dict[str, str]) -> Files:
        """Imports from a repository, whose objects are not ours, and from a URL, whose objects are."""
        folder = self.folder()
        entry = self.entry("  ", "taken", order="dvc", folders=False)
        if self.chance.random() < 0.5:
            source = f"  path: taken\n  repo:\n    url: {self.outside / 'source'}\n    rev_lock: {'1' * 39}a\n"
        else:
            source = f"  path: {self.outside / 'taken'}\n"
        deps = f"deps:\n- {source.lstrip()}"
        return {f"{folder}taken.dvc": f"frozen: true\n{deps}outs:\n- {entry}"}

    def sub_project(self, _: dict[str, str]) -> Files:
        """A project of its own below this one, whose files do not count here."""
        return {
            f"{self.prefix}nested/.dvc/config": "",
            f"{self.prefix}nested/inner.dvc": f"outs:\n- {self.entry('  ', 'inner', order='dvc')}",
            f"{self.prefix}nested/deep/more.dvc": f"outs:\n- {self.entry('  ', 'more', order='dvc')}",
        }

    def patterns(self, _: dict[str, str]) -> Files:
        """What `.dvcignore` takes away and gives back."""
        if self.chance.random() < 0.5:
            return {
                f"{self.prefix}.dvcignore": self.chance.choice(["other\n", "*.gz.dvc\n", "data/\n", "/models/*\n", ""])
            }
        return {f"{self.prefix}data/.dvcignore": self.chance.choice(["deep\n", "!a.dvc\n", "b.dvc\n"])}

    def remove(self, files: dict[str, str]) -> Files:
        """A DVC file goes."""
        found = sorted(path for path in files if path.endswith((".dvc", "dvc.lock", "dvc.yaml")))
        return {self.chance.choice(found): None} if found else {}

    def rename(self, files: dict[str, str]) -> Files:
        """A `.dvc` file moves."""
        found = sorted(path for path in files if path.endswith(".dvc") and "/.dvc" not in path)
        if not found:
            return {}
        path = self.chance.choice(found)
        return {path: None, f"{self.folder()}moved.dvc": files[path]}

    def folder(self) -> str:
        return f"{self.prefix}{self.chance.choice(FOLDERS)}"

    def entry(self, indent: str, path: str, *, order: str, folders: bool = True) -> str:
        """An out's lines, the first without its indentation; its objects are put into the cache."""
        legacy = self.chance.random() < 0.2
        members = self.chance.randint(1, 3) if folders and self.chance.random() < 0.25 else 0
        if members:
            oid = self.world.store_folder({f"{n}.txt": self.content() for n in range(members)}, legacy=legacy)
        else:
            oid = self.world.store(self.content(), legacy=legacy)
        shown = oid
        if oid.isdigit() or self.chance.random() < 0.1:
            shown = self.chance.choice([f"'{oid}'", f'"{oid}"'])
        count = [f"nfiles: {members}"] if members else []
        kind = [] if legacy else ["hash: md5"]
        if order == "lock":
            rows = [f"path: {path}", *kind, f"md5: {shown}", "size: 5", *count]
        else:
            rows = [f"md5: {shown}", "size: 5", *count, *kind, f"path: {path}"]
        return f"\n{indent}".join(rows) + "\n"

    def content(self) -> str:
        """The content of a file, now and then one that was there before."""
        if self.contents and self.chance.random() < 0.15:
            return f"content {self.chance.randint(1, self.contents)}"
        self.contents += 1
        return f"content {self.contents}"

    def disturb_workspace(self) -> None:
        """What is not committed: changed and deleted files, new ones, some that git ignores."""
        files = self.lines["main"].files
        for path, text in self.change(files).items():
            if text is None:
                (self.world.root / path).unlink(missing_ok=True)
            else:
                self.world.write(path, text)
        for folder in ("ignored/", "scratch/"):
            self.world.write(f"{self.prefix}{folder}x.dvc", f"outs:\n- {self.entry('  ', 'x', order='dvc')}")


def make_history(folder: Path, seed: int) -> World:
    """The repository of a seed in ``folder``; one in five has its project in a folder of the repository."""
    chance = random.Random(seed)
    world = World(folder / "repository", make_home(folder), "project" if seed % 5 == 4 else ".")
    world.folder.mkdir(parents=True)
    world.git("init", "-q")
    Maker(world, chance, folder).make()
    return world
