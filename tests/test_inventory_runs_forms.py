"""Run folders of every tool, as the tool writes them, and what is read from each."""

import json
from pathlib import Path
from typing import Any

import pytest

from holdfast.inventory.run_record import Run
from holdfast.inventory.run_scan import scan_runs
from holdfast.runs.recorder import RunRecorder


def write(folder: Path, files: dict[str, Any]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def only(folder: Path) -> Run:
    (run,) = scan_runs(folder).runs
    return run


def test_holdfast(tmp_path: Path) -> None:
    with RunRecorder(
        tmp_path / "train", classes=["a", "b"], monitor="val_loss", params={"train": {"epochs": 2}}
    ) as recorder:
        recorder.log_epoch(1, {"val_loss": 0.5, "val_accuracy": 0.7})
        recorder.log_epoch(2, {"val_loss": 0.6, "val_accuracy": 0.8})
        recorder.log_predictions(["x", "y"], [0, 1], [[0.9, 0.1], [0.8, 0.2]])

    run = only(tmp_path)

    assert (run.form, run.status, run.epochs, run.name) == ("holdfast", "finished", 2, "train")
    assert run.monitor is not None
    assert (run.monitor.metric, run.monitor.best_epoch, run.monitor.best_value) == ("val_loss", 1, 0.5)
    assert run.best == {"val_loss": 0.5, "val_accuracy": 0.8}
    assert run.best_epochs == {"val_loss": 1, "val_accuracy": 2}
    assert run.final == {"val_loss": 0.6, "val_accuracy": 0.8}
    assert run.started_from == "metadata"
    assert run.size.epochs == 2
    assert [(score.name, score.recall, score.support, score.collapsed) for score in run.classes] == [
        ("a", 1.0, 1, False),
        ("b", 0.0, 1, True),
    ]


def test_lightning(tmp_path: Path) -> None:
    for version in (0, 1):
        write(
            tmp_path / "resnet" / "lightning_logs" / f"version_{version}",
            {
                "hparams.yaml": "hidden_dim: 128\nnum_layers: 2\nbatch_size: 32\nmax_epochs: 2\n"
                "callbacks: !!python/tuple\n- !!python/object:some.module.Thing\n  seed: 1\n",
                "metrics.csv": "epoch,step,train_loss_step,train_loss_epoch,val_acc,val_loss\n"
                "0,49,1.5,,,\n0,99,,,0.61,0.92\n0,99,,1.31,,\n1,149,0.9,,,\n1,199,,,0.72,0.74\n1,199,,0.88,,\n",
                "checkpoints/epoch=1-step=200.ckpt": b"PK",
            },
        )

    first, second = scan_runs(tmp_path).runs

    assert (first.form, first.status, first.epochs) == ("lightning", "unknown", 2)
    assert (first.name, second.name) == ("resnet/version_0", "resnet/version_1")
    assert first.series == second.series == "resnet"
    assert first.group == second.group
    assert first.best["val_accuracy"] == 0.72
    assert first.best_epochs["val_accuracy"] == 1
    assert first.final["val_loss"] == 0.74
    assert (first.size.layers, first.size.width, first.size.batch_size, first.size.epochs) == (2, 128, 32, 2)
    assert {file.path: file.role for file in first.files}["checkpoints/epoch=1-step=200.ckpt"] == "checkpoint"
    assert not first.notes


STATE = {
    "best_metric": 0.81,
    "best_model_checkpoint": "out/checkpoint-500",
    "epoch": 2.0,
    "global_step": 1000,
    "max_steps": 1000,
    "num_train_epochs": 2,
    "train_batch_size": 8,
    "log_history": [
        {"epoch": 1.0, "grad_norm": 2.5, "learning_rate": 2.5e-05, "loss": 0.61, "step": 500},
        {"epoch": 1.0, "eval_f1_macro": 0.81, "eval_loss": 0.48, "eval_runtime": 3.2, "step": 500},
        {"epoch": 2.0, "loss": 0.33, "step": 1000},
        {"epoch": 2.0, "eval_f1_macro": 0.79, "eval_loss": 0.52, "eval_runtime": 3.1, "step": 1000},
    ],
}
BERT = {"model_type": "bert", "num_hidden_layers": 12, "hidden_size": 768, "vocab_size": 30522}


def test_hugging_face(tmp_path: Path) -> None:
    write(
        tmp_path / "bert-20250525-1305",
        {
            "trainer_state.json": STATE,
            "config.json": BERT,
            "model-00001-of-00002.safetensors": b"1234",
            "model-00002-of-00002.safetensors": b"12",
            "model.safetensors.index.json": {"weight_map": {}},
            "tokenizer.json": {"model": {"vocab": {"a": 0}}},
            "tokenizer_config.json": {"model_max_length": 512},
            "all_results.json": {"epoch": 2.0, "train_loss": 0.47, "train_runtime": 99.0},
            "training_args.bin": b"PK",
            "checkpoint-500/trainer_state.json": {**STATE, "global_step": 500, "epoch": 1.0},
            "checkpoint-500/optimizer.pt": b"PK",
            "checkpoint-500/model.safetensors": b"123456",
        },
    )

    run = only(tmp_path)

    assert (run.form, run.status, run.epochs, run.series) == ("huggingface", "finished", 2, "bert")
    assert run.started is not None
    assert (run.started.isoformat(), run.started_from) == ("2025-05-25T13:05:00+00:00", "name")
    assert run.best["val_f1_macro"] == 0.81
    assert run.best_epochs["val_f1_macro"] == 1
    assert (run.final["val_f1_macro"], run.final["val_loss"], run.final["train_loss"]) == (0.79, 0.52, 0.47)
    assert run.size.architecture == "12L-768D-30.5K"
    roles = {file.path: file.role for file in run.files}
    assert roles["model-00001-of-00002.safetensors"] == "shard"
    assert roles["tokenizer.json"] == "vocabulary"
    assert roles["checkpoint-500/optimizer.pt"] == roles["training_args.bin"] == "state"
    assert run.weight_bytes == 4 + 2 + 2 + 2 + 6
    assert "model.safetensors.index.json" in roles


def test_hugging_face_interrupted_between_checkpoints(tmp_path: Path) -> None:
    for step in (200, 1000, 400):
        state = {**STATE, "global_step": step, "max_steps": 3000, "epoch": step / 200}
        write(
            tmp_path / "bert",
            {f"checkpoint-{step}/trainer_state.json": state, f"checkpoint-{step}/model.safetensors": b"1"},
        )

    run = only(tmp_path)

    assert run.path == tmp_path / "bert"
    assert (run.status, run.status_reason, run.epochs) == ("incomplete", "step 1000 of 3000", 5)


DVCLIVE = {
    "dvclive/metrics.json": {"train": {"loss": 0.4}, "val": {"loss": 0.6, "acc": 0.75}, "step": 2},
    "dvclive/plots/metrics/train/loss.tsv": "step\ttrain/loss\n0\t0.9\n1\t0.6\n2\t0.4\n",
    "dvclive/plots/metrics/val/acc.tsv": "step\tval/acc\n0\t0.5\n1\t0.8\n2\t0.75\n",
    "dvclive/params.yaml": "lr: 0.01\n",
}


def test_dvclive(tmp_path: Path) -> None:
    write(
        tmp_path / "one",
        {**DVCLIVE, "params.yaml": "train:\n  epochs: 3\n  batch_size: 16\n", "model.pt.dvc": "outs: []\n"},
    )

    run = only(tmp_path)

    assert (run.form, run.name) == ("dvclive", "one")
    assert run.final == {"train_loss": 0.4, "val_loss": 0.6, "val_accuracy": 0.75}
    assert run.best["val_accuracy"] == 0.8
    assert (run.size.epochs, run.size.batch_size) == (3, 16)
    assert run.has_weights  # DVC keeps them


def test_dvclive_at_the_top_of_a_project(tmp_path: Path) -> None:
    """The project is no run: only the folder that DVCLive wrote is, with the parameters that lie beside it."""
    write(
        tmp_path,
        {**DVCLIVE, "params.yaml": "model:\n  depth: 4\n", "src/train.py": "x = 1\n", "dvc.yaml": "stages: {}\n"},
    )
    (tmp_path / ".dvc").mkdir()

    run = only(tmp_path)

    assert run.path == tmp_path / "dvclive"
    assert run.size.layers == 4
    assert run.bytes == sum(path.stat().st_size for path in (tmp_path / "dvclive").rglob("*.*"))


def test_keras(tmp_path: Path) -> None:
    history = {"accuracy": [0.5, 0.9], "loss": [1.2, 0.4], "val_accuracy": [0.6, 0.55], "val_loss": [1.1, 1.3]}
    write(tmp_path / "cnn", {"history.json": history, "model.keras": b"PK"})

    run = only(tmp_path)

    assert (run.form, run.epochs) == ("keras", 2)
    assert run.value_of("accuracy") == ("val_accuracy", 0.6)  # not the training's 0.9
    assert run.best["train_accuracy"] == 0.9
    assert run.best_epochs["val_accuracy"] == 1


REPORT = {
    "cat": {"precision": 0.8, "recall": 0.9, "f1-score": 0.85, "support": 20},
    "dog": {"precision": 0.0, "recall": 0.0, "f1-score": 0.0, "support": 11},
    "emu": {"precision": 0.0, "recall": 0.0, "f1-score": 0.0, "support": 0},
    "accuracy": 0.58,
    "macro avg": {"precision": 0.27, "recall": 0.3, "f1-score": 0.28, "support": 31},
    "weighted avg": {"precision": 0.5, "recall": 0.58, "f1-score": 0.55, "support": 31},
}


@pytest.mark.parametrize(
    "name", ["results.json", "metrics.json", "eval.json", "classification_report.json", "test_metrics.yaml"]
)
def test_plain_results(tmp_path: Path, name: str) -> None:
    write(tmp_path / "svm", {name: REPORT})  # JSON is YAML too

    run = only(tmp_path)

    assert run.form == "files"
    assert run.final["accuracy"] == 0.58
    assert (run.final["f1_macro"], run.final["f1_weighted"]) == (0.28, 0.55)
    assert [score.name for score in run.classes if score.collapsed] == ["dog"]  # nobody asked for an emu


@pytest.mark.parametrize(
    "document",
    [
        {"per_class": {"cat": {"precision": 80, "recall": 58.2}, "dog": {"precision": 0, "recall": 0}}},
        {"per_class_recall": {"cat": 58.2, "dog": 0.0}},
        {"classes": ["cat", "dog"], "recall_per_class": [0.582, 0.0]},
        {"class_metrics": {"cat": {"accuracy": 0.582}, "dog": {"accuracy": 0.0}}},
        {"test": {"cat": {"recall": "58.2%"}, "dog": {"recall": "0%"}}},
    ],
)
def test_scores_of_classes_in_other_forms(tmp_path: Path, document: dict[str, Any]) -> None:
    write(tmp_path / "run", {"results.json": {"accuracy": 0.5, **document}})

    scores = {score.name: score for score in only(tmp_path).classes}

    assert set(scores) == {"cat", "dog"}
    assert scores["cat"].recall == pytest.approx(0.582)
    assert scores["dog"].collapsed
    assert not scores["cat"].collapsed


@pytest.mark.parametrize(
    "document",
    [
        {"train": {"accuracy": 0.9, "recall": 0.0}, "val": {"accuracy": 0.5, "recall": 0.0}},
        {"ours": {"accuracy": 0.9, "recall": 0.0}},
        {"macro avg": {"precision": 0.0}, "weighted avg": {"precision": 0.0}},
    ],
)
def test_splits_and_averages_are_no_classes(tmp_path: Path, document: dict[str, Any]) -> None:
    write(tmp_path / "run", {"results.json": {"loss": 1.0, **document}})
    assert only(tmp_path).classes == ()


def test_the_test_split_stands_for_a_run(tmp_path: Path) -> None:
    write(tmp_path / "run", {"results.json": {"val_acc": 0.9, "test_acc": 0.7, "acc": 0.8}})
    run = only(tmp_path)
    assert run.value_of("accuracy") == ("test_accuracy", 0.7)
    assert run.value_of("val_accuracy") == ("val_accuracy", 0.9)
    assert run.value_of("f1") is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"accuracy": 58.2}', 0.582),
        ('{"accuracy": "58.2%"}', 0.582),
        ('{"accuracy_percent": 0.9}', 0.009),
        ('{"accuracy": 0.582}', 0.582),
        ('{"test_acc": 1.0}', 1.0),
        ('{"accuracy": 1.0000002}', 1.0),
        ('{"accuracy": [0.9, 58.2]}', 0.582),
        ('{"final_results": {"overall": {"acc": 58.2}}}', 0.582),
    ],
)
def test_percentages(tmp_path: Path, text: str, value: float) -> None:
    write(tmp_path / "run", {"results.json": text})
    found = only(tmp_path).value_of("accuracy")
    assert found is not None
    assert found[1] == pytest.approx(value)


def test_percentages_that_only_the_rules_can_tell(tmp_path: Path) -> None:
    write(tmp_path / "run", {"results.json": {"accuracy": 0.9, "loss": 2.5}})
    (run,) = scan_runs(tmp_path, percent=frozenset({"accuracy"})).runs
    assert run.final == {"accuracy": pytest.approx(0.009), "loss": 2.5}


def test_what_is_neither_share_nor_percentage_gets_a_note(tmp_path: Path) -> None:
    write(tmp_path / "run", {"results.json": {"accuracy": 5820, "f1": 0.5}})
    run = only(tmp_path)
    assert run.final == {"f1": 0.5}
    assert run.notes == ("results.json: accuracy is neither a share nor a percentage",)


def test_what_is_no_run(tmp_path: Path) -> None:
    """Published models, code, data, reports and folders that gather runs."""
    write(
        tmp_path,
        {
            "models/bert/config.json": BERT,
            "models/bert/model.safetensors": b"1",
            "models/ours/best_model.pt": b"1",
            "models/ours/model_info.json": {"accuracy": 0.5, "epochs": 3},
            "src/config/config.yaml": "lr: 0.1\nepochs: 3\n",
            "reports/summary.json": {"pages": 3},
            "reports/results.csv": "name,price\na,3\n",
            "data/metadata.json": {"shape": [3]},
            "backup_20250525/src/train.py": "x = 1\n",
            "sweep/results.json": {"accuracy": 0.9},
            "sweep/config.yaml": "epochs: 3\n",
            "sweep/a/results.json": {"accuracy": 0.9},
            "sweep/b/results.json": {"accuracy": 0.8},
            "sweep/c/config.json": {"epochs": 3},
        },
    )
    scan = scan_runs(tmp_path)
    # c got no further than its configuration, which among runs is enough to be one
    assert [run.path.relative_to(tmp_path).as_posix() for run in scan.runs] == ["sweep/a", "sweep/b", "sweep/c"]
    assert [file.path for file in scan.loose] == [
        "models/bert/config.json",
        "models/bert/model.safetensors",
        "models/ours/best_model.pt",
        "models/ours/model_info.json",
    ]


def test_no_file_belongs_to_two_runs(tmp_path: Path) -> None:
    history = "epoch,val_loss\n1,0.5\n"
    write(
        tmp_path,
        {"a/history.csv": history, "a/model.pt": b"123", "a/fold_1/history.csv": history, "a/fold_1/logs/x.log": "y"},
    )
    outer, inner = scan_runs(tmp_path).runs
    assert [file.path for file in outer.files] == ["history.csv", "model.pt"]
    assert [file.path for file in inner.files] == ["history.csv", "logs/x.log"]
    assert inner.series == outer.series == "a"


@pytest.mark.parametrize(
    ("files", "status", "reason"),
    [
        ({"metadata.json": {"status": "interrupted"}}, "incomplete", ""),
        ({"metadata.json": {"status": "FAILED", "error": "CUDA error"}}, "failed", "CUDA error"),
        ({"metadata.json": {"status": "running"}}, "running", ""),
        ({"results.json": {"accuracy": 0.5, "status": "Completed successfully"}}, "finished", ""),
        ({"results.json": {"accuracy": 0.5}}, "unknown", ""),
        ({"history.csv": "epoch,loss\n1,2.0\n2,nan\n"}, "failed", "loss ends as nan"),
        ({"metrics.json": {"acc": 0.5}, "x.err": "Traceback (most recent call last):\n…\nKeyError: 1"}, "failed",
         "x.err: KeyError: 1"),
        ({"history.csv": "epoch,loss\n1,2.0\n", "x.log": "RuntimeError: retry\n" + "fine\n" * 30}, "unknown", ""),
    ],
)  # fmt: skip
def test_how_a_run_ended(tmp_path: Path, files: dict[str, Any], status: str, reason: str) -> None:
    write(tmp_path / "run", files)
    run = only(tmp_path)
    assert (run.status, run.status_reason) == (status, reason)
