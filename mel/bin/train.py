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

from mel.bin.launch import launch
from mel.training.rounds import RoundConfig, train_round

Config = RoundConfig


def main(config: Config) -> None:
    """Trains round `config.round`, going on from where an earlier call was stopped."""
    train_round(config)


def console() -> None:
    launch(main, Config)


if __name__ == "__main__":
    console()
