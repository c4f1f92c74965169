"""What depends on the machine that the encoder runs on."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.metadata
import os
import pathlib
import platform
import tempfile
from typing import Literal

import jax
import jax.numpy as jnp
from absl import logging

from mel.artifacts import digest_of
from mel.config import flag
from mel.encoder.config import EncoderConfig

CPUINFO = pathlib.Path("/proc/cpuinfo")

Precision = Literal["auto", "float32", "bfloat16"]

MOST_LAYERS_KEPT = 4  # whose insides a backward pass may find as they were; of more it computes each again
# What a layer holds of a position while its backward pass runs, in vectors of the hidden size: about 40, and room.
STATES_A_POSITION = 64
# Positions of a row that NVIDIA's kernel does not pay for: over rows of 32, 48 and 64 a step of the encoder alone, 12
# layers of 384, took 174 ms of an H200 with it and 137 without; experiments/benchmarks/step_profile.py asks again.
SHORT_ROW = 64


@dataclasses.dataclass(frozen=True)
class ComputeConfig:
    """How an encoder computes, and where the programs are kept that this needs."""

    precision: Precision = flag(
        "auto", "Of dense layers and attention; auto is bfloat16 on accelerators and float32 on CPUs."
    )
    compilation_cache: str = flag("", "Folder of compiled programs; that of the user where it is empty.")


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
      chunk_tokens: the most tokens, padding included, that a training step encodes at once on a device.
      product_bytes: how many bytes of what dense layers gave a training step may keep on a device besides,
        rather than compute them once more.
      plain_up_to: rows of so many positions or fewer are attended to in the plain way whatever `attention` says.
    """

    dtype: Literal["float32", "bfloat16"] = "float32"
    attention: Literal["plain", "xla", "cudnn"] = "plain"
    kept_bytes: int = 1 << 30
    chunk_tokens: int = 2048
    product_bytes: int = 0
    plain_up_to: int = 0


@functools.cache
def choose_compute(precision: Precision, encoder: EncoderConfig) -> Compute:
    """The fastest way to compute here: bfloat16 on accelerators, where half precision is fast, fused attention where
    the backend compiles it, and all texts of a batch at once where a quarter of the memory holds a layer of them;
    another quarter may keep what their dense layers give. On CPUs float32 is faster, and plain attention, and few texts
    at once, of which little is kept."""
    dtype = precision if precision != "auto" else "float32" if jax.default_backend() == "cpu" else "bfloat16"
    fused = jax.default_backend() == "gpu" and dtype == "bfloat16" and _has_fused_attention(encoder.head_size)
    memory = jax.local_devices()[0].memory_stats() or {}
    kept_bytes = memory.get("bytes_limit", 4 << 30) // 4
    chunk_tokens = _chunk_tokens(encoder, kept_bytes // jnp.dtype(dtype).itemsize)
    product_bytes = 0 if jax.default_backend() == "cpu" else kept_bytes
    attention = "cudnn" if fused else "plain"
    compute = Compute(dtype, attention, kept_bytes, chunk_tokens, product_bytes, SHORT_ROW if fused else 0)
    logging.info("Computing in %s with %s attention on %s", compute.dtype, compute.attention, jax.default_backend())
    return compute


def tokens_at_once() -> int:
    """How many tokens to encode at once, forward: what fits a CPU's caches, or keeps an accelerator busy."""
    return 2048 if jax.default_backend() == "cpu" else 65536


def _chunk_tokens(encoder: EncoderConfig, held_values: int) -> int:
    """Of how many positions so many values hold what one layer needs, or all where all are kept; a power of two."""
    if jax.default_backend() == "cpu":
        return tokens_at_once()
    layers = 1 if encoder.num_layers > MOST_LAYERS_KEPT else encoder.num_layers
    fitting = max(held_values // (STATES_A_POSITION * layers * encoder.hidden_size), 1 << 14)
    return min(1 << fitting.bit_length() - 1, 1 << 18)


def most_widths(usual: int) -> int:
    """How many widths of texts to compile into a training step at most: few on accelerators, whose compilers take some
    five seconds for each, anew in every round; the price is padding."""
    return usual if jax.default_backend() == "cpu" else min(usual, 3)


def keep_compiled(folder: str) -> None:
    """Keeps compiled programs, so that the next process does not compile them again.

    They are code that the next process runs, so they never stand in a working directory, which may come from
    anywhere. A program may crash on a machine that lacks an instruction, so those of other machines stand apart.
    A folder that cannot be written costs a warning.

    Args:
      folder: where; "" for the user's own, below $XDG_CACHE_HOME or ~/.cache.
    """
    try:
        path = (pathlib.Path(folder) if folder else _users_folder()).absolute() / machine_key()
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except (OSError, RuntimeError) as error:  # RuntimeError: a user without a home
        logging.warning(
            "Compiled programs are not kept, and every start compiles anew (%s): give --compilation_cache a folder "
            "that can be written.", error,
        )  # fmt: skip
        return
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def machine_key() -> str:
    """What programs are compiled for: the CPU's features, the kind of device and the version of the compiler."""
    machine = [_cpu_features(), jax.local_devices()[0].device_kind, importlib.metadata.version("jaxlib")]
    return digest_of(machine)[:16]


def _cpu_features() -> list[str]:
    """The instruction sets and the like that the CPU has; where nobody lists them, its architecture."""
    with contextlib.suppress(OSError):
        for line in CPUINFO.read_text("utf-8", "replace").splitlines():
            name, _, features = line.partition(":")
            if name.strip() in ("flags", "Features"):  # x86 and ARM
                return sorted(features.split())
    return [platform.machine()]


def _users_folder() -> pathlib.Path:
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (cache if cache.is_absolute() else pathlib.Path.home() / ".cache") / "mel" / "compiled"


@functools.cache
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
