"""What a round was trained or begun with: it goes on with nothing else, but for what a user has reason to change."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from absl import logging

from mel.artifacts import START, Artifact, Round, Workdir, read_json, require_settings, write_text
from mel.types import MelError

if TYPE_CHECKING:
    from mel.training.rounds import RoundConfig


def require_trained_alike(checkpoint: Artifact, config: RoundConfig, is_last: bool) -> None:
    """Refuses a round that was trained otherwise than `config` says.

    A round before the last one may have had another learning rate: a loss that is not finite is answered by
    a lower one from some round on.

    Args:
      checkpoint: of round `config.round`.
      config: says how it would be trained now.
      is_last: whether it is the round that the others are trained for.

    Raises:
      MelError: another setting differs, or --rounds where the schedule spans all rounds.
    """
    wanted, made_with = _decisive(config), checkpoint.facts["settings"]
    if "rounds" in wanted and made_with["schedule"] == wanted["schedule"] and made_with["rounds"] != wanted["rounds"]:
        work = Workdir(config.workdir)
        made = [path for path in (work.path / "rounds", work.path / "reports") if path.exists()]
        raise MelError(
            f"{checkpoint.path} was made with --rounds={made_with['rounds']}, not {wanted['rounds']}: "
            f"--schedule={wanted['schedule']} spans all rounds, so their number is set once (--schedule=constant lets "
            f"it grow). Use another --workdir, or delete {' and '.join(map(str, made))} to train all rounds again."
        )
    if not is_last and config.round > START and made_with["learning_rate"] != wanted["learning_rate"]:
        rates = made_with["learning_rate"], wanted.pop("learning_rate")
        logging.warning("Round %d was trained with --learning_rate=%g; %g is for later ones.", config.round, *rates)
    require_settings(checkpoint, wanted)


def _decisive(config: RoundConfig) -> dict[str, Any]:
    """The settings that a round cannot go on without: the number of rounds is one where the schedule spans them."""
    left_out = ("rounds",) if config.optimizer.schedule == "constant" else ()
    return {name: value for name, value in config.settings.items() if name not in left_out}


def keep_settings(this: Round, config: RoundConfig) -> None:
    """Notes what a round is being trained with, so that nobody goes on with something else."""
    path = this.training / "settings.json"
    if not path.exists():
        this.training.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(config.settings, indent=1) + "\n")
        return
    begun = read_json(path, f"delete {this.training} to begin the round again")
    wanted = json.loads(json.dumps(_decisive(config)))
    if different := [name for name, value in wanted.items() if begun.get(name) != value]:
        raise MelError(
            f"{this.training} was begun with another --{different[0]} than {wanted[different[0]]}: "
            "use another --workdir, or delete it to begin the round again."
        )
