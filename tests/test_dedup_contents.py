"""What is stored twice inside of checkpoints: equal weights, shared tensors, casts, near-duplicates."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dedup_worlds import save, tuned, weights, write
from holdfast.dedup.contents import Contents, read_contents
from holdfast.dedup.duplicates import collect, compare
from holdfast.dedup.estimate import SAMPLE_BLOCK_BYTES, sample_pair
from holdfast.dedup.groups import KINDS, DuplicateGroup, DuplicateReport, Kind
from holdfast.dedup.report import report_duplicates
from holdfast.dedup.similar import find_pairs
from holdfast.dedup.tensors import cast_groups
from holdfast.formats.cache import DigestCache
from holdfast.formats.source import FileSource
from holdfast.repo.lineage import Lineage
from holdfast.repo.workspace import find_project
from holdfast.vault.codec import encode
from worlds import World, make_home, make_repository

LAYER = 128 * 128 * 4  # bytes of one tensor of `weights`


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("DVC_SYSTEM_CONFIG_DIR", str(tmp_path / "none"))


def looked(folder: Path, *kinds: Kind, **more: object) -> DuplicateReport:
    return report_duplicates(folder, DigestCache(None), kinds=kinds, **more)  # type: ignore[arg-type]


def only(report: DuplicateReport, kind: Kind) -> DuplicateGroup:
    (group,) = (group for group in report.groups if group.kind == kind)
    return group


def torched(path: Path, given: dict[str, np.ndarray], dtype: torch.dtype | None = None, **more: object) -> Path:
    tensors = {name: torch.from_numpy(value) for name, value in given.items()}
    if dtype is not None:
        tensors = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    torch.save({"model_state_dict": tensors, **more} if more else tensors, path)
    return path


def contents_of(folder: Path) -> Contents:
    collected = collect(folder)
    compare(collected)
    return read_contents(collected, DigestCache(None), min_size=1)


def test_the_same_weights_in_three_wrappers(tmp_path: Path) -> None:
    given = weights()
    save(tmp_path / "m.safetensors", given)
    torched(tmp_path / "m.pt", given)
    torched(tmp_path / "full.pt", given, epoch=3)
    np.savez(tmp_path / "model.npz", **given)
    save(tmp_path / "other.safetensors", weights(seed=5))
    report = looked(tmp_path)
    group = only(report, "weights")
    assert group.paths == ("full.pt", "m.pt", "m.safetensors", "model.npz")
    assert (group.size, group.copies, group.wasted, group.tensors) == (4 * LAYER, 4, 3 * 4 * LAYER, 4)
    # what is equal as a whole is not told again tensor by tensor
    assert {group.kind for group in report.groups} == {"weights"}


def test_shared_tensors_are_grouped_by_who_has_them(tmp_path: Path) -> None:
    a, b = weights(seed=1), weights(seed=2)
    b["layer0.weight"], b["layer1.weight"] = a["layer0.weight"], a["layer1.weight"]
    c = weights(seed=3) | {"renamed": a["layer0.weight"]}
    for name, given in (("a", a), ("b", b), ("c", c)):
        save(tmp_path / f"{name}.safetensors", given)
    report = looked(tmp_path, "tensors")
    found = {group.paths: (group.tensors, group.size, group.copies, group.wasted) for group in report.groups}
    assert found == {
        ("a.safetensors", "b.safetensors", "c.safetensors"): (1, LAYER, 3, 2 * LAYER),
        ("a.safetensors", "b.safetensors"): (1, LAYER, 2, LAYER),
    }


def test_copies_and_wrappers_count_once_among_shared_tensors(tmp_path: Path) -> None:
    a, b = weights(seed=1), weights(seed=2)
    b["layer0.weight"] = a["layer0.weight"]
    save(tmp_path / "a.safetensors", a)
    torched(tmp_path / "a.pt", a)
    (tmp_path / "copy of a.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes())
    save(tmp_path / "b.safetensors", b)
    report = looked(tmp_path)
    assert only(report, "duplicate").copies == 2
    assert only(report, "weights").wasted == 4 * LAYER
    shared = only(report, "tensors")
    assert (shared.tensors, shared.wasted, shared.copies) == (1, LAYER, 2)
    assert len(shared.paths) == 4


def test_a_tensor_twice_in_one_checkpoint(tmp_path: Path) -> None:
    given = weights(tensors=2)
    save(tmp_path / "ema.safetensors", given | {f"ema.{name}": value for name, value in given.items()})
    tied = torch.from_numpy(given["layer0.weight"])
    torch.save({"a": tied, "b": tied}, tmp_path / "tied.pt")
    found = {group.paths: (group.tensors, group.copies, group.wasted) for group in looked(tmp_path, "tensors").groups}
    # the tied names of the other file are one storage
    assert found == {("ema.safetensors",): (1, 2, LAYER), ("ema.safetensors", "tied.pt"): (1, 3, 2 * LAYER)}


@pytest.mark.parametrize(("dtype", "name"), [(torch.bfloat16, "bf16"), (torch.float16, "f16")])
def test_casts_are_found_by_content(tmp_path: Path, dtype: torch.dtype, name: str) -> None:
    given = weights()
    given["layer0.weight"][0, :4] = [np.inf, -np.inf, 3e38, 1e-45]
    save(tmp_path / "full.safetensors", given)
    half = {**given, "layer3.weight": weights(seed=9)["layer3.weight"]}
    torched(tmp_path / f"{name}.pt", half, dtype)
    group = only(looked(tmp_path, "cast"), "cast")
    assert group.paths == (f"{name}.pt", "full.safetensors")
    assert (group.tensors, group.size, group.wasted) == (3, 3 * LAYER // 2, 3 * LAYER // 2)


def test_casts_of_packed_tensors_come_in_pieces_of_any_length(tmp_path: Path) -> None:
    given = weights(tensors=2, rows=1200)
    np.savez_compressed(tmp_path / "model_full.npz", **given)
    np.savez_compressed(tmp_path / "model_half.npz", **{name: value.astype("f2") for name, value in given.items()})
    group = only(looked(tmp_path, "cast"), "cast")
    assert (group.tensors, group.size) == (2, 2 * 1200 * 1200 * 2)


def test_casts_belong_to_the_file_that_gave_most(tmp_path: Path) -> None:
    first, second = weights(seed=1), weights(seed=2)
    second["layer0.weight"] = first["layer0.weight"]
    save(tmp_path / "a.safetensors", first)
    save(tmp_path / "b.safetensors", second)
    torched(tmp_path / "half.pt", second, torch.bfloat16)
    torched(tmp_path / "half again.pt", second, torch.bfloat16, epoch=1)
    group = only(looked(tmp_path, "cast"), "cast")
    assert group.tensors == 4
    assert "a.safetensors" not in group.paths


def test_casts_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = weights()
    save(tmp_path / "full.safetensors", given)
    torched(tmp_path / "half.pt", given, torch.bfloat16)
    contents = contents_of(tmp_path)
    with DigestCache(tmp_path / "digests.sqlite") as digests:
        first = cast_groups(contents, digests)

        def refuse(*_: object) -> None:
            raise AssertionError("it was read again")

        monkeypatch.setattr("holdfast.dedup.tensors.tensor_chunks", refuse)
        assert cast_groups(contents, digests) == first
    assert len(first) == 1


def test_near_duplicates_with_a_real_estimate(tmp_path: Path) -> None:
    given = weights(tensors=8, rows=512)
    newer = tuned(given)
    newer["layer7.weight"] = given["layer7.weight"]
    older = save(tmp_path / "run_epoch_01.safetensors", given)
    newest = save(tmp_path / "run_epoch_02.safetensors", newer)
    report = looked(tmp_path, "similar")
    group = only(report, "similar")
    assert (group.paths, group.base) == (
        ("run_epoch_02.safetensors", "run_epoch_01.safetensors"),
        "run_epoch_01.safetensors",
    )
    estimate = group.estimate
    assert estimate is not None
    # what the codec really makes of all tensors that changed
    changed = [name for name in given if name != "layer7.weight"]
    stored = sum(len(encode(newer[name].tobytes(), "F32", given[name].tobytes())) for name in changed)
    saved = sum(newer[name].nbytes for name in changed) - stored
    assert group.wasted == pytest.approx(saved, rel=0.05)
    assert estimate.low <= saved <= estimate.high
    assert estimate.same == pytest.approx(1 / 8, abs=0.06)
    assert estimate.blocks == 24 < estimate.all_blocks == 32
    assert estimate.sampled == 24 * SAMPLE_BLOCK_BYTES
    assert looked(tmp_path, "similar") == report
    assert newest.stat().st_size > older.stat().st_size // 2


def test_a_sample_of_all_blocks_is_no_estimate(tmp_path: Path) -> None:
    given = weights()
    older, newer = save(tmp_path / "a.safetensors", given), save(tmp_path / "b.safetensors", tuned(given))
    sample = sample_pair(lambda: FileSource(newer), lambda: FileSource(older))
    assert sample.complete
    estimate = sample.estimate()
    assert estimate.low == estimate.high == sample.saving
    assert (estimate.blocks, estimate.all_blocks, sample.matched) == (4, 4, 4 * LAYER)


def test_other_models_are_not_similar(tmp_path: Path) -> None:
    save(tmp_path / "seed1.safetensors", weights(seed=1))
    save(tmp_path / "seed2.safetensors", weights(seed=2))
    save(tmp_path / "larger.safetensors", weights(rows=256))
    assert looked(tmp_path, "similar").groups == ()


def test_the_base_is_the_version_before_of_the_same_path(tmp_path: Path) -> None:
    world = make_repository(tmp_path)
    given = weights()
    states = [given, tuned(given, 2), tuned(tuned(given, 2), 3)]
    oids = []
    for number, state in enumerate(states):
        data = save(tmp_path / "x.safetensors", state).read_bytes()
        oids.append(world.store(data))
        world.write("model.dvc", f"outs:\n- md5: {oids[-1]}\n  size: {len(data)}\n  hash: md5\n  path: model\n")
        world.commit(f"version {number}")
        # a cache that was fetched anew: the oldest version came last
        moment = 1_700_000_000 - 1000 * number
        os.utime(world.cache / "files/md5" / oids[-1][:2] / oids[-1][2:], (moment, moment))
    project = find_project(world.root)
    report = report_duplicates(world.root, DigestCache(None), project=project, scopes=("cache",), kinds=("similar",))
    assert {(group.oids[0], group.base) for group in report.groups} == {
        (oids[1], f"cache {oids[0]}"),
        (oids[2], f"cache {oids[1]}"),
    }
    assert all(group.names == ("model", "model") for group in report.groups)
    assert (report.files, report.objects) == (0, 3)


def test_a_relative_of_the_same_family_goes_first(tmp_path: Path) -> None:
    given = weights()
    for number, name in enumerate(("run_epoch_01", "elsewhere", "run_epoch_02")):
        path = save(tmp_path / f"{name}.safetensors", tuned(given, number))
        os.utime(path, (1_700_000_000 + number, 1_700_000_000 + number))
    pairs = find_pairs(contents_of(tmp_path).bodies, Lineage())
    assert [(new.label, old.label) for new, old in pairs] == [
        ("elsewhere.safetensors", "run_epoch_01.safetensors"),
        ("run_epoch_02.safetensors", "run_epoch_01.safetensors"),
    ]


def test_no_two_checkpoints_rest_on_each_other(tmp_path: Path) -> None:
    """Of two paths one had the first version before the second, the other one after it."""
    given = weights()
    save(tmp_path / "a.safetensors", given)
    save(tmp_path / "b.safetensors", tuned(given))
    keys = {"a.safetensors": ("md5", "a"), "b.safetensors": ("md5", "b")}
    bodies = [replace(body, keys=(keys[body.label],)) for body in contents_of(tmp_path).bodies]
    lineage = Lineage()
    for path, names in (("one", "ab"), ("two", "ba")):
        for name in names:
            lineage.add(path, ("md5", name))
    assert len(find_pairs(bodies, lineage)) == 1


def test_wrappers_of_the_same_weights_are_sampled_once(tmp_path: Path) -> None:
    given = weights()
    save(tmp_path / "a.safetensors", given)
    torched(tmp_path / "a full.pt", given, extra=torch.zeros(3000))
    newer = tuned(given)
    save(tmp_path / "b.safetensors", newer)
    torched(tmp_path / "b full.pt", newer, extra=torch.zeros(3000))
    report = looked(tmp_path)
    group = only(report, "similar")
    assert (group.paths[0], group.base) == ("b full.pt", "a full.pt")
    assert sum(group.kind == "weights" for group in report.groups) == 2


def test_long_commands_name_no_paths(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / ("deep " * 12) / f"{name}.bin", "a")
    world = make_repository(tmp_path / ("deep " * 3))
    for name in ("a", "b", "c"):
        write(world.root / ("deep " * 12) / f"{name}.bin", "a")
    report = report_duplicates(world.root, DigestCache(None), project=find_project(world.root))
    assert [len(group.advice) < 140 and "PATH…" in group.advice for group in report.groups] == [True]


def test_damaged_checkpoints_get_a_note(tmp_path: Path) -> None:
    whole = save(tmp_path / "m.safetensors", weights()).read_bytes()
    (tmp_path / "torn.safetensors").write_bytes(whole[:-1000])
    (tmp_path / "torn.pt").write_bytes(torched(tmp_path / "m.pt", weights()).read_bytes()[:-3000])
    (tmp_path / "words.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{" + b"x" * 9000)
    report = looked(tmp_path)
    assert only(report, "weights").paths == ("m.pt", "m.safetensors")
    assert sorted(note.partition(":")[0] for note in report.notes) == [
        "torn.pt",
        "torn.safetensors",
        "words.safetensors",
    ]


def test_small_groups_are_left_out(tmp_path: Path) -> None:
    a, b = weights(seed=1), weights(seed=2)
    zeros = {"bias": np.zeros(16, "f4")}
    save(tmp_path / "a.safetensors", a | zeros)
    save(tmp_path / "b.safetensors", b | zeros)
    assert looked(tmp_path, "tensors").groups == ()
    assert len(looked(tmp_path, "tensors", min_size=1).groups) == 1


def test_commands(tmp_path: Path) -> None:
    plain = World(tmp_path / "plain", make_home(tmp_path))
    given = weights()
    save(plain.root / "m.safetensors", given)
    torched(plain.root / "m.pt", given)
    save(plain.root / "next.safetensors", tuned(given))
    write(plain.root / "deep" / "a.bin", "a")
    write(plain.root / "deep" / "b.bin", "a")
    text = plain.holdfast("dedup", "report").stdout
    for words in (
        "equal weights in different files",
        "near-duplicates (estimated)",
        "against m.",
        "from all 4 blocks",
        "→ ",
    ):
        assert words in text
    payload = json.loads(plain.holdfast("dedup", "report", "--json").stdout)
    assert payload["format"] == "holdfast dedup report 2"
    assert [group["kind"] for group in payload["groups"]] == ["weights", "similar", "duplicate"]
    assert [group["wasted"] for group in payload["groups"]] == sorted(
        (group["wasted"] for group in payload["groups"]), reverse=True
    )
    assert {kind for kind, total in payload["totals"].items() if total} == {"weights", "similar", "duplicate"}
    assert set(payload["totals"]) == set(KINDS)
    assert payload == json.loads(plain.holdfast("dedup", "report", "--json").stdout)
    one = json.loads(plain.holdfast("dedup", "report", "--json", "--kind", "duplicate", "--top", "1").stdout)
    assert [group["kind"] for group in one["groups"]] == ["duplicate"]
    assert json.loads(plain.holdfast("dedup", "report", "deep", "--json").stdout)["files"] == 2
    assert "| wasted |" in plain.holdfast("dedup", "report", "--md", "--top", "2").stdout
    assert "smaller group" in plain.holdfast("dedup", "report", "--top", "2").stdout
    for arguments in (("nowhere",), ("cache", "history"), ("deep", "."), ("cache", "deep"), ("--remote", "x")):
        plain.holdfast("dedup", "report", *arguments, code=2)
    for scope in ("cache", "history", "remote"):
        plain.holdfast("dedup", "report", scope, code=10)
