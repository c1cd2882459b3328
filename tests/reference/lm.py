"""What a language model gives for one row, by plain calls of transformers: no batch, no padding, no cache."""

import torch


def embed(lm, tokens):
    """Embeddings of some token ids, `[1, S, D]`."""
    return lm.get_input_embeddings()(torch.tensor([list(tokens)], dtype=torch.long))


def read_parts(lm, source, prompt, *, suffix=False):
    """What stands before the answer: prompt and text as embeddings, in their order."""
    text = embed(lm, source)
    parts = [text] if prompt is None else [prompt[None], text]
    return torch.cat(parts[::-1] if suffix else parts, 1)


def run(lm, source, prompt, target, *, suffix=False):
    """One pass that reads text, prompt and all but the last target token; with hidden states."""
    before = read_parts(lm, source, prompt, suffix=suffix)
    if lm.config.is_encoder_decoder:
        fed = torch.tensor([[start_of(lm), *target[:-1]]])
        return lm(inputs_embeds=before, decoder_input_ids=fed, use_cache=False, output_hidden_states=True)
    whole = torch.cat([before, embed(lm, target[:-1])], 1)
    return lm(inputs_embeds=whole, use_cache=False, output_hidden_states=True)


def target_logits(lm, source, prompt, target, *, suffix=False):
    """Logits that predict each target token, `[T, V]`."""
    return run(lm, source, prompt, target, suffix=suffix).logits[0, -len(target) :]


def next_logits(lm, source, prompt, written=(), *, suffix=False):
    """Logits of the token that follows what has been written, `[V]`."""
    return target_logits(lm, source, prompt, (*written, 0), suffix=suffix)[-1]


def generate(lm, source, prompt, max_tokens, *, suffix=False, end, pad, **settings):
    """Greedy answer of `transformers` itself, or that of other settings, cut before the end token."""
    before = read_parts(lm, source, prompt, suffix=suffix)
    ids = lm.generate(
        inputs_embeds=before,
        attention_mask=torch.ones(before.shape[:2], dtype=torch.long),
        max_new_tokens=max_tokens,
        do_sample=False,
        eos_token_id=end,
        pad_token_id=pad,
        **settings,
    )[0].tolist()
    ids = ids[1:] if lm.config.is_encoder_decoder else ids
    return tuple(ids[: ids.index(end)] if end in ids else ids)


def start_of(lm):
    """What a decoder reads first; of a T5Gemma, the token that begins its decoder's texts."""
    own = getattr(lm.config, "decoder_start_token_id", None)
    return lm.config.decoder.bos_token_id if own is None else own
