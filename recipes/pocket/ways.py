"""Three ways to a small encoder-decoder, each as a model class of transformers and its tokenizer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BertLMHeadModel,
    BertModel,
    EncoderDecoderConfig,
    EncoderDecoderModel,
    T5Config,
    T5ForConditionalGeneration,
)

from weft.config.model import BaseConfig
from weft.models.base_folder import resolve
from weft.models.bundled import minilm_folder

DECODER_LAYERS = 2


@dataclass(frozen=True)
class Way:
    """A model before training.

    Attributes:
        model: of transformers.
        tokenizer: whose ids the shards hold.
        teacher: a frozen encoder of the same tokens whose states are to be matched; none: nothing is.
        begin, end: special tokens around a source; -1: none.
    """

    model: Any
    tokenizer: Any
    teacher: nn.Module | None
    begin: int
    end: int


def borrowed() -> Way:
    """The encoder of all-MiniLM-L6-v2, and a decoder begun from its last layers, with its embeddings."""
    encoder = BertModel.from_pretrained(
        minilm_folder()
    )  # its pooler is not used, and transformers expects it in files
    tokenizer = AutoTokenizer.from_pretrained(minilm_folder(), bos_token="[CLS]", eos_token="[SEP]")
    config = BertConfig(
        **{**encoder.config.to_dict(), "num_hidden_layers": DECODER_LAYERS},
    )
    config.is_decoder = config.add_cross_attention = True
    decoder = BertLMHeadModel(config)
    _begin_decoder(encoder, decoder)
    both = EncoderDecoderConfig.from_encoder_decoder_configs(encoder.config, config)
    both.decoder_start_token_id, both.pad_token_id = tokenizer.cls_token_id, tokenizer.pad_token_id
    both.eos_token_id, both.vocab_size = tokenizer.sep_token_id, config.vocab_size
    model = EncoderDecoderModel(config=both)  # so that every layer has the config that both halves share
    model.encoder.load_state_dict(encoder.state_dict())
    model.decoder.load_state_dict(decoder.state_dict())
    tie(model)
    return Way(model, tokenizer, None, tokenizer.cls_token_id, tokenizer.sep_token_id)


def tie(model: EncoderDecoderModel) -> None:
    """One table of embeddings for encoder, decoder and output, which is not trained."""
    table = model.encoder.embeddings.word_embeddings
    model.decoder.bert.embeddings.word_embeddings = table
    model.decoder.cls.predictions.decoder.weight = table.weight
    table.weight.requires_grad_(False)


def _begin_decoder(encoder: BertModel, decoder: BertLMHeadModel) -> None:
    """Begin as a reader of the mean of the encoder's states, which its gradients reach at once.

    Its layers are the encoder's last ones, but cross-attention looks everywhere alike (no queries) and hands
    on what it sees; self-attention and feed-forward add nothing yet; the output's transform is the identity.
    """
    decoder.bert.embeddings.load_state_dict(encoder.embeddings.state_dict())
    last = encoder.encoder.layer[-DECODER_LAYERS:]
    for mine, other in zip(decoder.bert.encoder.layer, last, strict=True):
        mine.load_state_dict(other.state_dict(), strict=False)
        mine.crossattention.load_state_dict(other.attention.state_dict())
        cross = mine.crossattention
        nn.init.eye_(cross.self.value.weight)
        nn.init.eye_(cross.output.dense.weight)
        nothing = (cross.self.query, mine.attention.output.dense, mine.output.dense)
        for layer in nothing:
            nn.init.zeros_(layer.weight)
        for layer in (*nothing, cross.self.value, cross.output.dense):
            nn.init.zeros_(layer.bias)
    nn.init.eye_(decoder.cls.predictions.transform.dense.weight)


def scratch(width: int = 256, encoder: int = 6, decoder: int = 3) -> Way:
    """T5 1.1 of its own, with MiniLM's tokens, whose embeddings begin from their principal components."""
    teacher = BertModel.from_pretrained(minilm_folder(), add_pooling_layer=False)
    tokenizer = AutoTokenizer.from_pretrained(minilm_folder(), bos_token="[CLS]", eos_token="[SEP]")
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=width,
        d_kv=64,
        d_ff=4 * width,
        num_heads=width // 64,
        num_layers=encoder,
        num_decoder_layers=decoder,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.sep_token_id,
        decoder_start_token_id=tokenizer.cls_token_id,
    )
    model = T5ForConditionalGeneration(config)
    model.shared.weight.data.copy_(principal(teacher.embeddings.word_embeddings.weight.data, width))
    return Way(model, tokenizer, teacher, tokenizer.cls_token_id, tokenizer.sep_token_id)


def principal(table: Tensor, width: int) -> Tensor:
    """A table of embeddings in its first principal directions, with entries of size one."""
    centred = table - table.mean(0)
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    found = centred @ directions[:width].T
    return found / found.std()


def cut(encoder: tuple[int, ...] = (0, 1, 14, 29), decoder: tuple[int, ...] = (28, 29)) -> Way:
    """Layers of SmolLM2 as a T5 with its own norms, attention and feed-forward; positions are new."""
    folder = resolve(BaseConfig(model="smollm2")).path
    lm, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    whole = lm.config
    config = T5Config(
        vocab_size=whole.vocab_size,
        d_model=whole.hidden_size,
        d_kv=whole.hidden_size // whole.num_attention_heads,
        d_ff=whole.intermediate_size,
        num_heads=whole.num_attention_heads,
        num_layers=len(encoder),
        num_decoder_layers=len(decoder),
        feed_forward_proj="gated-silu",
        layer_norm_epsilon=whole.rms_norm_eps,
        dropout_rate=0.0,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.bos_token_id,
    )
    model = T5ForConditionalGeneration(config)
    model.shared.weight.data.copy_(lm.model.embed_tokens.weight.data)
    for stack, chosen in ((model.encoder, encoder), (model.decoder, decoder)):
        for block, i in zip(stack.block, chosen, strict=True):
            _cut_layer(lm.model.layers[i], block, whole)
        stack.final_layer_norm.weight.data.copy_(lm.model.norm.weight.data)
    model.decoder.final_layer_norm.weight.data.mul_(
        whole.hidden_size**0.5
    )  # T5 divides by it before the output
    model.shared.weight.requires_grad_(False)
    return Way(model, tokenizer, None, tokenizer.bos_token_id, tokenizer.eos_token_id)


def _cut_layer(layer: Any, block: Any, whole: Any) -> None:
    """Copy a Llama layer into a T5 block, whose attention divides by nothing and shares no heads."""
    heads, groups = whole.num_attention_heads, whole.num_key_value_heads
    size = whole.hidden_size // heads
    attention, mine = layer.self_attn, block.layer[0].SelfAttention
    mine.q.weight.data.copy_(attention.q_proj.weight.data * size**-0.5)
    for name in "kv":
        few = getattr(attention, f"{name}_proj").weight.data.view(groups, size, -1)
        every = few.repeat_interleave(heads // groups, 0).reshape(heads * size, -1)
        getattr(mine, name).weight.data.copy_(every)
    mine.o.weight.data.copy_(attention.o_proj.weight.data)
    block.layer[0].layer_norm.weight.data.copy_(layer.input_layernorm.weight.data)
    forward = block.layer[-1]
    forward.layer_norm.weight.data.copy_(layer.post_attention_layernorm.weight.data)
    forward.DenseReluDense.wi_0.weight.data.copy_(layer.mlp.gate_proj.weight.data)
    forward.DenseReluDense.wi_1.weight.data.copy_(layer.mlp.up_proj.weight.data)
    forward.DenseReluDense.wo.weight.data.copy_(layer.mlp.down_proj.weight.data)
    if len(block.layer) == 3:
        block.layer[1].layer_norm.weight.data.copy_(layer.input_layernorm.weight.data)
        block.layer[1].EncDecAttention.load_state_dict(
            {name: value for name, value in mine.state_dict().items() if "relative" not in name}
        )
        block.layer[1].EncDecAttention.o.weight.data.mul_(0.1)


WAYS: dict[str, Callable[[], Way]] = {"borrowed": borrowed, "scratch": scratch, "cut": cut}
