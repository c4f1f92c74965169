"""The card of a bundle, README.md: what it is, made from what, how good, and how other programs use it.

It begins with the YAML that the Hugging Face hub reads. What it says of code is what `mel.Linker.render` does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from mel.artifacts import START, Artifact, Workdir, exists, open_artifact
from mel.corpora.sources import read_sources
from mel.encoder.config import EncoderConfig
from mel.text.tokenizer import MARKER, Prefixes
from mel.types import MelError

FILE = "README.md"
UNKNOWN_LICENSE = "other"
CHANGED = "\n## Changed since this was written\n\n"


@dataclasses.dataclass(frozen=True)
class About:
    """What a card says beside the facts of its bundle.

    Attributes:
      license: as the hub names it; "" if nobody said.
      data: a line each on what the knowledge base was made from.
      results: reports in a Markdown table; "" for none.
      start: what the encoder began with; "" if it is not known.
      has_index, has_graph, has_entities: whether the bundle links, holds encoder.onnx, and entities.safetensors.
    """

    license: str = ""
    data: Sequence[str] = ()
    results: str = ""
    start: str = ""
    has_index: bool = True
    has_graph: bool = False
    has_entities: bool = False


def write_card(folder: pathlib.Path, facts: Mapping[str, Any], prefixes: Prefixes, about: About) -> None:
    """Writes the card of the bundle, or the encoder alone, in `folder`."""
    parts = [_front_matter(facts, about), _what(facts, about), _texts(facts, prefixes), _use(facts, about)]
    parts += [_entities()] if about.has_entities else []
    parts += [_results(about), _origin(about)]
    (folder / FILE).write_text("\n".join(parts), encoding="utf-8")


def write_changed_card(folder: pathlib.Path, bundle: Artifact, change: str) -> None:
    """Writes the card of `bundle`, if it has one, with what has changed since."""
    if FILE in bundle.files:
        text, _, _ = (bundle / FILE).read_text("utf-8").partition(CHANGED)
        (folder / FILE).write_text(f"{text}{CHANGED}{change}\n", encoding="utf-8")


def data_of(work: Workdir) -> list[str]:
    """A line for each language on what the knowledge base and the training mentions were read from."""
    kb = open_artifact(work.kb, "kb")
    mentions: Mapping[str, int] = {}
    if exists(work.mentions("train")):
        mentions = open_artifact(work.mentions("train"), "mentions", reads=()).facts["counts"]
    parts: dict[str, list[int]] = {}
    with contextlib.suppress(MelError):
        for name, source in read_sources(kb.path).items():
            parts.setdefault(name.partition("/")[0], []).append(source.bytes)
    return [
        f"{language}: {rows:,} entities and {mentions.get(language, 0):,} training mentions"
        + (f", from {len(sizes)} files of {sum(sizes) / 1e6:,.1f} MB" if (sizes := parts.get(language)) else "")
        for language, rows in kb.facts["entities"].items()
    ]


def start_of(work: Workdir) -> str:
    """What the encoder began with, by the name under which it was given; without the folders it lay in."""
    if not exists(work.round(START).checkpoint):
        return ""
    settings = open_artifact(work.round(START).checkpoint, "checkpoint", reads=()).facts["settings"]
    source = settings.get("encoder", "")
    return pathlib.PurePath(source).name if os.path.isabs(source) else source


def _front_matter(facts: Mapping[str, Any], about: About) -> str:
    languages = "".join(f"- {json.dumps(language)}\n" for language in facts["languages"])
    return f"""\
---
language:
{languages}license: {about.license or UNKNOWN_LICENSE}
library_name: sentence-transformers
pipeline_tag: feature-extraction
tags:
- entity-linking
- mel
---
"""


def _what(facts: Mapping[str, Any], about: About) -> str:
    config = EncoderConfig.from_json(facts["encoder"])
    kind = (
        "A linker: it finds the entities that spans of texts mean." if about.has_index else "The encoder of a linker."
    )
    begun = f", begun with `{about.start}`" if about.start else ""
    return f"""\
# Multilingual entity linking: {", ".join(facts["languages"])}

{kind} Mentions in context and entities have embeddings of one space, where a cosine tells how well they go together.

- Encoder: {config.num_layers} layers, {config.hidden_size} dimensions, pooled by {config.pooling}.
- Training: round {facts["round"]}, step {facts["step"]}{begun}.
"""


def _texts(facts: Mapping[str, Any], prefixes: Prefixes) -> str:
    title = "After the title of its page and the separator token, where there is a title, comes"
    begin = title if facts["title_in_window"] else "It is, without the title of its page,"
    before = " and ".join(f"{value!r} before {name}" for name, value in prefixes._asdict().items() if value)
    return f"""\
## How texts are written

- **A mention.** {begin} the text around the mention, with
  `{MARKER}` before and after the mention. It is cut to {facts["max_tokens"]} tokens, special ones among them, the
  mention in the middle.
- **An entity.** Its title, with `{MARKER}` before and after it, a line break and its description, cut to
  {facts["entity_tokens"]} tokens.
- **Prefixes.** {before or "None"}.

`linker.render(text, span, title)` and `linker.render_entity(title, description)` write exactly that. A raw text, or one
that another program cuts at its end, is not what the encoder was trained on, and its embedding is another.
"""


_LINKED = """\
```python
import mel

linker = mel.Linker.load("bundle")
links = linker.link("Paris liegt an der Seine.", spans=[(0, 5)], language="de")
text = linker.render("Paris liegt an der Seine.", (0, 5))
```

The embedding of `text`, which `linker.embed_mentions` gives too, in other programs:
"""
_TRANSFORMERS = """\
```python
import torch
from transformers import AutoModel, AutoTokenizer

inputs = AutoTokenizer.from_pretrained("bundle/encoder")(text, return_tensors="pt")
with torch.no_grad():
    output = AutoModel.from_pretrained("bundle/encoder"{options})(**inputs)
embedding = torch.nn.functional.normalize({pooled})
```
"""
_SENTENCE_TRANSFORMERS = """\
```python
from sentence_transformers import SentenceTransformer

embedding = SentenceTransformer("bundle").encode([text])
```
"""
_ONNX = """\
```python
import numpy, onnxruntime, tokenizers

encoding = tokenizers.Tokenizer.from_file("bundle/encoder/tokenizer.json").encode(text)
inputs = {"input_ids": numpy.array([encoding.ids]), "attention_mask": numpy.array([encoding.attention_mask])}
embedding = onnxruntime.InferenceSession("bundle/encoder.onnx").run(["embeddings"], inputs)[0]
```
"""
_POOLED = {  # one text alone has no padding to leave out
    "pooler": "output.pooler_output",
    "cls": "output.last_hidden_state[:, 0]",
    "mean": "output.last_hidden_state.mean(1)",
}


def _use(facts: Mapping[str, Any], about: About) -> str:
    pooling = EncoderConfig.from_json(facts["encoder"]).pooling
    options = "" if pooling == "pooler" else ", add_pooling_layer=False"
    alone = "The embedding of a `text` that is written as above, as the linker's `render` does it:\n"
    parts = [
        _LINKED if about.has_index else alone,
        _TRANSFORMERS.format(options=options, pooled=_POOLED[pooling]),
        _SENTENCE_TRANSFORMERS,
        *([_ONNX] if about.has_graph else []),
    ]
    return "## Use\n\n" + "\n".join(parts)


def _entities() -> str:
    return """\
## All entities in one file

`entities.safetensors` holds the embedding, id, language and title of every row of the knowledge base; a column of
strings is its UTF-8 in one piece and where each string ends.

```python
from safetensors.numpy import load_file

columns = load_file("bundle/entities.safetensors")
embeddings, ends = columns["embeddings"], columns["ids_ends"]
first_id = columns["ids"][: ends[0]].tobytes().decode()
```
"""


def _results(about: About) -> str:
    shown = about.results or "The working directory held no report of this round.\n"
    return f"## Results\n\n{shown}"


def _origin(about: About) -> str:
    stated = (
        f"Its maker states {about.license} as the licence of this folder."
        if about.license
        else ("Its maker states no licence.")
    )
    data = "".join(f"- {line}\n" for line in about.data)
    return f"""\
## Licence and data

{stated} Weights, titles, descriptions and names were made from the data below, and their licence goes with them: that
of DaMuEL and of Wikipedia is CC BY-SA 4.0. So does that of the encoder which training began with.

{data}"""
