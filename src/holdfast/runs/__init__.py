"""Runs: the recorder of a training run, its arrays, its checkpoints, its checks."""

from holdfast.runs.array_contract import ArrayContract, Sample
from holdfast.runs.arrays import ArrayStore
from holdfast.runs.folders import new_run_folder
from holdfast.runs.recorder import RunRecorder
from holdfast.runs.resume import ResumeFile, resume_key, seed_everything

__all__ = [
    "ArrayContract",
    "ArrayStore",
    "ResumeFile",
    "RunRecorder",
    "Sample",
    "new_run_folder",
    "resume_key",
    "seed_everything",
]
