"""Interrupted training: the resume file, and the generators' state."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from holdfast.runs import ResumeFile, RunRecorder, resume_key, seed_everything
from holdfast.runs.artifacts import RunDataError

EPOCHS = 6


def train(folder: Path, stop_after: int = EPOCHS, key: str = "same") -> Path:
    """A training that uses every generator; stops dead after ``stop_after`` epochs."""
    resume = ResumeFile(folder / "resume.pt", resume_key(key=key))
    seed_everything(1)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    state = resume.load()
    if state:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    with RunRecorder(folder / "run", resume=state["run"] if state else None, overwrite=True) as run:
        for epoch in range(state["epoch"] + 1 if state else 1, EPOCHS + 1):
            noise = random.random() + np.random.normal()
            loss = (model(torch.randn(16, 4)) - noise).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.log_epoch(epoch, {"val_loss": loss.item()}, model=model, optimizer=optimizer)
            resume.save(
                {"epoch": epoch, "model": model.state_dict(), "optimizer": optimizer.state_dict(), "run": run.state()}
            )
            if epoch == stop_after < EPOCHS:
                raise KeyboardInterrupt
    resume.remove()
    return folder / "run"


@pytest.mark.parametrize("stop_after", [1, 3, 5])
def test_a_resumed_run_ends_with_the_same_bytes(tmp_path: Path, stop_after: int) -> None:
    whole = train(tmp_path / "whole")

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "broken", stop_after)
    (tmp_path / "broken" / "run" / "best_model.pt").unlink()  # as DVC does with outs
    resumed = train(tmp_path / "broken")

    names = sorted(path.name for path in whole.iterdir())
    assert names == sorted(path.name for path in resumed.iterdir())
    for name in names:
        if name != "metadata.json":
            assert (whole / name).read_bytes() == (resumed / name).read_bytes(), name
    assert '"resumed"' in (resumed / "metadata.json").read_text()
    assert not (tmp_path / "broken" / "resume.pt").exists()


def test_what_was_logged_before_the_interruption_is_kept(tmp_path: Path) -> None:
    with RunRecorder(tmp_path / "a", classes=["x", "y"]) as run:
        run.log_epoch(1, {"val_loss": 1.0})
        run.log_confusion_matrix("validation", [0, 1], [0, 0])
        run.log_class_distribution("train", [0, 0, 1])
        run.log_class_distribution("train", [1])
        state = run.state()
        run.log_epoch(2, {"val_loss": 0.5})
    with RunRecorder(tmp_path / "b", classes=["x", "y"], resume=state) as run:
        assert [row["epoch"] for row in run.epochs] == [1]  # the state is of its moment
    for name, word in (("confusion_matrices.json", "validation"), ("class_distributions.json", "train")):
        assert word in (tmp_path / "b" / name).read_text()
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    with (
        pytest.raises(RunDataError, match="has no metric 'f1'"),
        RunRecorder(tmp_path / "c", monitor="f1", resume=state),
    ):
        pass


def test_deterministic_algorithms_are_asked_for() -> None:
    torch.use_deterministic_algorithms(False)
    seed_everything(3)
    assert torch.are_deterministic_algorithms_enabled()


def test_another_run_never_takes_up_the_state(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, stop_after=3)
    before = (tmp_path / "resume.pt").read_bytes()

    assert ResumeFile(tmp_path / "resume.pt", resume_key(key="other")).load() is None
    assert ResumeFile(tmp_path / "resume.pt", resume_key(key="same")).load() is not None
    assert (tmp_path / "resume.pt").read_bytes() == before


def test_a_torn_state_counts_as_none(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, stop_after=3)
    path = tmp_path / "resume.pt"

    path.write_bytes(path.read_bytes()[:-100])
    assert ResumeFile(path, resume_key(key="same")).load() is None


def test_keys_depend_on_the_parts_alone() -> None:
    assert resume_key(a=1, b={"x": 1, "y": 2}) == resume_key(b={"y": 2, "x": 1}, a=1)
    assert resume_key(a=1) != resume_key(a=2)
