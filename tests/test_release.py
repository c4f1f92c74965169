"""What a release states: one version, the licence word for word, and a wheel that holds what is read at run time."""

import hashlib
import pathlib
import re
import subprocess
import sys

import pytest

import mel
from mel.seals import PACKAGES
from tests.bin.test_binaries import BINARIES, call

ROOT = pathlib.Path(__file__).resolve().parents[1]
APACHE_2 = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"  # sha256 of LICENSE-2.0.txt


def text_of(name):
    return (ROOT / name).read_text("utf-8")


def test_the_version_is_the_same_everywhere():
    assert re.search(r"^version: (.+)$", text_of("CITATION.cff"), re.MULTILINE)[1] == mel.__version__
    assert re.search(r"^## (.+)$", text_of("CHANGELOG.md"), re.MULTILINE)[1] == mel.__version__


def test_the_licence_is_the_standard_text_and_is_named_alike():
    assert hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == APACHE_2
    assert "license: Apache-2.0" in text_of("CITATION.cff") and 'license="Apache-2.0"' in text_of("setup.py")


def test_the_notice_names_every_source_with_its_licence():
    found = dict(re.findall(r"^  (\w[\w-]+).*?  +(CC .+|Apache-2.0|MIT)$", text_of("NOTICE"), re.MULTILINE))
    assert found == {
        "DaMuEL": "CC BY-SA 4.0", "Mewsli-9": "CC BY 2.5", "MDN": "CC BY-SA 2.5", "LEALLA": "Apache-2.0",
        "multilingual-e5-small": "MIT",
    }  # fmt: skip


def test_manifests_name_the_distribution():
    assert f'name="{next(name for name in PACKAGES if name.startswith("mel"))}"' in text_of("setup.py")


@pytest.mark.parametrize("binary", BINARIES)
def test_every_binary_says_its_version(binary):
    found = call(binary, "--version")
    assert (found.returncode, found.stdout.split()[-1]) == (0, mel.__version__)


def test_a_build_holds_recipes_and_all_files_beside_modules(tmp_path):
    command = [sys.executable, "setup.py", "--quiet", "build", f"--build-base={tmp_path}"]
    subprocess.run([*command, f"--build-lib={tmp_path}/lib"], cwd=ROOT, check=True, capture_output=True)
    built = tmp_path / "lib" / "mel"
    names = {path.relative_to(ROOT / "experiments") for path in (ROOT / "experiments").rglob("*.flags")}
    assert {path.relative_to(built / "recipes/experiments") for path in built.rglob("*.flags")} == names
    beside = {path.relative_to(ROOT / "mel") for path in (ROOT / "mel").rglob("*") if path.is_file()}
    beside = {path for path in beside if path.suffix != ".pyc"}
    assert {path for path in beside if not (built / path).is_file()} == set()
