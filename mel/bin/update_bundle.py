"""Adds entities to a bundle, changes and removes some, or gives its encoder another knowledge base; trains nothing.

Reads   --bundle; --add: entities as JSON lines or CSV, as mel-prepare-data takes them (README.md has their columns):
        one of an id and a language that the bundle has takes the place of that. --remove: ids, one a line, or records
        with an id; their entities are removed in all languages. What is added is held in memory with its embeddings,
        some 5 KB an entity: a million of them is a knowledge base of its own, for --kb or mel-prepare-data.
Writes  --output, a bundle: the files of the old one, by links where the file system has them, and beside them what
        came later. Only entities that are added are embedded; cosine and prior of any other one stay the same, bit for
        bit. The new bundle appears whole; the old one is not changed, and may be deleted.

--compact writes a bundle and what came later as one again, and counts all names and links together: priors and so
scores are others then, as of a bundle that is exported anew, while probabilities are as they were fitted before.
--kb=FILE makes a bundle of the same encoder with these entities instead of all others; it has no calibration and no
contexts, which belong to the old ones.
A detector of plain texts finds the names of entities that were added, too, and those of --kb instead of all others, but
none that only removed entities had. A surface form that the pages held keeps the share of them that link it; any other
name counts as linked as often as names were that no training page held.

Examples:
  mel-update-bundle --bundle=run/bundle --output=run/bundle-2 --add=new.csv --remove=gone.txt
  mel-update-bundle --bundle=run/bundle-2 --output=run/bundle-3 --compact
"""

from __future__ import annotations

import dataclasses
import pathlib

from mel.bin.launch import launch
from mel.config import REQUIRED, flag, group
from mel.corpora.malformed import MAX_SHARE, Malformed
from mel.encoder.backend import ComputeConfig, keep_compiled
from mel.linking.rewriting import compact_bundle, replace_kb
from mel.linking.update import update_bundle
from mel.types import MelError


@dataclasses.dataclass(frozen=True)
class Config:
    bundle: str = flag(REQUIRED, "Folder of the bundle to start from, which is not changed.")
    output: str = flag(REQUIRED, "Folder of the new bundle, beside the old one on the same disk where that is large.")
    add: tuple[str, ...] = flag((), "Files of entities to add, or to put in the place of those that there are.")
    remove: tuple[str, ...] = flag((), "Files of ids to remove, one a line.")
    kb: tuple[str, ...] = flag((), "Files of entities that take the place of all that there are.")
    compact: bool = flag(False, "Write the bundle and what came later as one.")
    max_malformed: int = flag(1000, "Most malformed records to skip before stopping.")
    max_malformed_share: float = flag(MAX_SHARE, "The same as a share of what each file holds, if ten or more.")
    compute: ComputeConfig = group(ComputeConfig)


def main(config: Config) -> None:
    """Publishes the new bundle.

    Raises:
      MelError: the flags ask for nothing or for too much, or the bundle cannot be made.
    """
    path, output = pathlib.Path(config.bundle).absolute(), pathlib.Path(config.output).absolute()
    changes = bool(config.add or config.remove)
    if changes + bool(config.kb) + config.compact != 1:
        raise MelError("One of --add with --remove, --kb and --compact has to be given, and one at a time.")
    if output.resolve().is_relative_to(path.resolve()):
        raise MelError(
            f"--output={config.output} is in the bundle itself, which stays as it is: choose another folder."
        )
    keep_compiled(config.compute.compilation_cache)
    malformed, precision = Malformed(config.max_malformed, config.max_malformed_share), config.compute.precision
    if config.kb:
        replace_kb(path, output, config.kb, malformed, precision, config)
    elif config.compact:
        compact_bundle(path, output, config)
    else:
        update_bundle(path, output, config.add, config.remove, malformed, precision, config)


def console() -> None:
    launch(main, Config)


if __name__ == "__main__":
    console()
