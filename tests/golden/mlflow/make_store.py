"""Makes the store beside this file, with MLflow: `pip install mlflow-skinny==3.17.2 numpy safetensors`, then

MLFLOW_ALLOW_FILE_STORE=true python make_store.py
"""

import shutil
import tempfile
from pathlib import Path

import mlflow
import numpy as np
from mlflow import MlflowClient
from safetensors.numpy import save_file

ROOT = Path("/srv/mlflow/mlruns")


def model_folder(value: float, *, weights: bool = True) -> str:
    """A folder as flavors of MLflow write them: with weights, or with a pickle alone."""
    folder = Path(tempfile.mkdtemp()) / "model"
    folder.mkdir()
    (folder / "MLmodel").write_text("flavors: {}\n")
    if weights:
        save_file({"w": np.full((2, 3), value, np.float32)}, str(folder / "model.safetensors"))
    else:
        (folder / "model.pkl").write_bytes(b"\x80\x04N.")
    return str(folder)


shutil.rmtree(ROOT.parent, ignore_errors=True)
mlflow.set_tracking_uri(ROOT.as_uri())
mlflow.set_registry_uri(ROOT.as_uri())
client = MlflowClient()
experiment = client.create_experiment("digits")
client.create_registered_model("classifier", description="Handwritten digits")
runs = []
for number in (1, 2, 3):
    tags = {"mlflow.source.git.commit": f"{number}" * 40} if number < 3 else None
    run = client.create_run(experiment, tags=tags)
    name = run.info.run_id
    runs.append(name)
    for key, value in (("lr", 0.001 * number), ("optim/name", "adam"), ("flag", "True"), ("width", "0064")):
        client.log_param(name, key, value)
    for step, accuracy in ((2, 0.93 + number / 100), (0, 0.5), (1, 0.99)):
        client.log_metric(name, "accuracy", accuracy, step=step)
    client.log_metric(name, "test/loss", float("nan") if number == 2 else 0.25)
    client.log_artifacts(name, model_folder(number, weights=number < 3), "model")
    source = f"runs:/{name}/model" if number == 2 else f"{run.info.artifact_uri}/model"
    client.create_model_version("classifier", source=source, run_id=name)
logged = client.create_logged_model(experiment, name="classifier", source_run_id=runs[0], params={"depth": "3"})
client.log_model_artifacts(logged.model_id, model_folder(4))
client.finalize_logged_model(logged.model_id, "READY")
client.log_metric(runs[0], "accuracy", 0.75, model_id=logged.model_id, step=9)
client.create_model_version("classifier", source=f"models:/{logged.model_id}", run_id=runs[0], model_id=logged.model_id)
client.create_model_version("classifier", source="s3://bucket/model", run_id=runs[0])
client.create_model_version("classifier", source="s3://bucket/gone")
client.delete_model_version("classifier", "6")
client.set_registered_model_alias("classifier", "champion", "2")
client.set_registered_model_alias("classifier", "Staging", "4")
client.transition_model_version_stage("classifier", "1", "Archived")
client.transition_model_version_stage("classifier", "2", "Production")
client.transition_model_version_stage("classifier", "4", "Staging")
