#!/usr/bin/env bash
# Two seeds of both arms: `run.sh CHECKOUT OTHER PREPARED CLUSTERS OUT`, resumable; about an hour on two idle cores.
# OTHER is a checkout whose mining draws with the same numbers in every round; README.md says how to make it.
set -euo pipefail
checkout=$(realpath "$1") other=$(realpath "$2") prepared=$(realpath "$3") clusters=$(realpath "$4") out=$(realpath -m "$5")
python=${PYTHON:-$checkout/.venv/bin/python}
flags=$checkout/experiments/folded_draws/run_rounds.flags

rounds() { # by the code of a checkout, in a workdir
  (cd "$1" && PYTHONPATH=$1 "$python" -m mel.bin.run_rounds --workdir="$2" --flagfile="$flags" --seed="$seed" --clusters="$clusters")
}

for seed in 0 1; do
  anew=$out/anew-$seed same=$out/same-$seed
  [ -e "$anew" ] || { mkdir -p "$out" && cp -r "$prepared" "$anew.draft" && mv "$anew.draft" "$anew"; }
  rounds "$checkout" "$anew"
  # Round 0 draws nothing that another has drawn: both arms go on from the same one.
  [ -e "$same" ] || { cp -r "$anew" "$same.draft" && rm -rf "$same.draft"/rounds/[1-9]* "$same.draft"/reports/round-[1-9]* && mv "$same.draft" "$same"; }
  rounds "$other" "$same"
done
cd "$checkout"
PYTHONPATH=$checkout "$python" -m experiments.folded_draws.compare --out="$out"
