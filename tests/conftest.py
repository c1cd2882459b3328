"""Tiny models of every family with random weights, a tiny tokenizer, and shape checks on all of weft."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from jaxtyping import install_import_hook

install_import_hook("weft", "shape_checks.check")  # before weft is imported anywhere

from tokenizers import Tokenizer, models, pre_tokenizers, processors  # noqa: E402
from transformers import (  # noqa: E402
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    EncoderDecoderConfig,
    EncoderDecoderModel,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MPNetConfig,
    MPNetModel,
    MT5Config,
    MT5ForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5ForConditionalGeneration,
    T5GemmaConfig,
    T5GemmaForConditionalGeneration,
)
from transformers.utils import logging  # noqa: E402

from weft.models import Backbone, CausalBackbone, EncoderBackbone, Seq2SeqBackbone  # noqa: E402
from weft.models.text_cache import TextCache  # noqa: E402

torch.set_num_threads(1)
logging.set_verbosity_error()

PAD, END, UNKNOWN = 0, 1, 2
TEXT = """
yes no maybe true false good bad fine positive negative same other up down red blue green one two three
the a an is was are were it this that of in on to and or not very film book meal song story city river dog
cat man woman child runs sits eats likes hates sees what who where why question answer text
"""
WORDS = TEXT.split()
VOCABULARY = 72  # rows of the embedding matrix; the tokenizer uses fewer, as real ones do
SEQ2SEQ, FURTHER_SEQ2SEQ = ("t5", "bert"), ("mt5", "bart", "t5gemma")
CAUSAL, FURTHER_CAUSAL = ("llama", "qwen2", "gpt2"), ("gemma3", "qwen3", "mistral")
LANGUAGE_MODELS = (*SEQ2SEQ, *CAUSAL)
CAUSAL_IDS = [f"{name}-{place}" for name in CAUSAL for place in ("prefix", "suffix")]
BACKBONE_IDS = [*SEQ2SEQ, *CAUSAL_IDS]
FURTHER_CAUSAL_IDS = [f"{name}-{place}" for name in FURTHER_CAUSAL for place in ("prefix", "suffix")]
FURTHER_IDS = [*FURTHER_SEQ2SEQ, *FURTHER_CAUSAL_IDS]


def with_further(names: list[str], further: list[str]) -> list[object]:
    """Parameters of a test: models of every run of the tests, and those of other families, which are slow."""
    return [*names, *(pytest.param(name, marks=pytest.mark.slow) for name in further)]


ENCODERS = ("bert-reader", "distilbert", "mpnet", "roberta")  # a "bert" alone is an encoder-decoder of two
SUFFIX_IDS = [name for name in CAUSAL_IDS if name.endswith("suffix")]
EVERY_BACKBONE = with_further(BACKBONE_IDS, FURTHER_IDS)
EVERY_CAUSAL = with_further(CAUSAL_IDS, FURTHER_CAUSAL_IDS)
EVERY_SUFFIX = with_further(SUFFIX_IDS, [name for name in FURTHER_CAUSAL_IDS if name.endswith("suffix")])


def build_lm(name: str, seed: int = 3) -> torch.nn.Module:
    """A tiny model with seeded random weights, large enough that tokens and positions matter."""
    ids = {"pad_token_id": PAD, "eos_token_id": END, "bos_token_id": END}
    grouped = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "initializer_range": 0.2,
        "attention_dropout": 0.1,
        "tie_word_embeddings": False,
        **ids,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if name == "t5":
            sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 2}
            sizes |= {"dropout_rate": 0.1, "initializer_factor": 2.0}
            config = T5Config(vocab_size=VOCABULARY, decoder_start_token_id=PAD, **sizes, **ids)
            return T5ForConditionalGeneration(config).eval()
        if name == "bert":
            return _two_berts(grouped)
        if name == "llama":
            return LlamaForCausalLM(LlamaConfig(**grouped)).eval()
        if name == "qwen2":
            return Qwen2ForCausalLM(Qwen2Config(**grouped)).eval()
        if name in FURTHER:
            return FURTHER[name](grouped).eval()
        sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "initializer_range": 0.2}
        return GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, **sizes, **ids)).eval()


def _gemma3(sizes: dict[str, object]) -> torch.nn.Module:
    """Two kinds of layers, of which one sees a window; its embedding layer multiplies by the width's root."""
    kinds = ["sliding_attention", "full_attention"]
    return Gemma3ForCausalLM(
        Gemma3TextConfig(**sizes, head_dim=8, layer_types=kinds, sliding_window=96, query_pre_attn_scalar=8)
    )


def _bart(sizes: dict[str, object]) -> torch.nn.Module:
    """Learned positions in both stacks, and embeddings that are multiplied."""
    both = {"layers": 2, "attention_heads": 4, "ffn_dim": 48}
    own = {f"{stack}_{name}": value for stack in ("encoder", "decoder") for name, value in both.items()}
    ids = {"pad_token_id": PAD, "eos_token_id": END, "bos_token_id": END, "decoder_start_token_id": UNKNOWN}
    config = BartConfig(
        vocab_size=VOCABULARY, d_model=32, max_position_embeddings=128, init_std=0.2, scale_embedding=True,
        forced_eos_token_id=None, **own, **ids,
    )  # fmt: skip
    return BartForConditionalGeneration(config)


def _t5gemma(sizes: dict[str, object]) -> torch.nn.Module:
    """Two Gemmas, of which one writes; logits are capped behind the output layer."""
    stack = {
        **sizes,
        "head_dim": 8,
        "query_pre_attn_scalar": 8,
        "sliding_window": 96,
        "bos_token_id": UNKNOWN,
    }
    del stack["tie_word_embeddings"]
    own = {"vocab_size": VOCABULARY, "dropout_rate": 0.1, "tie_word_embeddings": False}
    config = T5GemmaConfig(encoder=stack, decoder=stack, **own)
    return T5GemmaForConditionalGeneration(config)


def _mt5(sizes: dict[str, object]) -> torch.nn.Module:
    """A T5 with gated layers."""
    own = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 2}
    ids = {"pad_token_id": PAD, "eos_token_id": END, "decoder_start_token_id": PAD}
    return MT5ForConditionalGeneration(MT5Config(vocab_size=VOCABULARY, **own, **ids))


FURTHER: dict[str, Callable[[dict[str, object]], torch.nn.Module]] = {
    "gemma3": _gemma3,
    "qwen3": lambda sizes: Qwen3ForCausalLM(Qwen3Config(**sizes, head_dim=8)),
    "mistral": lambda sizes: MistralForCausalLM(MistralConfig(**sizes, sliding_window=96)),
    "bart": _bart,
    "t5gemma": _t5gemma,
    "mt5": _mt5,
}


def _two_berts(sizes: dict[str, object]) -> torch.nn.Module:
    """A BERT that reads and one that writes."""
    sizes = {**sizes, "tie_word_embeddings": True}
    encoder = BertConfig(**sizes)
    decoder = BertConfig(**sizes, is_decoder=True, add_cross_attention=True)
    config = EncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    config.decoder_start_token_id, config.pad_token_id = UNKNOWN, PAD  # a PAD would be masked as padding
    reader = BertModel(config.encoder, add_pooling_layer=False)  # one config for all its layers
    return EncoderDecoderModel(config, encoder=reader).eval()


def build_encoder(name: str, seed: int = 4) -> torch.nn.Module:
    """A tiny encoder without a decoder; 24 wide, 3 layers, positions for 40 tokens."""
    kinds = {
        "bert-reader": (BertConfig, BertModel),
        "distilbert": (DistilBertConfig, DistilBertModel),
        "mpnet": (MPNetConfig, MPNetModel),
        "roberta": (RobertaConfig, RobertaModel),
    }
    config, model = kinds[name]
    sizes = {"num_hidden_layers": 3, "num_attention_heads": 2, "hidden_size": 24, "intermediate_size": 32}
    if name == "distilbert":
        sizes = {"n_layers": 3, "n_heads": 2, "dim": 24, "hidden_dim": 32}
    positions = 40 + {"mpnet": 2, "roberta": PAD + 1}.get(name, 0)
    settings = {"vocab_size": VOCABULARY, "max_position_embeddings": positions, "initializer_range": 0.2}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return model(config(**settings, **sizes, pad_token_id=PAD)).eval()


def build_tokenizer(*, ends_texts: bool = False) -> PreTrainedTokenizerFast:
    """A tokenizer that knows some words and splits at spaces, however many; texts may end as T5's do."""
    special = {"<pad>": PAD, "</s>": END, "<unk>": UNKNOWN}
    vocabulary = {**special, **{word: len(special) + i for i, word in enumerate(WORDS)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if ends_texts:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="$A </s>", special_tokens=[("</s>", END)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


class ExactTexts(TextCache):
    """Texts as they were read, so that what is done with them can be compared to the last digits."""

    def _rounded(self, row: torch.Tensor) -> torch.Tensor:
        return row


def build_backbone(name: str, **kw: object) -> Backbone:
    """A fresh backbone from an id such as `t5` or `llama-suffix`, with weights of its own."""
    family, _, place = name.partition("-")
    lm = build_lm(family)
    if family in SEQ2SEQ or family in FURTHER_SEQ2SEQ:
        return Seq2SeqBackbone(lm, build_tokenizer(ends_texts=True), name=name)
    texts = ExactTexts(lm, 1 << 24)
    return CausalBackbone(lm, build_tokenizer(), suffix=place == "suffix", texts=texts, name=name, **kw)


def build_reader(name: str) -> EncoderBackbone:
    """A fresh encoder as a backbone; its texts end as BERT's do."""
    return EncoderBackbone(build_encoder(name), build_tokenizer(ends_texts=True), name=name)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """The tiny tokenizer of the causal models."""
    return build_tokenizer()


@pytest.fixture(scope="session")
def make_backbone() -> Callable[..., Backbone]:
    """Builds a fresh backbone, for tests that change weights or count what a cache does."""
    return build_backbone


@pytest.fixture(scope="session")
def backbones() -> dict[str, Backbone]:
    """Every backbone by its id; shared by all tests, which must leave them as they were."""
    return {name: build_backbone(name) for name in (*BACKBONE_IDS, *FURTHER_IDS)}


@pytest.fixture(params=EVERY_BACKBONE)
def backbone(request: pytest.FixtureRequest, backbones: dict[str, Backbone]) -> Backbone:
    """Each backbone in turn."""
    return backbones[request.param]


@pytest.fixture(params=EVERY_CAUSAL)
def causal(request: pytest.FixtureRequest, backbones: dict[str, Backbone]) -> CausalBackbone:
    """Each causal backbone in turn."""
    return backbones[request.param]


@pytest.fixture(params=EVERY_SUFFIX)
def suffix(request: pytest.FixtureRequest, backbones: dict[str, Backbone]) -> CausalBackbone:
    """Each backbone whose prompt stands after the text, in turn."""
    return backbones[request.param]


@pytest.fixture(scope="session")
def rows() -> SimpleNamespace:
    """Texts and targets of unlike length; every target ends with the end token."""
    draw = torch.Generator().manual_seed(5)

    def words(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, 3 + len(WORDS), (count,), generator=draw).tolist())

    sources = [words(count) for count in (3, 7, 1, 5)]
    targets = [(*words(count), END) for count in (1, 0, 3, 2)]
    return SimpleNamespace(sources=sources, targets=targets, task_ids=[2, 0, 1, 0])
