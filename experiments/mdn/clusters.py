"""Which documents of an MDN tree are translations of one page: a file for `mel-evaluate --clusters`.

    python -m experiments.mdn.clusters --mewsli=../shared/data/mdn/mewsli/dev --output=clusters.tsv

The page is what follows `/docs/` in the address that docs.tsv gives, the same in all languages.
"""

from __future__ import annotations

import argparse
import csv
import pathlib
from collections.abc import Sequence

from mel.files import write_text


def main(argv: Sequence[str] | None = None) -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--mewsli", type=pathlib.Path, required=True, help="the tree")
    flags.add_argument("--output", type=pathlib.Path, required=True, help="the file to write")
    chosen = flags.parse_args(argv)
    lines = [f"{docid}\t{page}\n" for docid, page in pages(chosen.mewsli)]
    write_text(chosen.output, "".join(lines))
    print(f"{len(lines)} documents of {len({line.partition(chr(9))[2] for line in lines})} pages: {chosen.output}")


def pages(tree: pathlib.Path) -> list[tuple[str, str]]:
    """(document, page) of a tree, in the order of its languages and documents."""
    found = []
    for path in sorted(tree.glob("*/docs.tsv")):
        with open(path, encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
                found.append((row["docid"], row["url"].partition("/docs/")[2]))
    return found


if __name__ == "__main__":
    main()
