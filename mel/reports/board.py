"""R@k of each round in TensorBoard, beside the curves of its training."""

from __future__ import annotations

from mel.artifacts import Workdir
from mel.evaluation import recall
from mel.reports.report import open_report


def write_round(work: Workdir, number: int, step: int) -> None:
    """Adds the figures of a round's report to its TensorBoard.

    Args:
      work: where the report "round-<number>" is published.
      number: of the round.
      step: its last one.
    """
    from tensorboardX import SummaryWriter  # slow to import

    report = open_report(work.report(f"round-{number}"))
    with SummaryWriter(str(work.round(number).training / "tensorboard")) as board:
        for metric in recall.METRICS:
            board.add_scalar(f"evaluation/{metric.replace('@', '_at_')}", report["micro"][metric], step)
