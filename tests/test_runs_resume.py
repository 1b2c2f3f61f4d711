"""Interrupted training: the resume file, and the generators' state."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from holdfast.runs import ResumeFile, RunRecorder, resume_key, seed_everything

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
