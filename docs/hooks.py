"""What the site needs besides the pages: mkdocs calls these while it builds."""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
# pages that lie at the repository's top, where those who look at it there expect them
PAGES = {"changes.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}
NOTEBOOK = "notebooks/train_on_runpod.ipynb"
ITEM = re.compile(r"(-|\d+\.) +")


def on_files(files: Files, config: Any) -> Files:
    """Add what the pages link to outside of docs/."""
    for name, source in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8").replace("](docs/", "](")
        files.append(File.generated(config, name, content=text))
    files.append(File.generated(config, NOTEBOOK, abs_src_path=str(ROOT / NOTEBOOK)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page as Python-Markdown reads it: what belongs to an item of a list is indented by four."""
    # seen from docs/, the notebook is one folder further up than in the site
    lines, width, fenced = [], 0, False
    for line in markdown.replace(f"](../../{NOTEBOOK})", f"](../{NOTEBOOK})").split("\n"):
        fenced ^= line.startswith("```")
        if fenced:
            width = 0
        elif item := ITEM.match(line):
            width = item.end()
        elif line.strip() and not line.startswith(" "):
            width = 0
        inside = width and line.startswith(" " * width)
        lines.append("    " + line[width:] if inside else line)
    return "\n".join(lines)
