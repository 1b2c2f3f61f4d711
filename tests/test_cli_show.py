"""`holdfast show` as a user meets it."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from attacks.files import good_npz, good_onnx, good_safetensors
from holdfast.formats.content import checkpoint_weights_digest
from holdfast.formats.opening import open_checkpoint

HOLDFAST = Path(sys.executable).parent / "holdfast"


def show(folder: Path, *arguments: str, code: int = 0) -> str:
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
    result = subprocess.run(
        [str(HOLDFAST), "show", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == code, result.stderr
    return result.stdout if code == 0 else result.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(5)
    layers = {f"layers.{n}.{name}": torch.randn(8, 8) for n in range(30) for name in ("query.weight", "value.weight")}
    tied = torch.randn(16, 8)
    weights = {"embed.weight": tied, **layers, "head.weight": tied, "steps": torch.tensor(3)}
    state = {"state": {n: {"exp_avg": torch.randn(8, 8)} for n in range(60)}, "param_groups": [{"lr": 0.1}]}
    torch.save({"epoch": 4, "note": "n" * 300, "model": weights, "optimizer": state}, tmp_path / "full.pt")
    return tmp_path


def test_text(folder: Path) -> None:
    lines = show(folder, "full.pt").splitlines()
    parameters = 60 * 64 + 128 + 1
    size = (folder / "full.pt").stat().st_size
    assert (
        lines[0]
        == f"full.pt: torch zip, 123 tensors, {parameters:,} parameters, {size / 1000:.1f} kB, F32 > 99 %, I64 < 1 %."
    )
    text = "\n".join(lines)
    assert "  layers" in text
    assert "embed.weight" in text
    assert "  epoch = 4" in text
    assert "model/embed.weight = model/head.weight" in text
    assert "Its 1 pickle only rebuilds tensors and plain values." in text
    assert "Weights digest:\n  blake3:" in text
    assert len(lines) < 100
    assert max(map(len, lines[1:])) <= 80
    everything = show(folder, "full.pt", "--all")
    assert everything.count("query.weight") == 30
    assert "n" * 300 in everything


def test_json_is_complete(folder: Path) -> None:
    payload = json.loads(show(folder, "full.pt", "--json"))
    source, checkpoint = open_checkpoint(folder / "full.pt")
    with source:
        assert payload["weights_digest"] == checkpoint_weights_digest(checkpoint)
        assert [item["name"] for item in payload["tensors"]] == [tensor.name for tensor in checkpoint.tensors]
        one = next(item for item in payload["tensors"] if item["name"] == "optimizer/state/3/exp_avg")
        data = source.read(one["storage"]["offset"], one["storage"]["bytes"])
    loaded = torch.load(folder / "full.pt", weights_only=True)["optimizer"]["state"][3]["exp_avg"]
    assert data == loaded.numpy().tobytes()
    assert one["part"] == "optimizer"
    assert one["path"] == ["optimizer", "state", 3, "exp_avg"]
    assert payload["metadata"]["optimizer/param_groups/0/lr"] == 0.1
    assert payload["bytes"]["optimizer"] == 60 * 256
    assert payload["pickles"]["foreign"] == []
    assert payload["ties"] == [["model/embed.weight", "model/head.weight"]]
    assert payload["container"] == "model"


def test_markdown(folder: Path) -> None:
    text = show(folder, "full.pt", "--md")
    assert "| part | tensors | elements | bytes |" in text


def test_the_digest_is_kept_and_can_be_left_out(folder: Path) -> None:
    assert "No weights digest: it was not asked for." in show(folder, "full.pt", "--no-digest")
    assert not (folder / "cache").exists()
    os.utime(folder / "full.pt", ns=(1, 1))
    first = show(folder, "full.pt")
    assert (folder / "cache" / "holdfast" / "digests.sqlite").exists()
    assert show(folder, "full.pt") == first
    (folder / ".dvc").mkdir()
    assert show(folder, "full.pt") == first
    assert (folder / ".dvc" / "tmp" / "holdfast" / "digests.sqlite").exists()


@pytest.mark.parametrize(("make", "kind"), [(good_npz, "npz"), (good_onnx, "onnx"), (good_safetensors, "safetensors")])
def test_formats_are_told_by_content(tmp_path: Path, make, kind: str) -> None:
    (tmp_path / "wrong.pt").write_bytes(make())
    assert show(tmp_path, "wrong.pt").startswith(f"wrong.pt: {kind}, 2 tensors, ")


def test_what_would_run_code(tmp_path: Path) -> None:
    data = b"\x80\x02cos\nsystem\nX\x0a\x00\x00\x00touch ownd\x85R."
    (tmp_path / "m.pkl").write_bytes(data)
    (tmp_path / "fickling.py").write_text("open('ownd', 'w')\n")  # what lies beside a model is no part of us
    text = show(tmp_path, "m.pkl")
    assert text.startswith(f"m.pkl: pickle, opaque, {len(data)} B.")
    assert "Unpickling it would call what rebuilds no tensor: os.system." in text
    assert "overtly malicious" in text
    assert not (tmp_path / "ownd").exists()


def test_names_that_would_paint_the_terminal(tmp_path: Path) -> None:
    torch.save({"model": {"a\x1b[31m\nb": torch.ones(2)}, "x\x1b[2J": "y\x07\nz"}, tmp_path / "m.pt")
    text = show(tmp_path, "m.pt")
    assert "a\\x1b[31m\\nb" in text
    assert "x\\x1b[2J = y\\x07 z" in text
    assert not {"\x1b", "\x07"} & set(text)


def test_damage_and_other_mistakes(tmp_path: Path) -> None:
    (tmp_path / "torn.safetensors").write_bytes(good_safetensors()[:-1])
    assert show(tmp_path, "torn.safetensors", code=13).startswith("holdfast: torn.safetensors is torn")
    assert "does not exist" in show(tmp_path, "nothing.pt", code=2)
    assert "is a directory" in show(tmp_path, ".", code=2)
    os.mkfifo(tmp_path / "pipe")
    assert "pipe is not a file" in show(tmp_path, "pipe", code=1)


def test_a_narrow_terminal(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **{"a.very.long.name.of.a.tensor.that.goes.on.and.on.and.on": np.ones((3, 4, 5, 6))})
    parent, child = pty.openpty()
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path), "COLUMNS": "60", "TERM": "xterm"}
    subprocess.run([str(HOLDFAST), "show", "a.npz"], cwd=tmp_path, env=environment, stdout=child, check=True)
    os.close(child)
    text = b""
    try:
        while piece := os.read(parent, 65536):
            text += piece
    except OSError:
        pass  # the terminal's other end is closed
    os.close(parent)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text.decode()).splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 60
    assert "Left out for want of width" in " ".join(lines)
