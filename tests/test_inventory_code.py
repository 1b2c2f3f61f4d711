"""Variants of modules: found by name and content, judged by who uses them; the inventory; native modules."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.inventory.code_imports import Resolver, find_uses
from holdfast.inventory.code_inventory import take_inventory
from holdfast.inventory.code_likeness import find_affixes, name_likeness, name_words
from holdfast.inventory.code_modules import find_imports, read_code
from holdfast.inventory.code_variants import NoModuleError, VariantReport, find_variants
from holdfast.inventory.sources import parse_python

Rename = Callable[[str], str]


def plant(root: Path, files: dict[str, str]) -> Path:
    for path, text in files.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    return root


def notebook(*cells: str) -> str:
    return json.dumps(
        {"cells": [{"cell_type": "code", "source": cell.splitlines(True)} for cell in cells], "nbformat": 4}, indent=1
    )


def klass(name: str, *methods: str, lines: int = 3) -> str:
    body = "".join(
        f"\n    def {method}(self, x):\n"
        + "".join(f"        x = self.{method}_{i}(x, {i})\n" for i in range(lines))
        + "        return x\n"
        for method in methods
    )
    start = "    def __init__(self, size=8):\n        super().__init__()\n        self.size = size\n"
    return f"\n\nclass {name}(nn.Module):\n{start}{body}"


HEAD = '"""A module."""\n\nimport torch\nfrom torch import nn\n'


def seed_world() -> dict[str, str]:
    """Four groups of variants as a real project had them, with code that is as alike as people's rewrites are."""
    vae = ("encode", "decode", "reparameterize", "kl_loss", "forward")
    loaders = "def create_unified_data_loaders(config):\n    return [UnifiedDataLoader(part) for part in config]\n"
    encoders = "".join(
        klass(f"{kind}Encoder", "embed", "project", "forward") for kind in ("Climate", "Biology", "Spectral")
    )
    storage = klass("MultiModalStorageLayer", "store", "load", "query", "close") + klass("ChunkIndex", "add", "find")
    small = klass("MultiModalStorageLayer", "store", "load", "query", "close", lines=2)
    return {
        "models/__init__.py": "",
        "models/graph_vae.py": HEAD + klass("GraphVAE", *vae) + klass("GraphDecoder", "forward"),
        "models/rebuilt_graph_vae.py": HEAD
        + klass("RebuiltGraphVAE", *vae, "align", "sample", lines=9)
        + klass("GraphTransformerEncoder", "attend", "forward", lines=9),
        "models/fusion_transformer.py": HEAD + klass("FusionTransformer", "fuse", "cross_attend", "forward"),
        "models/surrogate_transformer.py": HEAD + klass("SurrogateTransformer", "physics_loss", "predict", "forward"),
        "models/rebuilt_llm_integration.py": HEAD + klass("RebuiltLLM", "generate", "tokenize", "forward"),
        "models/rebuilt_datacube_cnn.py": HEAD + klass("RebuiltDatacubeCNN", "convolve", "forward"),
        "models/domain_specific_encoders.py": HEAD
        + encoders
        + klass("MultiDomainEncoder", "combine", "forward", lines=6),
        "models/domain_specific_encoders_fixed.py": HEAD + encoders + klass("MultiDomainEncoder", "combine", "forward"),
        "models/domain_encoders_simple.py": HEAD + encoders + klass("SimpleDomainEncoder", "combine", "forward"),
        "data_build/__init__.py": '"""Data."""\n'
        + "\n" * 36
        + "from .production_data_loader import ProductionLoader\n"
        + "from .multi_modal_storage_layer_fixed import MultiModalStorageLayer\n",
        "data_build/production_data_loader.py": HEAD + klass("ProductionLoader", "stream", "shard"),
        "data_build/unified_dataloader_architecture.py": HEAD
        + "\n" * 63
        + "from data_build.multi_modal_storage_layer_simple import MultiModalStorageLayer\n"
        + klass("UnifiedDataLoader", "batches", "collate", "annotate", lines=8)
        + loaders,
        "data_build/unified_dataloader_fixed.py": HEAD
        + "from data_build.multi_modal_storage_layer_fixed import MultiModalStorageLayer\n"
        + klass("UnifiedDataLoader", "batches", "collate", lines=6)
        + loaders,
        "data_build/unified_dataloader_standalone.py": HEAD
        + klass("UnifiedDataLoader", "batches", "collate", lines=5)
        + loaders,
        "data_build/multi_modal_storage_layer.py": HEAD + storage + klass("ArchiveTier", "promote", "demote", lines=12),
        "data_build/multi_modal_storage_layer_fixed.py": HEAD + storage,
        "data_build/multi_modal_storage_layer_simple.py": HEAD + small + klass("ChunkIndex", "add", "find", lines=2),
        "train_unified_sota.py": "import torch\nfrom models.rebuilt_graph_vae import RebuiltGraphVAE\n"
        "from models.rebuilt_llm_integration import RebuiltLLM\n"
        "from models.fusion_transformer import FusionTransformer\n",
        "training/unified_sota_training_system.py": "import importlib\n\n"
        'vae = importlib.import_module("models.rebuilt_graph_vae").RebuiltGraphVAE\n\n'
        "try:\n    from data_build.unified_dataloader_architecture import create_unified_data_loaders\n"
        "except ImportError as error:\n    print(error)\n"
        "    from data_build.unified_dataloader_fixed import create_unified_data_loaders\n",
        "training/enhanced_training_orchestrator.py": "import torch\n"
        "from models.domain_specific_encoders import MultiDomainEncoder\n",
        "training/enhanced_training_workflow.py": "from models.domain_encoders_simple import SimpleDomainEncoder\n",
        "config/master_training.yaml": "model:\n  graph: rebuilt_graph_vae\n  llm: rebuilt_llm_integration\n",
        "Astrobiogen_Deep_Learning.ipynb": notebook(
            "%matplotlib inline\nfrom models.rebuilt_graph_vae import RebuiltGraphVAE",
            "from data_build.unified_dataloader_architecture import create_unified_data_loaders\n"
            "x = create_unified_data_loaders([])",
        ),
        "tests/test_graph_vae.py": "from models.graph_vae import GraphVAE\n\ndef test_it():\n    GraphVAE()\n",
    }


OTHER_WORDS = [
    ("graph_vae", "tree_codec"), ("GraphVAE", "TreeCodec"), ("rebuilt", "neo"), ("Rebuilt", "Neo"),
    ("domain_specific_encoders", "region_aware_readers"), ("domain_encoders", "region_readers"),
    ("unified_dataloader", "common_feeder"), ("UnifiedDataLoader", "CommonFeeder"),
    ("create_unified_data_loaders", "make_feeders"),
    ("multi_modal_storage_layer", "mixed_kind_vault_tier"), ("MultiModalStorageLayer", "VaultTier"),
    ("data_build", "intake"), ("models", "parts"), ("training", "jobs"), ("train_unified_sota", "run_all"),
    ("_fixed", "_second"), ("_simple", "_tiny"), ("_standalone", "_alone"), ("_architecture", "_design"),
    ("fusion_transformer", "river_filter"), ("surrogate_transformer", "ocean_filter"), ("unified_sota", "grand"),
    ("Astrobiogen_Deep_Learning", "Play"), ("enhanced_jobs", "evening"),
]  # fmt: skip


def other_words(text: str) -> str:
    for old, new in OTHER_WORDS:
        text = text.replace(old, new)
    return text


def same(text: str) -> str:
    return text


@pytest.fixture(params=[same, other_words], ids=["seed", "other names"])
def renamed(request: pytest.FixtureRequest) -> Rename:
    rename: Rename = request.param
    return rename


def build(root: Path, rename: Rename) -> Path:
    return plant(root, {rename(path): rename(text) for path, text in seed_world().items()})


def statuses(report: VariantReport) -> dict[str, str]:
    return {variant.path: variant.status for group in report.groups for variant in group.variants}


def test_seed_002(tmp_path: Path, renamed: Rename) -> None:
    report = find_variants(build(tmp_path, renamed))

    expected = {
        "models/rebuilt_graph_vae.py": "canonical",
        "models/graph_vae.py": "legacy",
        "data_build/unified_dataloader_architecture.py": "canonical",
        "data_build/unified_dataloader_fixed.py": "legacy",
        "data_build/unified_dataloader_standalone.py": "legacy",
        "data_build/multi_modal_storage_layer_simple.py": "canonical",
        "data_build/multi_modal_storage_layer.py": "legacy",
        "data_build/multi_modal_storage_layer_fixed.py": "legacy",
        "models/domain_specific_encoders.py": "canonical",
        "models/domain_encoders_simple.py": "active",
        "models/domain_specific_encoders_fixed.py": "legacy",
    }
    assert statuses(report) == {renamed(path): status for path, status in expected.items()}
    assert len(report.groups) == 4
    assert all(group.certain for group in report.groups)

    stale = {(action.place, action.kind, action.module) for action in report.actions}
    assert stale == {
        (
            renamed("training/unified_sota_training_system.py:9"),
            "fallback",
            renamed("data_build/unified_dataloader_fixed.py"),
        ),
        (renamed("data_build/__init__.py:39"), "re-export", renamed("data_build/multi_modal_storage_layer_fixed.py")),
        (renamed("tests/test_graph_vae.py:1"), "import", renamed("models/graph_vae.py")),
        (renamed("training/enhanced_training_workflow.py:1"), "decide", renamed("models/domain_encoders_simple.py")),
    }
    reasons = {variant.path: " · ".join(variant.reasons) for group in report.groups for variant in group.variants}
    assert (
        renamed("data_build/unified_dataloader_architecture.py, canonical itself")
        in reasons[renamed("data_build/multi_modal_storage_layer_simple.py")]
    )
    assert (
        renamed("only a fall-back in training/unified_sota_training_system.py")
        in reasons[renamed("data_build/unified_dataloader_fixed.py")]
    )
    assert renamed("named in config/master_training.yaml") in reasons[renamed("models/rebuilt_graph_vae.py")]


def test_content_decides(tmp_path: Path) -> None:
    """Names alone are not enough, nor is content alone."""
    plant(
        tmp_path,
        {
            "a_parser.py": klass("Parser", "read", "scan", "close"),
            "a_parser_fixed.py": klass("Painter", "fill", "stroke", "rotate"),
            "writer.py": klass("Parser", "read", "scan", "close"),
            "train.py": "import a_parser, a_parser_fixed, writer\n",
        },
    )
    assert find_variants(tmp_path).groups == ()


def test_parallel_packages_are_no_variants(tmp_path: Path) -> None:
    files = {
        f"{kind}/memory.py": klass("Memory", "empty", "stats", *(f"{kind}_{i}" for i in range(3)), lines=1)
        for kind in ("cuda", "xpu")
    }
    plant(tmp_path, files | {"train.py": "from cuda.memory import Memory\nfrom xpu.memory import Memory as M\n"})
    assert find_variants(tmp_path).groups == ()


def test_without_evidence_nothing_is_legacy(tmp_path: Path) -> None:
    body = klass("Loader", "read", "close")
    plant(
        tmp_path,
        {
            "lib/__init__.py": "from .fast_loader import Loader\n",
            "lib/fast_loader.py": body,
            "lib/fast_loader_old.py": body,
        },
    )
    (group,) = find_variants(tmp_path).groups
    assert not group.certain
    assert [variant.status for variant in group.variants] == ["canonical", "alternative"]
    (group,) = find_variants(tmp_path, canonical=["lib.fast_loader_old"]).groups
    assert group.canonical.path == "lib/fast_loader_old.py"
    assert group.canonical.reasons[0] == "named canonical"
    with pytest.raises(NoModuleError, match="no module"):
        find_variants(tmp_path, canonical=["lib.nothing"])


def test_fallbacks_and_tests_weigh_little(tmp_path: Path) -> None:
    body = klass("Loader", "read", "close")
    stale = "try:\n    import fast_cloud\nexcept ImportError:\n    from cloud_loader import Loader\n"
    files = {
        "cloud_loader.py": body,
        "cloud_loader_fixed.py": body,
        "train_a.py": "from cloud_loader_fixed import Loader\n",
    }
    tests = {f"tests/test_{i}.py": "from cloud_loader import Loader\n" for i in range(3)}
    plant(tmp_path, files | tests | {"train_b.py": stale, "evaluate.py": stale})
    assert statuses(find_variants(tmp_path)) == {"cloud_loader_fixed.py": "canonical", "cloud_loader.py": "legacy"}


def test_users_that_are_legacy_themselves_weigh_little(tmp_path: Path) -> None:
    store, loader = klass("Store", "put", "get", "drop"), klass("Loader", "read", "close", "peek")
    old = "from chunk_store_old import Store\n" + loader
    plant(
        tmp_path,
        {
            "chunk_store.py": store,
            "chunk_store_old.py": store,
            "lib/cloud_loader.py": "from chunk_store import Store\n" + loader,
            **{f"lib/cloud_loader_v{i}.py": old for i in range(2, 7)},
            "train.py": "from lib.cloud_loader import Loader\n",
        },
    )
    assert statuses(find_variants(tmp_path))["chunk_store_old.py"] == "legacy"


def test_of_equals_the_plain_name_is_canonical(tmp_path: Path) -> None:
    body = klass("Loader", "read", "close")
    plant(
        tmp_path,
        {
            "cloud_loader.py": body,
            "cloud_loader_simple.py": body + klass("More", "x", lines=50),
            "train_a.py": "import cloud_loader\n",
            "train_b.py": "import cloud_loader_simple\n",
        },
    )
    assert statuses(find_variants(tmp_path)) == {"cloud_loader.py": "canonical", "cloud_loader_simple.py": "active"}


def test_what_a_package_exports_and_the_canonical_one_lacks_is_no_legacy(tmp_path: Path) -> None:
    plant(
        tmp_path,
        {
            "lib/__init__.py": "from .wide_loader_old import Loader, Converter\n",
            "lib/wide_loader.py": klass("Loader", "read", "close"),
            "lib/wide_loader_old.py": klass("Loader", "read", "close") + klass("Converter", "convert"),
            "train.py": "from lib.wide_loader import Loader\n",
        },
    )
    assert statuses(find_variants(tmp_path))["lib/wide_loader_old.py"] == "alternative"


IMPORTS = [
    ("import models.a_net", "models/a_net.py", "import"),
    ("import models.a_net as x", "models/a_net.py", "import"),
    ("from models.a_net import A", "models/a_net.py", "import"),
    ("from models import a_net", "models/a_net.py", "import"),
    ("from models import *", "models/__init__.py", "import"),
    ("from .models import a_net", "models/a_net.py", "import"),
    ("from . import models", "models/__init__.py", "import"),
    ("import importlib\nx = importlib.import_module('models.a_net')", "models/a_net.py", "import"),
    ("from importlib import import_module\nx = import_module('.a_net', 'models')", None, ""),
    ("def f():\n    if x:\n        from models.a_net import A", "models/a_net.py", "import"),
    ("try:\n    import models.a_net\nexcept ImportError:\n    pass", "models/a_net.py", "tried"),
    ("try:\n    import z\nexcept (ImportError, OSError):\n    import models.a_net", "models/a_net.py", "fallback"),
    ("try:\n    import z\nexcept ValueError:\n    import models.a_net", "models/a_net.py", "import"),
    ("import a_net", "models/a_net.py", "import"),
    ("from models import Net", "models/a_net.py", "through package"),
    ("import json, models_a_net", None, ""),
    ("x = 'import models.a_net'", None, ""),
]


@pytest.mark.parametrize(("text", "module", "kind"), IMPORTS, ids=[text for text, _, _ in IMPORTS])
def test_imports_are_found(tmp_path: Path, text: str, module: str | None, kind: str) -> None:
    plant(
        tmp_path,
        {
            "models/__init__.py": "from .a_net import Net\n",
            "models/a_net.py": "class Net: pass\nA = 1\n",
            "use.py": text,
        },
    )
    found = {(use.module, use.kind) for use in find_uses(read_code(tmp_path)) if use.file == "use.py"}
    assert ((module, kind) in found) if module else not found


def test_notebooks_and_configurations_are_users(tmp_path: Path) -> None:
    plant(
        tmp_path,
        {
            "lib/deep_net.py": "class DeepNetwork: pass\n",
            "a.ipynb": notebook("!pip install x\nfrom lib.deep_net import DeepNetwork", "x = ("),
            "a.yaml": "model: deep_net\n# my_deep_net deep_net_2\n",
            "b.json": '{"class": "DeepNetwork"}',
            "c.json": '{"class": "DeepNetworks"}',
            "d.json": '{"class": "MyDeepNetwork"}',
            "run.sh": "python lib/deep_net.py\n",
        },
    )
    uses = find_uses(read_code(tmp_path))
    assert [(use.place, use.kind) for use in uses] == [
        ("a.ipynb[1]:2", "import"),
        ("a.yaml:1", "config"),
        ("b.json:1", "config"),
        ("run.sh:1", "config"),
    ]


def test_a_package_as_root(tmp_path: Path) -> None:
    root = plant(
        tmp_path / "pkg",
        {
            "__init__.py": "",
            "core.py": "A = 1\n",
            "sub/__init__.py": "",
            "sub/use.py": "from pkg.core import A\nfrom ..core import A\n",
        },
    )
    assert {use.line for use in find_uses(read_code(root)) if use.module == "core.py"} == {1, 2}


def test_resolving_prefers_the_root() -> None:
    resolver = Resolver(["json.py", "a/util.py", "b/util.py", "src/pkg/__init__.py", "deep/er/one_thing.py"])
    assert resolver.resolve("a/x.py", 0, "util") == "a/util.py"
    assert resolver.resolve("x.py", 0, "util") is None
    assert resolver.resolve("x.py", 0, "pkg") == "src/pkg/__init__.py"
    assert resolver.resolve("x.py", 0, "one_thing") == "deep/er/one_thing.py"
    assert resolver.resolve("a/x.py", 1, "util") == "a/util.py"
    assert resolver.resolve("a/x.py", 2, "b.util") == "b/util.py"


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("graph_vae", "rebuilt_graph_vae", True),
        ("graph_vae", "neo_graph_vae", True),
        ("loader_design", "loader_fixed", False),
        ("unified_dataloader_design", "unified_dataloader_fixed", True),
        ("domain_specific_encoders", "domain_encoders_simple", True),
        ("net_v1", "net_v2", True),
        ("fusion_transformer", "surrogate_transformer", False),
        ("fixed_tree", "fixed_graph", False),
        ("rebuilt_llm_integration", "rebuilt_multimodal_integration", False),
        ("spectral_autoencoder", "spectral_surrogate", False),
        ("causal_discovery_ai", "causal_world_models", False),
    ],
)
def test_names(one: str, other: str, alike: bool) -> None:
    assert (name_likeness(one, other, find_affixes([one, other])) >= 0.5) == alike


def test_words_of_names() -> None:
    assert name_words("RebuiltGraphVAE") == name_words("rebuilt_graph_vae") == ("rebuilt", "graph", "vae")
    assert name_words("net_v2") == ("net", "v2")


def test_inventory(tmp_path: Path, renamed: Rename) -> None:
    report = take_inventory(build(tmp_path, renamed))
    entries = {entry.path: entry for entry in report.modules}
    assert len(entries) == sum(path.endswith(".py") for path in seed_world())
    vae = entries[renamed("models/rebuilt_graph_vae.py")]
    assert vae.status == "canonical"
    assert vae.classes == tuple(map(renamed, ("RebuiltGraphVAE", "GraphTransformerEncoder")))
    assert vae.notebooks == (renamed("Astrobiogen_Deep_Learning.ipynb"),)
    assert vae.configs == (renamed("config/master_training.yaml"),)
    assert vae.lines == len((tmp_path / vae.path).read_text().splitlines())
    assert entries[renamed("models/surrogate_transformer.py")].status == "unused"
    assert entries[renamed("models/fusion_transformer.py")].status == "in use"
    assert entries[renamed("train_unified_sota.py")].status == "entry point"
    assert entries[renamed("tests/test_graph_vae.py")].status == "test"
    assert sum(report.counts().values()) == len(entries)


def test_native_modules(tmp_path: Path) -> None:
    plant(
        tmp_path,
        {
            "rust/one/Cargo.toml": '[package]\nname = "fast-cube"\n'
            '[lib]\nname = "fast_cube"\n[dependencies]\npyo3 = "0.22"\n',
            "rust/two/Cargo.toml": '[package]\nname = "tool"\n[dependencies]\nserde = "1"\n',
            "rust/three/pyproject.toml": '[tool.maturin]\nmodule-name = "pkg._core"\n',
            "setup.py": 'setup(ext_modules=[Extension("quick", ["q.c"]), Extension(name="pkg.slow", sources=[])])\n',
            "cy/loop_one.pyx": "",
            "pkg/__init__.py": "from ._core import run\n",
            "pkg/_core.abi3.so": "",
            "quick.cpython-311-x86_64-linux-gnu.so": "",
            "libstray.so": "",
            "train.py": "try:\n    import fast_cube\nexcept ImportError:\n    fast_cube = None\n",
        },
    )
    found = {module.name: (module.status, module.importers) for module in take_inventory(tmp_path).native}
    assert found == {
        "fast_cube": ("imported but not built", ("train.py:2",)),
        "loop_one": ("declared only", ()),
        "pkg._core": ("in use", ("pkg/__init__.py:1",)),
        "pkg.slow": ("declared only", ()),
        "quick": ("built but unused", ()),
        "stray": ("built but unused", ()),
    }


PARTS = st.sampled_from(
    [
        "import a.b",
        "from . import c",
        "from .c import *",
        "try:\n ",
        "except ImportError:\n ",
        "import_module('",
        "')",
        "\n",
        "class A:\n def f(self): pass\n",
        "(",
        ")",
        "'",
        "\\",
        "#",
        "..",
        "as x",
        "\x00",
        "\ufeff",
        "if __name__ == '__main__':\n",
        "\x0c",
        "ä",
    ]
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(PARTS, max_size=25).map("".join) | st.text(max_size=150))
def test_no_text_breaks_it(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    root = tmp_path_factory.mktemp("fuzz")
    data = text.encode("utf-8", "surrogatepass")
    for name in ("a.py", "b_thing.py", "b_thing_fixed.py", "c.ipynb", "d.yaml", "Cargo.toml", "pyproject.toml"):
        (root / name).write_bytes(data)
    (root / "e.ipynb").write_text(notebook(text), encoding="utf-8")
    take_inventory(root)
    if (tree := parse_python(text)) is not None:
        list(find_imports(tree, "a.py"))


def test_deep_nesting_is_survived(tmp_path: Path) -> None:
    plant(
        tmp_path,
        {
            "a.py": "x = " + "(" * 90 + ")" * 90,
            "b.py": "x" + ".y" * 50_000,
            "c.py": "(" * 10_000,
            "d.ipynb": "[" * 100_000,
        },
    )
    assert len(take_inventory(tmp_path).modules) == 3


def test_speed(tmp_path: Path) -> None:
    for number in range(2000):
        folder = tmp_path / f"part{number % 40}"
        folder.mkdir(exist_ok=True)
        text = f"import part{(number + 1) % 40}.unit_{(number + 1) % 2000}_thing\n" + klass(
            f"Unit{number}", f"go_{number}", "run"
        )
        (folder / f"unit_{number}_thing.py").write_text(text)
    start = time.perf_counter()
    report = find_variants(tmp_path)
    print(f"2,000 modules: {time.perf_counter() - start:.1f} s")
    assert report.modules == 2000
