"""The recorder: what lies in the folder after each thing that can happen to a run."""

import csv
import json
import os
import signal
import subprocess
import sys
import textwrap
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
import torch

from holdfast.errors import IntegrityError, LockedError
from holdfast.runs import ArrayContract, ArrayStore, RunRecorder, new_run_folder
from holdfast.runs.artifacts import RunDataError, class_scores, confusion_matrix
from holdfast.runs.checkpoint import UnloadableValueError, load_checkpoint, save_checkpoint
from holdfast.runs.folders import RunExistsError
from holdfast.runs.validate import NotARunError, validate_run

CLASSES = ("cat", "dog", "owl")
LABELS = np.array([0, 0, 1, 1, 2, 2])
PROBABILITIES = np.array(
    [[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.5, 0.4, 0.1], [0.1, 0.1, 0.8], [0.2, 0.2, 0.6]],
    dtype=np.float32,
)
LOSSES = (0.9, 0.4, 0.6)
NAN = float("nan")


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


def record(folder: Path, losses=LOSSES, **arguments) -> Path:
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 3)
    optimizer = torch.optim.AdamW(model.parameters())
    with RunRecorder(folder, classes=CLASSES, seed=3, params={"lr": 0.1}, clock=Clock(), **arguments) as run:
        for epoch, loss in enumerate(losses, start=1):
            model(torch.ones(1, 2)).sum().backward()
            optimizer.step()
            run.log_epoch(epoch, {"train_loss": loss / 2, "val_loss": loss}, model=model, optimizer=optimizer)
        names = [f"sample {number}" for number in range(6)]
        run.log_predictions(names[:4], LABELS[:4], PROBABILITIES[:4])
        run.log_predictions(names[4:], LABELS[4:], PROBABILITIES[4:])
        run.log_class_distribution("train", LABELS)
    return folder


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_finished_run_holds_every_artifact_and_is_valid(tmp_path: Path) -> None:
    folder = record(tmp_path / "run")

    assert sorted(path.name for path in folder.iterdir()) == [
        "best_model.pt",
        "class_distributions.json",
        "confusion_matrices.json",
        "confusion_matrix.png",
        "epoch_statistics.csv",
        "metadata.json",
        "predictions_eval.csv",
        "training_curves.png",
        "training_summary.txt",
    ]
    assert validate_run(folder).faults == ()


def test_epochs_and_predictions_are_a_row_each(tmp_path: Path) -> None:
    folder = record(tmp_path / "run")

    epochs = read_csv(folder / "epoch_statistics.csv")
    assert [(row["epoch"], float(row["val_loss"])) for row in epochs] == [("1", 0.9), ("2", 0.4), ("3", 0.6)]
    predictions = read_csv(folder / "predictions_eval.csv")
    assert [row["prediction"] for row in predictions] == ["cat", "cat", "dog", "cat", "owl", "owl"]
    assert [row["label"] for row in predictions] == ["cat", "cat", "dog", "dog", "owl", "owl"]
    read = np.array([[row[f"probability_{name}"] for name in CLASSES] for row in predictions], dtype=np.float32)
    assert np.array_equal(read, PROBABILITIES)


def test_json_artifacts_agree_with_the_predictions(tmp_path: Path) -> None:
    folder = record(tmp_path / "run")

    matrices = json.loads((folder / "confusion_matrices.json").read_text())
    assert matrices["matrices"] == {"eval": [[2, 0, 0], [1, 1, 0], [0, 0, 2]]}
    distributions = json.loads((folder / "class_distributions.json").read_text())
    assert distributions["distributions"] == {"train": {"cat": 2, "dog": 2, "owl": 2}}
    metadata = json.loads((folder / "metadata.json").read_text())
    assert metadata["status"] == "finished"
    assert metadata["started"] == "2026-01-02T03:04:06+00:00"
    assert metadata["monitor"] == {"metric": "val_loss", "mode": "min", "best_epoch": 2, "best_value": 0.4}
    assert (metadata["seed"], metadata["params"], metadata["predictions"]) == (3, {"lr": 0.1}, 6)
    assert metadata["versions"]["torch"] == torch.__version__.split("+")[0] or metadata["versions"]["torch"]


def test_only_the_best_epoch_is_kept(tmp_path: Path) -> None:
    folder = record(tmp_path / "run")

    checkpoint = load_checkpoint(folder / "best_model.pt")
    assert checkpoint["epoch"] == 2
    assert checkpoint["metrics"] == {"train_loss": 0.2, "val_loss": 0.4}
    assert set(checkpoint["model_state_dict"]) == {"weight", "bias"}
    assert checkpoint["optimizer_state_dict"]["state"]


@pytest.mark.parametrize(
    ("losses", "mode", "best"),
    [
        ((0.9, 0.4, 0.6), "max", 1),
        ((0.5, 0.5), "min", 1),
        ((NAN, 0.7), "min", 2),
        ((NAN,), "min", None),
    ],
)
def test_what_is_best(tmp_path: Path, losses: tuple[float, ...], mode: str, best: int | None) -> None:
    folder = record(tmp_path / "run", losses, mode=mode)

    assert json.loads((folder / "metadata.json").read_text())["monitor"]["best_epoch"] == best
    assert (folder / "best_model.pt").exists() == (best is not None)


def test_the_checkpoint_may_have_another_name_and_metric(tmp_path: Path) -> None:
    with RunRecorder(tmp_path / "run", checkpoint="champion.pt", monitor="f1", mode="max") as run:
        assert run.log_epoch(1, {"f1": torch.tensor(0.5)}, model={"w": torch.ones(2)})
        assert not run.log_epoch(2, {"f1": np.float32(0.25)}, model={"w": torch.zeros(2)})

    assert load_checkpoint(tmp_path / "run" / "champion.pt")["model_state_dict"]["w"].tolist() == [1, 1]


def test_same_run_same_bytes_but_for_the_times(tmp_path: Path) -> None:
    first, second = record(tmp_path / "a"), record(tmp_path / "b")

    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes(), path.name


def test_a_run_is_not_overwritten_unasked(tmp_path: Path) -> None:
    folder = record(tmp_path / "run")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    with pytest.raises(RunExistsError, match="already holds a run"):
        record(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    record(folder, (0.3,), overwrite=True)
    assert len(read_csv(folder / "epoch_statistics.csv")) == 1


def test_an_exception_is_recorded_and_leaves_what_there_was(tmp_path: Path) -> None:
    def train() -> None:
        with RunRecorder(tmp_path / "run") as run:
            run.log_epoch(1, {"val_loss": 0.5})
            raise ValueError("loss exploded")

    with pytest.raises(ValueError, match="loss exploded"):
        train()
    metadata = json.loads((tmp_path / "run" / "metadata.json").read_text())
    assert (metadata["status"], metadata["error"]) == ("failed", "ValueError: loss exploded")
    assert len(read_csv(tmp_path / "run" / "epoch_statistics.csv")) == 1


def test_a_killed_run_leaves_its_epochs(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import sys, time
        from holdfast.runs import RunRecorder
        with RunRecorder(sys.argv[1]) as run:
            for epoch in range(1, 4):
                run.log_epoch(epoch, {"val_loss": 1 / epoch})
            print("ready", flush=True)
            time.sleep(60)
    """)
    child = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "run")], stdout=subprocess.PIPE)
    assert child.stdout is not None
    with child.stdout:
        assert child.stdout.readline() == b"ready\n"
        os.kill(child.pid, signal.SIGKILL)
        child.wait()

    assert [row["epoch"] for row in read_csv(tmp_path / "run" / "epoch_statistics.csv")] == ["1", "2", "3"]
    messages = [fault.problem for fault in validate_run(tmp_path / "run").faults]
    assert "the run is 'running', not 'finished'" in messages


@pytest.mark.parametrize(
    ("epoch", "metrics", "message"),
    [
        (2, {"loss": 1.0}, "no 'val_loss'"),
        (1, {"val_loss": 1.0}, "does not come after"),
        (2, {"val_loss": 1, "x": 1}, "the first had"),
    ],
)
def test_epochs_that_do_not_fit_are_refused(tmp_path: Path, epoch: int, metrics: dict, message: str) -> None:
    with RunRecorder(tmp_path / "run") as run:
        run.log_epoch(1, {"val_loss": 1.0})
        with pytest.raises(RunDataError, match=message):
            run.log_epoch(epoch, metrics)

    assert len(read_csv(tmp_path / "run" / "epoch_statistics.csv")) == 1


def test_predictions_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with RunRecorder(tmp_path / "run", classes=CLASSES) as run:
        with pytest.raises(RunDataError, match="do not fit 3 classes"):
            run.log_predictions(["a"], [0], [[0.5, 0.5]])
        with pytest.raises(RunDataError, match="reach from 0 to 3"):
            run.log_predictions(["a", "b"], [0, 3], PROBABILITIES[:2])
        with pytest.raises(RunDataError, match="class indices are integers"):
            run.log_class_distribution("train", [0.5])


def test_new_run_folders_never_collide(tmp_path: Path) -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    names = [new_run_folder(tmp_path / "runs", lambda: moment).name for _ in range(3)]

    assert names == ["run_20260102_030405", "run_20260102_030405_2", "run_20260102_030405_3"]


def test_scores_of_a_class_that_is_never_predicted_are_zero() -> None:
    matrix = confusion_matrix([0, 0, 1], [0, 0, 0], classes=3)

    scores = class_scores(matrix, CLASSES)
    assert [(s.precision, s.recall, s.support) for s in scores] == [(2 / 3, 1.0, 2), (0.0, 0.0, 1), (0.0, 0.0, 0)]


def test_metrics_may_come_in_any_order(tmp_path: Path) -> None:
    with RunRecorder(tmp_path / "run") as run:
        run.log_epoch(1, {"a": 1, "val_loss": 2})
        run.log_epoch(2, {"val_loss": 3, "a": 4})

    assert read_csv(tmp_path / "run" / "epoch_statistics.csv") == [
        {"epoch": "1", "a": "1.0", "val_loss": "2.0"},
        {"epoch": "2", "a": "4.0", "val_loss": "3.0"},
    ]


def test_numpys_numbers_are_numbers(tmp_path: Path) -> None:
    with RunRecorder(tmp_path / "run", seed=np.int64(3), params={"lr": np.float32(0.5)}) as run:
        for epoch in np.arange(1, 3):
            extra = {"scale": np.float64(2), "mean": np.ones(2), "nested": [np.int8(1), {"k": (np.bool_(True),)}]}
            run.log_epoch(epoch, {"val_loss": np.float32(1) / epoch}, model={"w": torch.ones(1)}, extra=extra)

    checkpoint = load_checkpoint(tmp_path / "run" / "best_model.pt")
    assert (checkpoint["epoch"], checkpoint["scale"], checkpoint["nested"]) == (2, 2.0, [1, {"k": (True,)}])
    assert checkpoint["mean"].tolist() == [1, 1]
    metadata = json.loads((tmp_path / "run" / "metadata.json").read_text())
    assert (metadata["seed"], metadata["params"], metadata["monitor"]["best_epoch"]) == (3, {"lr": 0.5}, 2)


def test_what_would_not_load_again_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with RunRecorder(tmp_path / "run") as run:
        run.log_epoch(1, {"val_loss": 1.0}, model={"w": torch.ones(1)})
        with pytest.raises(UnloadableValueError, match=r"cannot hold a pathlib\.PosixPath"):
            run.log_epoch(2, {"val_loss": 0.5}, model={"w": torch.zeros(1)}, extra={"data": tmp_path})

    assert len(read_csv(tmp_path / "run" / "epoch_statistics.csv")) == 1
    assert load_checkpoint(tmp_path / "run" / "best_model.pt")["epoch"] == 1


@pytest.mark.parametrize(
    "arguments",
    [
        {"params": {"path": Path("x")}},
        {"params": {"lr": NAN}},
        {"checkpoint": "metadata.json"},
        {"checkpoint": ".."},
        {"checkpoint": ""},
        {"checkpoint": "a/b.pt"},
        {"checkpoint": "best"},
        {"classes": ["a", "a"]},
        {"classes": ["a\nb"]},
        {"mode": "best"},
    ],
)
def test_arguments_that_do_not_fit_leave_the_old_run(tmp_path: Path, arguments: dict) -> None:
    folder = record(tmp_path / "run")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    with pytest.raises(RunDataError):
        RunRecorder(folder, overwrite=True, **arguments)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("metrics", [{"val_loss": "low"}, {"val_loss": 1, "epoch": 7}, {"val_loss": torch.ones(2)}])
def test_metrics_that_are_none_are_refused(tmp_path: Path, metrics: dict) -> None:
    with RunRecorder(tmp_path / "run") as run:
        with pytest.raises(RunDataError):
            run.log_epoch(1, metrics)
        with pytest.raises(RunDataError, match="a whole number"):
            run.log_epoch(0.5, {"val_loss": 1})  # type: ignore[arg-type]


def test_one_recorder_at_a_time_and_one_run_a_recorder(tmp_path: Path) -> None:
    run = RunRecorder(tmp_path / "run")
    with pytest.raises(RunDataError, match="is not open"):
        run.log_epoch(1, {"val_loss": 1})
    with run, pytest.raises(LockedError, match="another recorder is at work"), RunRecorder(tmp_path / "run"):
        pass
    with pytest.raises(RunDataError, match="records one run"):
        run.__enter__()


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt(), "interrupted"), (SystemExit(0), "interrupted")])
def test_a_stopped_run_is_interrupted(tmp_path: Path, error: BaseException, status: str) -> None:
    def train() -> None:
        with RunRecorder(tmp_path / "run"):
            raise error

    with pytest.raises(type(error)):
        train()
    assert json.loads((tmp_path / "run" / "metadata.json").read_text())["status"] == status


def test_overwriting_removes_the_old_checkpoint_and_what_was_left_half_written(tmp_path: Path) -> None:
    folder = record(tmp_path / "run", checkpoint="champion.pt")
    (folder / ".best_model.pt.0123456789abcdef.tmp").touch()

    record(folder, overwrite=True)
    assert not (folder / "champion.pt").exists()
    assert validate_run(folder).faults == ()


def test_a_run_that_cannot_be_drawn_is_finished(tmp_path: Path) -> None:
    program = textwrap.dedent("""
        import sys, warnings
        sys.modules["matplotlib"] = None
        from holdfast.runs import RunRecorder
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with RunRecorder(sys.argv[1]) as run:
                run.log_epoch(1, {"val_loss": 1})
        assert "matplotlib is not installed" in str(caught[0].message), caught
    """)
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "run")], check=True)

    metadata = json.loads((tmp_path / "run" / "metadata.json").read_text())
    assert metadata["status"] == "finished"
    assert "matplotlib is not installed" in metadata["warnings"][0]
    assert (tmp_path / "run" / "training_summary.txt").exists()


def test_names_are_text_in_pictures(tmp_path: Path) -> None:
    classes = [r"$\foo$", "猫", "🐶"]
    with RunRecorder(tmp_path / "run", classes=classes) as run:
        run.log_epoch(1, {r"$\frac{": 1, "val_loss": 1})
        run.log_predictions(["a"], [0], [[1.0, 0.0, 0.0]])

    assert (tmp_path / "run" / "confusion_matrix.png").exists()
    assert (tmp_path / "run" / "training_curves.png").exists()


def test_many_metrics_are_drawn_in_part(tmp_path: Path) -> None:
    with RunRecorder(tmp_path / "run") as run:
        run.log_epoch(1, {**{f"recall_{number}": 0.5 for number in range(300)}, "val_loss": 1})

    assert (tmp_path / "run" / "training_curves.png").stat().st_size < 1_000_000


def test_a_full_disk_is_told_and_recorded(tmp_path: Path) -> None:
    """Every file the recorder writes is limited to 3,000 bytes, as a disk does that fills up."""
    program = textwrap.dedent("""
        import resource, signal, sys
        from holdfast.runs import RunRecorder
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
        try:
            with RunRecorder(sys.argv[1]) as run:
                for epoch in range(1, 1000):
                    run.log_epoch(epoch, {"val_loss": 1 / epoch})
        except OSError as error:
            print(error.strerror)
    """)
    command = [sys.executable, "-c", program, str(tmp_path / "run")]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "File too large\n"

    metadata = json.loads((tmp_path / "run" / "metadata.json").read_text())
    assert (metadata["status"], metadata["error"].split(":")[0]) == ("failed", "OSError")


def test_a_flipped_bit_in_a_checkpoint_is_found(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "model.pt", {"w": torch.arange(1000.0)})
    data = bytearray((tmp_path / "model.pt").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "model.pt").write_bytes(data)

    with pytest.raises(IntegrityError, match="is damaged"):
        load_checkpoint(tmp_path / "model.pt")


def damage_json(name: str, **changes):
    def apply(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**content, **changes}))

    return apply


def damage_text(name: str, old: str, new: str):
    def apply(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))

    return apply


class Evil:
    def __reduce__(self):
        return (os.mkdir, ("executed",))


@pytest.mark.parametrize(
    ("damage", "file", "message"),
    [
        (lambda f: (f / "training_summary.txt").unlink(), "training_summary.txt", "is missing"),
        (lambda f: (f / "best_model.pt").unlink(), "best_model.pt", "is missing"),
        (damage_json("metadata.json", started="yesterday"), "metadata.json", "no ISO 8601 time"),
        (damage_json("metadata.json", started="2026-01-02T03:04:05"), "metadata.json", "no time zone"),
        (damage_json("metadata.json", ended="2025-01-02T03:04:05+00:00"), "metadata.json", "ended before it started"),
        (damage_json("metadata.json", epochs=4), "epoch_statistics.csv", "has 3 epochs; metadata.json says 4"),
        (damage_json("metadata.json", predictions=7), "predictions_eval.csv", "has 6 samples; metadata.json says 7"),
        (
            damage_json("metadata.json", monitor={"metric": "val_loss", "mode": "min", "best_epoch": 3}),
            "best_model.pt",
            "is of epoch 2; the best epoch is 3",
        ),
        (damage_text("epoch_statistics.csv", "\n2,", "\n1,"), "epoch_statistics.csv", "does not come after"),
        (damage_text("epoch_statistics.csv", "0.9", "lots"), "epoch_statistics.csv", "line 2"),
        (damage_text("epoch_statistics.csv", "0.9\n", "0.9,1\n"), "epoch_statistics.csv", "has 4 fields, the header 3"),
        (damage_text("predictions_eval.csv", "sample 1", "sample 0"), "predictions_eval.csv", "comes twice"),
        (damage_text("predictions_eval.csv", "cat,cat,0.8", "cat,cat,1.8"), "predictions_eval.csv", "add up to 1"),
        (damage_text("predictions_eval.csv", "cat,cat", "cat,dog"), "predictions_eval.csv", "not the most probable"),
        (damage_text("predictions_eval.csv", "cat,cat", "cat,cow"), "predictions_eval.csv", "is no class"),
        (damage_text("predictions_eval.csv", "cat,cat", "dog,cat"), "confusion_matrices.json", "no matrix counts"),
        (damage_json("confusion_matrices.json", matrices={"eval": [[1]]}), "confusion_matrices.json", "not of shape"),
        (
            damage_json("class_distributions.json", distributions={"a": {"cat": -1}}),
            "class_distributions.json",
            "counts",
        ),
        (lambda f: (f / "training_curves.png").write_bytes(b"GIF89a"), "training_curves.png", "is no PNG"),
        (lambda f: (f / "last.pth").write_bytes(b""), "last.pth", "second checkpoint"),
        (lambda f: (f / "maps.pkl").write_bytes(b""), "maps.pkl", "is a pickle"),
        (lambda f: (f / "best_model.pt").write_bytes(b"PK\x03\x04"), "best_model.pt", "does not load"),
        (lambda f: (f / "training_summary.txt").write_text(" \n"), "training_summary.txt", "is empty"),
        (lambda f: os.truncate(f / "confusion_matrix.png", 100), "confusion_matrix.png", "is torn"),
        (lambda f: (f / "A.PKL").write_bytes(b""), "A.PKL", "is a pickle"),
        (lambda f: np.save(f / "x.npy", np.array([{}], object)), "x.npy", "holds pickled objects"),
        (lambda f: (f / ".x.bin.0123456789abcdef.tmp").touch(), ".x.bin.0123456789abcdef.tmp", "was killed"),
        (damage_json("metadata.json", schema=99), "metadata.json", "'schema' is 99"),
        (damage_json("metadata.json", classes=None), "metadata.json", "'classes' is missing"),
        (damage_json("metadata.json", artifacts=5), "metadata.json", "'artifacts' is missing, or is no list"),
        (damage_json("metadata.json", artifacts=["maps.h5"]), "maps.h5", "is listed in metadata.json and missing"),
        (damage_json("metadata.json", monitor={"metric": ["a"]}), "epoch_statistics.csv", "has no column"),
        (damage_json("metadata.json", resumed=["soon"]), "metadata.json", "is not in the form"),
        (
            damage_json(
                "metadata.json", monitor={"metric": "val_loss", "mode": "min", "best_epoch": 2, "best_value": 1}
            ),
            "epoch_statistics.csv",
            "the best val_loss is 0.4; metadata.json says 1",
        ),
        (
            damage_json("metadata.json", monitor={"metric": "val_loss", "mode": "max", "best_epoch": 2}),
            "epoch_statistics.csv",
            "epoch 1 has the best val_loss",
        ),
        (damage_text("epoch_statistics.csv", "\n2,", "\n1.5,"), "epoch_statistics.csv", "is no whole number"),
        (damage_text("epoch_statistics.csv", "0.2,0.4", "0.3,0.4"), "best_model.pt", "are not those of its epoch"),
        (damage_json("confusion_matrices.json", classes=["owl", "dog", "cat"]), "confusion_matrices.json", "classes"),
        (damage_json("confusion_matrices.json", classes=5), "confusion_matrices.json", "is not in the form"),
        (
            damage_json("confusion_matrices.json", matrices={"eval": [[2, 0, 0], [0, 1, 1], [0, 0, 2]]}),
            "confusion_matrices.json",
            "no matrix counts the samples",
        ),
        (
            damage_json("class_distributions.json", distributions={"a": {"cat": 1}}),
            "class_distributions.json",
            "classes",
        ),
        (
            lambda f: save_checkpoint(f / "best_model.pt", {"epoch": 2, "model": {"w": torch.tensor([NAN])}}),
            "best_model.pt",
            "not finite: w",
        ),
        (damage_text("predictions_eval.csv", "cat,cat,0.8", "cat,cat,0.9"), "predictions_eval.csv", "add up to 1"),
        (lambda f: torch.save({"model": Evil()}, f / "best_model.pt"), "best_model.pt", "without running code"),
        (lambda f: save_checkpoint(f / "best_model.pt", {"epoch": 2}), "best_model.pt", "holds no weights"),
    ],
)
def test_each_fault_is_found_and_named(tmp_path: Path, monkeypatch, damage, file: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    folder = record(tmp_path / "run")

    damage(folder)
    faults = validate_run(folder).faults
    assert [fault for fault in faults if fault.file == file and message in fault.problem], faults
    assert not (tmp_path / "executed").exists()


def test_array_stores_are_checked_in_a_run_and_alone(tmp_path: Path) -> None:
    folder = record(tmp_path / "run")
    contract = ArrayContract("attention", (2, 2), "float32", minimum=0, maximum=1)
    with ArrayStore(folder / "attention_maps", contract) as store:
        store.save_batch(["a", "b"], np.zeros((2, 2, 2), np.float32))
    assert validate_run(folder).faults == validate_run(folder / "attention_maps").faults == ()

    (folder / "attention_maps" / "b_attention.npz").unlink()
    assert [fault.file for fault in validate_run(folder).faults] == ["attention_maps/b_attention.npz"]
    assert [fault.file for fault in validate_run(folder / "attention_maps").faults] == ["b_attention.npz"]


def test_a_folder_without_a_run_is_none(tmp_path: Path) -> None:
    with pytest.raises(NotARunError, match="is no run folder"):
        validate_run(tmp_path)
