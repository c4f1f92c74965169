"""Digests of JSON values, and the seal by which a manifest tells that it is as it was written."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from typing import Any

PACKAGES = (
    "absl-py array-record flax jax jaxlib mel-linker numpy optax orbax-checkpoint rapidfuzz safetensors scann scipy "
    "tensorflow-datasets tokenizers transformers"
).split()


def digest_of(value: Any) -> str:
    """The SHA-256 of a JSON value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def seal(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest as JSON values, with the digest of all the rest in it: a reader finds a bit that has changed."""
    plain = json.loads(json.dumps(manifest, default=str))
    plain.pop("seal", None)
    return plain | {"seal": digest_of(plain)}


def package_versions() -> dict[str, str]:
    """The versions of the packages that a result may depend on, as far as they are installed."""
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions
