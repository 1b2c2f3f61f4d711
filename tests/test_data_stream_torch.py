"""Streams under torch's own DataLoader: workers, ranks, epochs, going on where it ended."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import holdfast.data
from holdfast.data.stream_dataset import ForeignStateError
from holdfast.errors import UsageError
from servers import S3Server
from stream_world import Streamed, answer, each_once, make_streamed, many
from worlds import environment

BEGIN = """
import hashlib, json, sys
import holdfast.data

def decode(name, data):
    return name, hashlib.md5(data).hexdigest()

def pairs(batch):
    return list(zip(*batch))
"""


@pytest.fixture(scope="module")
def streamed(tmp_path_factory: pytest.TempPathFactory, s3_server: S3Server) -> Streamed:
    return make_streamed(tmp_path_factory.mktemp("torch"), s3_server, many(101))


def test_two_ranks_with_two_workers_each(streamed: Streamed) -> None:
    """Two processes with torch's process group, each with a DataLoader of two forked workers; three epochs."""
    program = (
        BEGIN
        + """
from torch import distributed
distributed.init_process_group("gloo", init_method="tcp://127.0.0.1:PORT", rank=OWN, world_size=2)
stream = holdfast.data.stream("data", decode=decode, shuffle=True, seed=3, batch_size=4)
assert stream.settings.rank == distributed.get_rank()
loader = stream.loader(num_workers=2)
epochs = []
for epoch in range(3):
    batches = [pairs(batch) for batch in loader]
    assert len(batches) <= len(loader)
    epochs.append(batches)
assert stream.epoch == 3
# of one's own, with the same batches
from torch.utils.data import DataLoader
dataset = stream.as_torch()
dataset.set_epoch(1)
assert [pairs(batch) for batch in DataLoader(dataset, batch_size=4, num_workers=2)] == epochs[1]
distributed.barrier()
distributed.destroy_process_group()
print(json.dumps(epochs))
"""
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    programs = [program.replace("PORT", str(port)).replace("OWN", str(rank)) for rank in range(2)]
    ranks = [streamed.start(one) for one in programs]
    found = [answer(rank) for rank in ranks]
    orders = []
    for epoch in range(3):
        given = [sample for rank in found for batch in rank[epoch] for sample in batch]
        each_once([tuple(sample) for sample in given], streamed.files)
        assert [len(rank[epoch]) for rank in found] == [13, 13]
        orders.append([name for name, _ in given])
    assert len({tuple(order) for order in orders}) == 3


def test_the_order_does_not_depend_on_workers(streamed: Streamed) -> None:
    program = (
        BEGIN
        + """
orders = {}
for workers in (0, 1, 2, 3):
    loader = holdfast.data.stream("data", decode=decode, shuffle=True, batch_size=8).loader(num_workers=workers)
    orders[workers] = [pairs(batch) for batch in loader]
plain = list(holdfast.data.stream("data", decode=decode, shuffle=True, batch_size=8))
print(json.dumps([list(orders.values()), plain]))
"""
    )
    orders, plain = streamed.python(program)
    assert all(order == orders[0] for order in orders)
    assert [sample for batch in orders[0] for sample in batch] == plain
    each_once([tuple(sample) for sample in plain], streamed.files)


def test_going_on_with_other_workers_and_ranks(streamed: Streamed) -> None:
    """Stopped twice, each time gone on with by another number of workers, at last by another number of ranks."""
    program = (
        BEGIN
        + """
def go(state, workers, batches, rank=0, world=1, jobs=4, size=3):
    stream = holdfast.data.stream(
        "data", decode=decode, shuffle=True, seed=7, batch_size=size, jobs=jobs, rank=rank, world_size=world
    )
    loader = stream.loader(num_workers=workers)
    if state:
        loader.load_state_dict(json.loads(state))
    found = []
    for number, batch in enumerate(loader, start=1):
        found += pairs(batch)
        if number == batches:
            break
    assert stream.epoch == (0 if batches else 1)
    return found, json.dumps(loader.state_dict())

first, state = go("", 2, 7)
second, state = go(state, 3, 4, jobs=9)
# two ranks go on from the state of one, and stop after as many batches each
thirds = [go(state, 2, 5, rank, 2) for rank in range(2)]
assert thirds[0][1] == thirds[1][1]  # any rank's state is that of all
fourth, state = go(thirds[1][1], 2, 2, size=5)
last, _ = go(state, 0, 0)
print(json.dumps([first, second, thirds[0][0], thirds[1][0], fourth, last]))
"""
    )
    parts = streamed.python(program)
    assert [len(part) for part in parts] == [21, 12, 15, 15, 10, 28]
    each_once([tuple(sample) for part in parts for sample in part], streamed.files)


def test_a_state_is_of_its_stream(streamed: Streamed, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment(streamed.world.home).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(streamed.world.folder)
    stream = holdfast.data.stream("data", shuffle=True, rank=0, world_size=1)
    samples = iter(stream)
    first = [next(samples) for _ in range(5)]
    state = json.loads(json.dumps(stream.state_dict()))
    rest = [name for name, _ in samples]
    assert stream.epoch == 1
    for wrong in (
        holdfast.data.stream("data", shuffle=True, seed=1, rank=0, world_size=1),
        holdfast.data.stream("data", rank=0, world_size=1),
        holdfast.data.stream("data/0", shuffle=True, rank=0, world_size=1),
    ):
        with pytest.raises(ForeignStateError, match="not of this stream"):
            wrong.load_state_dict(state)
    for torn in ({}, {**state, "taken": [{"world": 1}]}, {**state, "epoch": None}):
        with pytest.raises(ForeignStateError):
            stream.load_state_dict(torn)
    again = holdfast.data.stream("data", shuffle=True, rank=0, world_size=1, jobs=1, ahead_bytes=1)
    again.load_state_dict(state)
    assert again.state_dict() == state
    assert [name for name, _ in again] == rest
    assert len(first) + len(rest) == len(streamed.files)
    assert len(list(again)) == len(streamed.files)  # the next epoch has all of them
    # a pass that is broken off is begun again
    assert next(iter(stream)) == next(iter(stream))


def test_a_notebook_looks_and_then_forks(streamed: Streamed) -> None:
    """What is defined in __main__ reaches forked workers alone; looking by `peek` must not spoil that."""
    program = (
        BEGIN
        + """
from holdfast.data.stream_apart import has_used_buckets
stream = holdfast.data.stream("data", decode=lambda name, data: name, batch_size=5, cache_bytes=0)
assert not has_used_buckets()
looked = stream.peek(3)
assert not has_used_buckets()
loader = stream.loader(num_workers=2, persistent_workers=True)
first = [name for batch in loader for name in batch]
assert not has_used_buckets()
second = [name for batch in loader for name in batch]
assert looked == first[:3], (looked, first[:3])
assert stream.epoch == 2
print(json.dumps([first, second]))
"""
    )
    first, second = streamed.python(program)
    assert sorted(first) == sorted(second) == sorted(streamed.files)


def test_workers_that_stay_learn_the_epoch(streamed: Streamed) -> None:
    program = (
        BEGIN
        + """
stay = holdfast.data.stream("data", decode=decode, shuffle=True, batch_size=5).loader(2, persistent_workers=True)
new = holdfast.data.stream("data", decode=decode, shuffle=True, batch_size=5).loader(2)
orders = [[[pairs(batch) for batch in loader] for _ in range(2)] for loader in (stay, new)]
assert orders[0] == orders[1]
assert orders[0][0] != orders[0][1]
other = holdfast.data.stream("data", decode=decode, shuffle=True, batch_size=5).loader(2)
for number, batch in enumerate(other, start=1):
    if number == 4:
        break
stay.load_state_dict(other.state_dict())
assert [pairs(batch) for batch in stay] == orders[0][0][4:]
assert [pairs(batch) for batch in stay] == orders[0][1]
print(json.dumps(True))
"""
    )
    assert streamed.python(program)


def test_after_a_bucket_was_used_workers_are_started_anew(streamed: Streamed, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        BEGIN
        + """
if __name__ == "__main__":
    stream = holdfast.data.stream("data", decode=decode, batch_size=10, cache_bytes=0)
    plain = list(stream)
    loader = stream.loader(num_workers=2)
    assert loader.multiprocessing_context.get_start_method() == "spawn"
    assert [sample for batch in loader for sample in pairs(batch)] == plain
    try:
        list(stream.loader(num_workers=1, multiprocessing_context="fork"))
    except Exception as error:
        assert "spawn" in str(error), error
    print(json.dumps(plain))
"""
    )
    done = subprocess.run(
        [sys.executable, str(tmp_path / "program.py")],
        cwd=streamed.world.folder,
        env=environment(streamed.world.home),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    each_once([tuple(sample) for sample in json.loads(done.stdout)], streamed.files)


def test_a_worker_says_which_file_is_missing(tmp_path: Path, s3_server: S3Server) -> None:
    streamed = make_streamed(tmp_path, s3_server, many(12))
    name = sorted(streamed.files)[7]
    streamed.store.delete(streamed.key(name))
    program = (
        BEGIN
        + """
from holdfast.data.stream_files import MissingSampleError
try:
    for batch in holdfast.data.stream("data", batch_size=2, decode=decode).loader(num_workers=2): pass
except MissingSampleError as error:
    print(json.dumps(str(error)))
"""
    )
    said = streamed.python(program)
    assert name in said
    assert "dvc push" in said


def test_options_that_are_the_streams(streamed: Streamed, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in environment(streamed.world.home).items():
        monkeypatch.setenv(variable, value)
    monkeypatch.chdir(streamed.world.folder)
    stream = holdfast.data.stream("data", batch_size=7, drop_last=True, rank=0, world_size=2)
    assert len(stream) == 49
    assert len(stream.loader()) == 7
    with pytest.raises(UsageError, match="batch_size is no option"):
        stream.loader(batch_size=3)
