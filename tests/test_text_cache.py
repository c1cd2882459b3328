"""Texts that are read once: their rounded numbers, what is kept of them, and where."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch
from conftest import build_backbone
from transformers import DynamicCache

from weft.data.batch import Encoded, collate
from weft.models import text_cache
from weft.models.packed import pack
from weft.models.text_cache import TextCache

NEAR = {"rtol": 1e-4, "atol": 1e-4}
SOURCES = [(3, 4), (5, 6, 7, 8, 9), (10, 11, 12), (3, 4, 5), tuple(range(3, 20))]


def read_alone(lm, source):
    """A text's keys and values as transformers makes them in the shape that weft reads in, `[S]` of them."""
    length = -(-len(source) // 8) * 8
    ids = torch.zeros(256 // length, length, dtype=torch.long)
    ids[0, : len(source)] = torch.tensor(source)
    cache = DynamicCache()
    with torch.no_grad():
        lm.base_model(input_ids=ids, past_key_values=cache, use_cache=True)
    return [tuple(x[:1, :, : len(source)] for x in (layer.keys, layer.values)) for layer in cache.layers]


def rounded(kv, dtype=torch.float16):
    """The same with every number as the nearest 16-bit one."""
    return [tuple(x.to(dtype).to(x.dtype) for x in layer) for layer in kv]


def equal(one, two):
    """Whether all layers' keys and values are the same to the last bit, and of one format."""
    pairs = [pair for layers in zip(one, two, strict=True) for pair in zip(*layers, strict=True)]
    return all(torch.equal(x, y) and x.dtype == y.dtype for x, y in pairs)


def counted(monkeypatch):
    """The texts that are read from now on."""
    read, whole = [], TextCache._compute
    monkeypatch.setattr(TextCache, "_compute", lambda self, *a: read.extend(a[0]) or whole(self, *a))
    return read


def without_probe(read):
    """The texts among those, without the one that names the model."""
    return [source for source in read if source != text_cache.PROBE]


@pytest.fixture(params=["memory", "disk"])
def folder(request, tmp_path):
    """No folder, or one that does not exist yet."""
    return tmp_path / "runs" / ".texts" if request.param == "disk" else None


def test_what_is_gathered_is_the_rounded_number_also_at_the_first_time(suffix, folder, monkeypatch):
    """Bit by bit float16's nearest, padded on the left: when read, when kept, and where nothing is kept."""
    for budget in (1 << 20, 0):
        texts = TextCache(suffix.lm, budget, folder)
        for _ in range(2):
            together = texts.gather(SOURCES)
            for i, source in enumerate(SOURCES):
                own = [tuple(x[i : i + 1, :, -len(source) :] for x in layer) for layer in together]
                assert equal(own, rounded(read_alone(suffix.lm, source)))
                assert all(not x[i, :, : -len(source)].any() for layer in together for x in layer)
    assert not equal(own, read_alone(suffix.lm, source))  # the reference would see numbers that are not


def test_a_model_in_bfloat16_has_its_own_numbers(suffix, folder):
    """No bit changes, also of numbers that float16 does not have, and each takes two bytes."""
    lm = build_backbone(suffix.name).lm.bfloat16()
    plain = TextCache._compute

    class Tiny(TextCache):
        """As if the model gave numbers of the size of 1e-12."""

        def _compute(self, *args):
            return [one._replace(row=one.row * 2**-40) for one in plain(self, *args)]

    wanted = [tuple(x * 2**-40 for x in layer) for layer in read_alone(lm, (3, 4, 5))]
    for _ in range(2):
        texts = Tiny(lm, 1 << 20, folder)
        assert equal(texts.gather([(3, 4, 5)]), wanted)
        assert text_bytes(suffix, 3) <= texts.bytes <= text_bytes(suffix, 3) + 300


def test_a_text_beyond_the_range_of_16_bits_stays_as_it_is(suffix, folder):
    """A value that float16 would make infinite leaves its text in float32, and that text alone."""
    lm = build_backbone(suffix.name).lm
    far, near = (7, 8, 9), (10, 11, 12)
    plain = TextCache._compute

    class Far(TextCache):
        """As if the model gave 1e5 for every text that holds token 8."""

        def _compute(self, *args):
            return [one._replace(row=one.row + 1e5 * (8 in one.source)) for one in plain(self, *args)]

    for _ in range(2):
        texts = Far(lm, 1 << 20, folder)
        both = texts.gather([far, near])
        shifted = [tuple(x + 1e5 for x in layer) for layer in read_alone(lm, far)]
        assert equal([tuple(x[:1] for x in layer) for layer in both], shifted)
        assert equal([tuple(x[1:] for x in layer) for layer in both], rounded(read_alone(lm, near)))
    assert texts.misses == (2 if folder is None else 0)


def test_the_way_through_the_cache_is_the_plain_one(suffix, rows, folder):
    """`[text][prompt][answer]`: within 16 bits of a plain pass, within 1e-5 of one that rounds by hand."""
    backbone = build_backbone(suffix.name)
    backbone.texts = TextCache(backbone.lm, 1 << 20, folder)
    draw = torch.Generator().manual_seed(11)
    prompts = torch.randn(4, 3, backbone.width, generator=draw) * backbone.embeddings.std()
    labels = collate([Encoded((0,), target) for target in rows.targets], [0] * 4).labels
    with torch.no_grad():
        found = backbone(backbone.read(rows.sources), prompts, labels).logits
    for i, (source, target) in enumerate(zip(rows.sources, rows.targets, strict=True)):
        own = found[i, : len(target)]
        by_hand = after(backbone.lm, rounded(read_alone(backbone.lm, source)), prompts[i], target)
        plain = after(backbone.lm, read_alone(backbone.lm, source), prompts[i], target)
        torch.testing.assert_close(own, by_hand, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(own, plain, rtol=1e-2, atol=1e-2)


def after(lm, kv, prompt, target):
    """Logits of a target after a text and a prompt, one row, no padding."""
    fed = lm.get_input_embeddings()(torch.tensor([target[:-1]], dtype=torch.long))
    with torch.no_grad():
        out = lm(
            inputs_embeds=torch.cat([prompt[None], fed], 1),
            past_key_values=DynamicCache([tuple(x.clone() for x in layer) for layer in kv]),
        )
    return out.logits[0, -len(target) :]


def test_a_text_is_read_once_whoever_asks(suffix, tmp_path, monkeypatch):
    """Two models in one process that share a folder, begun at once: what one reads the other finds."""
    read = counted(monkeypatch)
    one, two = (TextCache(build_backbone(suffix.name).lm, 1 << 20, tmp_path) for _ in range(2))
    one.gather(SOURCES[:2])
    assert equal(two.gather(SOURCES[1:3]), one.gather(SOURCES[1:3]))
    two.prepare(SOURCES)
    one.prepare(SOURCES)
    TextCache(suffix.lm, 1 << 20, tmp_path).gather(SOURCES)
    assert sorted(without_probe(read)) == sorted(SOURCES)


def read_in_a_process(name, folder):
    """What another process makes of the same texts, and how many it had to read."""
    torch.set_num_threads(1)
    texts = TextCache(build_backbone(name).lm, 1 << 20, folder)
    found = texts.gather(SOURCES)
    return texts.misses, [tuple(x.numpy() for x in layer) for layer in found]


def test_another_process_reads_nothing_again(tmp_path):
    """A second process finds all texts of the first, and the same bits."""
    here = TextCache(build_backbone("llama-suffix").lm, 1 << 20, tmp_path).gather(SOURCES)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as workers:
        misses, found = workers.submit(read_in_a_process, "llama-suffix", tmp_path).result()
    assert misses == 0
    assert equal(here, [tuple(map(torch.from_numpy, layer)) for layer in found])


@pytest.mark.parametrize("change", ["weights", "threads", "attention", "products", "format"])
def test_other_numbers_have_other_names(tmp_path, change, monkeypatch):
    """A text kept by another model, or under settings that change bits, is not found."""
    lm = build_backbone("llama-suffix").lm
    TextCache(lm, 1 << 20, tmp_path).gather(SOURCES)
    if change == "weights":
        with torch.no_grad():
            lm.model.layers[1].self_attn.v_proj.weight[0, 0] += 1e-3
    elif change == "threads":
        monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    elif change == "attention":
        lm.set_attn_implementation("eager")
    elif change == "products":
        pack(lm)
    else:
        lm = lm.bfloat16()
    texts = TextCache(lm, 1 << 20, tmp_path)
    texts.gather(SOURCES)
    assert (texts.hits, texts.misses) == (0, len(SOURCES))


def test_texts_that_are_kept_in_memory_leave_no_file(suffix, tmp_path, monkeypatch):
    """Without a folder nothing is written, wherever the process stands."""
    monkeypatch.chdir(tmp_path)
    TextCache(suffix.lm, 1 << 20).gather(SOURCES)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "gone"])
def test_a_damaged_page_changes_no_number(suffix, tmp_path, damage):
    """Its texts are read again; a warning says so, but for a page that another process removed."""
    whole = TextCache(suffix.lm, 1 << 20, tmp_path).gather(SOURCES)
    for page in tmp_path.iterdir():
        data = page.read_bytes()
        if damage == "gone":
            page.unlink()
        else:
            page.write_bytes(
                {"flip": data[:-9] + bytes([data[-9] ^ 4]) + data[-8:], "cut": data[:-1]}.get(damage, b"")
            )
    warnings = []
    texts = TextCache(suffix.lm, 1 << 20, tmp_path, warnings.append)
    assert equal(texts.gather(SOURCES), whole)
    assert bool(warnings) == (damage != "gone")
    again = TextCache(suffix.lm, 1 << 20, tmp_path)
    assert equal(again.gather(SOURCES), whole)
    assert again.misses == 0


def test_pages_are_closed_before_they_grow_large(suffix, tmp_path, monkeypatch):
    """Many texts become many pages, so that a kill loses few and little leaves at once."""
    monkeypatch.setattr(text_cache, "PAGE_BYTES", 2 * text_bytes(suffix, 3))
    texts = TextCache(suffix.lm, 1 << 20, tmp_path)
    texts.prepare([(i, i, i) for i in range(3, 10)])
    assert len(list(tmp_path.iterdir())) == 4
    texts.gather([(i, i, i) for i in range(3, 10)])
    assert texts.misses == 0


# what is kept in memory


@pytest.fixture
def cache(suffix):
    """A function that makes an empty cache of some bytes."""
    return lambda max_bytes: TextCache(suffix.lm, max_bytes)


def text_bytes(suffix, tokens):
    """Memory of a text's keys and values: 2 layers, key and value, heads, tokens, head size, 2 bytes."""
    heads = 2 if suffix.name.startswith(("llama", "qwen2")) else 4
    return 2 * 2 * heads * tokens * 8 * 2


def test_cache_counts_texts_found_and_not_found(cache):
    """Each text of a batch counts once: as a miss when it is new, as a hit when it is known."""
    texts = cache(1 << 20)
    texts.gather([(3, 4), (5, 6, 7)])
    assert (texts.hits, texts.misses) == (0, 2)
    texts.gather([(5, 6, 7), (8,), (3, 4)])
    assert (texts.hits, texts.misses) == (2, 3)


def test_cache_counts_its_bytes(cache, suffix):
    """The count of bytes is that of the keys and values that are kept."""
    texts = cache(1 << 20)
    texts.gather([(3, 4), (5, 6, 7)])
    texts.gather([(3, 4)])
    assert texts.bytes == text_bytes(suffix, 5)


def test_cache_keeps_within_its_budget_and_drops_the_oldest(cache, suffix):
    """With room for two texts, the one that was used longest ago leaves."""
    budget = text_bytes(suffix, 4)
    texts = cache(budget)
    for source in ((3, 4), (5, 6), (3, 4), (7, 8)):  # (5, 6) is now the oldest
        texts.gather([source])
        assert texts.bytes <= budget
    hits = texts.hits
    texts.gather([(3, 4)])
    texts.gather([(7, 8)])
    assert texts.hits == hits + 2
    misses = texts.misses
    texts.gather([(5, 6)])
    assert texts.misses == misses + 1


def test_a_text_larger_than_the_budget_drops_no_other(cache, suffix):
    """What cannot be kept is computed and forgotten, and the rest stays."""
    texts = cache(text_bytes(suffix, 3))
    texts.gather([(3, 4)])
    texts.gather([(5, 6, 7, 8, 9)])
    assert texts.bytes == text_bytes(suffix, 2)
    texts.gather([(3, 4)])
    assert texts.hits == 1


def test_announced_texts_leave_last(cache, suffix):
    """A kept text that is announced again is not the one that makes room for a new one."""
    texts = cache(text_bytes(suffix, 4))
    texts.prepare([(3, 4)])
    texts.prepare([(5, 6)])
    texts.prepare([(3, 4)])
    texts.prepare([(7, 8)])  # (5, 6) was announced longest ago
    texts.gather([(3, 4), (7, 8)])
    assert (texts.hits, texts.misses) == (2, 0)


@pytest.mark.parametrize("tokens", [0, 8])
def test_a_small_budget_changes_no_result(cache, suffix, tokens):
    """A cache that keeps nothing, or too little, gives the same numbers, again and again."""
    whole, small = cache(1 << 20).gather(SOURCES), cache(text_bytes(suffix, tokens))
    for _ in range(2):
        assert equal(small.gather(SOURCES), whole)
        assert small.bytes <= text_bytes(suffix, tokens)


def test_many_texts_are_read_in_parts(cache, suffix, monkeypatch):
    """Texts read in parts of a few tokens have the keys and values that each has alone."""
    monkeypatch.setattr("weft.models.text_cache.READ_TOKENS", {"cpu": 16})
    sources = [(3,), (4, 5), (6, 7), (8, 9, 10, 11, 12, 13, 14), (15, 16, 17)]
    together = cache(1 << 20).gather(sources)
    for i, source in enumerate(sources):
        for (keys, values), (k, v) in zip(together, cache(1 << 20).gather([source]), strict=True):
            torch.testing.assert_close(keys[i, :, -len(source) :], k[0], **NEAR)
            torch.testing.assert_close(values[i, :, -len(source) :], v[0], **NEAR)


def test_kept_texts_do_not_depend_on_what_they_were_read_with(cache, suffix):
    """A text's keys and values are the same to the last bit, whatever is read beside it."""
    for tokens in (3, 8, 12):
        text = tuple(range(3, 3 + tokens))
        others = [tuple(range(9 + i, 10 + i + tokens)) for i in range(5)]
        alone, together = cache(1 << 20).gather([text]), cache(1 << 20).gather([*others, text])
        for (keys, values), (k, v) in zip(together, alone, strict=True):
            assert torch.equal(keys[-1:, :, -tokens:], k)
            assert torch.equal(values[-1:, :, -tokens:], v)


def test_a_text_is_never_read_beyond_the_models_positions(make_backbone):
    """A model with absolute positions reads texts up to its last one, though reads are padded."""
    gpt2 = make_backbone("gpt2-suffix")
    most = gpt2.lm.config.n_positions
    texts = TextCache(gpt2.lm, 1 << 20)
    for tokens in (most, most - 3):
        assert texts.gather([tuple([5] * tokens)])[0][0].shape[2] == tokens


def test_prepared_texts_are_kept_and_found(cache):
    """Texts that were announced are hits when they are needed, and the same numbers."""
    texts, plain = cache(1 << 20), cache(1 << 20)
    texts.prepare([(3, 4), (5, 6, 7), (3, 4)])
    assert (texts.hits, texts.misses) == (0, 0)
    for (k, v), (keys, values) in zip(
        texts.gather([(5, 6, 7), (3, 4)]), plain.gather([(5, 6, 7), (3, 4)]), strict=True
    ):
        assert torch.equal(k, keys)
        assert torch.equal(v, values)
    assert (texts.hits, texts.misses) == (2, 0)


def test_no_more_is_prepared_than_there_is_room_for(cache, suffix, monkeypatch):
    """Announcing more texts than fit reads the first ones, and drops none of them for the later ones."""
    texts = cache(text_bytes(suffix, 5))
    read = counted(monkeypatch)
    texts.prepare([(3, 4), (5, 6, 7), (8, 9), (10,)])
    assert sorted(read) == [(3, 4), (5, 6, 7)]
    assert texts.bytes == text_bytes(suffix, 5)


def test_reading_for_the_cache_is_without_dropout_and_leaves_the_mode(make_backbone, suffix):
    """Texts are read in evaluation mode, also in the middle of training, which then goes on."""
    lm = make_backbone(suffix.name).lm.train()
    for (k, v), (keys, values) in zip(
        TextCache(lm, 0).gather([(3, 4, 5)]), TextCache(suffix.lm, 0).gather([(3, 4, 5)]), strict=True
    ):
        assert torch.equal(k, keys)
        assert torch.equal(v, values)
    assert lm.training


def test_states_are_handed_out_while_a_text_is_kept(suffix, folder, monkeypatch):
    """Of layers up to the one that is asked for, as the model alone gives them; each text is read once."""
    texts = TextCache(build_backbone(suffix.name).lm, 1 << 20, folder)
    read = counted(monkeypatch)
    sources = [(3, 4, 5), (6, 7), (3, 4, 5), tuple(range(8, 20))]
    found = dict(texts.states(sources, 1))
    assert set(found) == set(sources)
    texts.gather(sources)
    assert sorted(without_probe(read)) == sorted(set(sources))
    for source, states in found.items():
        whole = texts.lm.base_model(torch.tensor([source]), output_hidden_states=True).hidden_states
        assert len(states) == 2
        for one, other in zip(states, whole, strict=False):
            assert torch.allclose(one, other[0], atol=1e-5)


def test_states_of_more_texts_than_there_is_room_for(suffix):
    """All are handed out; what is kept stays within its bytes."""
    room = text_bytes(suffix, 4)
    texts = TextCache(build_backbone(suffix.name).lm, room)
    sources = [(3, 4, 5), (6, 7, 8), (9, 10, 11)]
    assert {source for source, _ in texts.states(sources, 0)} == set(sources)
    assert texts.bytes <= room
