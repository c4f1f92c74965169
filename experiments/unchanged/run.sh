#!/usr/bin/env bash
# All binaries on the tiny world and on a short run of MDN, exact search: `run.sh CHECKOUT OUT [PYTHON]`, about 4 minutes.
# Run it with two checkouts, and experiments/unchanged/compare.py tells whether a change changed any result.
set -euo pipefail
checkout=$(realpath "$1") out=$(realpath -m "$2") python=$(realpath -s "${3:-.venv/bin/python}")
data=$(realpath ../shared/data 2>/dev/null || true)
mkdir -p "$out"
cd "$checkout"
export PYTHONPATH=$checkout
call() { binary=$1; shift; echo "== $binary $*"; "$python" -m "mel.bin.$binary" "$@"; }

world=$out/world tiny=$out/tiny
[ -e "$world/made" ] || { "$python" -m tests.tiny_world --output="$world"; touch "$world/made"; }
call prepare_data --workdir="$tiny" --damuel="$world/damuel" --mewsli="$world/mewsli" --languages=en,ru,ar,ja \
  --tokenizer="$world/tokenizer" --mention_tokens=32 --entity_tokens=32 --notitle_in_window --held_out=0.1
call run_rounds --workdir="$tiny" --dataset="tiny world" --encoder=random:2x64x4 --rounds=3 --steps_per_round=60 \
  --batch_size=64 --learning_rate=3e-3 --warmup_steps=30 --schedule=linear --negatives_per_mention=2 --pool=10 \
  --index=exact --first_negatives=hard --dropout=0.1 --bidirectional --log_q_correction --keep_embeddings
for model in alias_table_language alias_table_names string_similarity olpeat fusion; do
  call evaluate --workdir="$tiny" --name=$model --model=$model --against=alias_table
done
call evaluate --workdir="$tiny" --name=contexts --model=fusion --context_weight=0.2 --against=alias_table,fusion
call evaluate --workdir="$tiny" --name=tree --mewsli="$world/mewsli" --limit=50
call export --workdir="$tiny" --calibrate_on=held_out
call link --bundle="$tiny/bundle" --input=experiments/quickstart/texts.jsonl --output="$out/links.jsonl"
for negatives in same_surface by_frequency; do
  cp -r "$tiny" "$out/tiny-$negatives"
  call mine_negatives --workdir="$out/tiny-$negatives" --round=2 --negatives=$negatives --negatives_per_mention=2 \
    --pool=10 --index=exact --keep_embeddings
done

[ -d "$data/mdn" ] || { echo "There is no MDN collection beside the checkout: the tiny world alone."; exit; }
mdn=$out/mdn
call prepare_data --workdir="$mdn" --damuel="$data/mdn/damuel" --mewsli="$data/mdn/mewsli/dev" \
  --tokenizer="$data/tokenizers/mbert_cased" --flagfile=experiments/mdn/prepare_data.flags --languages=es,ru,ja --limit=2
call run_rounds --workdir="$mdn" --flagfile=experiments/mdn/run_rounds.flags --rounds=2 --steps_per_round=20 \
  --batch_size=64 --warmup_steps=5 --index=exact --keep_embeddings
for model in string_similarity olpeat fusion; do
  call evaluate --workdir="$mdn" --name=$model --model=$model --limit=600
done
call evaluate --workdir="$mdn" --name=contexts --model=fusion --context_weight=0.2 --against=fusion --limit=600
call export --workdir="$mdn"
