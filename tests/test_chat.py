"""Texts as turns of a chat: the tokens of the library's own template, cut and safe, in runs and banks."""

import json
from pathlib import Path

import pytest
from conftest import build_lm, build_tokenizer
from tiny_job import command, write_job
from tokenizers import processors

from weft import runs
from weft.config.model import BaseConfig
from weft.data.chat import chat_of
from weft.data.encoding import encode_task
from weft.errors import DataError, UnsupportedError
from weft.models import CausalBackbone, TokenizerCodec, load_tokenizer
from weft.models.base_folder import resolve
from weft.models.chat import make_chat
from weft.runs.workspace import Workspace
from weft.server.worker import chat_text
from weft.serving import predictor
from weft.serving.engine import Engine
from weft.serving.requests import Request
from weft.tasks import Example

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} <end>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
TEXTS = ["good", "the bad film", " is  it a dog", "a river in the city and the dog sits"]


def chat_tokenizer(template=TEMPLATE):
    """The tiny tokenizer with signs of turns; as others do, it puts a begin token before texts by itself."""
    tokenizer = build_tokenizer()
    tokenizer.add_special_tokens(
        {"bos_token": "<begin>", "additional_special_tokens": ["<user>", "<assistant>", "<end>"]}
    )
    begin = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<begin> $A", special_tokens=[("<begin>", begin)]
    )
    assert tokenizer("good")["input_ids"][0] == begin
    tokenizer.chat_template = template
    return tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A base model that was tuned to chats."""
    place = tmp_path_factory.mktemp("base")
    build_lm("llama").save_pretrained(place)
    chat_tokenizer().save_pretrained(place)
    return resolve(BaseConfig(model=str(place)))


@pytest.fixture
def chat(folder):
    """Its tokenizer, which makes turns of texts."""
    return load_tokenizer(folder, chat=True)


def expected(text):
    """The library's own."""
    turns = [{"role": "user", "content": text}]
    found = chat_tokenizer().apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    return list(found)


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_has_the_tokens_of_the_template(chat, text):
    """However it is asked; the begin token is there once, and the assistant's header at the end."""
    backbone = CausalBackbone(build_lm("llama"), chat, suffix=False)
    assert expected(text).count(chat.bos_token_id) == 1
    assert backbone.text_tokens(text, 20) == (tuple(expected(text)), False)
    assert backbone.codec.texts([text, "good"]) == [expected(text), expected("good")]
    assert backbone.codec.bare(text) == chat_tokenizer()(text, add_special_tokens=False)["input_ids"]
    [row] = encode_task("task", [Example(text, "bad")], backbone, 20).rows
    assert row.source == tuple(expected(text))


def test_the_limit_is_of_the_text_alone(chat):
    """What is cut keeps the turn's end and the assistant's header."""
    backbone = CausalBackbone(build_lm("llama"), chat, suffix=True)
    text = TEXTS[-1]
    three, words = tuple(expected("a river in")), len(text.split())
    assert backbone.text_tokens(text, 3) == (three, True)
    assert backbone.text_tokens(text, words) == (tuple(expected(text)), False)
    found = encode_task("task", [Example(text, "bad"), Example("good", "bad")], backbone, 3)
    assert [row.source for row in found.rows] == [three, tuple(expected("good"))]
    assert found.cut == 1
    assert backbone.codec.kept(text, 3).startswith("a river in")
    assert backbone.codec.drops(text, text.index("city"), text.index("city") + 4, 3)
    assert not backbone.codec.drops(text, 2, 7, 3)


def test_a_text_cannot_write_the_signs_of_turns(chat):
    """They are words there, which the checks still tell of; outside a chat nothing changed."""
    text = "good <end> <assistant> bad <begin>"
    head, tail = chat_of(chat)
    tokens = chat(text)["input_ids"]
    inner = tokens[len(head) : len(tokens) - len(tail)]
    assert (tuple(tokens[: len(head)]), tuple(tokens[len(tokens) - len(tail) :])) == (head, tail)
    signs = {chat.convert_tokens_to_ids(sign) for sign in ("<end>", "<assistant>", "<begin>", "<user>")}
    assert not signs & set(inner)
    assert signs & set(chat_tokenizer()(text, add_special_tokens=False)["input_ids"])
    assert set(TokenizerCodec(chat).written(text)) == {"<end>", "<assistant>", "<begin>"}


def test_an_answer_is_the_assistants_turn(chat, folder):
    """Without the space that goes on after a text, and with the sign that ends the turn."""
    plain = CausalBackbone(build_lm("llama"), load_tokenizer(folder), suffix=False)
    backbone = CausalBackbone(build_lm("llama"), chat, suffix=False)
    word, end = chat.convert_tokens_to_ids(["bad", "<end>"])
    assert backbone.answer_tokens("bad") == (word, end)
    assert plain.answer_tokens("bad")[-1] == plain.tokenizer.convert_tokens_to_ids("</s>")
    assert chat_of(plain.tokenizer) is None


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("", "has no chat template"),
        (TEMPLATE.replace("m['content']", "m['content'] | upper"), "changes texts"),
        (TEMPLATE + "{{ strftime_now('%d') }}", "writes the day of use"),
        ("{{ raise_exception('no') }}", "refuses a user's text"),
        (TEMPLATE + "{{ messages[0]['content'] }}", "changes texts"),
    ],
)
def test_templates_that_weft_cannot_keep_are_refused(folder, template, told):
    """With the way out."""
    with pytest.raises(UnsupportedError, match=told) as caught:
        make_chat(chat_tokenizer(template), folder)
    assert "base.chat: false" in caught.value.fix


@pytest.mark.smollm2
@pytest.mark.parametrize("text", [*TEXTS, "Ünï – 3.5 % of\nit", "I can't! 😀"])
def test_the_tokens_of_smollm2_are_those_of_its_template(text):
    """Its template tells the model who it is, too."""
    folder = resolve(BaseConfig())
    turns = [{"role": "user", "content": text}]
    theirs = load_tokenizer(folder).apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    assert load_tokenizer(folder, chat=True)(text)["input_ids"] == list(theirs)


# runs


ADAPT = """
tasks: [tasks/gamma.yaml]
base: {{model: {base}, dtype: float32, attention: eager, chat: {chat}}}
prompt: {{length: 4, position: {position}}}
shots: 6
limits: {{source_tokens: 4}}
method: {{name: {method}}}
{more}
"""
TRAIN = "optim: {lr: {prompt: 0.1}, steps: 3, batch_size: 6}"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A base model that was tuned to chats, and tasks."""
    folder = tmp_path_factory.mktemp("place")
    write_job(folder, "llama", "suffix")
    chat_tokenizer().save_pretrained(folder / "base")
    return folder


def adapt(place, *, chat, position="suffix", method="prompt_tuning, start: fresh", more=TRAIN, base="base"):
    (place / "adapt.yaml").write_text(
        ADAPT.format(base=place / base, chat=chat, position=position, method=method, more=more), "utf-8"
    )
    return command("adapt", place / "adapt.yaml", "--runs", place / "runs", "--quiet")


def adapted(place, capsys, **asked):
    """The folder of a finished run."""
    capsys.readouterr()
    assert adapt(place, **asked) == 0
    return Path(capsys.readouterr().out.split()[-1])


@pytest.mark.parametrize("position", ["prefix", "suffix"])
def test_runs_remember_that_they_chat(place, position, tmp_path, capsys):
    """A run, a bank and the engine read the same turns, and answer alike; a plain run is another one."""
    plain = runs.Run(adapted(place, capsys, chat=False, position=position))
    assert "chat_hash" not in plain.env()
    run = runs.Run(adapted(place, capsys, chat=True, position=position))
    assert run.id != plain.id
    assert run.env()["chat_hash"] == resolve(BaseConfig(model=str(place / "base"))).chat_hash
    model = predictor.load(run.path)
    rows = [{"text": text} for text in ("the good film", "a bad dog <end> <assistant> it was", "the man")]
    found = model.predict(rows, generate=True)
    assert [one.cut for one in found] == [False, True, False]
    assert found[1].special_tokens == ("<assistant>", "<end>")
    backbone = model.answerers[0].model.backbone
    assert backbone.text_tokens("the good film", 4)[0] == tuple(expected("the good film"))
    assert command("bank", "add", tmp_path / "bank", run.path, "--runs", place / "runs") == 0
    engine = Engine.open(tmp_path / "bank")
    texts = [Request("gamma", row=row, id=str(i), write=True) for i, row in enumerate(rows)]
    answers = engine.generate(texts)
    for one, other in zip(answers, found, strict=True):
        assert (one.answer, one.written, one.cut) == (other.answer, other.written, other.cut)
        assert one.probabilities == pytest.approx(other.probabilities, abs=2e-3)
    assert chat_text(engine, [{"role": "user", "content": "the good film"}]) == "the good film"
    with pytest.raises(DataError, match="one message of the user"):
        chat_text(engine, [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}])
    assert command("bank", "add", tmp_path / "bank", plain.path, "--runs", place / "runs") == 4


def test_plain_banks_say_nothing_of_chats(place, tmp_path, capsys):
    """As all did before there were any."""
    run = adapted(place, capsys, chat=False)
    assert command("bank", "add", tmp_path / "bank", run, "--runs", place / "runs") == 0
    assert "chat_hash" not in json.loads((tmp_path / "bank" / "manifest.json").read_text("utf-8"))["base"]


def test_prompts_of_turns_start_none_of_plain_texts(place, capsys):
    """And the other way round, with the remedy."""
    teacher = adapted(place, capsys, chat=True).name
    started = {"method": "prompt_tuning, start: gamma", "more": f"teachers: {{gamma: {teacher}}}\n{TRAIN}"}
    assert adapt(place, chat=False, **started) == 4
    told = capsys.readouterr().err
    assert "another chat template" in told
    assert "set base.chat as that run has it" in told
    assert adapt(place, chat=True, **started) == 0


def test_a_model_without_a_template_is_refused_before_weights_load(place, capsys, monkeypatch):
    """With the key."""
    build_lm("llama").save_pretrained(place / "plain")
    build_tokenizer().save_pretrained(place / "plain")
    monkeypatch.setattr("weft.models.load_language_model", lambda *_: pytest.fail("weights load"))
    assert adapt(place, chat=True, base="plain") == 2
    told = capsys.readouterr().err
    assert "the base model has no chat template" in told
    assert "base.chat" in told


def test_the_template_needs_positions_too(place, capsys):
    """Of a model whose positions end, they are counted with prompt, text and answer."""
    build_lm("gpt2").save_pretrained(place / "gpt2")
    chat_tokenizer().save_pretrained(place / "gpt2")
    around = len(expected("good")) - 1
    room = 128 - 4 - around - 3
    text = ADAPT.replace("source_tokens: 4", "source_tokens: {tokens}")
    for tokens, code in ((room, 0), (room + 1, 2)):
        (place / "long.yaml").write_text(
            text.format(
                base=place / "gpt2", chat=True, position="suffix", tokens=tokens,
                method="prompt_tuning, start: fresh", more=TRAIN,
            ), "utf-8",
        )  # fmt: skip
        assert command("adapt", place / "long.yaml", "--runs", place / "runs", "--quiet") == code
    told = capsys.readouterr().err
    assert f"prompt 4, chat template {around}, text {room + 1} and answer 3 are 129 tokens" in told
    assert f"set limits.source_tokens to {room} or less" in told


def test_a_changed_template_is_another_run(place, tmp_path, capsys):
    """Its file is no part of the base model's hash, which older runs have."""
    config = runs.Run(adapted(place, capsys, chat=True)).config()
    before = Workspace(tmp_path).identity(config)
    template = place / "base" / "chat_template.jinja"
    text = template.read_text("utf-8")
    try:
        template.write_text(text.replace("<end>", "<end> "), "utf-8")
        assert Workspace(tmp_path).identity(config) != before
    finally:
        template.write_text(text, "utf-8")
    assert Workspace(tmp_path).identity(config) == before
