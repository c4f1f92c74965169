"""Training on several machines: one process a machine, joined by `jax.distributed`.

They share a file system. Every process makes the same batches and steps together with the others;
what is published is published by the lead, while the others wait.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import jax
from absl import logging

from mel.types import MelError

# What schedulers set; JAX reads the rest of SLURM's and Open MPI's variables itself.
_COORDINATOR, _COUNT, _PLACE = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
# How many tasks a job has, and what is set only in those of them that the scheduler started.
_SCHEDULERS = {"SLURM_NTASKS": "SLURM_STEP_NODELIST", "OMPI_COMM_WORLD_SIZE": "OMPI_COMM_WORLD_RANK"}
_STARTERS = {"SLURM_NTASKS": "srun", "OMPI_COMM_WORLD_SIZE": "mpirun"}


def join_hosts() -> None:
    """Joins the other processes where the environment names them; must come before any computation.

    The environment is JAX_COORDINATOR_ADDRESS with JAX_NUM_PROCESSES and JAX_PROCESS_ID, or a SLURM
    or Open MPI job of several tasks.

    Raises:
      MelError: the environment is incomplete, or the coordinator does not answer.
    """
    if jax.distributed.is_initialized():
        return
    named = _COORDINATOR in os.environ
    if not named and not _is_job_of_several():
        return
    try:
        if named and _COUNT in os.environ:
            jax.distributed.initialize(
                os.environ[_COORDINATOR], _whole(_COUNT), _whole(_PLACE), cluster_detection_method="deactivate"
            )
        else:
            jax.distributed.initialize()
    except (KeyError, ValueError, RuntimeError) as error:
        raise MelError(
            f"The processes of this job could not be joined ({error}): set {_COORDINATOR}, {_COUNT} and {_PLACE} "
            "in every process, or none of them to train on one machine."
        ) from error
    logging.info("Process %d of %d, %d devices in all", jax.process_index(), jax.process_count(), jax.device_count())


def _is_job_of_several() -> bool:
    """Whether a scheduler started this process as one of several.

    Raises:
      MelError: it gave the job several tasks, and did not start this process as one of them.
    """
    for count, inside in _SCHEDULERS.items():
        if count in os.environ and _whole(count) > 1:
            if inside not in os.environ:
                raise MelError(
                    f"{count} is {os.environ[count]}, but this process is none of these tasks ({inside} is not set): "
                    f"start it with {_STARTERS[count]}, or unset {count} to train on one machine."
                )
            return True
    return False


def _whole(name: str) -> int:
    """A variable of the environment that is a whole number.

    Raises:
      MelError: it is none.
    """
    try:
        return int(os.environ[name])
    except ValueError:
        raise MelError(
            f"{name} is {os.environ[name]!r}, which is no whole number: correct it, or unset it to train on "
            "one machine."
        ) from None


def is_lead() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


def on_lead(what: str, work: Callable[[], object]) -> None:
    """Does `work` in the lead alone, while the others wait for it."""
    if is_lead():
        work()
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(what)
