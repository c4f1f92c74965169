import inspect
import shutil

import numpy as np
import pytest

from mel.artifacts import START, Workdir, open_artifact
from mel.bin import mine_negatives, prepare_data, run_rounds, train
from mel.corpora.kb import KnowledgeBase
from mel.corpora.mentions import surface_forms
from mel.shards.datasets import open_rows
from mel.shards.negatives import open_negatives
from mel.types import MelError
from tests.bin.test_evaluate import pretend_trained
from tests.configs import config_of


@pytest.fixture(scope="module")
def prepared(tiny_world, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("prepared")
    config = config_of(
            prepare_data.Config,
        workdir=str(workdir), damuel=str(tiny_world / "damuel"), languages=("en", "ru"),
        tokenizer=str(tiny_world / "tokenizer"), mention_tokens=16, entity_tokens=16, workers=1,
    )  # fmt: skip
    prepare_data.main(config)
    return Workdir(workdir)


@pytest.mark.parametrize("negatives", ["random", "by_frequency", "same_surface"])
def test_drawn_negatives_are_published_once(prepared, negatives):
    work = Workdir(prepared.path / negatives)
    work.path.mkdir()
    for name in ("kb", "mentions", "tokens"):
        (work.path / name).symlink_to(prepared.path / name)
    config = mine_negatives.Config(str(work.path), round=-1, negatives=negatives, negatives_per_mention=2)
    mine_negatives.main(config)
    tokens = open_artifact(work.mention_tokens("train"), "tokens")
    mentions = open_rows(tokens, work.cache(tokens))
    entities_E = np.load(work.kb / "entities.npy")
    rows_NK = open_negatives(work.round(0).negatives, tokens)
    assert rows_NK.shape == (len(mentions), 2)
    assert np.all(entities_E[rows_NK] != mentions.entities_N[:, None])
    mine_negatives.main(config)
    assert (work.path / "cost.jsonl").read_text().count("mine round -1") == 1


def test_same_surface_negatives_are_homonyms(prepared):
    """Each surface form finds its own line: that of another mention would be wrong nearly everywhere."""
    work = prepared
    mine_negatives.main(mine_negatives.Config(str(work.path), -1, "same_surface", negatives_per_mention=1))
    tokens = open_artifact(work.mention_tokens("train"), "tokens")
    mentions = open_rows(tokens, work.cache(tokens))
    kb = KnowledgeBase.read(work.kb, open_artifact(work.kb, "kb").facts["languages"])
    forms = list(surface_forms(open_artifact(work.mentions("train"), "mentions")))
    linked: dict[str, set[int]] = {}
    for form, qid in zip(forms, mentions.entities_N.tolist(), strict=True):
        linked.setdefault(form, set()).add(qid)
    in_kb = set(kb.entities_E.tolist())
    drawn = kb.entities_E[open_negatives(work.round(0).negatives, tokens)[:, 0]].tolist()
    homonyms = [linked[form] & in_kb - {gold} for form, gold in zip(forms, mentions.entities_N.tolist())]
    assert sum(map(bool, homonyms)) > len(forms) / 2
    assert all(qid in others for qid, others in zip(drawn, homonyms) if others)


def test_what_cannot_be_drawn_is_refused_before_anything_is_embedded(prepared, monkeypatch):
    monkeypatch.setattr(mine_negatives, "open_checkpoint", None)  # not even opened
    kb = open_artifact(prepared.kb, "kb")
    distinct = len(set(KnowledgeBase.read(kb.path, kb.facts["languages"]).entities_E.tolist()))

    def refuse(message, **flags):
        with pytest.raises(MelError, match=message):
            mine_negatives.main(mine_negatives.Config(str(prepared.path), round=4, **flags))
        with pytest.raises(MelError, match=message):
            mining = mine_negatives.Config(str(prepared.path), **flags)
            run_rounds.main(run_rounds.Config(str(prepared.path), "random", mine=mining))

    refuse(
        f"The KB has {distinct} entities, and --negatives_per_mention={distinct} .* ask for {distinct - 1} at most",
        negatives_per_mention=distinct, pool=distinct,
    )  # fmt: skip
    assert not prepared.report("alias_table").exists()
    with pytest.raises(MelError, match="--seed=-1 must not be below 0"):
        mine_negatives.main(mine_negatives.Config(str(prepared.path), seed=-1))
    with pytest.raises(MelError, match="--seed=-1 must not be below 0"):
        train.Config(str(prepared.path), seed=-1)


@pytest.mark.parametrize("negatives", ["random", "by_frequency", "same_surface"])
def test_each_round_draws_others(prepared, tmp_path, negatives):
    work = Workdir(tmp_path)
    for name in ("kb", "mentions", "tokens"):
        (tmp_path / name).symlink_to(prepared.path / name)
    for number in (START, 0):
        mine_negatives.main(mine_negatives.Config(str(tmp_path), number, negatives, negatives_per_mention=2))
    tokens = open_artifact(work.mention_tokens("train"), "tokens")
    first, second = (open_negatives(work.round(number).negatives, tokens) for number in (0, 1))
    assert np.mean(first == second) < 0.7


def test_each_round_mines_by_its_number_and_past_what_reads_alike(untrained, tmp_path, monkeypatch):
    work, mine, asked = Workdir(shutil.copytree(untrained.path, tmp_path / "run")), mine_negatives.mining.mine, []
    pretend_trained(work, 0)

    def told(*arguments, **options):
        asked.append(inspect.signature(mine).bind(*arguments, **options).arguments)
        return mine(*arguments, **options)

    monkeypatch.setattr(mine_negatives.mining, "mine", told)
    for number in (START, 0):
        mine_negatives.main(mine_negatives.Config(str(work.path), number, "hard", "exact", 2, pool=5, seed=3))
    assert [(one["seed"], one["stream"], one["pool"]) for one in asked] == [(3, 0, 5), (3, 1, 5)]
    entities, mentions = (
        open_rows(tokens, work.cache(tokens))
        for tokens in (open_artifact(path, "tokens") for path in (work.entity_tokens, work.mention_tokens("train")))
    )
    for one in asked:
        np.testing.assert_array_equal(one["twins"].first_E, entities.rows.twins())
        np.testing.assert_array_equal(one["twins"].gold_rows_Q, mentions.entity_rows_N)
