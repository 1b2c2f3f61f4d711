"""Make the data set: handwritten digits, split into train, validation and test.

The 1,797 images of 8×8 pixels are the test set of the UCI "Optical Recognition of Handwritten Digits" data, which ships
with scikit-learn, so nothing is downloaded.
"""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from digits import DATA, read_params, run_stage
from holdfast.atomic import replacing

MAXIMUM_PIXEL = 16  # the data's own scale


def main() -> None:
    """Write ``data/digits.npz``: ``images``, ``labels``, and the indices of each split; stratified and seeded."""
    params = read_params()["prepare"]
    digits = load_digits()
    labels = digits.target.astype(np.int64)
    rest, test = train_test_split(
        np.arange(labels.size), test_size=params["test_share"], stratify=labels, random_state=params["seed"]
    )
    train, val = train_test_split(
        rest, test_size=params["val_share"], stratify=labels[rest], random_state=params["seed"]
    )
    images = (digits.images / MAXIMUM_PIXEL).astype(np.float32)
    splits = {"train": np.sort(train), "val": np.sort(val), "test": np.sort(test)}
    with replacing(DATA) as stream:
        np.savez_compressed(stream, images=images, labels=labels, **splits)
    print(f"{train.size} images to train on, {val.size} to validate, {test.size} to test")


if __name__ == "__main__":
    run_stage(main)
