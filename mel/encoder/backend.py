"""What depends on the machine that the encoder runs on."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from typing import Literal

import jax
import jax.numpy as jnp
from absl import logging

Precision = Literal["auto", "float32", "bfloat16"]


@dataclasses.dataclass(frozen=True)
class Compute:
    """How an encoder computes; what it computes is its config.

    Attributes:
      dtype: of the dense layers and of attention. Parameters, LayerNorm, softmax and the final
        normalisation are float32 always.
      attention: "plain" scores every pair of positions; "cudnn" is the fused kernel of NVIDIA GPUs,
        which skips the padding; "xla" is the same call without the kernel, to test it anywhere.
      kept_bytes: how many bytes of states between its layers a training step may keep on a device,
        rather than run the encoder once more.
    """

    dtype: Literal["float32", "bfloat16"] = "float32"
    attention: Literal["plain", "xla", "cudnn"] = "plain"
    kept_bytes: int = 1 << 30


@functools.cache
def choose_compute(precision: Precision, head_size: int) -> Compute:
    """The fastest way to compute here: bfloat16 on accelerators, where half precision is fast, and fused attention
    where the backend compiles it. On CPUs float32 is faster, and plain attention."""
    dtype = precision if precision != "auto" else "float32" if jax.default_backend() == "cpu" else "bfloat16"
    fused = jax.default_backend() == "gpu" and dtype == "bfloat16" and _has_fused_attention(head_size)
    memory = jax.local_devices()[0].memory_stats() or {}
    kept_bytes = memory.get("bytes_limit", 4 << 30) // 4
    compute = Compute(dtype, "cudnn" if fused else "plain", kept_bytes)
    logging.info("Computing in %s with %s attention on %s", compute.dtype, compute.attention, jax.default_backend())
    return compute


def tokens_at_once() -> int:
    """How many tokens to encode at once: what fits a CPU's caches, or keeps an accelerator busy."""
    return 2048 if jax.default_backend() == "cpu" else 65536


def keep_compiled(folder: pathlib.Path) -> None:
    """Keeps compiled programs in `folder`, so that the next process does not compile them again."""
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _has_fused_attention(head_size: int) -> bool:
    """Whether a small case runs, backwards too: versions and cards differ in which sizes they take."""
    try:
        states = jnp.zeros((2, 64, 2, head_size), jnp.bfloat16)
        lengths = jnp.full(2, 64, jnp.int32)
        attend = functools.partial(jax.nn.dot_product_attention, key_value_seq_lengths=lengths, implementation="cudnn")
        jax.block_until_ready(jax.grad(lambda x: attend(x, x, x).astype(jnp.float32).sum())(states))
        return True
    except Exception as error:  # whatever the backend says, plain attention runs
        logging.info("No fused attention for heads of size %d: %s", head_size, str(error).split("\n")[0])
        return False
