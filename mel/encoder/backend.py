"""What depends on the machine that the encoder runs on."""

from __future__ import annotations

import pathlib

import jax


def tokens_at_once() -> int:
    """How many tokens to encode at once: what fits a CPU's caches, or keeps an accelerator busy."""
    return 2048 if jax.default_backend() == "cpu" else 65536


def keep_compiled(folder: pathlib.Path) -> None:
    """Keeps compiled programs in `folder`, so that the next process does not compile them again."""
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
