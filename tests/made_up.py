"""Made-up rows of built-in tasks, in the columns of the public data sets, and a tiny base model like T5."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from weft.config.task import TaskSpec
from weft.tasks import template

HELD_OUT = 1000  # rows that `from_train` takes of the train file


def row_of(spec: TaskSpec, split: str, number: int) -> dict[str, object]:
    """One row; no text comes twice, in any task or split."""
    words = f"{spec.name} {split} {number}"
    columns = {name: f"{name} of {words}." for name in template.names(spec.source)}
    if spec.labels:
        values = list(spec.labels)
        value = values[number % len(values)]
        label: object = int(value) if value.isdigit() and spec.format != "plain" else value
        return {**columns, **_other_columns(spec, words, number), template.names(spec.target)[0]: label}
    return {**columns, **_other_columns(spec, words, number)}


def _other_columns(spec: TaskSpec, words: str, number: int) -> dict[str, object]:
    """Columns that a format makes fields of."""
    answer = f"answer {number % 7}"
    if spec.format == "stsb":
        return {"label": number % 26 / 5}
    if spec.format == "multirc":
        return {"idx": {"paragraph": number // 4, "question": number // 2, "answer": number}}
    if spec.format == "record":
        return {"entities": [answer, "other"], "answers": [answer], "passage": f"{words} has {answer}."}
    if spec.format == "wsc":
        spans = {"span1_text": "Ann", "span1_index": 0, "span2_text": "she", "span2_index": 3}
        return {"text": f"Ann said that she is {words}.", **spans}
    if spec.format == "web_nlg":
        sets = {"mtriple_set": [[f"{words} | is | {answer}"]]}
        return {"modified_triple_sets": sets, "lex": {"text": [f"It is {answer}."], "comment": ["good"]}}
    if spec.format == "qa":
        return {"answers": {"text": [answer], "answer_start": [0]}, "context": f"{words} has {answer}."}
    if spec.format == "e2e":
        return {"human_reference": f"It is {answer}."}
    return {}


def write_rows(specs: list[TaskSpec], folder: Path) -> None:
    """Parquet files of all tasks, where their specs look for them."""
    for spec in specs:
        for split, name in spec.files.items():
            count = 100 + HELD_OUT * (split == "train" and spec.holdout == "from_train")
            rows = [row_of(spec, split, number) for number in range(count)]
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_pylist(rows), folder / name)


def tiny_t5(folder: Path) -> None:
    """A randomly initialised T5 with a tokenizer that can write any text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(["sentence1 of the sentence2 question answer"], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.1}
    ids = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    with torch.random.fork_rng():
        torch.manual_seed(1)
        T5ForConditionalGeneration(T5Config(vocab_size=320, **sizes, **ids)).save_pretrained(folder)
