"""The least cosine between our embeddings and those of the exported bundle in other people's programs.

A bundle is reloaded in transformers (pooler output, unit length), which is given our token ids, and in
sentence-transformers, which is given texts and tokenises them itself. The rows are real mentions, with
texts decoded from them; a text that does not give its row again is left out for sentence-transformers.

  python -m experiments.benchmarks.exported_model --workdir=RUN --split=mewsli
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np

from experiments.benchmarks import rivals
from experiments.benchmarks.harness import Target, options, parser, publish
from experiments.programs import launch
from mel.artifacts import open_artifact
from mel.linking.bundle import open_bundle
from mel.shards.rows import TokenRows

TARGET = Target(passes=0.99999)
TOKENS_AT_ONCE = 8192


def main(argv: Sequence[str] | None = None) -> None:
    flags = parser(__doc__, workdir="a run that mel-export has exported")
    flags.add_argument("--split", default="mewsli", help="split whose mentions are embedded")
    flags.add_argument("--mentions", type=int, default=2_000, help="how many of them, chosen at random")
    chosen = options(flags, argv)
    rivals.require("torch", "transformers", "sentence_transformers")
    work = rivals.open_workdir(chosen.workdir, exported=True)
    rows = rivals.open_tokens(work, work.mention_tokens(chosen.split)).rows
    rows = rows.take(rivals.sample(rows, 64 if chosen.quick else chosen.mentions, seed=0))
    bundle = open_artifact(work.bundle, "bundle")
    ours_ND = open_bundle(bundle.path).encoder.embed(rows)
    tokenizer = rivals.load_tokenizer(bundle / "encoder")
    texts = rivals.texts_of(rows, tokenizer)
    kept = np.flatnonzero(rivals.same_rows(texts, rows, tokenizer))
    least = {
        "transformers": least_cosine(ours_ND, by_transformers(bundle / "encoder", rows)),
        "sentence-transformers": least_cosine(
            ours_ND[kept], by_sentence_transformers(bundle.path, [texts[i] for i in kept])
        ),
    }
    details = least | {"mentions": len(rows), "mentions for sentence-transformers": len(kept)}
    measure = "exported model in transformers and sentence-transformers, least cosine with ours"
    runs = {"the lesser of both": [min(least.values())]}
    publish("exported_model", measure, TARGET, runs, "", chosen.results, details)


def by_transformers(encoder: pathlib.Path, rows: TokenRows) -> np.ndarray:
    """The pooler output of `BertModel`."""
    import torch
    from transformers import BertModel

    bert = BertModel.from_pretrained(encoder).eval()
    embeddings_ND = np.empty((len(rows), bert.config.hidden_size), np.float32)
    for row_ids_n, tokens_nL in rows.by_width(TOKENS_AT_ONCE):
        kept = row_ids_n >= 0
        ids_nL = torch.from_numpy(tokens_nL[kept]).long()
        with torch.inference_mode():
            embeddings_ND[row_ids_n[kept]] = bert(ids_nL, attention_mask=(ids_nL != 0).long()).pooler_output
    return embeddings_ND


def by_sentence_transformers(bundle: pathlib.Path, texts: Sequence[str]) -> np.ndarray:
    """What anyone gets who loads the bundle and calls `encode`."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(bundle), device="cpu").encode(list(texts), show_progress_bar=False)


def least_cosine(a_ND: np.ndarray, b_ND: np.ndarray) -> float:
    """The smallest cosine between rows of the same number."""
    a_ND, b_ND = a_ND.astype(np.float64), b_ND.astype(np.float64)
    products_N = (a_ND * b_ND).sum(axis=1)
    return float((products_N / np.linalg.norm(a_ND, axis=1) / np.linalg.norm(b_ND, axis=1)).min())


if __name__ == "__main__":
    launch(main)
