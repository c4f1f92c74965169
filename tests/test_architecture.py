"""The rules of the house (BUILD.md), checked on the syntax trees of all modules."""

import ast
import pathlib
import sys
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]

# A module imports lower floors or its own package. The modules beside the packages are one package.
TOP = ""
DOOR = "__init__"  # names what programs use of the rooms, for type checkers; it loads nothing
FLOORS = {
    TOP: 0,
    "corpora": 1, "text": 1,
    "shards": 2, "encoder": 2,
    "training": 3, "retrieval": 3,
    "evaluation": 4,
    "systems": 5, "linking": 5,
    "reports": 6, "serving": 6,
    "bin": 7,
}  # fmt: skip
# Where a library may be imported: packages, or single modules.
HOMES = {
    "apache_beam": {"shards.beam"},
    "absl.flags": {"bin"},
    "absl.app": {"bin"},
    "flax": {"encoder"},
    "orbax": {"training"},
    "scann": {"retrieval"},
    "starlette": {"serving"},
    "uvicorn": {"serving"},
    "tensorflow_datasets": {"shards"},
    "tokenizers": {"text", "encoder.pretrained"},
    "transformers": {"text", "encoder.pretrained"},
    "jax": {package for package, floor in FLOORS.items() if floor >= 2},
}
GROUND_LIBRARIES = {"numpy", "absl.logging"}  # beside the standard library, all that floor 0 imports
BANNED_NAMES = {f"{name}{s}" for name in ("util", "common", "helper", "misc") for s in ("", "s")}
# Calls that make arrays or ask for devices, and so start a backend.
DEVICE_CALLS = (
    "jax.numpy.", "jax.random.", "jax.nn.", "jax.lax.", "jax.device", "jax.local_device", "jax.default_backend",
    "jax.make_mesh", "jax.process_", "jax.sharding.Mesh",
)  # fmt: skip
PUBLIC_OF_BINARIES = {"Config", "main"}
MAX_MODULE_LINES, MAX_FUNCTION_LINES, MAX_CONFIG_FIELDS = 400, 70, 15


def violations(module: str, source: str) -> list[str]:
    """What is wrong with the module `module` ("encoder.embed", "types"), in sentences."""
    tree = ast.parse(source)
    return [
        f"mel.{module}: {what}"
        for rule in (import_violations, device_violations, size_violations, config_violations)
        for what in rule(module, tree)
    ]


def package_of(module: str) -> str:
    return module.rpartition(".")[0].partition(".")[0]


def imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """The local name, "" where it is the dotted one, and the dotted name of all imports of a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.asname or "", alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (node.module or "")
            for alias in node.names:
                yield alias.asname or alias.name, f"{origin}.{alias.name}"


def import_violations(module: str, tree: ast.AST) -> Iterator[str]:
    package = package_of(module)
    for name in sorted({name for _, name in imports(tree)}):
        if name.startswith("."):
            yield f"imports {name} relatively"
        elif package == "bin" and name.startswith("mel.bin.") and is_inside_of_a_binary(name, tree):
            yield f"imports {name}, which is inside another binary"
        elif name.startswith("mel."):
            other = name.split(".")[1]
            other = other if other in FLOORS else TOP
            if module != DOOR and other != package and FLOORS[other] >= FLOORS[package]:
                yield f"imports {name}: {other} is not below {package or 'the ground floor'}"
        else:
            for library, homes in HOMES.items():
                if is_part(name, library) and not homes & {package, module}:
                    yield f"imports {name}, which belongs in {', '.join(sorted(homes))}"
            root = name.partition(".")[0]
            ground = root in sys.stdlib_module_names or any(is_part(name, library) for library in GROUND_LIBRARIES)
            if FLOORS[package] == 0 and not ground and name not in ("mel", "absl"):
                yield f"imports {name} on the ground floor"


def is_inside_of_a_binary(name: str, tree: ast.AST) -> bool:
    """Whether `mel.bin.train.helper` is imported, or used as `train.helper`; Config and main are for others."""
    module, _, rest = name.removeprefix("mel.bin.").partition(".")
    if module == "launch":
        return False
    if rest:
        return rest not in PUBLIC_OF_BINARIES
    used = (
        node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and dotted(node.value, {}) == module
    )
    return not set(used) <= PUBLIC_OF_BINARIES


def is_part(name: str, library: str) -> bool:
    return name == library or name.startswith(library + ".")


def device_violations(module: str, tree: ast.Module) -> Iterator[str]:
    names = dict(imports(tree))
    for call in calls_at_import(tree):
        name = dotted(call.func, names)
        if name.startswith(DEVICE_CALLS):
            yield f"line {call.lineno} calls {name} when imported"


def calls_at_import(node: ast.AST) -> Iterator[ast.Call]:
    """Calls that importing the module runs: outside functions, or in their decorators and defaults."""
    if isinstance(node, ast.Call):
        yield node
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        children = [*node.decorator_list, node.args]
    elif isinstance(node, ast.Lambda):
        children = [node.args]
    else:
        children = list(ast.iter_child_nodes(node))
    for child in children:
        yield from calls_at_import(child)


def dotted(node: ast.AST, names: dict[str, str]) -> str:
    """`jnp.zeros` as "jax.numpy.zeros"; "" for what is no dotted name."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value, names)}.{node.attr}"
    return names.get(node.id, node.id) if isinstance(node, ast.Name) else ""


def size_violations(module: str, tree: ast.Module) -> Iterator[str]:
    last = tree.body[-1].end_lineno if tree.body else 0
    if last >= MAX_MODULE_LINES:
        yield f"has {last} lines"
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = node.end_lineno - node.lineno + 1
            if lines >= MAX_FUNCTION_LINES:
                yield f"{node.name} has {lines} lines"


def config_violations(module: str, tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name.endswith("Config"):
            fields = [line for line in node.body if isinstance(line, ast.AnnAssign)]
            if len(fields) > MAX_CONFIG_FIELDS:
                yield f"{node.name} has {len(fields)} fields"


def modules() -> dict[str, pathlib.Path]:
    """All modules of mel by dotted name; that of a package is "package.__init__"."""
    files = sorted((ROOT / "mel").rglob("*.py"))
    return {".".join(file.relative_to(ROOT / "mel").with_suffix("").parts): file for file in files}


def test_every_module_keeps_the_rules():
    found = [what for module, file in modules().items() for what in violations(module, file.read_text("utf-8"))]
    assert not found, "\n".join(found)


def test_every_package_has_a_floor():
    assert {package_of(module) for module in modules()} == set(FLOORS)


def test_names_are_nouns():
    files = [file for folder in ("mel", "tests", "experiments") for file in (ROOT / folder).rglob("*")]
    assert not [file for file in files if file.stem.lower() in BANNED_NAMES]


def test_tests_mirror_the_package():
    folders = {file.parent.relative_to(ROOT / "tests").as_posix() for file in (ROOT / "tests").rglob("test_*.py")}
    assert folders - {".", "experiments"} <= set(FLOORS)


@pytest.mark.parametrize(
    "module, source",
    [
        ("encoder.embed", "import mel.shards.rows"),
        ("corpora.damuel", "from mel.text import tokenizer"),
        ("training.step", "def f():\n    from mel.retrieval.index import open_index"),
        ("types", "from mel.corpora import kb"),
        ("linking.linker", "from mel.bin.launch import flag"),
        ("text.marking", "from .tokenizer import Tokenizer"),
        ("training.loop", "from absl import flags"),
        ("retrieval.mining", "import orbax.checkpoint as ocp"),
        ("evaluation.recall", "import scann"),
        ("training.step", "from flax import linen"),
        ("encoder.embed", "from transformers import BertConfig"),
        ("corpora.kb", "import jax.numpy as jnp"),
        ("bin.train", "import tensorflow_datasets as tfds"),
        ("bin.export", "from mel.bin.evaluate import open_trained"),
        ("bin.run_rounds", "from mel.bin import train\ntrain.check()"),
        ("artifacts", "import orjson"),
        ("artifacts", "def f():\n    import numpy, yaml"),
        ("encoder.embed", "import jax.numpy as jnp\nZERO = jnp.zeros(3)"),
        ("encoder.embed", "import jax\nKEY = jax.random.key(0)"),
        ("encoder.embed", "from jax import random\nclass A:\n    key = random.key(0)"),
        ("encoder.embed", "import jax\ndef f(n=jax.device_count()): pass"),
        ("encoder.embed", "pass\n" * MAX_MODULE_LINES),
        ("encoder.embed", "def f():\n" + "    pass\n" * MAX_FUNCTION_LINES),
        ("bin.train", "class Config:\n" + "".join(f"    a{i}: int = {i}\n" for i in range(MAX_CONFIG_FIELDS + 1))),
    ],
)
def test_a_planted_violation_is_found(module, source):
    assert len(violations(module, source)) == 1


@pytest.mark.parametrize(
    "module, source",
    [
        (
            "artifacts",
            "import json, os.path\nimport numpy as np\nfrom absl import logging\nfrom mel.types import MelError",
        ),
        ("bin.train", "from absl import app, flags\nfrom mel.training import loop\nfrom mel.bin import launch"),
        ("bin.run_rounds", "from mel.bin import train\nfrom mel.bin.launch import launch\ntrain.main(train.Config())"),
        ("encoder.pretrained", "import jax\nfrom flax import linen\ndef f():\n    import transformers"),
        (
            "encoder.embed",
            "import jax, functools\n@functools.partial(jax.jit, static_argnums=0)\ndef f(): jax.devices()",
        ),
        ("encoder.embed", "import jax.numpy as jnp\nDTYPE = jnp.float32\nmake = lambda: jnp.zeros(3)"),
        ("training.step", "from mel.shards import rows\nfrom mel import artifacts\nimport mel"),
        ("bin.train", "class Config:\n" + "".join(f"    a{i}: int = {i}\n" for i in range(MAX_CONFIG_FIELDS))),
    ],
)
def test_what_is_allowed_passes(module, source):
    assert violations(module, source) == []
