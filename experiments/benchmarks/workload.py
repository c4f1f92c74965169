"""The work that all training benchmarks share, and mel's own side of it.

Synthetic by default: an encoder of LEALLA-small's shape with its full token table and the marker,
texts of lognormal length (mean about 24 tokens, at most 64) or of exactly 64, words and gold QIDs by
Zipf's law, two rows a QID, three hard negatives a mention. The hard negatives of a mention are among
twelve neighbours of its gold, as mined ones are, so a batch repeats entities and holds false
negatives. With a working directory, the token shards and mined negatives in it, and a LEALLA-small
with the vocabulary of its tokenizer.

A batch of the work is the same for every side: its mentions, each with its gold and its negatives.
Rates count its real tokens, no padding, each text as often as it occurs, whatever a side encodes.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.benchmarks.harness import Run, child
from mel.encoder.config import EncoderConfig
from mel.shards.batches import MOST_WIDTHS, BatchSource
from mel.shards.datasets import RowSet
from mel.shards.negatives import Negatives
from mel.shards.rows import TokenRows
from mel.types import NIL, Batch

CLS, SEP, FIRST_WORD = 2, 3, 5  # 0 pads, 1 is unknown, 4 the marker
LONGEST, SHORTEST = 64, 4
LOG_MEAN, LOG_DEVIATION = np.log(24) - 0.125, 0.5  # of a lognormal length with mean 24
NEIGHBOURS = 12
LOGIT_SCALE, LEARNING_RATE = 20.0, 1e-4
WHOLE_GROUPS, ALL_TOKENS = 0, 2**62


@dataclasses.dataclass(frozen=True)
class Spec:
    """All that decides a workload; every process makes the same from it.

    Attributes:
      batch_size: mentions a batch.
      fixed: whether every text has exactly `LONGEST` tokens.
      workdir: prepared data in place of the synthetic; its last round's negatives.
      tiny: for smoke tests.
      steps_a_turn: how many steps are timed together; more than one where a step is so short that waking a
        side would count, as on a GPU.
      widths: how many widths of texts are compiled into a step at the most.
    """

    batch_size: int = 256
    negatives: int = 3
    fixed: bool = False
    workdir: str | None = None
    tiny: bool = False
    seed: int = 0
    steps_a_turn: int = 1
    widths: int = MOST_WIDTHS


@dataclasses.dataclass(frozen=True)
class Ours:
    """How mel's own side trains.

    Attributes:
      compact: whether only the token rows in use are trained.
      chunk_tokens: tokens encoded at once; None for mel's own choice, WHOLE_GROUPS for one chunk a width.
      tile_rows: of the loss.
      keep_gradients: whether the optimiser state is the gradients, and nothing is clipped.
      compute: names and values of what is to be otherwise than `choose_compute` chooses.
    """

    compact: bool = False
    chunk_tokens: int | None = None
    tile_rows: int = 0
    keep_gradients: bool = False
    compute: tuple[tuple[str, Any], ...] = ()


class Work(NamedTuple):
    """Rows to train on, and the encoder to train."""

    encoder: EncoderConfig
    mentions: RowSet
    entities: RowSet
    negatives_NK: np.ndarray


def add_flags(flags: argparse.ArgumentParser, mentions: int = 256, negatives: int = 3) -> argparse.ArgumentParser:
    """The flags of a workload; read them with `spec_of`."""
    flags.add_argument("--mentions", type=int, default=mentions, help="mentions a batch")
    flags.add_argument("--negatives", type=int, default=negatives, help="hard negatives a mention")
    flags.add_argument("--workdir", help="train on the token shards and negatives here, not on synthetic texts")
    return flags


def spec_of(options: argparse.Namespace, **fixed: Any) -> Spec:
    """The workload that the flags ask for; --quick makes it tiny."""
    size = min(options.mentions, 16) if options.quick else options.mentions
    chosen = {"batch_size": size, "negatives": options.negatives, "workdir": options.workdir, "tiny": options.quick}
    return Spec(**chosen | fixed)


def make_work(spec: Spec) -> Work:
    """The workload: read where it was prepared, made up otherwise."""
    return _prepared(spec) if spec.workdir else _synthetic(spec)


def _synthetic(spec: Spec) -> Work:
    generator = np.random.default_rng(spec.seed)
    vocabulary, words, mentions, entities = (501_154, 65_536, 32_768, 65_536)
    if spec.tiny:
        vocabulary, words, mentions, entities = (2_000, 500, 256, 512)
    vocabulary_w = generator.choice(np.arange(FIRST_WORD, vocabulary), words, replace=False)
    entity_of_rank_E = generator.permutation(entities)
    golds_N = entity_of_rank_E[_zipf(generator, entities, mentions)]
    offsets_NK = generator.random((mentions, NEIGHBOURS)).argpartition(spec.negatives, axis=1)[:, : spec.negatives] + 2
    entities_E = np.arange(entities) // 2 + 1  # so the next row but one has another QID
    rows = [_texts(generator, vocabulary_w, count, spec.fixed) for count in (mentions, entities)]
    return Work(
        _lealla_small(vocabulary, spec.tiny),
        RowSet(rows[0], entities_E[golds_N], np.zeros(mentions, np.int32), golds_N),
        RowSet(rows[1], entities_E, np.zeros(entities, np.int32), np.arange(entities)),
        (golds_N[:, None] + offsets_NK) % entities,
    )


def _texts(generator: np.random.Generator, vocabulary_w: np.ndarray, count: int, fixed: bool) -> TokenRows:
    lengths = np.round(generator.lognormal(LOG_MEAN, LOG_DEVIATION, count)).astype(np.int64).clip(SHORTEST, LONGEST)
    lengths = np.full(count, LONGEST) if fixed else lengths
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = vocabulary_w[_zipf(generator, len(vocabulary_w), int(offsets[-1]))].astype(np.int32)
    tokens[offsets[:-1]], tokens[offsets[1:] - 1] = CLS, SEP
    return TokenRows(tokens, offsets)


def _zipf(generator: np.random.Generator, ranks: int, count: int) -> np.ndarray:
    """Ranks from 0, each as frequent as the inverse of its number."""
    cumulated = np.cumsum(1 / np.arange(1, ranks + 1))
    return np.searchsorted(cumulated, generator.random(count) * cumulated[-1])


def _prepared(spec: Spec) -> Work:
    from mel.artifacts import Workdir, exists, open_artifact
    from mel.shards.datasets import open_rows
    from mel.shards.negatives import open_negatives
    from mel.types import MelError

    work = Workdir(spec.workdir)
    mentions, entities = (open_artifact(path, "tokens") for path in (work.mention_tokens("train"), work.entity_tokens))
    mined = list(filter(exists, (work.round(number).negatives for number in work.rounds())))
    if not mined:
        raise MelError(f"{spec.workdir} has no mined negatives: run mel-run-rounds there first.")
    negatives = open_negatives(mined[-1], mentions)
    vocabulary = open_artifact(work.tokenizer, "tokenizer").facts["vocab_size"]
    rows = [open_rows(tokens, work.cache(tokens)) for tokens in (mentions, entities)]
    if negatives.mentions_n is not None:
        rows[0] = rows[0].take(negatives.mentions_n)
    negatives_NK = np.asarray(negatives.rows_nK[:, : spec.negatives])
    return Work(_lealla_small(vocabulary, spec.tiny), *rows, negatives_NK)


def _lealla_small(vocabulary: int, tiny: bool) -> EncoderConfig:
    layers, hidden, heads = (2, 16, 2) if tiny else (24, 128, 8)
    return EncoderConfig(vocabulary, hidden, layers, heads, 4 * hidden)


def source_of(work: Work, spec: Spec, chunk_tokens: int, **more: Any) -> BatchSource:
    """mel's batches of this workload; batch n holds the mentions of everybody's batch n."""
    return BatchSource(
        work.mentions, work.entities, Negatives(work.negatives_NK), spec.batch_size, spec.seed, chunk_tokens, **more
    )


def text_rows(work: Work, mention_rows_B: np.ndarray) -> np.ndarray:
    """The entity rows [B, 1 + K] that each mention comes with: its gold, then its negatives."""
    return np.concatenate([work.mentions.entity_rows_N[mention_rows_B][:, None], work.negatives_NK[mention_rows_B]], 1)


def left_out(batch: Batch):
    """Columns in no mention's sum: false negatives, twins of the gold, padding; bool [B, C], of NumPy or of jax."""
    is_gold_BC = np.arange(len(batch.entity_C)) == batch.gold_column_B[:, None]
    same_text_BC = batch.twin_C == batch.twin_C[batch.gold_column_B][:, None]
    same_BC = (batch.entity_C == batch.gold_B[:, None]) | same_text_BC
    return (same_BC & ~is_gold_BC) | (batch.entity_C == NIL)


def real_tokens(work: Work, spec: Spec, n: int) -> int:
    """The real tokens of batch n, each text as often as it occurs."""
    mention_rows_B = source_of(work, spec, LONGEST).mention_rows(n)
    entity_rows = text_rows(work, mention_rows_B).reshape(-1)
    return int(work.mentions.rows.lengths_N[mention_rows_B].sum() + work.entities.rows.lengths_N[entity_rows].sum())


def facts(spec: Spec, runs: Mapping[str, Sequence[Run]] = {}) -> dict[str, Any]:
    """What a result says of its workload, and of the memory of each side."""
    work = make_work(spec)
    source = source_of(work, spec, LONGEST)
    distinct = len(source.entity_rows(source.mention_rows(0)))
    return {
        **dataclasses.asdict(spec),
        "real_tokens": real_tokens(work, spec, 0),
        "entities_distinct": distinct / (spec.batch_size * (1 + spec.negatives)),
        "encoder": work.encoder.to_json(),
        "peak_mb": {side: steps[-1].peak_mb for side, steps in runs.items()},
    }


@contextlib.contextmanager
def initial_weights(spec: Spec) -> Iterator[str]:
    """A folder with the weights that all sides start from, as BertModel reads them."""
    with tempfile.TemporaryDirectory() as folder:
        with child(_save_weights, spec, folder) as run:  # this process is to start no framework
            run()
        yield folder


def _save_weights(turn: Callable[..., None], spec: Spec, folder: str) -> None:
    from mel.encoder import pretrained
    from mel.encoder.transformer import init_params

    encoder = make_work(spec).encoder
    pretrained.save(folder, encoder, init_params(encoder, spec.seed))
    turn()


def our_step(work: Work, spec: Spec, folder: str, ours: Ours):
    """What `mel-train` runs on this workload, put together as it does; all contact with its engine is here.

    Args:
      folder: of the initial weights.
      ours: how it is to train.

    Returns:
      (state, step, batches): batches is an endless iterator over batches 0, 1, ... on the devices.
    """
    import jax
    import optax

    from mel.encoder import pretrained
    from mel.encoder.backend import choose_compute
    from mel.encoder.vocabulary import Vocabulary
    from mel.training.loss import LossConfig, batch_loss
    from mel.training.prefetch import prefetch
    from mel.training.state import OptimizerConfig, create_state, learning_rate_schedule, make_optimizer
    from mel.training.step import make_mesh, make_step, put_batch, replicated

    encoder, params = pretrained.load(folder)
    more: dict[str, Any] = {"devices": jax.device_count()}
    if ours.compact:
        vocabulary = Vocabulary.of([np.unique(rows.rows.tokens_T) for rows in (work.mentions, work.entities)], params)
        encoder = dataclasses.replace(encoder, vocab_size=len(vocabulary.token_ids_v))
        params, more["compact_id_V"] = vocabulary.compact(params), vocabulary.compact_id_V
    compute = choose_compute("auto", encoder)
    compute = dataclasses.replace(compute, **dict(ours.compute))
    chunk_tokens = compute.chunk_tokens if ours.chunk_tokens is None else ours.chunk_tokens or ALL_TOKENS
    source = source_of(work, spec, chunk_tokens, **more)
    layouts = source.plan(most_widths=spec.widths)
    config, total_steps = OptimizerConfig(learning_rate=LEARNING_RATE), 1000
    optimizer, mesh = optax.trace(0.0) if ours.keep_gradients else make_optimizer(config, total_steps), make_mesh()
    step = make_step(
        encoder, batch_loss(LossConfig(LOGIT_SCALE, loss_tile_rows=ours.tile_rows)), optimizer,
        learning_rate_schedule(config, total_steps), chunk_tokens, mesh, spec.seed, compute,
    )  # fmt: skip
    state = jax.device_put(create_state(params, optimizer), replicated(mesh))
    batches = prefetch(lambda n: put_batch(source.batch_at(n, layouts), mesh), 0, 1_000_000)
    return state, step, (batch for _, batch in batches)


def our_side(turn: Callable[..., None], spec: Spec, folder: str, ours: Ours) -> None:
    """A side of `harness.child`: so many steps of training a turn, which tells the loss of the last."""
    state, step, batches = our_step(make_work(spec), spec, folder, ours)
    for number, batch in enumerate(batches, start=1):
        state, metrics = step(state, batch)
        if number % spec.steps_a_turn == 0:
            turn(float(metrics["loss"]))
