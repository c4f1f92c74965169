"""Evaluates a checkpoint or a baseline: R@1, R@10, R@100 and MRR, in all, by language, by ambiguity.

Reads   mentions prepared in --workdir (--split), or any Mewsli-9 tree (--mewsli), of languages that
        were not prepared too; kb, alias_table; for a checkpoint rounds/K/checkpoint.
Writes  reports/NAME: report.json, report.md, index.html (a page to open in a browser), predictions.jsonl,
        and run.trec.gz with qrels.txt; rounds/K/embeddings where they are missing.
        The report is printed, beside those of --against. The same evaluation under the same name is
        not done again.

Systems (--model):
  checkpoint            the entities whose embeddings are nearest to the mention's
  alias_table           the entities most often linked from the surface form in any language, else from
                        the same lower-cased, else from its lemma (the mentions of Mewsli-9 have none)
  alias_table_language  those linked in the mention's own language before all others
  alias_table_names     the same, and the KB's titles, labels, aliases and redirects after all links
  string_similarity     the same, and for a surface form without candidates those of the most similar ones
  olpeat                the aliases, titles and labels of the mention's language whose embeddings without context
                        are nearest (--round=-1: no training)
  olpeat_all_languages  the same over what any language linked, without titles and labels
  fusion                checkpoint and string_similarity: cosine + weight · log prior

With --context_weight, checkpoint and fusion also hear the training mentions nearest to a mention, which speak
for the entities they link to: exp(scale · score) is that of the description plus weight times theirs.

With --index=scann neighbours are searched approximately, and the report says how much of what is nearest to its
mentions was found; an index that does not fit into the memory that is free is built in shards (--rows_a_shard).

Every figure is a share of all mentions: a gold that the KB lacks is a miss.

Examples:
  mel-evaluate --workdir=run --name=alias-table --model=alias_table
  mel-evaluate --workdir=run --name=round-2 --model=checkpoint --round=2
  mel-evaluate --workdir=run --name=fusion --model=fusion --split=test --fusion_weight=0.03
  mel-evaluate --workdir=run --name=round-2 --round=2 --against=alias-table,round-1
  mel-evaluate --workdir=run --name=with-contexts --model=fusion --context_weight=0.2
  mel-evaluate --workdir=run --name=news --mewsli=mewsli-9 --languages=de,ja
"""

from __future__ import annotations

from mel.bin.launch import launch
from mel.reports.evaluate import EvaluationConfig as Config
from mel.reports.evaluate import evaluate


def main(config: Config) -> None:
    """Publishes the report, or finds it published, and prints it."""
    print(evaluate(config))


def console() -> None:
    launch(main, Config)


if __name__ == "__main__":
    console()
