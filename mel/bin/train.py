"""Trains one round and publishes its checkpoint.

Reads   tokens/entities, tokens/mentions/train, rounds/K/negatives (round 0 does without: in-batch
        negatives only) and, from round 1 on, the checkpoint of the round before.
Writes  rounds/K/checkpoint; rounds/K/training holds metrics.jsonl, TensorBoard and, until the round
        is done, a checkpoint every --save_every steps. The same command goes on from the last one,
        and ends with the same checkpoint, bit for bit, as if it had never been stopped.

--encoder is a local folder or hub id with BERT weights, or random:LAYERSxHIDDENxHEADS.

Example:
  mel-train --workdir=run --round=0 --encoder=setu4993/LEALLA-base --learning_rate=1e-4
"""

from __future__ import annotations

import dataclasses
import functools
import shutil
from typing import Literal

import jax
from absl import logging

from mel.artifacts import START, Artifact, Round, Workdir, exists, open_artifact, require_settings
from mel.bin.launch import REQUIRED, flag, launch
from mel.encoder.backend import keep_compiled, tokens_at_once
from mel.encoder.config import EncoderConfig
from mel.encoder.start import initial_encoder
from mel.retrieval.mining import open_negatives
from mel.shards.batches import BatchSource, chunk_rows
from mel.shards.datasets import open_rows
from mel.training.checkpoint import StepCheckpoints, open_checkpoint, publish_checkpoint
from mel.training.hooks import Metrics, SaveEvery
from mel.training.loop import fit
from mel.training.prefetch import prefetch
from mel.training.state import OptimizerConfig, create_state, learning_rate_schedule, make_optimizer
from mel.training.step import make_mesh, make_step, put_batch, replicated
from mel.types import MelError, TrainState


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
    learning_rate: float = flag(1e-4, "Peak learning rate of AdamW.")
    warmup_steps: int = flag(0, "Steps over which the learning rate rises, once at the beginning.")
    schedule: Literal["constant", "linear", "cosine"] = flag(
        "constant", "Learning rate after the warm-up, over all rounds."
    )
    weight_decay: float = flag(0.0, "Weight decay of AdamW, on matrices only.")
    logit_scale: float = flag(20.0, "What cosines are multiplied with; 20 is a temperature of 0.05.")
    learn_logit_scale: bool = flag(False, "Learn the logit scale, starting from --logit_scale.")
    dropout: float = flag(0.0, "Dropout in the encoder while training.")
    seed: int = flag(0, "Of random weights, of the order of the mentions and of dropout.")
    save_every: int = flag(500, "Steps from one checkpoint to the next.")


def main(config: Config) -> None:
    """Trains round `config.round`, going on from where an earlier call was stopped."""
    _check(config)
    work = Workdir(config.workdir)
    this = work.round(config.round)
    settings = _settings(config)
    if exists(this.checkpoint):
        require_settings(open_artifact(this.checkpoint, "checkpoint"), settings)
        logging.info("Round %d is trained already: %s", config.round, this.checkpoint)
        return
    keep_compiled(work.compiled)
    inputs = _inputs(work, config.round)
    optimizer_config = _optimizer_config(config)
    encoder, state = _state_before(config, work, make_optimizer(optimizer_config))
    if config.round > START:
        state = _train(config, this, encoder, optimizer_config, _batch_source(config, work, inputs), state)
    publish_checkpoint(this.checkpoint, state, encoder, {"settings": settings, "round": config.round}, inputs, config)
    shutil.rmtree(this.training / "checkpoints", ignore_errors=True)
    logging.info("Published %s", this.checkpoint)


def _train(
    config: Config, this: Round, encoder, optimizer_config: OptimizerConfig, source: BatchSource, state: TrainState
) -> TrainState:
    mesh = make_mesh()
    layouts = source.plan()
    logging.info("Batch layout: %s on %d %s device(s)", layouts[0], mesh.size, jax.default_backend())
    step = make_step(
        encoder, make_optimizer(optimizer_config), learning_rate_schedule(optimizer_config), config.logit_scale,
        functools.partial(chunk_rows, chunk_tokens=source.chunk_tokens), mesh, config.seed,
    )  # fmt: skip
    end = (config.round + 1) * config.steps_per_round
    checkpoints = StepCheckpoints(this.training / "checkpoints")
    if checkpoints.latest_step is not None:
        logging.info("Going on from step %d.", checkpoints.latest_step)
        state = checkpoints.restore(checkpoints.latest_step, state)
    start = int(state.step)
    state = jax.device_put(state, replicated(mesh))
    metrics = Metrics(this.training, start, end, config.batch_size, lambda: checkpoints.latest_step)
    try:
        batches = prefetch(lambda n: put_batch(source.batch_at(n, layouts), mesh), start, end)
        return fit(step, state, batches, [metrics, SaveEvery(checkpoints, config.save_every, metrics)])
    finally:
        metrics.close()
        checkpoints.close()


def _check(config: Config) -> None:
    if not START <= config.round < config.rounds:
        raise MelError(
            f"--round={config.round} is not between -1 and {config.rounds - 1}, the last of --rounds={config.rounds}."
        )
    for name in ("steps_per_round", "batch_size", "logit_scale", "save_every"):
        if not getattr(config, name) > 0:
            raise MelError(f"--{name}={getattr(config, name)} must be above 0.")
    if not 0 <= config.dropout < 1:
        raise MelError(f"--dropout={config.dropout} is not a probability below 1.")


def _settings(config: Config) -> dict:
    """What decides the result of a round; what only decides where and when is left out."""
    left_out = {"workdir", "round", "save_every"}
    return {name: value for name, value in dataclasses.asdict(config).items() if name not in left_out}


def _optimizer_config(config: Config) -> OptimizerConfig:
    return OptimizerConfig(
        config.learning_rate,
        config.warmup_steps,
        config.rounds * config.steps_per_round,
        config.schedule,
        config.weight_decay,
    )


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


def _state_before(config: Config, work: Workdir, optimizer) -> tuple[EncoderConfig, TrainState]:
    """The encoder, and the state that the round starts from."""
    previous = work.round(config.round - 1).checkpoint
    vocab_size = open_artifact(work.tokenizer, "tokenizer").facts["vocab_size"]
    if config.round > 0 or (config.round == 0 and exists(previous)):
        before = open_checkpoint(previous)
        require_settings(before.artifact, _settings(config))
        encoder = dataclasses.replace(before.encoder_config, dropout=config.dropout)
        like = create_state(before.params, optimizer, config.logit_scale, config.learn_logit_scale)
        return encoder, before.train_state(like)
    encoder, params = initial_encoder(config.encoder, vocab_size, config.seed)
    encoder = dataclasses.replace(encoder, dropout=config.dropout)
    return encoder, create_state(params, optimizer, config.logit_scale, config.learn_logit_scale)


def _batch_source(config: Config, work: Workdir, inputs: dict[str, Artifact]) -> BatchSource:
    entities, mentions = (
        open_rows(inputs[name], work.cache(inputs[name])) for name in ("entity_tokens", "mention_tokens")
    )
    negatives = open_negatives(inputs["negatives"].path, inputs["mention_tokens"]) if "negatives" in inputs else None
    return BatchSource(
        mentions, entities, negatives, config.batch_size, config.seed, tokens_at_once(), jax.device_count()
    )


def console() -> None:
    launch(main, Config)


if __name__ == "__main__":
    console()
