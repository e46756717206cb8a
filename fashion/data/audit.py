"""The data audit: class counts, pixel statistics and duplicates."""

from hashlib import blake2b
from typing import Any

import numpy as np
from jaxtyping import Int64, Shaped, UInt8

from fashion.data.dataset import Image, Images, Split, blocks, histogram, mean_and_deviation
from fashion.data.resizing import block_means

BLOCK_SIZE = 500  # test images per matrix product: 500 x 60,000 distances in float32 take 120 MB
MAX_TEST_IMAGES = 10_000  # test images that are searched for near-duplicates
MAX_OTHER_IMAGES = 60_000  # training and validation images that they are compared with
MAX_VALUES = 1024  # values per image in the search


def audit(
    train: Split, validation: Split, test: Split, classes: tuple[str, ...], near_duplicate_distance: float
) -> dict[str, Any]:
    """Return the audit of three splits, ready to be written as JSON.

    Returns:
        images: number of images of each class, by split.
        pixels: mean and standard deviation of the training pixels, scaled to [0, 1].
        duplicates: number of images that are identical to an earlier image of the same split, or to one of another.
        near_duplicates: number of test images whose nearest training or validation image is at most
            `near_duplicate_distance` away (root mean square over the pixels, in grey levels of 0 to 255), and the ten
            nearest pairs. Large data sets are sampled: `compared` has the numbers of images. The search uses images
            reduced to `MAX_VALUES` values, the distance the images themselves.
    """
    mean, deviation = mean_and_deviation(histogram(train.images).sum(axis=0, keepdims=True))
    splits = {"train": train, "validation": validation, "test": test}
    keys = {name: _digests(split.images) for name, split in splits.items()}
    return {
        "images": {
            name: dict(zip(classes, np.bincount(split.labels, minlength=len(classes)).tolist(), strict=True))
            for name, split in splits.items()
        },
        "pixels": {
            "mean": round(float(mean[0]) / 255, 6),
            "standard_deviation": round(float(deviation[0]) / 255, 6),
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
    """Compare a random sample of the test images with one of the training and validation images."""
    random = np.random.default_rng(0)
    count = len(train.labels)
    compared = _sample(len(test.labels), MAX_TEST_IMAGES, random)
    others = _sample(count + len(validation.labels), MAX_OTHER_IMAGES, random)
    in_train, in_validation = others[others < count], others[others >= count] - count
    parts = [(train, in_train), (validation, in_validation)]
    pixels = np.concatenate([_reduced(split.images, indices) for split, indices in parts if len(indices)])
    neighbour = others[nearest(_reduced(test.images, compared), pixels)]

    def other(index: int) -> tuple[str, int]:
        return ("train", index) if index < count else ("validation", index - count)

    splits = {"train": train, "validation": validation}
    pairs = [(int(test_image), *other(int(index))) for test_image, index in zip(compared, neighbour, strict=True)]
    distance = np.array([_distance(test.images[one], splits[name].images[two]) for one, name, two in pairs])
    different = np.array([test.labels[one] != splits[name].labels[two] for one, name, two in pairs])
    near = distance <= limit
    closest = np.argsort(distance, kind="stable")[: min(10, int(near.sum()))]
    return {
        "distance": limit,
        "compared": {"test_images": len(compared), "other_images": len(others)},
        "test_images": int(near.sum()),
        "different_label": int(different[near].sum()),
        "closest": [
            {"test_image": one, "split": name, "image": two, "distance": round(float(distance[index]), 3)}
            for index in closest.tolist()
            for one, name, two in [pairs[index]]
        ],
    }


def nearest(images: UInt8[np.ndarray, "n values"], others: UInt8[np.ndarray, "m values"]) -> Int64[np.ndarray, "n"]:
    """Return, for each image, the index of the nearest of `others` in Euclidean distance.

    The nearest b of a maximises ab - |b|^2 / 2, computed as a matrix product in float32 of whole numbers of at most 128
    in size. For images of up to 1,024 values (128^2 * 1,024 = 2^24), the product is exact. The difference is rounded,
    in the same way on every machine, so the image found may be very slightly farther away than the nearest.
    """
    a, b = (array.astype(np.float32) - 128 for array in (images, others))
    half_norms = np.einsum("ij,ij->i", b, b) / 2
    return np.concatenate(
        [np.argmax(a[i : i + BLOCK_SIZE] @ b.T - half_norms, axis=1) for i in range(0, len(a), BLOCK_SIZE)]
    )


def _sample(count: int, most: int, random: np.random.Generator) -> Int64[np.ndarray, "n"]:
    """Return sorted indices of at most `most` of `count` images."""
    return np.arange(count) if count <= most else np.sort(random.choice(count, most, replace=False))


def _reduced(images: Images, indices: Int64[np.ndarray, "m"]) -> UInt8[np.ndarray, "m values"]:
    """Return images of at most `MAX_VALUES` values each, the means of square blocks of pixels."""
    batches = (block_means(images[indices[block]], MAX_VALUES) for block in blocks(len(indices), images.shape[1:]))
    return np.concatenate([np.rint(batch).astype(np.uint8) for batch in batches])


def _distance(one: Image, two: Image) -> float:
    """Return the root-mean-square difference of two images, in grey levels."""
    return float(np.sqrt(((one.astype(np.float64) - two) ** 2).mean()))


def _digests(images: Images) -> Shaped[np.ndarray, "n"]:
    """Return a value per image that is equal for identical images."""
    return np.array([blake2b(image.tobytes(), digest_size=16).digest() for image in images], "V16")
