#!/bin/bash
# Does all of README.md as a stranger would, with a wheel in fresh environments, and prints what each command did.
#
#   experiments/clean_install/run.sh FOLDER
#
# FOLDER is new. It gets a copy of the committed files (checkout/), a wheel, an environment for linking alone (base/), one
# with the extras (full/), and an empty place to work in (work/), where only the data of the tiny world stands for the
# archives of DaMuEL and the tree of Mewsli-9. MAKE=0 leaves out `make quickstart`, PYTHON is the interpreter.
set -euo pipefail
checkout=$(git -C "$(dirname "$0")" rev-parse --show-toplevel)
folder=$(realpath -m "${1:?a new folder}")
python=${PYTHON:-python3}
[ ! -e "$folder" ] || { echo "$folder is there already: name a new folder." >&2; exit 1; }

mkdir -p "$folder/checkout" "$folder/work"
git -C "$checkout" archive HEAD | tar -x -C "$folder/checkout"
cd "$folder"
for environment in base full; do "$python" -m venv $environment; done
full/bin/pip wheel --quiet --no-deps --wheel-dir wheels ./checkout
wheel=$(echo wheels/*.whl)
seconds=$SECONDS
base/bin/pip install --quiet "$wheel"
echo "base installation: $((SECONDS - seconds)) s, $(du -sm base | cut -f1) MB" | tee installed.txt
seconds=$SECONDS
full/bin/pip install --quiet "$wheel[train,serve,test]"
echo "with train, serve and test: $((SECONDS - seconds)) s, $(du -sm full | cut -f1) MB" | tee -a installed.txt

(cd checkout && ../full/bin/python -m tests.tiny_world --output=../world)
mv world/damuel work/damuel
mv world/mewsli work/mewsli-9
mkdir -p work/experiments
cp -r checkout/experiments/own_kb work/experiments/
full/bin/python checkout/experiments/clean_install/readme.py "$folder" --make="${MAKE:-1}"
