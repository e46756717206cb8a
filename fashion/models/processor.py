"""What the processor, or the GPU that is used instead, can compute fast."""

import functools
from pathlib import Path

import tensorflow as tf


def has_bfloat16() -> bool:
    """Return whether the GPU or, without one, the processor computes in bfloat16.

    GPUs do from compute capability 8.0, x86 processors with the instructions in AVX-512 or AMX.
    """
    if gpus := tf.config.list_physical_devices("GPU"):
        return all(
            tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0)) >= (8, 0) for gpu in gpus
        )
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(_flags())


def uses_amx() -> bool:
    """Return whether bfloat16 is computed with the matrix instructions AMX: the processor has them, and no GPU."""
    return "amx_bf16" in _flags() and not tf.config.list_physical_devices("GPU")


@functools.cache
def _flags() -> frozenset[str]:
    try:
        return frozenset(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:  # not Linux
        return frozenset()
