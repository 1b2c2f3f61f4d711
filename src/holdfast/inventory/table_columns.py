"""The tables of an inventory: their columns, with their types in DuckDB's words, and what they mean.

The one source for what writes the tables, what queries them, and the page that describes them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

INVENTORY_FORMAT = "holdfast inventory 1"
INVENTORY_FILE = "inventory.json"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        type: in DuckDB's words.
        meaning: in one line; when it is null, too.
    """

    type: str
    meaning: str


FILES: Mapping[str, Column] = {
    "path": Column("VARCHAR", "of the file, from the root, with slashes; of an object its key"),
    "bytes": Column("BIGINT", "its size"),
    "modified": Column("TIMESTAMPTZ", "when it was last written, to the second"),
    "etag": Column("VARCHAR", "what the store calls this state of an object; null for files"),
    "format": Column("VARCHAR", "by its content: `safetensors`, `torch zip`, …; `damaged` where it is torn"),
    "parameters": Column("BIGINT", "elements of its weights, tied ones once; null where they were not read"),
    "dtypes": Column("VARCHAR", "elements of its weights by dtype, most first: `F32:1200 I64:8`"),
    "optimizer_nbytes": Column("BIGINT", "bytes of an optimizer's state beside the weights"),
    "family": Column("VARCHAR", "the pattern of names that it belongs to, or its path"),
    "status": Column("VARCHAR", "`registered`, `primary`, `secondary`, `unreferenced`, `backup` or `cache`"),
    "why": Column("VARCHAR", "what says so"),
    "tracked": Column("VARCHAR", "who keeps its history: `git`, `dvc` or `none`"),
    "references": Column("BIGINT", "places that refer to it"),
    "scripts": Column("BIGINT", "Python files, notebooks, shell and build files with such a place"),
    "configs": Column("BIGINT", "configuration files with one"),
    "mentions": Column("BIGINT", "places that only mention it: comments, messages, documents"),
    "versions": Column("VARCHAR", "registered versions that it is: `app/name@v3 app/name@v4`"),
    "weights": Column("VARCHAR", "the weights digest; null where there is none or it was not asked for"),
    "digest": Column("VARCHAR", "of its bytes, for files of equal size; of objects `etag:…`; null for others"),
    "link": Column("VARCHAR", "where it leads, for a symbolic link; null for others"),
    "opaque": Column("VARCHAR", "why it, or a part of it, was not read; empty where all was"),
}

TENSORS: Mapping[str, Column] = {
    "path": Column("VARCHAR", "of the file that it is in"),
    "name": Column("VARCHAR", "the keys on the way to it, joined by `/`"),
    "dtype": Column("VARCHAR", "of its elements: `F32`, `BF16`, …"),
    "shape": Column("BIGINT[]", "elements of each dimension; empty for a scalar"),
    "bytes": Column("BIGINT", "its length when written out"),
    "digest": Column("VARCHAR", "of its dtype, shape and bytes; null where its bytes were not read"),
}

REFERENCES: Mapping[str, Column] = {
    "path": Column("VARCHAR", "of the file that is referred to"),
    "script": Column("VARCHAR", "the source that refers to it"),
    "kind": Column("VARCHAR", "of the source: `python`, `notebook`, `shell`, `build`, `config`, `docs`, …"),
    "cell": Column("BIGINT", "of a notebook, from 1; null elsewhere"),
    "line": Column("BIGINT", "from 1; in the cell of a notebook"),
    "how": Column("VARCHAR", "`path`, `name`, `pattern`, `glob`, or `mention`, which nothing depends on"),
    "exact": Column("BOOLEAN", "whether the place names this one file and no other"),
    "text": Column("VARCHAR", "what stands there, `{}` for unknown parts"),
}

RUNS: Mapping[str, Column] = {
    "path": Column("VARCHAR", "its folder, from the root; `.` for the root itself"),
    "class": Column("VARCHAR", "`production candidate`, `baseline`, `debug`, `test`, `over-fitted`, `failed`, …"),
    "why": Column("VARCHAR", "what decided the class"),
    "series": Column("VARCHAR", "its name without time stamps, seeds, run numbers and hashes"),
    "form": Column("VARCHAR", "who wrote it: `holdfast`, `lightning`, `huggingface`, `dvclive`, `keras`, `files`"),
    "started": Column("TIMESTAMPTZ", "from its metadata, else from its name; null where neither says"),
    "status": Column("VARCHAR", "`finished`, `failed`, `incomplete`, `running` or `unknown`"),
    "epochs": Column("BIGINT", "how many were trained"),
    "files": Column("BIGINT", "how many it has"),
    "bytes": Column("BIGINT", "of all its files"),
    "weights_bytes": Column("BIGINT", "of its models, checkpoints and optimizer states"),
    "metric": Column("VARCHAR", "the metric that it is compared by; null where it has none"),
    "value": Column("DOUBLE", "the value of that metric"),
    "final": Column("MAP(VARCHAR, DOUBLE)", "the last or only value of each metric; those that are finite"),
    "best": Column("MAP(VARCHAR, DOUBLE)", "the best value of each metric over the epochs; those that are finite"),
}

TABLES: Mapping[str, Mapping[str, Column]] = {
    "files": FILES,
    "tensors": TENSORS,
    "references": REFERENCES,
    "runs": RUNS,
}


def types_of(columns: Mapping[str, Column]) -> dict[str, str]:
    """The columns' types by their names."""
    return {name: column.type for name, column in columns.items()}
