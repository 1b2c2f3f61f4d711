"""The model registry: versions of models, in git, one file a version."""

FOLDER = "registry"
