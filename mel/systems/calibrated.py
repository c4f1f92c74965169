"""How far the answers of an encoder with the alias table can be trusted: the weight of the prior, and a calibration."""

from __future__ import annotations

from typing import Any

import numpy as np

from mel.encoder.embed import Encoder
from mel.evaluation.calibration import calibrate
from mel.evaluation.evaluation_set import EvaluationSet
from mel.evaluation.evidence import Evidence
from mel.evaluation.fusion import fuse
from mel.evaluation.ranking import Ranking
from mel.systems.fusion import fuse_cross_fitted
from mel.systems.system import FITTED


def calibrate_fused(
    encoder: Encoder, evidence: Evidence, mentions: EvaluationSet, fusion_weight: float
) -> tuple[float, dict[str, Any]]:
    """Answers mentions as a linker will, without their lemmas, which no text has.

    Args:
      encoder: embeds them.
      evidence: what is known of the entities.
      mentions: to answer.
      fusion_weight: of the prior; `FITTED` fits it, and answers no mention with a weight that saw it.

    Returns:
      the weight that all mentions together ask for, 0 where there is no prior, and the calibration of the answers,
      which states "mentions" and "fusion_weight" too.

    Raises:
      MelError: a weight or a calibration cannot be fitted on so few documents.
    """
    ranking, weight = _answers(encoder, evidence, mentions, fusion_weight)
    calibration = calibrate(ranking, mentions.gold_Q, mentions.clusters, evidence.kb)
    return weight, {"mentions": len(mentions), "fusion_weight": weight} | calibration


def _answers(
    encoder: Encoder, evidence: Evidence, mentions: EvaluationSet, fusion_weight: float
) -> tuple[Ranking, float]:
    queries_QD = encoder.embed(mentions.rows, "mentions")
    ranking = evidence.ranking(queries_QD, "mentions")
    if evidence.table is None:
        return ranking, 0.0
    lookups = [(form, language, "") for form, language, _ in mentions.lookups]
    pool = evidence.pool(queries_QD, ranking, lookups, "mentions")
    if fusion_weight == FITTED:
        ranking, tuned = fuse_cross_fitted(pool, mentions.gold_Q, mentions.clusters)
        return ranking, tuned["fusion_weight"]
    return fuse(pool, np.full(len(mentions), fusion_weight)), fusion_weight
