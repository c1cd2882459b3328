"""Backbones against plain calls of transformers, one row at a time without padding or cache."""

import copy

import numpy as np
import pytest
import torch
from reference import lm as plain
from reference import mpt as reference
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import AddedToken, PreTrainedTokenizerFast

from weft.config.model import BaseConfig
from weft.data.batch import IGNORE, Encoded, collate
from weft.errors import DataError
from weft.models import CausalBackbone, HiddenSpec, base_folder, control_tokens, load_backbone
from weft.models.choice_tree import ChoiceTree

P = 3
NEAR = {"rtol": 1e-4, "atol": 1e-4}
CHOICES = {
    "one token each": [(3, 1), (4, 1), (5, 1)],
    "shared first tokens": [(3, 9, 1), (3, 10, 1), (4, 1)],
    "all share the first token": [(3, 9, 1), (3, 10, 11, 1), (3, 10, 12, 1)],
    "one is the start of another": [(3, 1), (3, 9, 1), (3, 9, 10, 1)],
    "unlike lengths": [(3, 1), (4, 5, 6, 1), (7, 8, 1), (7, 9, 1)],
    "a single one": [(3, 4, 1)],
}
every_choice_set = pytest.mark.parametrize("choices", CHOICES.values(), ids=CHOICES.keys())


@pytest.fixture
def prompts(backbone):
    """A prompt for each of the four rows, of the size of embeddings."""
    return drawn_prompts(backbone)


def drawn_prompts(backbone, rows=4, seed=11):
    """Random prompts of the size of embeddings."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(rows, P, backbone.width, generator=draw) * backbone.embeddings.std()


def is_suffix(backbone):
    """Whether the prompt stands after the text."""
    return isinstance(backbone, CausalBackbone) and backbone.suffix


def is_causal(backbone):
    """Whether the model is decoder-only."""
    return isinstance(backbone, CausalBackbone)


def labels_of(targets):
    """Targets as labels."""
    return collate([Encoded((0,), target) for target in targets], [0] * len(targets)).labels


def forward(backbone, rows, prompts, hidden=None, picks=None):
    """Outputs of some rows in one batch, without gradient."""
    picks = range(len(rows.sources)) if picks is None else picks
    state = backbone.read([rows.sources[i] for i in picks])
    chosen = None if prompts is None else prompts[list(picks)]
    with torch.no_grad():
        return backbone(state, chosen, labels_of([rows.targets[i] for i in picks]), hidden)


def begin(backbone, rows, prompts, picks=None):
    """A context of some rows in one batch."""
    picks = range(len(rows.sources)) if picks is None else picks
    return backbone.begin(
        backbone.read([rows.sources[i] for i in picks]), None if prompts is None else prompts[list(picks)]
    )


def expected_run(backbone, rows, prompts, i):
    """Row i by a plain call, alone."""
    prompt = None if prompts is None else prompts[i]
    with torch.no_grad():
        return plain.run(backbone.lm, rows.sources[i], prompt, rows.targets[i], suffix=is_suffix(backbone))


def expected_answer(backbone, rows, prompts, i, max_tokens):
    """Row i's greedy answer by transformers' own generate, alone."""
    return plain.generate(
        backbone.lm,
        rows.sources[i],
        None if prompts is None else prompts[i],
        max_tokens,
        suffix=is_suffix(backbone),
        end=backbone.tokenizer.eos_token_id,
        pad=backbone.tokenizer.pad_token_id,
    )


def expected_scores(backbone, rows, prompts, choices):
    """Every row's scores by brute force: one plain call for each token of each choice."""

    def logits_of(i):
        def after(written):
            with torch.no_grad():
                source, prompt = rows.sources[i], prompts[i]
                logits = plain.next_logits(backbone.lm, source, prompt, written, suffix=is_suffix(backbone))
            return logits.double().numpy()

        return after

    return [
        [reference.constrained_log_prob(logits_of(i), choices, choice) for choice in choices]
        for i in range(len(rows.sources))
    ]


# forward


def test_no_prompt_is_the_plain_model(backbone, rows):
    """Without a prompt the logits are those of the model on token ids."""
    logits = forward(backbone, rows, None).logits
    for i, (source, target) in enumerate(zip(rows.sources, rows.targets, strict=True)):
        with torch.no_grad():
            if is_causal(backbone):
                expected = backbone.lm(input_ids=torch.tensor([source + target[:-1]])).logits[
                    0, -len(target) :
                ]
            else:
                expected = backbone.lm(
                    input_ids=torch.tensor([source]), labels=torch.tensor([target])
                ).logits[0]
        torch.testing.assert_close(logits[i, : len(target)], expected, **NEAR)


def test_embedded_words_as_a_prompt_are_those_words(backbone, rows):
    """A prompt made of words' embeddings gives what the same words give as token ids."""
    words = (7, 8, 9)
    prompts = backbone.embed(torch.tensor([words])).detach().repeat(4, 1, 1)
    logits = forward(backbone, rows, prompts).logits
    for i, (source, target) in enumerate(zip(rows.sources, rows.targets, strict=True)):
        text = source + words if is_suffix(backbone) else words + source
        with torch.no_grad():
            expected = plain.target_logits(backbone.lm, text, None, target)
        torch.testing.assert_close(logits[i, : len(target)], expected, **NEAR)


def test_forward_equals_a_plain_call(backbone, rows, prompts):
    """Rows of unlike length in one batch have the logits that each has alone, unpadded and uncached."""
    logits = forward(backbone, rows, prompts).logits
    for i, target in enumerate(rows.targets):
        expected = expected_run(backbone, rows, prompts, i).logits[0, -len(target) :]
        torch.testing.assert_close(logits[i, : len(target)], expected, **NEAR)


def test_prompts_matter(backbone, rows, prompts):
    """Another prompt gives other logits for every row, and so does none."""
    logits = forward(backbone, rows, prompts).logits[:, 0]
    for other in (forward(backbone, rows, prompts.flip(0)), forward(backbone, rows, None)):
        assert ((logits - other.logits[:, 0]).abs().amax(1) > 1e-2).all()


def test_order_of_prompt_vectors_matters(backbone, rows, prompts):
    """The prompt's vectors have places: reversed, they give other logits."""
    logits = forward(backbone, rows, prompts).logits[:, 0]
    reversed_logits = forward(backbone, rows, prompts.flip(1)).logits[:, 0]
    assert ((logits - reversed_logits).abs().amax(1) > 1e-3).all()


@pytest.mark.parametrize("layers", ["last", "all"])
def test_padding_changes_no_row(backbone, rows, prompts, layers):
    """A row's logits and counted hidden states are the same alone and among longer rows."""
    hidden = HiddenSpec(layers, prompt_positions=True)
    together = forward(backbone, rows, prompts, hidden)
    for i, target in enumerate(rows.targets):
        alone = forward(backbone, rows, prompts, hidden, picks=[i])
        torch.testing.assert_close(together.logits[i, : len(target)], alone.logits[0], **NEAR)
        for ours, theirs in zip(together.states, alone.states, strict=True):
            torch.testing.assert_close(ours.hidden[i][ours.mask[i]], theirs.hidden[0][theirs.mask[0]], **NEAR)


def test_order_of_rows_changes_no_row(backbone, rows, prompts):
    """Rows in another order give the same outputs in that order."""
    order = [2, 0, 3, 1]
    straight = forward(backbone, rows, prompts, HiddenSpec())
    mixed = forward(backbone, rows, prompts, HiddenSpec(), picks=order)
    torch.testing.assert_close(mixed.logits, straight.logits[order], **NEAR)
    for ours, theirs in zip(mixed.states, straight.states, strict=True):
        assert torch.equal(ours.mask, theirs.mask[order])
        mask = ours.mask
        torch.testing.assert_close(ours.hidden[mask], theirs.hidden[order][mask], **NEAR)


def test_texts_once_read_serve_several_prompts(backbone, rows, prompts):
    """One TextState under two prompts in turn gives what fresh ones give."""
    state, labels = backbone.read(rows.sources), labels_of(rows.targets)
    for chosen in (prompts, prompts.flip(0), prompts):
        with torch.no_grad():
            shared = backbone(state, chosen, labels).logits
        torch.testing.assert_close(shared, forward(backbone, rows, chosen).logits, **NEAR)


def test_only_the_prompt_has_a_gradient(backbone, rows, prompts):
    """The model's weights are frozen: a backward pass reaches the prompt of every row and nothing else."""
    prompts.requires_grad_()
    backbone(backbone.read(rows.sources), prompts, labels_of(rows.targets)).logits.sum().backward()
    assert (prompts.grad.abs().amax((1, 2)) > 0).all()
    assert all(weight.grad is None for weight in backbone.lm.parameters())


def test_a_text_may_stand_in_a_batch_twice(backbone, rows, prompts):
    """Equal texts under different prompts keep apart."""
    sources = [(5, 6), (7,), (5, 6), (5, 6, 7)]
    with torch.no_grad():
        logits = backbone(backbone.read(sources), prompts, labels_of(rows.targets)).logits
        for i, target in enumerate(rows.targets):
            expected = plain.target_logits(
                backbone.lm, sources[i], prompts[i], target, suffix=is_suffix(backbone)
            )
            torch.testing.assert_close(logits[i, : len(target)], expected, **NEAR)


def test_half_precision_serves_single_precision_prompts(make_backbone, backbone, rows, prompts):
    """With bfloat16 weights logits are much the same, scores sum to one, and gradients are float32."""
    half, keep = make_backbone(backbone.name), labels_of(rows.targets) != IGNORE
    half.lm.to(torch.bfloat16)
    found, expected = (forward(one, rows, prompts).logits[keep].float() for one in (half, backbone))
    assert (torch.cosine_similarity(found, expected) > 0.9).all()
    scores = half.score(begin(half, rows, prompts), CHOICES["unlike lengths"])
    np.testing.assert_allclose(scores.exp().sum(1).numpy(), 1, rtol=1e-5)
    assert len(half.generate(begin(half, rows, prompts), 3)) == 4
    prompts.requires_grad_()
    half(half.read(rows.sources), prompts, labels_of(rows.targets)).logits.float().sum().backward()
    assert prompts.grad.dtype == torch.float32
    assert torch.isfinite(prompts.grad).all()


# hidden states


def hidden_masks(backbone, rows, prompt_positions):
    """How many positions of each row count, for every hidden layer asked for: encoder, then decoder."""
    extra = P if prompt_positions else 0
    texts = [len(source) for source in rows.sources]
    targets = [len(target) for target in rows.targets]
    if not is_causal(backbone):
        return [[text + extra for text in texts], targets]
    if backbone.suffix:  # the last prompt position predicts the first target; texts are not computed here
        return [[max(extra, 1) + target - 1 for target in targets]]
    return [[extra + text + target - 1 for text, target in zip(texts, targets, strict=True)]]


@pytest.mark.parametrize("prompt_positions", [False, True])
def test_masks_count_texts_and_targets_and_prompts_on_demand(backbone, rows, prompts, prompt_positions):
    """Padding never counts; prompt positions count if asked for, and where they predict the first target."""
    states = forward(backbone, rows, prompts, HiddenSpec("last", prompt_positions)).states
    assert [state.mask.sum(1).tolist() for state in states] == hidden_masks(backbone, rows, prompt_positions)
    assert all(state.mask.shape == state.hidden.shape[:2] for state in states)


@pytest.mark.parametrize(
    ("layers", "picked"), [("last", [1]), ("all", [0, 1]), ((0, 1), [0, 1]), ((1,), [1])]
)
def test_hidden_states_are_those_of_a_plain_call(backbone, rows, prompts, layers, picked):
    """Counted states of the layers asked for are those of each row alone; layer 0 follows the embeddings."""
    states = forward(backbone, rows, prompts, HiddenSpec(layers, prompt_positions=True)).states
    assert len(states) == len(picked) * (1 if is_causal(backbone) else 2)
    for i in range(len(rows.sources)):
        run = expected_run(backbone, rows, prompts, i)
        if is_causal(backbone):
            expected = [run.hidden_states[1 + layer][0] for layer in picked]
        else:
            expected = [run.encoder_hidden_states[1 + layer][0] for layer in picked]
            expected += [run.decoder_hidden_states[1 + layer][0] for layer in picked]
        for state, whole in zip(states, expected, strict=True):
            found = state.hidden[i][state.mask[i]]
            torch.testing.assert_close(found, whole[-len(found) :], **NEAR)


def test_states_without_prompt_positions_are_a_part_of_those_with(backbone, rows, prompts):
    """Leaving prompt positions out changes which states count, and no state."""
    plain_states = forward(backbone, rows, prompts, HiddenSpec()).states
    for less, more in zip(
        plain_states, forward(backbone, rows, prompts, HiddenSpec("last", True)).states, strict=True
    ):
        assert torch.equal(less.hidden, more.hidden)
        assert (less.mask <= more.mask).all()


@pytest.mark.parametrize("layer", [2, -1])
def test_a_layer_that_does_not_exist_is_refused(backbone, rows, prompts, layer):
    """The message names the layer and those that exist."""
    with pytest.raises(ValueError, match=f"layer {layer} does not exist; the model has layers 0 to 1"):
        forward(backbone, rows, prompts, HiddenSpec((0, layer)))


def test_hidden_states_without_a_prompt_count_every_text_position(backbone, rows):
    """Without a prompt the text counts wherever the prompt would have stood."""
    states = forward(backbone, rows, None, HiddenSpec()).states
    texts, targets = ([len(part) for part in parts] for parts in (rows.sources, rows.targets))
    if is_causal(backbone):
        expected = [[text + target - 1 for text, target in zip(texts, targets, strict=True)]]
    else:
        expected = [texts, targets]
    assert [state.mask.sum(1).tolist() for state in states] == expected


# texts that are kept


def test_kept_texts_change_neither_logits_nor_gradients(suffix, rows, monkeypatch):
    """With keys and values from the cache, logits and the prompt's gradient are as without it."""
    found = []
    for frozen in (True, False):
        monkeypatch.setattr(suffix, "frozen", frozen)
        prompts = drawn_prompts(suffix).requires_grad_()
        labels = labels_of(rows.targets)
        logits = suffix(suffix.read(rows.sources), prompts, labels).logits
        weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0))
        (logits * weights)[labels != IGNORE].sum().backward()
        found.append((logits[labels != IGNORE].detach(), prompts.grad))
    torch.testing.assert_close(found[0], found[1], **NEAR)


def test_a_backbone_whose_weights_change_reads_texts_anew(suffix, rows, monkeypatch):
    """Once weights are no longer frozen, nothing comes from the cache."""
    monkeypatch.setattr(suffix, "frozen", False)
    before = suffix.texts.hits, suffix.texts.misses
    forward(suffix, rows, drawn_prompts(suffix))
    assert (suffix.texts.hits, suffix.texts.misses) == before


# greedy answers


def test_generate_equals_transformers(backbone, rows, prompts):
    """Token for token what transformers writes for each row alone."""
    written = backbone.generate(begin(backbone, rows, prompts), 6)
    assert written == [expected_answer(backbone, rows, prompts, i, 6) for i in range(4)]


def test_generate_of_one_row_equals_that_row_of_a_batch(backbone, rows, prompts):
    """A row is answered alike alone and among others."""
    together = backbone.generate(begin(backbone, rows, prompts), 6)
    assert [backbone.generate(begin(backbone, rows, prompts, [i]), 6)[0] for i in range(4)] == together


def test_generate_without_a_prompt_equals_transformers(backbone, rows):
    """The frozen model as it is answers as transformers says."""
    written = backbone.generate(begin(backbone, rows, None), 5)
    assert written == [expected_answer(backbone, rows, None, i, 5) for i in range(4)]


def greedy(backbone, rows, prompts, i, max_tokens):
    """Row i's answer by the definition: the likeliest token after each beginning, read anew every time."""
    written, suffix = (), is_suffix(backbone)
    with torch.no_grad():
        while len(written) < max_tokens:
            logits = plain.next_logits(backbone.lm, rows.sources[i], prompts[i], written, suffix=suffix)
            if (token := int(logits.argmax())) == backbone.tokenizer.eos_token_id:
                break
            written = (*written, token)
    return written


OWN_SETTINGS = {
    "repetition_penalty": 3.0,
    "no_repeat_ngram_size": 1,
    "forced_bos_token_id": 9,
    "forced_eos_token_id": 1,
    "suppress_tokens": list(range(3, 40)),
    "min_length": 7,
}


@pytest.mark.parametrize("setting", OWN_SETTINGS)
def test_the_bases_own_generation_settings_change_no_answer(make_backbone, backbone, rows, setting):
    """Greedy is greedy, whatever penalties and forced tokens a base comes with; these stay as they are."""
    fresh = make_backbone(backbone.name)
    prompts = drawn_prompts(fresh)
    setattr(fresh.lm.generation_config, setting, OWN_SETTINGS[setting])
    before = fresh.lm.generation_config.to_dict()
    written = fresh.generate(begin(fresh, rows, prompts), 6)
    assert written == [greedy(fresh, rows, prompts, i, 6) for i in range(4)]
    assert fresh.lm.generation_config.to_dict() == before


def test_generate_stops_at_the_end_token(backbone, rows, prompts, monkeypatch):
    """Rows end before their end token, each at its own place, and the others go on."""
    free = backbone.generate(begin(backbone, rows, prompts), 8)
    words = range(3, len(backbone.tokenizer))
    end = next(token for row in free for token in row[1:] if token != row[0] and token in words)
    monkeypatch.setattr(backbone, "tokenizer", copy.deepcopy(backbone.tokenizer))
    backbone.tokenizer.eos_token = backbone.tokenizer.convert_ids_to_tokens(end)
    written = backbone.generate(begin(backbone, rows, prompts), 8)
    assert written == [expected_answer(backbone, rows, prompts, i, 8) for i in range(4)]
    assert min(len(row) for row in written) < max(len(row) for row in written)


def test_a_row_that_ends_at_once_writes_nothing(backbone, rows, prompts):
    """The others write on as they do beside a row that does not."""
    free = backbone.generate(begin(backbone, rows, prompts), 4)
    context = begin(backbone, rows, prompts)
    context.logits[1, backbone.tokenizer.eos_token_id] = 1e4
    assert backbone.generate(context, 4) == [free[0], (), *free[2:]]


def test_generate_stops_at_the_limit(backbone, rows, prompts):
    """No answer is longer than asked for, and a smaller limit gives the start of the same answer."""
    long = backbone.generate(begin(backbone, rows, prompts), 6)
    for limit in (1, 2):
        assert backbone.generate(begin(backbone, rows, prompts), limit) == [row[:limit] for row in long]


def test_generate_begins_with_the_first_prediction_of_forward(backbone, rows, prompts):
    """The first token written is the most likely one of the first logit."""
    first = forward(backbone, rows, prompts).logits[:, 0].argmax(-1).tolist()
    written = backbone.generate(begin(backbone, rows, prompts), 1)
    end = backbone.tokenizer.eos_token_id
    assert written == [() if token == end else (token,) for token in first]


# choices


@every_choice_set
def test_choices_have_probabilities_that_sum_to_one(backbone, rows, prompts, choices):
    """Only choices may be written, so together they are certain."""
    scores = backbone.score(begin(backbone, rows, prompts), choices)
    np.testing.assert_allclose(scores.exp().sum(1).numpy(), 1, rtol=1e-5)


@every_choice_set
def test_score_equals_brute_force(backbone, rows, prompts, choices):
    """Each choice has the probability of the definition, computed token by token for each row alone."""
    scores = backbone.score(begin(backbone, rows, prompts), choices)
    np.testing.assert_allclose(scores.numpy(), expected_scores(backbone, rows, prompts, choices), **NEAR)


def test_score_does_not_depend_on_the_order_of_choices(backbone, rows, prompts):
    """Choices in another order have the same scores in that order."""
    choices = CHOICES["shared first tokens"]
    context = begin(backbone, rows, prompts)
    straight = backbone.score(context, choices)
    torch.testing.assert_close(backbone.score(context, choices[::-1]), straight.flip(1), **NEAR)


def test_score_leaves_the_context_as_it_was(backbone, rows, prompts):
    """After scoring, another scoring and the written answer are as without it."""
    fresh = backbone.generate(begin(backbone, rows, prompts), 5)
    context = begin(backbone, rows, prompts)
    mask = context.mask.clone()
    scores = [backbone.score(context, CHOICES["unlike lengths"]) for _ in range(2)]
    assert torch.equal(scores[0], scores[1])
    assert torch.equal(context.mask, mask)
    assert backbone.generate(context, 5) == fresh


def test_equal_choices_are_refused(backbone, rows, prompts):
    """Two answers that are the same tokens cannot be told apart."""
    with pytest.raises(ValueError, match="same tokens"):
        backbone.score(begin(backbone, rows, prompts), [(3, 1), (4, 1), (3, 1)])


def test_choices_that_differ_at_once_are_read_from_the_first_prediction(causal, rows, monkeypatch):
    """Where first tokens differ, a causal model runs no further pass."""
    context = begin(causal, rows, drawn_prompts(causal))
    monkeypatch.setattr(causal, "_run", None)
    assert causal.score(context, CHOICES["one token each"]).shape == (4, 3)


def test_choice_tree_names_the_partings():
    """Tokens that every remaining choice shares are no partings."""
    tree = ChoiceTree.of([(3, 9, 1), (3, 9, 5, 1), (4, 7, 1)])
    assert tree.prefixes == ((), (3, 9))
    assert tree.branches == ((3, 4), (1, 5))
    assert tree.steps == (((0, 0), (1, 0)), ((0, 0), (1, 1)), ((0, 1),))


# dropout


def test_mode_switches_dropout_and_puts_it_back(backbone):
    """Dropout is on or off within, and as before afterwards, also after an error."""
    for before in (True, False):
        backbone.lm.train(before)
        for dropout in (True, False):
            with backbone.mode(dropout=dropout):
                assert all(module.training == dropout for module in backbone.lm.modules())
            assert all(module.training == before for module in backbone.lm.modules())
    with pytest.raises(RuntimeError), backbone.mode(dropout=True):
        raise RuntimeError
    assert not backbone.lm.training


def test_dropout_changes_logits_when_it_is_on(backbone, rows, prompts):
    """Two passes differ with dropout and are bit-equal without."""
    with backbone.mode(dropout=True):
        noisy = [forward(backbone, rows, prompts).logits for _ in range(2)]
    with backbone.mode(dropout=False):
        calm = [forward(backbone, rows, prompts).logits for _ in range(2)]
    assert not torch.equal(noisy[0], noisy[1])
    assert torch.equal(calm[0], calm[1])


# the rest


def test_a_fresh_backbone_is_frozen_and_evaluates(backbone):
    """No weight takes a gradient, and dropout is off."""
    assert backbone.frozen
    assert not any(weight.requires_grad for weight in backbone.lm.parameters())
    assert not any(module.training for module in backbone.lm.modules())


def test_weights_hash_tells_one_bit(make_backbone, backbone):
    """The same weights have one hash, and the smallest change of one number another."""
    same = make_backbone(backbone.name)
    assert same.weights_hash() == backbone.weights_hash()
    with torch.no_grad():
        weight = next(same.lm.parameters()).flatten()
        weight[3] = torch.nextafter(weight[3], torch.tensor(9.0))
    assert same.weights_hash() != backbone.weights_hash()


@pytest.mark.parametrize(("name", "unread"), [("bert", {"encoder.pooler.dense"}), ("llama-prefix", set())])
def test_two_loadings_give_the_same_model(make_backbone, tmp_path, rows, name, unread):
    """To the bit, weights that files lack and nothing reads (BERT's pooler) too; no other draw moves."""
    saved, loaded = make_backbone(name), []
    saved.lm.save_pretrained(tmp_path)
    saved.tokenizer.save_pretrained(tmp_path)
    folder = base_folder.resolve(BaseConfig(model=str(tmp_path)))
    for seed in (1, 2):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            before = torch.get_rng_state()
            loaded.append(load_backbone(folder, dtype="float32"))
            assert torch.equal(torch.get_rng_state(), before)
    one, other = (model.lm.state_dict() for model in loaded)
    assert {name.rpartition(".")[0] for name in one.keys() - saved.lm.state_dict().keys()} == unread
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert loaded[0].weights_hash() == loaded[1].weights_hash()
    labels = torch.tensor([[5, 6, 1]] * len(rows.sources))
    for model in loaded:
        logits = [each.forward(each.read(rows.sources), None, labels).logits for each in (model, saved)]
        assert torch.equal(*logits)


def test_special_ids_are_special_tokens_and_rows_beyond_the_tokenizer(backbone):
    """Padding, end, unknown, and embeddings that no token has, are no text."""
    assert backbone.special_ids == {0, 1, 2, *range(66, 72)}


FILLERS = ["[unused0]", "[unused993]", "<unused7>", "<extra_id_0>", "<0x0A>"]
ORDINARY = ["[:]", "<", "unused", "[", "extra_id_0", "<a b>"]


def marked_tokenizer():
    """Fillers and ordinary tokens that look a little like them; marks, special or not, and a word."""
    tokenizer = spaced_tokenizer([*FILLERS, *ORDINARY], r"\S+")
    tokenizer.add_tokens([AddedToken("<repo_name>", special=True), AddedToken("plain", special=True)])
    tokenizer.add_tokens(["<|fim|>", "[INST]", "<think>", "covid"])
    return tokenizer


def test_special_ids_are_all_that_is_no_text(causal, monkeypatch):
    """Special tokens, marks, fillers, bytes and ids without a token; no word, nor brackets in a text."""
    monkeypatch.setattr(causal, "tokenizer", marked_tokenizer())
    marks = ["<pad>", "</s>", "<unk>", "<repo_name>", "plain", "<|fim|>", "[INST]", "<think>"]
    named = causal.tokenizer.convert_tokens_to_ids([*marks, *FILLERS])
    assert causal.special_ids == {*named, *range(len(causal.tokenizer), 72)}
    assert "<repo_name>" not in causal.tokenizer.all_special_tokens


def test_ids_that_a_tokenizer_skips_are_no_text(causal, monkeypatch):
    """A gap within the vocabulary has embeddings, and no token."""
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "yes": 1, "no": 5}, unk_token="<unk>"))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")
    monkeypatch.setattr(causal, "tokenizer", fast)
    assert set(range(72)) - causal.special_ids == {1, 5}


def test_control_tokens_are_those_that_a_text_must_not_hold():
    """What the tokenizer makes of a text that has them is one token each; fillers come apart like words."""
    tokenizer = marked_tokenizer()
    found = control_tokens(tokenizer)
    assert sorted(found.values()) == sorted(
        ["<pad>", "</s>", "<unk>", "<repo_name>", "plain", "<|fim|>", "[INST]", "<think>"]
    )
    assert all(tokenizer.convert_ids_to_tokens(i) == token for i, token in found.items())


def test_texts_and_answers_as_tokens(backbone):
    """Answers end with the end token; texts end as the tokenizer ends them; both read back as they were."""
    source, target = backbone.encode("the film was good", "not good"), backbone.answer_tokens("not good")
    assert source.target == target
    assert target[-1] == backbone.tokenizer.eos_token_id
    assert (source.source[-1] == backbone.tokenizer.eos_token_id) == (not is_causal(backbone))
    assert backbone.decode(source.source) == "the film was good"
    assert backbone.decode(target) == "not good"


def test_long_texts_are_cut_and_said_to_be(backbone):
    """A text within the limit stays whole; a longer one is cut to it, its end token kept."""
    whole, cut = backbone.text_tokens("the film was good")
    assert backbone.text_tokens("the film was good", len(whole)) == (whole, False)
    short, cut = backbone.text_tokens("the film was good", len(whole) - 1)
    assert cut
    assert len(short) == len(whole) - 1
    assert (short[-1] == backbone.tokenizer.eos_token_id) == (not is_causal(backbone))


def test_a_text_without_tokens_is_refused(causal):
    """Nothing cannot be read."""
    with pytest.raises(DataError, match="no token"):
        causal.text_tokens("  ")


def spaced_tokenizer(vocabulary, pattern):
    """A tokenizer whose tokens keep their spaces, split by a pattern."""
    ids = {token: i for i, token in enumerate(["<pad>", "</s>", "<unk>", *vocabulary])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "isolated")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.mark.parametrize(
    ("vocabulary", "pattern", "expected"),
    [([" yes", "yes"], r" ?\w+", (3, 1)), ([" ", "yes"], r"\w+| ", (4, 1))],
    ids=["spaces belong to words", "spaces are tokens"],
)
def test_answers_of_causal_models_begin_with_a_space_that_belongs_to_the_word(
    causal, vocabulary, pattern, expected, monkeypatch
):
    """The answer is the word with its space where the vocabulary has such words, else the word alone."""
    monkeypatch.setattr(causal, "tokenizer", spaced_tokenizer(vocabulary, pattern))
    assert causal.answer_tokens("yes") == expected
