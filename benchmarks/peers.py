"""What a user would pick today: PEFT's prompt tuning, under the Hugging Face Trainer or in a plain loop.

Complete, and with every fair advantage: dynamic padding, one prompt module (`num_transformer_submodules=1`;
the default of 2 also prefixes the decoder), float32, stock attention, no checkpointing; answers written with
a cache, in batches of texts of like length, for as many tokens as the longest answer has.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import (
    MultitaskPromptTuningConfig,
    PeftModel,
    PromptTuningConfig,
    PromptTuningInit,
    TaskType,
    get_peft_model,
)
from peft.tuners.multitask_prompt_tuning import MultitaskPromptTuningInit
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    GenerationConfig,
    PrinterCallback,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)

from weft.data.batch import IGNORE, Encoded, Tokens
from weft.prompts.bank import PromptBank

Inputs = dict[str, Tensor]
Collate = Callable[[Sequence[Encoded]], Inputs]
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}  # share of a loss; weft's format, PEFT has float32


def multitask(folder: Path, bank: PromptBank) -> PeftModel:
    """PEFT's multitask prompt tuning of an encoder-decoder, its prompts set to weft's."""
    tasks, length, rank = bank.u.shape
    config = MultitaskPromptTuningConfig(
        task_type=TaskType.SEQ_2_SEQ_LM,
        num_virtual_tokens=length,
        num_tasks=tasks,
        num_ranks=rank,
        num_transformer_submodules=1,
        prompt_tuning_init=MultitaskPromptTuningInit.RANDOM,
    )
    model = get_peft_model(AutoModelForSeq2SeqLM.from_pretrained(folder), config)
    prompt = model.prompt_encoder["default"]
    with torch.no_grad():
        prompt.embedding.weight.copy_(bank.shared)
        prompt.prefix_task_cols.copy_(bank.u)
        prompt.prefix_task_rows.copy_(bank.v)
    return model


def prompt_tuning(folder: Path, prompt: Tensor) -> PeftModel:
    """PEFT's prompt tuning of a causal model, `[prompt][text][answer]`, its prompt `[P, D]` set to weft's."""
    model = sampled_prompt_tuning(folder, len(prompt))
    set_prompt(model, prompt)
    return model


def sampled_prompt_tuning(folder: Path, length: int) -> PeftModel:
    """The same with a prompt of embeddings that PEFT draws from the vocabulary, its better start."""
    config = PromptTuningConfig(
        task_type=TaskType.CAUSAL_LM,
        num_virtual_tokens=length,
        prompt_tuning_init=PromptTuningInit.SAMPLE_VOCAB,
        num_transformer_submodules=1,
    )
    return get_peft_model(AutoModelForCausalLM.from_pretrained(folder), config)


@torch.no_grad()
def set_prompt(model: PeftModel, prompt: Tensor) -> None:
    """Put a prompt `[P, D]` into a prompt-tuned model, as loading another adapter would."""
    model.prompt_encoder["default"].embedding.weight.copy_(prompt)


def pad(rows: Sequence[Tokens], value: int, *, left: bool = False) -> Tensor:
    """Rows as one tensor, as long as the longest."""
    side = "left" if left else "right"
    return torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(row) for row in rows], batch_first=True, padding_value=value, padding_side=side
    )


def seq2seq_inputs(pad_id: int) -> Collate:
    """Text to the encoder, answer as labels, both padded to the batch's longest; one task."""

    def collate(rows: Sequence[Encoded]) -> Inputs:
        return {
            "input_ids": pad([row.source for row in rows], pad_id),
            "attention_mask": pad([(1,) * len(row.source) for row in rows], 0),
            "labels": pad([row.target for row in rows], IGNORE),
            "task_ids": torch.zeros(len(rows), dtype=torch.long),
        }

    return collate


def causal_inputs(pad_id: int) -> Collate:
    """`[text][answer]` padded on the right, loss on the answer alone."""

    def collate(rows: Sequence[Encoded]) -> Inputs:
        whole = [(*row.source, *row.target) for row in rows]
        return {
            "input_ids": pad(whole, pad_id),
            "attention_mask": pad([(1,) * len(row) for row in whole], 0),
            "labels": pad([(*(IGNORE,) * len(row.source), *row.target) for row in rows], IGNORE),
        }

    return collate


def no_dropout(model: PeftModel) -> PeftModel:
    """The same model with every dropout of the frozen part at 0, still in training mode."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    return model


def train(model: PeftModel, batches: Sequence[Inputs], rate: float = 0.05) -> float:
    """Steps without a Trainer around them: forward, backward, clipping, AdamW; gives the first loss."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=1e-5)
    model.train()
    losses = []
    for batch in batches:
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
    return losses[0]


@torch.no_grad()
def loss_of(model: PeftModel, batch: Inputs) -> float:
    """Loss of one batch without dropout."""
    model.eval()
    return float(model(**batch).loss)


def difference(ours: float, theirs: float, dtype: torch.dtype) -> float:
    """How far apart the losses of both sides are on the same rows (nats).

    Args:
        ours: weft's.
        theirs: PEFT's, in float32.
        dtype: number format of weft's frozen weights.

    Raises:
        AssertionError: where they do not train the same thing.
    """
    apart = abs(ours - theirs)
    assert apart <= TOLERANCE[dtype] * abs(theirs), f"PEFT's loss is {theirs}, and weft's {ours} ({dtype})"
    return apart


def trainer(
    model: PeftModel,
    rows: Sequence[Encoded],
    collate: Collate,
    *,
    steps: int,
    batch_size: int,
    rate: float,
    folder: Path,
) -> Seq2SeqTrainer:
    """The Hugging Face Trainer, with nothing on that costs time beside training."""
    arguments = Seq2SeqTrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=batch_size,
        learning_rate=rate,
        weight_decay=1e-5,
        warmup_steps=round(0.1 * steps),
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
    )

    def collator(features: list[dict[str, Encoded]]) -> Inputs:
        return collate([one["row"] for one in features])

    data: Any = [{"row": row} for row in rows]
    made = Seq2SeqTrainer(model=model, args=arguments, train_dataset=data, data_collator=collator)
    made.remove_callback(PrinterCallback)
    return made


def answer(
    model: PeftModel,
    tokenizer: Any,
    sources: Sequence[Tokens],
    *,
    max_tokens: int,
    batch_size: int = 64,
    by_length: bool = True,
    choices: Sequence[Tokens] | None = None,
) -> list[Tokens]:
    """Greedy answers of texts, cut at the end token.

    Args:
        model: with the prompt of the task.
        tokenizer: for the ids of padding and end.
        sources: texts as tokens.
        max_tokens: of an answer.
        batch_size: texts at once.
        by_length: batches of texts of like length; else in the order given.
        choices: let only these be written, each with its end token; none: all that the model can write.
    """
    model.eval()
    order = sorted(range(len(sources)), key=lambda i: len(sources[i])) if by_length else range(len(sources))
    found: dict[int, Tokens] = {}
    for start in range(0, len(sources), batch_size):
        part = list(order)[start : start + batch_size]
        rows = _written(model, tokenizer, [sources[i] for i in part], max_tokens, choices)
        found.update(zip(part, rows, strict=True))
    return [found[i] for i in range(len(sources))]


@torch.no_grad()
def _written(
    model: PeftModel,
    tokenizer: Any,
    sources: Sequence[Tokens],
    max_tokens: int,
    choices: Sequence[Tokens] | None,
) -> list[Tokens]:
    """Answers of one batch."""
    causal, end = model.peft_config["default"].task_type == TaskType.CAUSAL_LM, tokenizer.eos_token_id
    ids = pad(sources, tokenizer.pad_token_id, left=causal)
    begun = ids.shape[1] if causal else 1
    config = GenerationConfig(
        max_new_tokens=max_tokens,
        do_sample=False,
        use_cache=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=end,
        decoder_start_token_id=None if causal else model.config.decoder_start_token_id,
    )
    more: dict[str, Any] = {} if causal else {"task_ids": torch.zeros(len(ids), dtype=torch.long)}
    if choices is not None:
        more["prefix_allowed_tokens_fn"] = _only(choices, end, begun)
    mask = pad([(1,) * len(source) for source in sources], 0, left=causal)
    written = model.generate(input_ids=ids, attention_mask=mask, generation_config=config, **more)
    rows = written[:, begun:].tolist()
    return [tuple(row[: row.index(end)] if end in row else row) for row in rows]


def _only(choices: Sequence[Tokens], end: int, begun: int) -> Callable[[int, Tensor], list[int]]:
    """For `generate(prefix_allowed_tokens_fn=...)`: what may follow when only choices may be written.

    Args:
        choices: answers as tokens, each with its end token.
        end: the end token.
        begun: how many ids stand before the answer.
    """

    def allowed(row: int, ids: Tensor) -> list[int]:
        written = tuple(ids[begun:].tolist())
        longer = [choice for choice in choices if len(choice) > len(written)]
        following = {one[len(written)] for one in longer if one[: len(written)] == written}
        return sorted(following) or [end]

    return allowed
