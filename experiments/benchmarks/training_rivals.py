"""The rivals in training, as sides of `harness.child`: sentence-transformers, and a plain PyTorch loop.

Both start from the same weights as mel, without dropout, see the same mentions, golds and negatives in
the same batches, and clip gradients to the same norm. On an NVIDIA GPU that torch sees they run there,
with bfloat16 autocast and fused AdamW.
"""

from __future__ import annotations

import contextlib
import pathlib
import tempfile
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from experiments.benchmarks import rivals, workload
from experiments.benchmarks.harness import child
from experiments.benchmarks.workload import LEARNING_RATE, LOGIT_SCALE, LONGEST, Spec, Work
from mel.training.prefetch import prefetch

CLIP_NORM = 1.0
BATCHES_OF_TEXTS = 16  # the rival's data set; it goes round
SWEPT_LOSSES = ("plain", "rows 64", "rows 128", "rows 256", "tokens 4096")
WHOLE = 0  # chunk_tokens of a loop that keeps the graph of the whole batch
SWEPT_CHUNKS = (WHOLE, 2048, 8192)
TRIED = 3  # steps of each of what is swept: of one, a busy moment would choose


def sentence_side(turn: Callable[..., None], spec: Spec, folder: str, loss: str) -> None:
    """A step of SentenceTransformerTrainer a turn, from one `on_step_end` to the next.

    That includes tokenising, which it does at every step. The texts are made for it: every token is
    one whole word of a WordPiece vocabulary, so that it trains on the ids that mel does; real words of
    several pieces would cost it more. Nothing is evaluated, saved or reported.

    Args:
      loss: "plain", or the cached loss with mini-batches of so many "rows" or "tokens".
    """
    import torch
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments, losses
    from sentence_transformers.base.sampler import DefaultBatchSampler
    from transformers import TrainerCallback

    gpu = torch.cuda.is_available()

    class Turns(TrainerCallback):
        def on_step_end(self, arguments, state, *_, **__):
            if state.global_step % spec.steps_a_turn == 0:
                if gpu:
                    torch.cuda.synchronize()
                turn()

    work = workload.make_work(spec)
    _save_tokenizer(work, pathlib.Path(folder))
    columns = _columns(work, spec)
    model = rivals.sentence_transformer(pathlib.Path(folder), LONGEST)
    _check_ids(work, spec, model, columns)
    kind, _, size = loss.partition(" ")
    options = (
        {} if kind == "plain" else {{"rows": "mini_batch_size", "tokens": "mini_batch_num_tokens"}[kind]: int(size)}
    )
    make_loss = losses.CachedMultipleNegativesRankingLoss if options else losses.MultipleNegativesRankingLoss
    with tempfile.TemporaryDirectory() as output:
        arguments = SentenceTransformerTrainingArguments(
            output, per_device_train_batch_size=spec.batch_size, num_train_epochs=1_000, learning_rate=LEARNING_RATE,
            weight_decay=0.0, lr_scheduler_type="constant", max_grad_norm=CLIP_NORM, optim="adamw_torch_fused",
            use_cpu=not gpu, bf16=gpu, dataloader_num_workers=4 if gpu else 0, dataloader_pin_memory=gpu,
            dataloader_persistent_workers=gpu,  # each new one imports all of it again
            eval_strategy="no", save_strategy="no", logging_strategy="no", report_to="none", disable_tqdm=True,
            batch_sampler=lambda data, **more: DefaultBatchSampler(torch.utils.data.SequentialSampler(data), **more),
        )  # fmt: skip
        SentenceTransformerTrainer(
            model=model, args=arguments, train_dataset=Dataset.from_dict(columns), callbacks=[Turns()],
            loss=make_loss(model, scale=LOGIT_SCALE, **options),
        ).train()  # fmt: skip


def _columns(work: Work, spec: Spec) -> dict[str, list[str]]:
    """The texts of the first batches: anchor, positive, negative_1, ..."""
    source = workload.source_of(work, spec, LONGEST)
    mention_rows_B = np.concatenate([source.mention_rows(n) for n in range(BATCHES_OF_TEXTS)])
    names = ["positive", *(f"negative_{k + 1}" for k in range(spec.negatives))]
    entity_columns = zip(names, workload.text_rows(work, mention_rows_B).T, strict=True)
    return {
        "anchor": _texts(work.mentions.rows, mention_rows_B),
        **{name: _texts(work.entities.rows, rows_B) for name, rows_B in entity_columns},
    }


def _texts(rows, row_ids_B: np.ndarray) -> list[str]:
    """Each token between the first and the last of a row as a word."""
    return [" ".join(f"w{token}" for token in row[1:-1]) for row in rivals.pieces(rows.take(row_ids_B))]


def _save_tokenizer(work: Work, folder: pathlib.Path) -> None:
    """A WordPiece tokenizer of one whole word a token, to stand beside the weights."""
    import tokenizers
    import transformers

    first, last = (int(work.mentions.rows.tokens_T[place]) for place in (0, work.mentions.rows.offsets_N1[1] - 1))
    specials = {0: "[PAD]", 1: "[UNK]", first: "[CLS]", last: "[SEP]"}
    vocabulary = {specials.get(i, f"w{i}"): i for i in range(work.encoder.vocab_size)}
    words = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    words.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", first), ("[SEP]", last)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        model_max_length=LONGEST,
    ).save_pretrained(folder)  # fmt: skip


def _check_ids(work: Work, spec: Spec, model, columns: Mapping[str, Sequence[str]]) -> None:
    """Raises AssertionError where the rival would train on other ids than mel."""
    mention_rows_B = workload.source_of(work, spec, LONGEST).mention_rows(0)
    ids_BL = model.preprocess(list(columns["anchor"][: spec.batch_size]))["input_ids"].numpy()
    np.testing.assert_array_equal(ids_BL, work.mentions.rows.gather(mention_rows_B, ids_BL.shape[1]))


def pytorch_side(turn: Callable[..., None], spec: Spec, folder: str, chunk_tokens: int, compiled: bool) -> None:
    """A step of a hand-written PyTorch loop a turn, on mel's own batches.

    The texts are sorted by length into mel's width groups, each distinct entity stands once, batches are
    made on a thread. Gradients are those of one graph or of chunks encoded twice (Gao et al., "Scaling deep
    contrastive learning batch size under memory limited setup", 2021).

    Args:
      chunk_tokens: about how many tokens are encoded at once; WHOLE keeps the graph of them all.
      compiled: whether torch.compile is used: of the whole encoder, on a GPU of each layer, which takes a tenth of
        the time to compile. It wants fixed shapes, so the padding texts that fill up a group are encoded too, which
        are left out otherwise.
    """
    import torch
    from transformers import BertModel

    torch.set_num_threads(rivals.THREADS)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = BertModel.from_pretrained(folder, attn_implementation="sdpa").to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=0.0, fused=True)
    torch._dynamo.config.recompile_limit = 64  # a graph a width, with and without gradients; by default 8, then eager
    run = torch.compile(model, dynamic=False) if compiled and device.type == "cpu" else model
    if compiled and run is model:
        for layer in model.encoder.layer:
            layer.compile(dynamic=False)
    source = workload.source_of(workload.make_work(spec), spec, chunk_tokens or 2048)
    layouts = source.plan(most_widths=spec.widths)

    def encode(tokens_NL):
        # A padding text looks at its first token, because a softmax over nothing is not a number.
        mask_NL = tokens_NL != 0
        mask_NL[:, 0] = True
        half = torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else contextlib.nullcontext()
        with half:
            pooled_ND = run(input_ids=tokens_NL, attention_mask=mask_NL.long()).pooler_output
        return torch.nn.functional.normalize(pooled_ND.float(), dim=1)

    for n, batch in prefetch(lambda n: source.batch_at(n, layouts), 0, 1_000_000):
        chunks, place_N = _chunks(batch.tokens, chunk_tokens, keep_padding=compiled)
        chunks = [torch.from_numpy(chunk).to(device).long() for chunk in chunks]
        rows = [torch.from_numpy(place_N[rows]).to(device) for rows in (batch.mention_row_B, batch.candidate_row_C)]
        loss = _backward(encode, chunks, lambda embeddings_ND: _loss(embeddings_ND, rows, batch), chunk_tokens == WHOLE)
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if (n + 1) % spec.steps_a_turn == 0:
            turn(float(loss))


def _chunks(tokens: Sequence[np.ndarray], chunk_tokens: int, keep_padding: bool) -> tuple[list[np.ndarray], np.ndarray]:
    """All texts in chunks, and where each text of the groups went."""
    kept = [np.ones(len(group), bool) if keep_padding else group[:, 0] != 0 for group in tokens]
    place_N = np.cumsum(np.concatenate(kept)) - 1
    chunks = []
    for group, rows in zip(tokens, kept):
        group = group[rows]
        size = max(1, chunk_tokens // group.shape[1]) if chunk_tokens else max(1, len(group))
        chunks += [group[start : start + size] for start in range(0, len(group), size)]
    return chunks, place_N


def _backward(encode, chunks, loss_of, whole: bool):
    """Fills the gradients and returns the loss."""
    import torch

    if whole:
        loss = loss_of(torch.cat([encode(chunk) for chunk in chunks]))
        loss.backward()
        return loss.detach()
    with torch.no_grad():
        embeddings_ND = torch.cat([encode(chunk) for chunk in chunks])
    embeddings_ND.requires_grad_()
    loss = loss_of(embeddings_ND)
    loss.backward()
    for chunk, gradient_nD in zip(chunks, embeddings_ND.grad.split([len(chunk) for chunk in chunks])):
        torch.sum(encode(chunk) * gradient_nD).backward()
    return loss.detach()


def _loss(embeddings_ND, rows, batch):
    """mel's loss in torch."""
    import torch

    gold_column_B, left_out_BC = (
        torch.from_numpy(array).to(embeddings_ND.device) for array in (batch.gold_column_B, workload.left_out(batch))
    )
    mention_BD, candidate_CD = (embeddings_ND[places] for places in rows)
    logits_BC = (LOGIT_SCALE * mention_BD @ candidate_CD.T).masked_fill(left_out_BC, -torch.inf)
    return torch.nn.functional.cross_entropy(logits_BC, gold_column_B.long())


def fastest(sides: Mapping[str, tuple]) -> tuple[str, dict[str, float]]:
    """The side with the shortest step, of `TRIED` after its first one, each side tried alone; and the seconds of all.

    Args:
      sides: by name, the arguments of `harness.child`.
    """
    seconds = {}
    for name, side in sides.items():
        with child(*side) as run:
            run()
            seconds[name] = min(run().seconds for _ in range(TRIED))
    return min(seconds, key=seconds.get), seconds
