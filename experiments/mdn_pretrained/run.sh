#!/usr/bin/env bash
# All of README.md, each piece once; the same command goes on: `run.sh PIECE W ENCODER MEWSLI [FLAG ...]`.
#
#   run.sh start      W E mewsli            what the encoder answers before training, with its window and without
#   run.sh tuning     W E mewsli            learning rates, on the pages held out
#   run.sh rounds     W E mewsli            all rounds, and then OLPEAT and fusion with the last
#   run.sh transfer   W E mewsli            one language or all, three seeds
#   run.sh depth      W E mewsli            the first 2, 4, 8 layers, or all
#   run.sh negatives  W E mewsli            what the first negatives are
#
# W was prepared with prepare_data.flags. Further flags go to mel-run-rounds; on two cores these are
# --flagfile=experiments/mdn_pretrained/two_cores/run_rounds.flags, or for the studies --encoder_layers=4. PYTHON is the interpreter.
set -euo pipefail
cd "$(dirname "$0")/../.."
piece=$1 work=$(realpath "$2") encoder=$(realpath "$3") mewsli=$(realpath "$4")
shift 4
python=${PYTHON:-python} here=experiments/mdn_pretrained pages=$work.pages.tsv
[ -e "$pages" ] || "$python" -m experiments.mdn.clusters --mewsli="$mewsli" --output="$pages"

evaluate() { # NAME FLAG ...: one report
  "$python" -m mel.bin.evaluate --workdir="$work" --dataset="MDN hyperlink disambiguation, dev" --clusters="$pages" --name="$@"
}

grid() { # FOLDER FLAG ...: a run a setting and seed
  "$python" -m experiments.run_grid "$here/$1" --workdir="$work" --encoder="$encoder" --clusters="$pages" "${@:2}"
}

case $piece in
  start)
    "$python" -m mel.bin.train --workdir="$work" --encoder="$encoder" --round=-1 "$@"
    evaluate before-training --round=-1 --without_context
    evaluate olpeat-before-training --round=-1 --model=olpeat_all_languages
    evaluate string-similarity --model=string_similarity
    ;;
  tuning) grid tuning --seeds=0 "$@" ;;
  rounds)
    "$python" -m mel.bin.run_rounds --workdir="$work" --flagfile="$here/run_rounds.flags" --encoder="$encoder" --clusters="$pages" "$@"
    last=$(ls "$work/rounds" | grep -x '[0-9]*' | sort -n | tail -1)
    evaluate olpeat --round="$last" --model=olpeat_all_languages
    evaluate fusion --round="$last" --model=fusion
    evaluate fusion-contexts --round="$last" --model=fusion --context_weight=0.2
    ;;
  transfer) grid transfer "$@" ;;
  depth) grid depth --seeds=0 "$@" ;;
  negatives) grid first_negatives --seeds=0 "$@" ;;
  *) echo "There is no piece $piece: choose start, tuning, rounds, transfer, depth or negatives." >&2; exit 1 ;;
esac
