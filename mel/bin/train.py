"""Trains one round and publishes its checkpoint.

Reads   tokens/entities, tokens/mentions/train, rounds/K/negatives (round 0 does without: in-batch
        negatives only) and the checkpoint of the round before.
Writes  rounds/start/checkpoint, the encoder before training, where it is missing;
        rounds/K/checkpoint; rounds/K/training holds metrics.jsonl, TensorBoard and, until the round
        is done, a checkpoint every --save_every steps. The same command goes on from the last one,
        and ends with the same checkpoint, bit for bit, as if it had never been stopped.

--encoder is a local folder or hub id with BERT weights, or random:LAYERSxHIDDENxHEADS. Of its token
table only the rows that the token shards use are trained and saved.

All devices of the machine are used. To use several machines that share a file system, start the same
command on each with JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID set, or under SLURM.

Example:
  mel-train --workdir=run --round=0 --encoder=setu4993/LEALLA-base --learning_rate=1e-4
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import pathlib
import shutil
from typing import Any, Literal

import jax
from absl import logging

from mel.artifacts import START, Artifact, Round, Workdir, exists, open_artifact, require_settings, write_text
from mel.bin.launch import REQUIRED, flag, launch
from mel.cost import record_cost
from mel.encoder.backend import Compute, choose_compute, keep_compiled, tokens_at_once
from mel.encoder.config import EncoderConfig
from mel.encoder.start import initial_encoder
from mel.encoder.vocabulary import Vocabulary
from mel.retrieval.mining import open_negatives
from mel.shards.batches import BatchSource
from mel.shards.datasets import open_rows, read_token_ids
from mel.shards.selection import usable_mentions
from mel.training.checkpoint import StepCheckpoints, open_checkpoint, publish_checkpoint, publish_start
from mel.training.hooks import Metrics, Profile, SaveEvery
from mel.training.hosts import is_lead, join_hosts, on_lead
from mel.training.kept_step import keep_step
from mel.training.loop import fit
from mel.training.loss import LossConfig
from mel.training.meter import Speed, device_peak
from mel.training.prefetch import prefetch
from mel.training.state import OptimizerConfig, create_state, learning_rate_schedule, make_optimizer
from mel.training.step import Step, make_mesh, make_step, put_batch, replicated
from mel.types import Batch, MelError, TrainState

TOKENS = ("entity_tokens", "mention_tokens")
PROFILE_AFTER = 10  # steps, by when everything is compiled and warm
OF_START = ("encoder", "seed", "logit_scale", "learn_logit_scale")  # what decides the state before training


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """How parameters move."""

    learning_rate: float = flag(1e-4, "Peak learning rate of AdamW.")
    warmup_steps: int = flag(0, "Steps over which the learning rate rises, once at the beginning.")
    schedule: Literal["constant", "linear", "cosine"] = flag(
        "constant", "Learning rate after the warm-up, over all rounds."
    )
    weight_decay: float = flag(0.0, "Weight decay of AdamW, on the kernels of dense layers only.")
    dropout: float = flag(0.0, "Dropout in the encoder while training.")


@dataclasses.dataclass(frozen=True)
class Loss:
    """What is minimised."""

    logit_scale: float = flag(20.0, "What cosines are multiplied with; 20 is a temperature of 0.05.")
    learn_logit_scale: bool = flag(False, "Learn the logit scale, starting from --logit_scale.")
    bidirectional: bool = flag(False, "Average with the loss of finding an entity's mention among the batch's.")
    multi_positive: bool = flag(False, "Take every entity row with the gold's QID as right, instead of masking it.")
    log_q_correction: bool = flag(False, "Lower an entity's score by the log-probability that a batch has it.")
    loss_tile_rows: int = flag(0, "Hold the scores of so many mentions at once, for huge batches; 0 for all.")


@dataclasses.dataclass(frozen=True)
class Machine:
    """How it is computed and watched; only --precision changes the result."""

    precision: Literal["auto", "float32", "bfloat16"] = flag(
        "auto", "Of dense layers and attention; auto is bfloat16 on accelerators and float32 on CPUs."
    )
    log_every: int = flag(0, "Steps from one line of progress to the next; 0 for one every ten seconds.")
    profile: int = flag(0, "Steps to write a JAX trace of, to rounds/K/training/profile.")
    synthetic_data: bool = flag(
        False, "Repeat one batch and publish nothing: the speed that training has when data cost nothing."
    )
    peak_tflops: float = flag(0.0, "TFLOP/s of one device, for MFU; 0 for what is known of it.")
    peak_gbytes: float = flag(0.0, "GB/s of one device's memory, for its roofline; 0 for what is known of it.")


@dataclasses.dataclass(frozen=True)
class Config:
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
    train_languages: tuple[str, ...] = flag((), "Languages whose mentions are trained on; all if empty.")
    train_mentions: int = flag(0, "Train on so many mentions, drawn with --seed; 0 for all.")
    optimizer: Optimizer = dataclasses.field(default_factory=Optimizer)
    loss: Loss = dataclasses.field(default_factory=Loss)
    machine: Machine = dataclasses.field(default_factory=Machine)


def main(config: Config) -> None:
    """Trains round `config.round`, going on from where an earlier call was stopped."""
    _check(config)
    join_hosts()
    work = Workdir(config.workdir)
    if config.round > START and not exists(work.round(START).checkpoint):
        main(dataclasses.replace(config, round=START))
    this, settings = work.round(config.round), _settings(config)
    if exists(this.checkpoint):
        require_settings(open_artifact(this.checkpoint, "checkpoint"), settings)
        logging.info("Round %d is trained already: %s", config.round, this.checkpoint)
        return
    keep_compiled(work.compiled)
    inputs = _inputs(work, config.round)
    if config.round == START:
        on_lead("start", lambda: _publish_start(config, work, inputs, settings))
        return
    stage = f"train round {config.round}{' on synthetic data' if config.machine.synthetic_data else ''}"
    device = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    recorded = record_cost(work.path, stage, device=device) if is_lead() else contextlib.nullcontext({})
    with recorded as figures:
        figures |= _train(config, work, inputs, settings)


def _publish_start(config: Config, work: Workdir, inputs: dict[str, Artifact], settings: dict) -> None:
    """Publishes the encoder before training, and which rows of its token table will be trained."""
    tokenizer = open_artifact(work.tokenizer, "tokenizer").facts
    max_tokens = max(tokens.facts["max_tokens"] for tokens in inputs.values())
    encoder, params = initial_encoder(config.encoder, tokenizer, config.seed, max_tokens=max_tokens)
    vocabulary = Vocabulary.of([read_token_ids(tokens) for tokens in inputs.values()], params)
    used = len(vocabulary.token_ids_v)
    logging.info("The shards use %d of %d tokens: only their embeddings are trained.", used, tokenizer["vocab_size"])
    facts = {"settings": settings, "round": START, "tokens_in_use": used}
    state, path = _new_state(config, vocabulary.compact(params)), work.round(START).checkpoint
    publish_start(path, state, encoder, vocabulary, facts, inputs, config)
    logging.info("Published %s", path)


def _train(config: Config, work: Workdir, inputs: dict[str, Artifact], settings: dict) -> dict[str, float]:
    """Trains and publishes a round; returns how much work it did."""
    this = work.round(config.round)
    before = open_checkpoint(work, config.round - 1, {name: inputs[name] for name in TOKENS})
    require_settings(before.artifact, _settings(dataclasses.replace(config, round=config.round - 1)))
    encoder = dataclasses.replace(before.encoder_config, dropout=config.optimizer.dropout)
    state = before.train_state(_new_state(config, before.trained["encoder"]))
    source = _batch_source(config, work, inputs, before.vocabulary)
    if config.machine.synthetic_data:
        _, figures = _run(config, this, encoder, source, state, None)
        logging.info("That was one batch again and again: nothing is published.")
        return figures
    on_lead("settings", lambda: _keep_settings(this, settings))
    checkpoints = StepCheckpoints(this.training / "checkpoints")
    try:
        state, figures = _run(config, this, encoder, source, state, checkpoints)
    finally:
        checkpoints.close()
    facts = {"settings": settings, "round": config.round}
    inputs = inputs | {"start": open_artifact(work.round(START).checkpoint, "checkpoint")}
    on_lead("checkpoint", lambda: publish_checkpoint(this.checkpoint, state, encoder, facts, inputs, config))
    on_lead("cleaning", lambda: shutil.rmtree(this.training / "checkpoints", ignore_errors=True))
    logging.info("Published %s", this.checkpoint)
    return figures


def _run(
    config: Config, this: Round, encoder: EncoderConfig, source: BatchSource, state: TrainState,
    checkpoints: StepCheckpoints | None,
) -> tuple[TrainState, dict[str, float]]:  # fmt: skip
    """Steps to the end of the round; without `checkpoints`, on one batch again and again."""
    mesh, layouts, compute = make_mesh(), source.plan(), _compute(config, encoder)
    logging.info("Batch layout: %s on %d device(s)", layouts[0], mesh.size)
    state = jax.device_put(jax.device_get(state), replicated(mesh))  # several hosts only take it from the host
    if checkpoints and checkpoints.latest_step is not None:
        logging.info("Going on from step %d.", checkpoints.latest_step)
        state = checkpoints.restore(checkpoints.latest_step, state)
    first, last = int(state.step), (config.round + 1) * config.steps_per_round

    def batch_at(n: int) -> Batch:
        return put_batch(source.batch_at(n, layouts), mesh)

    if checkpoints:
        batches = prefetch(batch_at, first, last)
    else:
        batches = zip(range(first, last), itertools.repeat(batch_at(first)))
    rows_in_use = len(state.params["encoder"]["embeddings"]["word"]["embedding"])
    trained, machine = dataclasses.replace(encoder, vocab_size=rows_in_use), config.machine
    peak = device_peak(jax.devices()[0].device_kind, compute.dtype, machine.peak_tflops, machine.peak_gbytes)
    speed = Speed(trained, layouts[0], config.batch_size, compute.dtype, peak, mesh.size)
    folder = _watched_in(this, synthetic=checkpoints is None)
    metrics = Metrics(folder, first, last, speed, machine.log_every, lambda: checkpoints and checkpoints.latest_step)
    profile = Profile(folder / "profile", first + PROFILE_AFTER, machine.profile)
    saving = [SaveEvery(checkpoints, config.save_every, metrics)] if checkpoints else []
    with contextlib.closing(profile), contextlib.closing(metrics):
        state = fit(_step(config, encoder, source, compute), state, batches, [metrics, *saving, profile])
    return state, metrics.totals


def _watched_in(this: Round, synthetic: bool) -> pathlib.Path:
    """Where metrics go: those of the round are the lead's, on real data."""
    if synthetic:
        return this.training / "synthetic"
    return this.training if is_lead() else this.training / f"process-{jax.process_index()}"


def _step(config: Config, encoder: EncoderConfig, source: BatchSource, compute: Compute) -> Step:
    optimizer, flags = _optimizer_config(config), config.loss
    loss = LossConfig(flags.bidirectional, flags.multi_positive, flags.log_q_correction, flags.loss_tile_rows)
    arguments = flags.logit_scale, source.chunk_tokens, make_mesh(), config.seed, loss, compute
    step = make_step(encoder, make_optimizer(optimizer), learning_rate_schedule(optimizer), *arguments)
    return keep_step(step, Workdir(config.workdir).compiled / "steps", (encoder, optimizer, *arguments))


def _check(config: Config) -> None:
    if not START <= config.round < config.rounds:
        raise MelError(
            f"--round={config.round} is not between -1 and {config.rounds - 1}, the last of --rounds={config.rounds}."
        )
    values = _flat(config)
    for name in ("steps_per_round", "batch_size", "logit_scale", "save_every"):
        if not values[name] > 0:
            raise MelError(f"--{name}={values[name]} must be above 0.")
    for name in ("train_mentions", "loss_tile_rows", "log_every", "profile", "peak_tflops", "peak_gbytes"):
        if values[name] < 0:
            raise MelError(f"--{name}={values[name]} must not be below 0.")
    if not 0 <= config.optimizer.dropout < 1:
        raise MelError(f"--dropout={config.optimizer.dropout} is not a probability below 1.")


def _flat(config: Config) -> dict[str, Any]:
    """The values of all flags by name."""
    groups = {name: value for name, value in dataclasses.asdict(config).items() if isinstance(value, dict)}
    return {name: value for name, value in dataclasses.asdict(config).items() if name not in groups} | {
        name: value for group in groups.values() for name, value in group.items()
    }


def _settings(config: Config) -> dict[str, Any]:
    """What decides the result of a round; what only decides where, when and how it is watched is left out."""
    values = _flat(config)
    if config.round == START:
        return {name: values[name] for name in OF_START}
    watching = {field.name for field in dataclasses.fields(Machine)} - {"precision"}
    left_out = {"workdir", "round", "save_every"} | watching
    return {name: value for name, value in values.items() if name not in left_out}


def _keep_settings(this: Round, settings: dict[str, Any]) -> None:
    """Notes what a round is being trained with, so that nobody goes on with something else."""
    path = this.training / "settings.json"
    settings = json.loads(json.dumps(settings))
    if not path.exists():
        this.training.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(settings, indent=1) + "\n")
    elif different := [name for name, value in json.loads(path.read_text()).items() if settings.get(name) != value]:
        raise MelError(
            f"{this.training} was begun with another --{different[0]} than {settings.get(different[0])}: "
            "use another --workdir, or delete it to begin the round again."
        )


def _optimizer_config(config: Config) -> OptimizerConfig:
    total_steps, flags = config.rounds * config.steps_per_round, config.optimizer
    return OptimizerConfig(flags.learning_rate, flags.warmup_steps, total_steps, flags.schedule, flags.weight_decay)


def _new_state(config: Config, params: Any) -> TrainState:
    optimizer = make_optimizer(_optimizer_config(config))
    return create_state(params, optimizer, config.loss.logit_scale, config.loss.learn_logit_scale)


def _compute(config: Config, encoder: EncoderConfig) -> Compute:
    return choose_compute(config.machine.precision, encoder.hidden_size // encoder.num_heads)


def _inputs(work: Workdir, number: int) -> dict[str, Artifact]:
    kb = open_artifact(work.kb, "kb")
    tokens = {
        "entity_tokens": open_artifact(work.entity_tokens, "tokens", {"kb": kb}),
        "mention_tokens": open_artifact(work.mention_tokens("train"), "tokens", {"kb": kb}),
    }
    negatives = work.round(number).negatives
    if number > START and exists(negatives):
        return tokens | {"negatives": open_artifact(negatives, "negatives", tokens)}
    if number > 0:
        raise MelError(f"There are no negatives at {negatives}: run mel-mine-negatives --round={number - 1} first.")
    return tokens


def _batch_source(config: Config, work: Workdir, inputs: dict[str, Artifact], vocabulary: Vocabulary) -> BatchSource:
    caches = [(inputs[name], work.cache(inputs[name])) for name in TOKENS]
    on_lead("cache", lambda: [open_rows(*cache) for cache in caches] and None)
    entities, mentions = (open_rows(*cache) for cache in caches)
    negatives = open_negatives(inputs["negatives"].path, inputs["mention_tokens"]) if "negatives" in inputs else None
    languages = inputs["mention_tokens"].facts["languages"]
    chosen_n = usable_mentions(mentions, languages, config.train_languages, config.train_mentions, config.seed)
    return BatchSource(
        mentions, entities, negatives, config.batch_size, config.seed, tokens_at_once(), jax.device_count(),
        vocabulary.compact_id_V, config.loss.log_q_correction, chosen_n,
    )  # fmt: skip


def console() -> None:
    launch(main, Config)


if __name__ == "__main__":
    console()
