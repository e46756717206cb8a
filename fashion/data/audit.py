"""What a person should know of the data before trusting a number made with them."""

from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from fashion.data.dataset import Split

BLOCK = 500  # test images compared at once: 500 x 60,000 distances in float32 take 120 MB


def audit(
    train: Split, validation: Split, test: Split, classes: tuple[str, ...], near_duplicate_distance: float
) -> dict[str, Any]:
    """Return counts, moments and duplicates of three splits, ready to be written as JSON.

    `pixels` describes the training pixels, scaled to [0, 1]. `duplicates` counts images equal to an earlier image of
    the same split, and images of the second split that occur in the first. `near_duplicates` counts the test images
    whose nearest training or validation image is at most `near_duplicate_distance` away, the distance being the
    root-mean-square difference of the pixels in grey levels (0 to 255), and lists the closest pairs.
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
    known = Split(np.concatenate([train.images, validation.images]), np.concatenate([train.labels, validation.labels]))
    neighbour, distance = nearest(test.images, known.images)
    near = distance <= limit
    closest = np.argsort(distance, kind="stable")[: min(10, int(near.sum()))]
    return {
        "distance": limit,
        "test_images": int(near.sum()),
        "with_another_label": int((test.labels != known.labels[neighbour])[near].sum()),
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
    images: UInt8[np.ndarray, "n height width"], others: UInt8[np.ndarray, "m height width"]
) -> tuple[Int64[np.ndarray, "n"], Float64[np.ndarray, "n"]]:
    """Return, for each image, the index of the nearest of `others` and its distance.

    The distance is the root-mean-square difference of the pixels, in grey levels (0 to 255). The nearest b of a has the
    largest ab - |b|^2 / 2, which is a matrix product. It is taken in float32 and of whole numbers no larger than 128 in
    size, so that it is exact, and the same on every machine, for images of up to 1,023 pixels (128^2 * 1,023 < 2^24).
    """
    a = images.reshape(len(images), -1).astype(np.float32) - 128
    b = others.reshape(len(others), -1).astype(np.float32) - 128
    half_norms = np.einsum("ij,ij->i", b, b) / 2
    index = np.concatenate([np.argmax(a[i : i + BLOCK] @ b.T - half_norms, axis=1) for i in range(0, len(a), BLOCK)])
    return index, np.sqrt(((a.astype(np.float64) - b[index]) ** 2).mean(axis=1))


def _image_keys(images: UInt8[np.ndarray, "n height width"]) -> np.ndarray:
    """Return one opaque value per image, equal for equal images."""
    flat = np.ascontiguousarray(images.reshape(len(images), -1))
    return flat.view(np.dtype((np.void, flat.shape[1]))).ravel()
