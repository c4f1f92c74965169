"""One round of training: published inputs in, a published checkpoint out."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import pathlib
import shutil
from typing import Any

import jax
import numpy as np
from absl import logging

from mel.artifacts import START, Artifact, Round, Workdir, exists, open_artifact
from mel.config import REQUIRED, flag, group
from mel.corpora.columns import fits_in_memory
from mel.cost import record_cost
from mel.encoder.backend import Compute, ComputeConfig, choose_compute, keep_compiled, most_widths
from mel.encoder.config import EncoderConfig
from mel.encoder.start import StartConfig, initial_encoder
from mel.encoder.transformer import Params
from mel.encoder.vocabulary import Vocabulary
from mel.locks import claim
from mel.shards.batches import MOST_WIDTHS, BatchSource, Layout
from mel.shards.datasets import TOKEN_IDS, open_rows, open_twins, read_token_ids
from mel.shards.negatives import Negatives, open_negatives
from mel.shards.selection import read_mixture, require_mentions, usable_mentions
from mel.training.checkpoint import StepCheckpoints, open_checkpoint, publish_checkpoint, publish_start
from mel.training.encoding import what_is_kept
from mel.training.ending import EndOnSignal
from mel.training.hooks import Metrics, Profile, SaveEvery
from mel.training.hosts import is_lead, join_hosts, on_lead
from mel.training.loop import fit
from mel.training.loss import LossConfig, batch_loss
from mel.training.meter import Speed, device_peak
from mel.training.prefetch import prefetch
from mel.training.settings import keep_settings, require_trained_alike
from mel.training.state import OptimizerConfig, create_state, learning_rate_schedule, make_optimizer
from mel.training.step import Step, make_mesh, make_step, put_batch, replicated
from mel.types import Batch, MelError, TrainState

TOKENS = ("entity_tokens", "mention_tokens")
PROFILE_AFTER = 10  # steps, by when everything is compiled and warm
# What decides the encoder before training and the scale of its scores, and then which mentions each batch draws: mining
# reads there which ones the next round will ask for.
OF_START = (
    "encoder", "pooling", "encoder_layers", "seed", "logit_scale", "batch_size", "steps_per_round", "train_languages",
    "train_mentions",
)  # fmt: skip
# What decides where and when a round is trained, and nothing of its result.
OF_NO_RESULT = ("workdir", "round", "save_every", "compilation_cache")


@dataclasses.dataclass(frozen=True)
class WatchConfig:
    """How training is watched; no result depends on it."""

    log_every: int = flag(0, "Steps from one line of progress to the next; 0 for one every ten seconds.")
    profile: int = flag(0, "Steps to write a JAX trace of, to rounds/K/training/profile.")
    synthetic_data: bool = flag(
        False, "Repeat one batch and publish nothing: the speed that training has when data cost nothing."
    )
    peak_tflops: float = flag(0.0, "TFLOP/s of one device, for MFU; 0 for what is known of it.")
    peak_gbytes: float = flag(0.0, "GB/s of one device's memory, for its roofline; 0 for what is known of it.")

    def __post_init__(self):
        for name in ("log_every", "profile", "peak_tflops", "peak_gbytes"):
            if getattr(self, name) < 0:
                raise MelError(f"--{name}={getattr(self, name)} must not be below 0.")


@dataclasses.dataclass(frozen=True)
class RoundConfig:
    """Which round is trained, on what and how."""

    workdir: str = flag(REQUIRED, "Folder that mel-prepare-data published into.")
    round: int = flag(0, "Round to train; -1 publishes the untrained encoder.", driven=True)
    rounds: int = flag(3, "Number of rounds in all; the learning rate schedule spans them.")
    steps_per_round: int = flag(1000, "Steps of each round.")
    batch_size: int = flag(256, "Mentions a batch.")
    encoder: str = flag(
        "setu4993/LEALLA-base", "Local folder or hub id of BERT weights, or random:LAYERSxHIDDENxHEADS."
    )
    seed: int = flag(0, "Of random weights, of the order of the mentions and of dropout.")
    save_every: int = flag(500, "Steps from one checkpoint to the next.")
    train_languages: tuple[str, ...] = flag((), "Languages to train on, all if empty; en:2000 takes 2,000 mentions.")
    train_mentions: int = flag(0, "Train on so many mentions, drawn with --seed; 0 for all.")
    start: StartConfig = group(StartConfig)
    optimizer: OptimizerConfig = group(OptimizerConfig)
    loss: LossConfig = group(LossConfig)
    compute: ComputeConfig = group(ComputeConfig)
    watch: WatchConfig = group(WatchConfig)

    def __post_init__(self):
        for name in ("rounds", "steps_per_round", "batch_size", "save_every"):
            if not getattr(self, name) > 0:
                raise MelError(f"--{name}={getattr(self, name)} must be above 0.")
        read_mixture(self.train_languages)  # refuses what it cannot read
        for name in ("train_mentions", "seed"):
            if getattr(self, name) < 0:
                raise MelError(f"--{name}={getattr(self, name)} must not be below 0.")
        if not START <= self.round < self.rounds:
            raise MelError(
                f"--round={self.round} is not between -1 and {self.rounds - 1}, the last of --rounds={self.rounds}."
            )
        learning_rate_schedule(self.optimizer, self.total_steps)  # refuses a warm-up that takes all steps

    @property
    def total_steps(self) -> int:
        """Those of all rounds."""
        return self.rounds * self.steps_per_round

    @property
    def steps(self) -> tuple[int, int]:
        """The first step of the round, and the first one after it."""
        return self.round * self.steps_per_round, (self.round + 1) * self.steps_per_round

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the result of the round, by flag; what only decides where, when and how it is watched is not."""
        values: dict[str, Any] = {}
        for name, value in dataclasses.asdict(self).items():
            values |= value if isinstance(value, dict) else {name: value}
        if self.round == START:
            return {name: values[name] for name in OF_START}
        left_out = {*OF_NO_RESULT, *(field.name for field in dataclasses.fields(WatchConfig))}
        return {name: value for name, value in values.items() if name not in left_out}


def train_round(config: RoundConfig) -> None:
    """Trains round `config.round`, going on from where an earlier call was stopped, and publishes its checkpoint.

    The encoder before training is published first, where it is missing. What is published already is left.

    Raises:
      MelError: an input is missing or of another origin, the round was trained or begun with other
        settings, or another process is training it.
      Interrupted: a signal ended it, at a step that was saved.
    """
    join_hosts()
    work = Workdir(config.workdir)
    if config.round > START and not exists(work.round(START).checkpoint):
        train_round(dataclasses.replace(config, round=START))
    this = work.round(config.round)
    if exists(this.checkpoint):
        require_trained_alike(open_artifact(this.checkpoint, "checkpoint"), config, config.round == config.rounds - 1)
        logging.info("Round %d is trained already: %s", config.round, this.checkpoint)
        return
    keep_compiled(config.compute.compilation_cache)
    inputs = _inputs(work, config.round)
    if config.round == START:
        on_lead("start", lambda: _start_where_missing(config, work, inputs))
        return
    stage = f"train round {config.round}{' on synthetic data' if config.watch.synthetic_data else ''}"
    device = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    recorded = record_cost(work.path, stage, device=device) if is_lead() else contextlib.nullcontext({})
    with claim(this.training) if is_lead() else contextlib.nullcontext():
        if exists(this.checkpoint):  # by a command that has just ended
            return train_round(config)
        with recorded as figures:
            figures |= _train(config, work, inputs)


def _inputs(work: Workdir, number: int) -> dict[str, Artifact]:
    kb = open_artifact(work.kb, "kb", reads=())
    paths = {"entity_tokens": work.entity_tokens, "mention_tokens": work.mention_tokens("train")}
    tokens = {name: open_artifact(path, "tokens", {"kb": kb}, (TOKEN_IDS,)) for name, path in paths.items()}
    negatives = work.round(number).negatives
    if number > START:
        require_mentions(tokens["mention_tokens"])
    if number > START and exists(negatives):
        return tokens | {"negatives": open_artifact(negatives, "negatives", tokens)}
    if number > 0:
        raise MelError(f"There are no negatives at {negatives}: run mel-mine-negatives --round={number - 1} first.")
    return tokens


def _start_where_missing(config: RoundConfig, work: Workdir, inputs: dict[str, Artifact]) -> None:
    """Publishes the encoder before training, unless another process does, for which it waits."""
    path = work.round(START).checkpoint
    with claim(path, wait=True):
        if exists(path):
            require_trained_alike(open_artifact(path, "checkpoint"), config, is_last=False)
        else:
            _publish_start(config, work, inputs)


def _publish_start(config: RoundConfig, work: Workdir, inputs: dict[str, Artifact]) -> None:
    """Publishes the encoder before training, and which rows of its token table will be trained."""
    tokenizer = open_artifact(work.tokenizer, "tokenizer").facts
    max_tokens = max(tokens.facts["max_tokens"] for tokens in inputs.values())
    encoder, params = initial_encoder(config.encoder, tokenizer, config.seed, config.start, max_tokens)
    vocabulary = Vocabulary.of([read_token_ids(tokens) for tokens in inputs.values()], params)
    used = len(vocabulary.token_ids_v)
    logging.info("The shards use %d of %d tokens: only their embeddings are trained.", used, tokenizer["vocab_size"])
    facts = {"settings": config.settings, "round": START, "tokens_in_use": used}
    state, path = _new_state(config, vocabulary.compact(params)), work.round(START).checkpoint
    publish_start(path, state, encoder, vocabulary, facts, inputs, config)
    logging.info("Published %s", path)


def _train(config: RoundConfig, work: Workdir, inputs: dict[str, Artifact]) -> dict[str, int]:
    """Trains and publishes a round; returns how much work it did."""
    this, settings = work.round(config.round), config.settings
    before = open_checkpoint(work, config.round - 1, {name: inputs[name] for name in TOKENS})
    require_trained_alike(before.artifact, dataclasses.replace(config, round=config.round - 1), is_last=False)
    encoder = dataclasses.replace(before.encoder_config, dropout=config.optimizer.dropout)
    state = before.train_state(_new_state(config, before.trained))
    compute = choose_compute(config.compute.precision, encoder)
    source = _batch_source(config, work, inputs, before.vocabulary, compute.chunk_tokens)
    if source.negatives is not None:
        _require_negatives(config, this, source.order.asked(*config.steps), source.negatives)
    layouts = source.plan(*config.steps, most_widths(MOST_WIDTHS), _layout_of(before.artifact))
    if config.watch.synthetic_data:
        _, figures = _run(config, this, encoder, compute, source, layouts, state, None)
        logging.info("That was one batch again and again: nothing is published.")
        return figures
    on_lead("settings", lambda: keep_settings(this, config))
    checkpoints = StepCheckpoints(this.training / "checkpoints")
    try:
        state, figures = _run(config, this, encoder, compute, source, layouts, state, checkpoints)
    finally:
        checkpoints.close()
    facts = {"settings": settings, "round": config.round, "layout": dataclasses.asdict(layouts[0])}
    inputs = inputs | {"start": open_artifact(work.round(START).checkpoint, "checkpoint")}
    published = functools.partial(publish_checkpoint, this.checkpoint, state, encoder, facts, inputs, config)
    on_lead("checkpoint", lambda: published(this.metrics))
    on_lead("cleaning", lambda: shutil.rmtree(this.training / "checkpoints", ignore_errors=True))
    logging.info("Published %s", this.checkpoint)
    return figures


def _run(
    config: RoundConfig, this: Round, encoder: EncoderConfig, compute: Compute, source: BatchSource,
    layouts: tuple[Layout, Layout], state: TrainState, checkpoints: StepCheckpoints | None,
) -> tuple[TrainState, dict[str, int]]:  # fmt: skip
    """Steps to the end of the round; without `checkpoints`, on one batch again and again."""
    mesh = make_mesh()
    logging.info("Batch layout: %s on %d device(s)", layouts[0], mesh.size)
    state = jax.device_put(jax.device_get(state), replicated(mesh))  # several hosts only take it from the host
    if checkpoints and checkpoints.latest_step is not None:
        logging.info("Going on from step %d.", checkpoints.latest_step)
        state = checkpoints.restore(checkpoints.latest_step, state)
    first, last = int(state.step), config.steps[1]

    def batch_at(n: int) -> Batch:
        return put_batch(source.batch_at(n, layouts), mesh)

    if checkpoints:
        batches = prefetch(batch_at, first, last)
    else:
        batches = zip(range(first, last), itertools.repeat(batch_at(first)), strict=False)
    folder, watch = _watched_in(this, synthetic=checkpoints is None), config.watch
    speed = _speed(config, encoder, state.params, layouts[0], compute)
    metrics = Metrics(folder, first, last, speed, watch.log_every, lambda: checkpoints and checkpoints.latest_step)
    profile = Profile(folder / "profile", first + PROFILE_AFTER, watch.profile)
    metrics.note("settings", config.settings)
    logging.info("Compiling the training step; XLA may warn that this is slow.")
    with contextlib.ExitStack() as stack:
        hooks = [stack.enter_context(contextlib.closing(hook)) for hook in (profile, metrics)][::-1]
        if checkpoints:
            ending = stack.enter_context(EndOnSignal(checkpoints, metrics))
            hooks += [SaveEvery(checkpoints, config.save_every, metrics), ending]
        decides = config.optimizer, config.total_steps, config.loss, encoder, source.chunk_tokens, config.seed, compute
        state = fit(_step(*decides), state, batches, hooks)
    return state, metrics.totals


@functools.lru_cache(maxsize=1)
def _step(
    optimization: OptimizerConfig, total_steps: int, loss: LossConfig, encoder: EncoderConfig, chunk_tokens: int,
    seed: int, compute: Compute,
) -> Step:  # fmt: skip
    """The step, kept with what is compiled of it for the next round of the same process."""
    optimizer = make_optimizer(optimization, total_steps)
    schedule = learning_rate_schedule(optimization, total_steps)
    return make_step(encoder, batch_loss(loss), optimizer, schedule, chunk_tokens, make_mesh(), seed, compute)


def _new_state(config: RoundConfig, params: Params) -> TrainState:
    return create_state(params, make_optimizer(config.optimizer, config.total_steps))


def _batch_source(
    config: RoundConfig, work: Workdir, inputs: dict[str, Artifact], vocabulary: Vocabulary, chunk_tokens: int
) -> BatchSource:
    caches = [(inputs[name], work.cache(inputs[name])) for name in TOKENS]
    on_lead("cache", lambda: [open_rows(*cache) for cache in caches])
    entities, mentions = (open_rows(*cache) for cache in caches)
    twins = inputs["entity_tokens"], work.twins(inputs["entity_tokens"]), entities.rows
    on_lead("twins", lambda: open_twins(*twins))
    negatives = open_negatives(inputs["negatives"].path, inputs["mention_tokens"]) if "negatives" in inputs else None
    languages = inputs["mention_tokens"].facts["languages"]
    chosen_n = usable_mentions(mentions, languages, config.train_languages, config.train_mentions, config.seed)
    from_disk = not fits_in_memory([mentions.rows.tokens_T, entities.rows.tokens_T])
    return BatchSource(
        mentions, entities, negatives, config.batch_size, config.seed, chunk_tokens, jax.device_count(),
        vocabulary.compact_id_V, config.loss.log_q_correction, chosen_n, open_twins(*twins), from_disk,
    )  # fmt: skip


def _layout_of(checkpoint: Artifact) -> Layout | None:
    """The shape of the batches that a round trained on; None before training, and where it is not stated."""
    if stated := checkpoint.facts.get("layout"):
        return Layout(tuple(stated["widths"]), tuple(stated["texts"]), stated["candidates"])
    return None


def _require_negatives(config: RoundConfig, this: Round, asked_n: np.ndarray, negatives: Negatives) -> None:
    """Refuses negatives that a step would look for in vain, before the first one."""
    if len(missing := negatives.missing(asked_n)):
        raise MelError(
            f"{this.negatives} has none for {len(missing)} of the {len(asked_n)} mentions that the round trains on, "
            f"such as row {missing[0]}: delete it and run mel-mine-negatives --round={config.round - 1} again."
        )


def _watched_in(this: Round, synthetic: bool) -> pathlib.Path:
    """Where metrics go: those of the round are the lead's, on real data."""
    if synthetic:
        return this.training / "synthetic"
    return this.training if is_lead() else this.training / f"process-{jax.process_index()}"


def _speed(config: RoundConfig, encoder: EncoderConfig, params: Params, layout: Layout, compute: Compute) -> Speed:
    trained = dataclasses.replace(encoder, vocab_size=len(params["embeddings"]["word"]["embedding"]))
    kind, watch = jax.devices()[0].device_kind, config.watch
    peak = device_peak(kind, compute.dtype, watch.peak_tflops, watch.peak_gbytes)
    kept = what_is_kept(encoder, layout.tokens // jax.device_count(), compute)
    return Speed(trained, layout, config.batch_size, compute.dtype, peak, jax.device_count(), kept)
