import dataclasses
import inspect
import shutil

import numpy as np
import pytest

from mel.artifacts import START, Workdir, exists, open_artifact, read_manifest
from mel.bin import evaluate, mine_negatives, prepare_data, run_rounds, train
from mel.corpora.kb import KnowledgeBase
from mel.corpora.mentions import surface_forms
from mel.encoder.embed import Encoder
from mel.retrieval import chunks
from mel.shards.datasets import open_rows
from mel.shards.negatives import open_negatives
from mel.systems.system import SystemConfig
from mel.types import MelError
from mel.verification import verify
from tests.bin.test_evaluate import pretend_trained
from tests.configs import config_of
from tests.crash import is_killed_at


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
    rows_NK = open_negatives(work.round(0).negatives, tokens).of(np.arange(len(mentions)))
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
    drawn = kb.entities_E[open_negatives(work.round(0).negatives, tokens).rows_nK[:, 0]].tolist()
    homonyms = [linked[form] & in_kb - {gold} for form, gold in zip(forms, mentions.entities_N.tolist())]
    assert sum(map(bool, homonyms)) > len(forms) / 2
    assert all(qid in others for qid, others in zip(drawn, homonyms) if others)


def test_what_cannot_be_drawn_is_refused_before_anything_is_embedded(prepared, monkeypatch):
    monkeypatch.setattr(mine_negatives, "Trained", None)  # not even opened
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
    first, second = (open_negatives(work.round(number).negatives, tokens).rows_nK for number in (0, 1))
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
        np.testing.assert_array_equal(one["twins"].gold_rows_Q, mentions.entity_rows_N[one["mentions_Q"]])


FEW = {"encoder": "random:1x8x2", "steps_per_round": 3, "batch_size": 8, "rounds": 3}
MINING = {"round": START, "index": "exact", "negatives_per_mention": 2, "pool": 5}


@pytest.fixture
def begun(prepared, tmp_path):
    """Makes a working directory of its own, with the encoder before training."""

    def begun(name="run", **otherwise):
        work = Workdir(tmp_path / name)
        work.path.mkdir()
        for each in ("kb", "alias_table", "mentions", "tokens"):
            if (prepared.path / each).exists():
                (work.path / each).symlink_to(prepared.path / each)
        train.main(train.Config(str(work.path), round=START, **FEW | otherwise))
        return work

    return begun


def mined(work, **otherwise):
    mine_negatives.main(mine_negatives.Config(str(work.path), **MINING | otherwise))
    return work.round(otherwise.get("round", START) + 1).negatives


def training_rows(work):
    tokens = open_artifact(work.mention_tokens("train"), "tokens")
    return tokens, open_rows(tokens, work.cache(tokens))


def test_what_the_next_round_trains_on_is_mined_as_if_all_were(begun, monkeypatch):
    """Byte for byte, and not one mention more is embedded."""
    embedded = []
    monkeypatch.setattr(chunks, "MENTIONS_A_CHUNK", 10)
    embed = Encoder.embed

    def counted(self, rows, what="", out_ND=None):
        embedded.append((what, len(rows)))
        return embed(self, rows, what, out_ND)

    monkeypatch.setattr(Encoder, "embed", counted)
    few, everything = begun("few"), begun("everything", steps_per_round=10**6)
    tokens, mentions = training_rows(few)
    usable = np.count_nonzero(mentions.entity_rows_N >= 0)
    some = open_negatives(mined(few), tokens)
    assert [count for what, count in embedded if not what] == [10, 10, 4] and len(some) == 24 < usable
    whole = open_negatives(mined(everything), tokens)
    assert len(whole) == usable
    assert some.rows_nK.tobytes() == whole.of(some.mentions_n).tobytes()


@pytest.mark.parametrize("number, chosen", [(1, {}), (0, {"train_languages": ("ru",)}), (0, {"train_mentions": 20})])
def test_the_mined_mentions_are_those_of_the_round(begun, number, chosen):
    work = begun(**chosen)
    config = train.Config(str(work.path), **FEW | chosen)
    for each in range(number):
        train.main(dataclasses.replace(config, round=each))
    tokens, mentions = training_rows(work)
    negatives = open_negatives(mined(work, round=number - 1), tokens)
    languages = {tokens.facts["languages"][place] for place in mentions.languages_N[negatives.mentions_n]}
    assert languages == set(chosen.get("train_languages", ("en", "ru")))
    assert len(negatives) == min(24, chosen.get("train_mentions", 24))
    if number:
        train.main(dataclasses.replace(config, round=number))  # finds all that it asks for


def test_mining_that_was_ended_goes_on_and_publishes_the_same_bytes(begun, monkeypatch):
    monkeypatch.setattr(chunks, "MENTIONS_A_CHUNK", 10)
    undisturbed, work = begun("undisturbed"), begun("run")
    mine, calls = mine_negatives.mining.mine, []

    def ended(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return mine(*arguments)

    monkeypatch.setattr(mine_negatives.mining, "mine", ended)
    with pytest.raises(KeyboardInterrupt):
        mined(work)
    assert not exists(work.round(0).negatives) and exists(work.round(0).mining / "00000")
    assert not [finding for finding in verify(work.path) if finding.amiss]
    path = mined(work)
    assert len(calls) == 4  # the first and the one that ended, then the two that were not done
    assert not work.round(0).mining.exists()
    monkeypatch.setattr(mine_negatives.mining, "mine", mine)
    wanted = mined(undisturbed)
    for name in ("negatives.npy", "mentions.npy"):
        assert (path / name).read_bytes() == (wanted / name).read_bytes()
    assert read_manifest(path, "").digest == read_manifest(wanted, "").digest


@pytest.mark.parametrize(
    "flag, value", [("batch_size", 4), ("steps_per_round", 5), ("train_mentions", 99), ("train_languages", ("en",))]
)
def test_training_otherwise_than_mining_was_told_is_refused(begun, flag, value):
    work = begun()
    mined(work)
    with pytest.raises(MelError, match=f"rounds/start/checkpoint was made with --{flag}=.*, not .*: use another"):
        train.main(train.Config(str(work.path), **FEW | {flag: value}))


def test_negatives_that_a_step_would_look_for_in_vain_are_refused_before_the_first(begun):
    work = begun()
    shutil.copytree(mined(begun("other", seed=1)), work.round(0).negatives)
    with pytest.raises(
        MelError, match=r"has none for \d+ of the 24 mentions .* run mel-mine-negatives --round=-1 again"
    ):
        train.main(train.Config(str(work.path), **FEW))
    assert not exists(work.round(0).checkpoint)
    shutil.rmtree(work.round(0).negatives)
    mined(work)
    train.main(train.Config(str(work.path), **FEW))


def test_embeddings_of_earlier_rounds_are_removed_unless_they_are_kept(begun):
    work = begun()
    mined(work)
    pretend_trained(work, 0)
    mined(work, round=0, keep_embeddings=True)
    assert [exists(work.round(number).entity_embeddings) for number in (START, 0)] == [True, True]
    mined(work, round=0)  # the negatives are there already
    assert [exists(work.round(number).entity_embeddings) for number in (START, 0)] == [False, True]
    state = {finding.path: finding for finding in verify(work.path)}
    assert not any(finding.amiss for finding in state.values())
    assert state["rounds/start/embeddings/entities"].removed and not state["rounds/0/embeddings/entities"].removed
    assert "embeddings: rounds/start/embeddings/entities" in state["rounds/0/negatives"].made_from


def test_indexes_of_earlier_rounds_are_removed_too(begun):
    work = begun()
    mined(work, index="scann")
    pretend_trained(work, 0)
    assert exists(work.round(START).index)
    mined(work, round=0, index="scann")
    assert [exists(work.round(number).index) for number in (START, 0)] == [False, True]
    assert not any(finding.amiss for finding in verify(work.path))


def test_what_was_removed_is_made_again_for_whom_needs_it_and_a_report_needs_nothing(begun, monkeypatch):
    work = begun()
    asked = evaluate.Config(str(work.path), name="start", system=SystemConfig(round=START), split="train", limit=9)
    evaluate.main(asked)
    before = read_manifest(work.report("start"), "").digest
    mined(work)
    pretend_trained(work, 0)
    mined(work, round=0)
    assert not exists(work.round(START).entity_embeddings)
    with monkeypatch.context() as nothing:
        for name in ("open_checkpoint", "publish_or_open"):
            nothing.setattr(f"mel.systems.trained.{name}", None)
        evaluate.main(asked)
    shutil.rmtree(work.report("start"))
    evaluate.main(asked)
    assert exists(work.round(START).entity_embeddings)
    assert read_manifest(work.report("start"), "").digest == before


def test_scann_tells_how_much_of_what_is_nearest_to_the_mined_mentions_it_finds(begun):
    work = begun()
    facts = read_manifest(mined(work, index="scann", rows_a_shard=30), "").facts
    rows = open_artifact(work.entity_tokens, "tokens").facts["rows"]
    assert facts["index_recall"] == {
        "entities": {"queries": 24, "kind": "mined mentions", "depth": min(rows, 64), "recall": 1.0}
    }
    index = open_artifact(work.round(START).index, "index").facts
    assert len(index["shards"]) == -(-rows // 30) and index["recall"]["kind"] == "training mentions"
    assert index["recall"]["depth"] == min(rows, 100)
    exact = begun("exact")
    assert "index_recall" not in read_manifest(mined(exact), "").facts
    assert open_negatives(mined(work, index="scann"), training_rows(work)[0]).rows_nK.tobytes() == (
        open_negatives(mined(exact), training_rows(exact)[0]).rows_nK.tobytes()
    )
    with pytest.raises(MelError, match="--rows_a_shard=-1 must not be below 0"):
        mined(begun("refused"), rows_a_shard=-1)


def test_mining_killed_between_two_shards_goes_on_after_the_first(begun):
    work, sized = begun(), {"index": "scann", "rows_a_shard": 30}
    flags = [f"--{name}={value}" for name, value in (MINING | sized | {"workdir": work.path}).items()]
    assert is_killed_at("os.mkdir", "index_shards/.draft-00001", "mine_negatives", flags)
    shards = work.round(START).path / "index_shards"
    assert exists(shards / "00000") and not exists(work.round(START).index)
    first = (shards / "00000" / "scann" / "00000" / "dataset.npy").stat()
    facts = read_manifest(mined(work, **sized), "").facts
    index = work.round(START).index
    assert (index / "scann" / "00000" / "dataset.npy").stat().st_ino == first.st_ino  # it was not built again
    assert facts["index_recall"]["entities"]["recall"] == 1 and not shards.exists()
    assert not [finding for finding in verify(work.path) if finding.amiss]
