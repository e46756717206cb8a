"""The data audit: class counts, pixel statistics and duplicates."""

from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from fashion.data.dataset import Images, Split

BLOCK_SIZE = 500  # test images per matrix product: 500 x 60,000 distances in float32 take 120 MB


def audit(
    train: Split, validation: Split, test: Split, classes: tuple[str, ...], near_duplicate_distance: float
) -> dict[str, Any]:
    """Return the audit of three splits, ready to be written as JSON.

    Returns:
        images: number of images of each class, by split.
        pixels: mean and standard deviation of the training pixels, scaled to [0, 1].
        duplicates: number of images that are identical to an earlier image of the same split, or to one of another.
        near_duplicates: number of test images whose nearest training or validation image is at most
            `near_duplicate_distance` away (see `nearest`), and the ten nearest pairs.
    """
    splits = {"train": train, "validation": validation, "test": test}
    keys = {name: _image_keys(split.images) for name, split in splits.items()}
    return {
        "images": {
            name: dict(zip(classes, np.bincount(split.labels, minlength=len(classes)).tolist(), strict=True))
            for name, split in splits.items()
        },
        "pixels": {
            "mean": round(float(train.images.mean()) / 255, 6),
            "standard_deviation": round(float(train.images.std()) / 255, 6),
        },
        "duplicates": {
            **{f"within {name}": len(key) - len(np.unique(key)) for name, key in keys.items()},
            **{
                f"{second} in {first}": int(np.isin(keys[second], keys[first]).sum())
                for first, second in (("train", "validation"), ("train", "test"), ("validation", "test"))
            },
        },
        "near_duplicates": _near_duplicates(train, validation, test, near_duplicate_distance),
    }


def _near_duplicates(train: Split, validation: Split, test: Split, limit: float) -> dict[str, Any]:
    reference = Split(
        np.concatenate([train.images, validation.images]), np.concatenate([train.labels, validation.labels])
    )
    neighbour, distance = nearest(test.images, reference.images)
    near = distance <= limit
    closest = np.argsort(distance, kind="stable")[: min(10, int(near.sum()))]
    return {
        "distance": limit,
        "test_images": int(near.sum()),
        "different_label": int((test.labels != reference.labels[neighbour])[near].sum()),
        "closest": [
            {
                "test_image": int(index),
                "split": "train" if neighbour[index] < len(train.labels) else "validation",
                "image": int(neighbour[index] % len(train.labels)),
                "distance": round(float(distance[index]), 3),
            }
            for index in closest
        ],
    }


def nearest(
    images: Images, others: UInt8[np.ndarray, "m height width channels"]
) -> tuple[Int64[np.ndarray, "n"], Float64[np.ndarray, "n"]]:
    """Return, for each image, the index of the nearest of `others` and its distance.

    The distance is the root-mean-square difference of the pixels, in grey levels (0 to 255). The nearest b of a
    maximises ab - |b|^2 / 2, computed as a matrix product in float32 of whole numbers of at most 128 in size: this is
    exact, and so the same on every machine, for images of up to 1,023 values (128^2 * 1,023 < 2^24).
    """
    a = images.reshape(len(images), -1).astype(np.float32) - 128
    b = others.reshape(len(others), -1).astype(np.float32) - 128
    half_norms = np.einsum("ij,ij->i", b, b) / 2
    index = np.concatenate(
        [np.argmax(a[i : i + BLOCK_SIZE] @ b.T - half_norms, axis=1) for i in range(0, len(a), BLOCK_SIZE)]
    )
    return index, np.sqrt(((a.astype(np.float64) - b[index]) ** 2).mean(axis=1))


def _image_keys(images: Images) -> np.ndarray:
    """Return a value per image that is equal for identical images."""
    flat = np.ascontiguousarray(images.reshape(len(images), -1))
    return flat.view(np.dtype((np.void, flat.shape[1]))).ravel()
