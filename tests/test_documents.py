"""What the documents tell a reader to type exists: targets of make, binaries and scripts with their flags, files.

Flags in flagfiles and settings.txt are parsed by tests/bin/test_binaries.py and tests/test_open_questions.py.
"""

import argparse
import ast
import importlib
import pathlib
import re
import shlex
from collections.abc import Iterator, Sequence
from unittest import mock

import pytest

from experiments import programs, run_grid
from mel.bin.launch import flag_names
from mel.types import MelError

ROOT = pathlib.Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "BUILD.md", *sorted((ROOT / "experiments").rglob("README.md"))]
SETUP = (ROOT / "setup.py").read_text("utf-8")
DISTRIBUTION = re.search(r'name="(.+)"', SETUP)[1]
BINARIES = ast.literal_eval(re.search(r"BINARIES = (\(.+?\))", SETUP, re.DOTALL)[1])
TARGETS = re.findall(r"^([\w./-]+):(?!=)", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
FOLDERS = ("mel", "tests", "experiments", ".ci")
SOURCES = (".py", ".md", ".flags")
FENCED = re.compile(r"^ *```\w*\n(.*?)^ *```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_command_flag_and_file_of_a_document_exists(document, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert list(mistakes(document.read_text("utf-8"), document.parent)) == []


WRONG = """
```
make test nothing          # one of two
FAST=1 mel-train --workdir=W \\
  --betch_size=3 && mel-trian --workdir=W
mel-evaluate --workdir=W --name=n --model=no_such_model
mel-train
python -m experiments.no_such_script
python -m experiments.benchmarks.seek --repeats=2 --bathces=3
python -m experiments.run_grid experiments/transfer --workdir=W --seed=0 --evalute_on=mewsli
python -m experiments.model_size.sizes choosy --workdir=W
pip install -e ".[tests]"
```
`make tset`, `mel-link --fromat`, `--no_such_flag`, `mel/no_such_file.py`, `mel/artifacts.py` and `../no_such_page.md`
[a page](no/such_page.html), ![a curve](rounds.svg) and <img src="no_such_picture.png">
"""


def test_mistakes_are_found(monkeypatch):
    monkeypatch.chdir(ROOT)
    found = list(mistakes(WRONG, ROOT / "experiments" / "mdn"))
    expected = (
        "mel-trian", "make nothing", "betch_size", "no_such_model", "workdir", "experiments.no_such_script",
        "--bathces=3", "evalute_on", "experiments.model_size.sizes", ".[tests]", "no/such_page.html",
        "no_such_picture.png", "make tset", "mel-link --fromat",
        "--no_such_flag", "mel/no_such_file.py", "../no_such_page.md",
    )  # fmt: skip
    assert [mistake for mistake, word in zip(found, expected, strict=True) if word not in mistake] == []


def mistakes(text: str, folder: pathlib.Path) -> Iterator[str]:
    """What a document in `folder` names that does not exist: binaries, then what is in fenced blocks, then inline."""
    text = text.replace("\\\n", " ")
    yield from (name for name in re.findall(r"\bmel-[a-z-]+", text) if not _is_ours(name))
    for line in "".join(FENCED.findall(text)).splitlines():
        if re.match(r" *([A-Z_]+=\S+ )*(make|mel-|python|pip|pytest)\b", line) and not re.search("[─-◿]", line):
            words = shlex.split(line, comments=True)
            yield from _of_paths(words, folder)
            for command in _commands(words):
                yield from _of_command(command, complete=True)
    shown = re.findall(r'\]\(([^)#:]+)\)|src="([^":]+)"', FENCED.sub("", text))
    yield from (path for path in map("".join, shown) if not (folder / path).is_file())
    for code in re.findall(r"`([^`]+)`", FENCED.sub("", text)):
        words = code.split()
        yield from _of_paths(words, folder)
        for command in _commands(words):
            yield from _of_command(command, complete=False)


def _commands(words: Sequence[str]) -> Iterator[list[str]]:
    """The commands of a line, without the variables that are set for them."""
    command: list[str] = []
    for word in [*words, "&&"]:
        if word in ("&&", "|"):
            yield command
            command = []
        elif command or not re.match(r"[A-Z_]+=", word):
            command.append(word)


def _of_command(command: Sequence[str], complete: bool) -> Iterator[str]:
    """The mistakes of a command; of an incomplete one only the names of its flags are looked at."""
    match command:
        case ["make", *targets]:
            yield from (f"make {target}" for target in targets if target not in TARGETS)
        case [program, *arguments] if program.startswith("mel-") and _module(program) in BINARIES:
            yield from _of_binary(program, arguments, complete)
        case ["python", "-m", module, *arguments]:
            yield from _of_script(module, arguments)
        case ["pip", "install", *words]:
            extras = re.findall(r"\[(\w+)\]", " ".join(words))
            yield from (f"pip install .[{extra}]" for extra in extras if f'"{extra}": [' not in SETUP)
        case [flag] if flag.startswith("--"):
            scripts = (path.read_text("utf-8") for path in (ROOT / "experiments").rglob("*.py"))
            if not any(_has_flag(name, flag) for name in BINARIES) and f'"{_name(flag)}"' not in "".join(scripts):
                yield flag


def _of_binary(program: str, arguments: Sequence[str], complete: bool) -> Iterator[str]:
    name = _module(program)
    if complete:
        try:
            programs.parse(name, arguments)
        except MelError as error:
            yield f"{program}: {error}"
    else:
        yield from (f"{program} {flag}" for flag in arguments if flag[:2] == "--" and not _has_flag(name, flag))


def _of_script(module: str, arguments: Sequence[str]) -> Iterator[str]:
    """A script's own parser reads the arguments; what is left of run_grid's goes to mel-run-rounds."""
    try:
        imported = importlib.import_module(module)
        if hasattr(imported, "__path__"):  # what runs of a package
            imported = importlib.import_module(f"{module}.__main__")
        main = getattr(imported, "main", None)
        parser = _parser_of(main) if main else argparse.ArgumentParser()
        _, unknown = parser.parse_known_args(arguments)
        if module == run_grid.__name__:
            programs.parse("run_rounds", [*unknown, "--workdir=W"])
            unknown = []
        yield from (f"{module} {argument}" for argument in unknown)
    except (ModuleNotFoundError, MelError) as error:
        yield f"{module}: {error}"
    except SystemExit:
        yield f"{module} {shlex.join(arguments)}"


def _parser_of(main) -> argparse.ArgumentParser:
    """The parser that a script's `main` parses with; it comes no further."""
    with mock.patch.object(argparse.ArgumentParser, "parse_known_args", autospec=True) as parse:
        parse.side_effect = InterruptedError
        with pytest.raises(InterruptedError):
            main()
    return parse.call_args.args[0]


def _of_paths(words: Sequence[str], folder: pathlib.Path) -> Iterator[str]:
    """Files of the repository, named from its root, from the document or from the folder above it."""
    for path in (word.partition("=")[2] or word for word in words):
        ours = path.split("/")[0] in FOLDERS or pathlib.Path(path).suffix in SOURCES
        if "/" in path and ours and not any((base / path).exists() for base in (ROOT, folder, folder.parent)):
            yield path


def _is_ours(name: str) -> bool:
    return name == DISTRIBUTION or _module(name) in BINARIES


def _module(program: str) -> str:
    return program.removeprefix("mel-").replace("-", "_")


def _name(flag: str) -> str:
    return flag.partition("=")[0]


def _has_flag(binary: str, flag: str) -> bool:
    names = [*flag_names(importlib.import_module(f"mel.bin.{binary}").Config), "help", "flagfile", "version"]
    return _name(flag).removeprefix("--") in [*names, *(f"no{name}" for name in names)]
