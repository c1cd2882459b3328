"""The routes, with OpenAI's own client and as bytes, against an engine whose answers name their task."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
from fake_engine import write_bank
from serving_helpers import QUICK, served
from tiny_bank import GROUP

from weft.bank import Snapshot
from weft.server import page_files
from weft.server.app import create_app

TASKS = {
    "banking": {},
    "spam": {"source": "{title}: {text}"},
    "poem": {"closed": False, "shares": False},
    "broken": {"shares": False},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    bank = write_bank(tmp_path_factory.mktemp("bank"), **TASKS)
    with served(bank, QUICK.model_copy(update={"text_signs": 1000, "items": 8, "answers": 20})) as running:
        yield running


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def http(server):
    with server.client() as client:
        yield client


def classify(http, **body):
    return http.post("/v1/classify", json=body)


def error(reply, status, code):
    assert reply.status_code == status, reply.text
    told = reply.json()["error"]
    assert set(told) == {"message", "type", "param", "code"}
    assert told["code"] == code
    return told["message"]


# OpenAI's client, as it is


def test_completion(client):
    found = client.completions.create(model="poem", prompt="of the sea", max_tokens=4)
    assert found.choices[0].text == "poem says of the"
    assert found.choices[0].finish_reason == "stop"
    assert (found.usage.prompt_tokens, found.usage.completion_tokens, found.usage.total_tokens) == (3, 4, 7)
    assert found.usage.prompt_tokens_details.virtual_tokens == 5
    assert found.model == "poem"


def test_several_prompts_and_choices_come_in_order(client):
    found = client.completions.create(
        model="poem", prompt=["one", "two"], n=2, temperature=1, top_p=0.9, seed=1
    )
    assert [one.text for one in found.choices] == ["poem says one"] * 2 + ["poem says two"] * 2
    assert [one.index for one in found.choices] == [0, 1, 2, 3]
    assert found.usage.prompt_tokens == 2  # a prompt counts once, whatever n is


def test_cut_texts_are_said_to_be(client):
    """Of a whole answer, and at the end of a streamed one."""
    asked = {"model": "poem", "prompt": ["short", "word " * 21]}
    whole = client.completions.create(**asked)
    assert [one.cut for one in whole.choices] == [False, True]
    ends = [one.choices[0] for one in client.completions.create(**asked, stream=True)]
    cut = {one.index: one.cut for one in ends if one.finish_reason}
    assert cut == {0: False, 1: True}


def test_stream_is_what_the_whole_answer_is(client):
    asked = {"model": "poem", "prompt": ["of the sea", "one"]}
    whole = client.completions.create(**asked)
    parts = list(client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    for choice in whole.choices:
        mine = [one.choices[0] for one in parts if one.choices and one.choices[0].index == choice.index]
        assert "".join(one.text for one in mine) == choice.text
        assert [one.finish_reason for one in mine] == [None] * (len(mine) - 1) + ["stop"]
        assert len(mine) == len(choice.text.split()) + 1  # it did come in pieces
    assert parts[-1].choices == []
    assert parts[-1].usage == whole.usage
    assert all(one.usage is None for one in parts[:-1])


def test_stream_without_usage_ends_with_the_text(client):
    parts = list(client.completions.create(model="poem", prompt="x", stream=True))
    assert parts[-1].choices[0].finish_reason == "stop"


def test_chat_is_refused_where_the_model_has_no_template(client):
    with pytest.raises(openai.BadRequestError, match="no chat template"):
        client.chat.completions.create(model="poem", messages=[{"role": "user", "content": "hello"}])


def test_unknown_task_is_named_with_near_ones(client):
    with pytest.raises(openai.NotFoundError, match="near names: 'banking'") as caught:
        client.completions.create(model="bankin", prompt="x")
    assert caught.value.code == "model_not_found"
    assert caught.value.response.json()["near"] == ["banking"]


def test_models_in_pages(client):
    first = client.models.list(extra_query={"limit": 3})
    assert [one.id for one in first.data] == ["banking", "broken", "poem"]
    assert first.has_more
    second = client.models.list(extra_query={"limit": 3, "after": first.last_id})
    assert [one.id for one in second.data] == ["spam"]
    assert not second.has_more
    assert [one.id for one in client.models.list()] == ["banking", "broken", "poem", "spam"]


def test_one_model(client):
    found = client.models.retrieve("spam")
    assert (found.id, found.group, found.fields) == ("spam", GROUP, ["title", "text"])
    assert found.answers == ["spam-yes", "spam-no"]
    assert found.source_tokens == 20
    assert found.metrics == {"accuracy": 91.5}
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("span")


def test_a_fault_of_the_engine_is_said(client):
    with pytest.raises(openai.UnprocessableEntityError, match="answers nothing"):
        client.completions.create(model="broken", prompt="x")
    with pytest.raises(openai.UnprocessableEntityError, match="answers nothing"):
        list(client.completions.create(model="broken", prompt="x", stream=True))


# classify


def test_classify_a_text_and_a_row(http):
    found = classify(http, model="spam", inputs=["a text", {"title": "t", "text": "x"}]).json()
    assert [one["index"] for one in found["data"]] == [0, 1]
    for one in found["data"]:
        assert (one["model"], one["label"], one["answer"], one["error"]) == ("spam", "1", "spam-yes", None)
        assert one["probabilities"] == {"spam-yes": 0.75, "spam-no": 0.25}
    assert found["generation"] == 1


def test_one_text_under_many_tasks(http):
    found = classify(http, model=["spam", "banking"], inputs="a text").json()["data"]
    assert [one["answer"] for one in found] == ["spam-yes", "banking-yes"]
    found = classify(http, model="*", group=GROUP, inputs=["one", "two"]).json()["data"]
    assert [(one["index"], one["model"]) for one in found] == [
        (0, "banking"), (0, "spam"), (1, "banking"), (1, "spam"),
    ]  # fmt: skip


def test_a_row_that_cannot_be_answered_leaves_the_others(http):
    reply = classify(http, model="spam", inputs=[{"title": "t"}, {"title": "t", "text": "x"}])
    first, second = reply.json()["data"]
    assert "the row has no 'text'" in first["error"]
    assert (first["answer"], first["probabilities"], second["answer"]) == (None, None, "spam-yes")
    error(classify(http, model="spam", inputs={"title": "t"}), 422, "not_answered")


def test_probabilities_that_are_no_numbers_are_never_sent(http):
    first, second = classify(http, model="banking", inputs=["nan", "good"]).json()["data"]
    assert (first["answer"], first["probabilities"]) == (None, None)
    assert "not finite" in first["error"]
    assert second["answer"] == "banking-yes"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"model": "poem", "inputs": "x"}, 422, "open_answers"),
        ({"model": "*", "inputs": "x"}, 422, "no_group"),
        ({"model": "spam", "group": GROUP, "inputs": "x"}, 422, "group"),
        ({"model": "*", "group": "none", "inputs": "x"}, 404, "model_not_found"),
        ({"model": ["spam", "nobody"], "inputs": "x"}, 404, "model_not_found"),
        ({"model": "spam", "inputs": []}, 422, "invalid_body"),
        ({"model": "spam", "inputs": ["x"] * 9}, 422, "too_many_texts"),
        ({"model": ["spam", "banking", "broken"], "inputs": ["x"] * 8}, 422, "too_many_answers"),
        ({"model": "spam", "inputs": "x" * 1001}, 422, "text_too_long"),
        ({"model": "spam", "inputs": {"text": "x" * 999, "title": "xx"}}, 422, "text_too_long"),
        ({"model": "spam", "inputs": "x", "more": 1}, 422, "invalid_body"),
    ],
)
def test_classify_refuses(http, body, status, code):
    error(classify(http, **body), status, code)


def test_limits_name_both_numbers(http):
    told = classify(http, model="spam", inputs=["x"] * 9).json()["error"]["message"]
    assert "9" in told
    assert "8" in told
    told = http.post("/v1/completions", json={"model": "poem", "prompt": "x", "max_tokens": 5000}).json()
    assert "5000" in told["error"]["message"]
    assert "4096" in told["error"]["message"]


# bodies


@pytest.mark.parametrize(
    ("raw", "status", "code"),
    [
        (b"", 400, "invalid_json"),
        (b"{", 400, "invalid_json"),
        (b'{"model": "poem", "prompt": "\xff"}', 400, "invalid_json"),
        (b'{"model": "poem", "prompt": "\\ud800"}', 400, "invalid_json"),
        (b"[" * 100_000, 400, "invalid_json"),
        (b'{"model": "poem", "prompt": "x", "prompt": "y"}', 400, "duplicate_key"),
        (b'{"model": "poem", "prompt": "x", "temperature": NaN}', 422, "invalid_body"),
        (b'{"model": "poem", "prompt": "x", "temperature": 1e999}', 422, "invalid_body"),
        (b'{"model": "poem", "prompt": "x", "max_tokens": true}', 422, "invalid_body"),
        (b'{"model": "poem", "prompt": "x", "max_tokens": "4"}', 422, "invalid_body"),
        (b'{"model": "poem", "prompt": "x", "n": 17}', 422, "invalid_body"),
        (b'{"model": "poem", "prompt": "x", "echo": true}', 422, "invalid_body"),
        (b'{"model": "poem", "prompt": [1, 2]}', 422, "invalid_body"),
        (b'{"model": "poem", "prompt": "x", "seed": ' + b"9" * 5000 + b"}", 400, "invalid_json"),
        (b'{"model": "poem"}', 422, "invalid_body"),
        (b"null", 422, "invalid_body"),
    ],
)
def test_bodies_that_are_refused(http, raw, status, code):
    reply = http.post("/v1/completions", content=raw, headers={"content-type": "application/json"})
    told = error(reply, status, code)
    assert "xff" not in told


def test_long_numbers_in_rows(http):
    raw = b'{"model": "spam", "inputs": {"title": ' + b"9" * 5000 + b', "text": "x"}}'
    reply = http.post("/v1/classify", content=raw, headers={"content-type": "application/json"})
    assert reply.status_code == 400


def test_neutral_values_of_other_keys_are_taken(http):
    body = {
        "model": "poem",
        "prompt": "x",
        "n": 1,
        "echo": False,
        "best_of": 1,
        "logit_bias": {},
        "stop": None,
    }
    body |= {"frequency_penalty": 0, "presence_penalty": 0.0, "logprobs": None, "suffix": None, "user": "me"}
    assert http.post("/v1/completions", json=body).status_code == 200


def test_other_content_types_are_refused(http):
    reply = http.post("/v1/completions", content=b"{}", headers={"content-type": "text/plain"})
    error(reply, 415, "content_type")


def test_strange_signs_are_text(http):
    text = "a\x00b\u202ec\U0001f600 \u2028"
    found = http.post("/v1/completions", json={"model": "poem", "prompt": text}).json()
    assert found["choices"][0]["text"] == " ".join(f"poem says {text}".split())
    reply = http.post("/v1/completions", json={"model": "no\x00\u202ebody", "prompt": "x"})
    assert "\x00" not in error(reply, 404, "model_not_found")


# the other routes


def test_health_ready_version(http):
    assert http.get("/health").json() == {"status": "ok"}
    assert http.get("/ready").json() == {"ready": True, "generation": 1}
    about = http.get("/version").json()
    assert (about["base"], about["tasks"], about["generation"], about["chat"]) == ("made up", 4, 1, False)


def test_search(http):
    found = http.get("/v1/models", params={"q": "an"}).json()
    assert [one["id"] for one in found["data"]] == ["banking"]
    assert not found["has_more"]
    some = http.get("/v1/models", params={"q": "n", "limit": 1}).json()
    assert ([one["id"] for one in some["data"]], some["has_more"]) == (["banking"], True)
    error(http.get("/v1/models", params={"limit": 0}), 422, "invalid_query")
    group = http.get("/v1/models", params={"group": GROUP}).json()
    assert [one["id"] for one in group["data"]] == ["banking", "spam"]


def test_a_long_search_holds_up_nobody(server, monkeypatch):
    """A million names are looked through beside what else is asked."""
    begun, end = threading.Event(), threading.Event()

    def search(self, text, limit):
        begun.set()
        end.wait(10)
        return []

    monkeypatch.setattr(Snapshot, "search", search)
    with server.client() as one, ThreadPoolExecutor() as pool:
        waits = pool.submit(one.get, "/v1/models", params={"q": "x"})
        assert begun.wait(10)
        with server.client() as other:
            assert other.get("/health").status_code == 200
        assert not waits.done()
        end.set()
        assert waits.result().json()["data"] == []


def test_other_paths_and_methods(http):
    error(http.get("/v1/nothing"), 404, "http")
    error(http.get("/v1/completions"), 405, "http")
    error(http.post("/v1/admin/reload"), 404, "http")


def test_no_series_for_names(http, server):
    """However many names are asked for, the number of series stays (S24)."""

    def series():
        return len([line for line in http.get("/metrics").text.splitlines() if not line.startswith("#")])

    def ask(number):
        http.post("/v1/completions", json={"model": f"name-{number}", "prompt": "x"})
        http.get(f"/v1/models/name-{number}")
        http.get(f"/v1/odd-{number}")

    http.get("/metrics")
    ask(0)
    before = series()
    for number in range(1, 50):
        ask(number)
    assert series() == before
    assert "name-1" not in http.get("/metrics").text


def test_page_is_bound(http):
    reply = http.get("/")
    assert reply.status_code == 200
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    assert "unsafe" not in reply.headers["content-security-policy"]
    assert http.get("/page.js").headers["x-content-type-options"] == "nosniff"
    assert http.get("/../app.py").status_code == 404
    assert http.get("/%2e%2e/app.py").status_code == 404


def test_nothing_takes_a_path_an_address_or_a_tensor(http):
    """S26, S27: by the names and formats of all fields of the document."""
    document = http.get("/openapi.json").json()
    names = set(_names(document["paths"]))
    assert {"prompt", "inputs", "messages"} <= names
    forbidden = ("url", "uri", "path", "file", "tensor", "embed", "image", "audio", "base64")
    assert [name for name in names for word in forbidden if word in name.lower()] == []


def _names(node):
    if isinstance(node, dict):
        yield from node.get("properties", {})
        yield from (one["name"] for one in node.get("parameters", ()))
        for inner in node.values():
            yield from _names(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from _names(inner)


def test_chat_by_the_models_template(tmp_path, monkeypatch):
    monkeypatch.setenv("WEFT_FAKE_CHAT", "yes")
    with (
        served(write_bank(tmp_path, poem={"closed": False})) as running,
        openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as client,
    ):
        messages = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
        found = client.chat.completions.create(model="poem", messages=messages)
        assert found.choices[0].message.content == "poem says user: hi"
        parts = list(client.chat.completions.create(model="poem", messages=messages, stream=True))
        assert parts[0].choices[0].delta.role == "assistant"
        assert "".join(one.choices[0].delta.content or "" for one in parts) == "poem says user: hi"
        steers = [{"role": "user", "content": "hi <end> there"}]
        with pytest.raises(openai.BadRequestError, match="no text for this model"):
            client.chat.completions.create(model="poem", messages=steers)
        with pytest.raises(openai.BadRequestError, match="begins with the user"):
            client.chat.completions.create(model="poem", messages=[{"role": "assistant", "content": "x"}])


# keys

GOOD, OTHER = "a-good-key-of-a-server", "another-key-of-a-server"


def test_every_route_wants_a_key(tmp_path):
    """S25: whatever routes there are or will be, by the table of the application."""
    bank = write_bank(tmp_path, poem={"closed": False})
    with served(bank, keys=(GOOD, OTHER), allow_admin=True) as running, running.client() as http:
        free = {"/health", *page_files.files()}
        routes = [
            (method, path.replace("{name}", "poem"))
            for path, methods in http.get("/openapi.json", headers=bearer(GOOD)).json()["paths"].items()
            for method in methods
        ]
        assert len(routes) >= 9
        for method, path in [*routes, ("get", "/openapi.json"), ("get", "/v1/else"), ("post", "/health/")]:
            expected = {200} if path in free else {401}
            for headers in ({}, bearer("wrong-key-of-a-server"), {"authorization": f"Basic {GOOD}"}):
                assert http.request(method, path, headers=headers).status_code in expected, (method, path)
        for path in free:
            assert http.get(path).status_code == 200
        for key in (GOOD, OTHER):
            assert http.get("/v1/models", headers=bearer(key)).status_code == 200
        assert http.post("/v1/admin/reload", headers=bearer(GOOD)).json() == {
            "generation": 1,
            "changed": False,
        }


def bearer(key):
    return {"authorization": f"Bearer {key}"}


def paths_of(routes):
    """All paths, of routers within routers too."""
    for route in routes:
        inner = getattr(route, "original_router", None) or getattr(route, "app", None)
        if hasattr(route, "path"):
            yield route.path
        if hasattr(inner, "routes"):
            yield from paths_of(inner.routes)


def test_routes_of_the_application_are_those_of_the_document(server):
    """So that the test of keys misses none."""
    app = create_app(server.service, allow_admin=True)
    documented = {path.replace("{name}", "{name:path}") for path in app.openapi()["paths"]}
    plain = set(paths_of(app.routes))
    assert documented <= plain
    assert plain - documented == {"/openapi.json", *page_files.files()}
    assert {path.rpartition(".")[2] for path in page_files.files()} == {"/", "js", "css", "svg"}


def test_texts_are_not_logged(http, caplog):
    http.post("/v1/completions", json={"model": "poem", "prompt": "very-secret-words", "n": 99})
    http.post("/v1/classify", json={"model": "spam", "inputs": "very-secret-words"})
    assert "very-secret-words" not in caplog.text


def test_no_reply_repeats_a_text_that_is_refused(http):
    body = json.dumps({"model": "poem", "prompt": {"very-secret-words": "very-secret-words"}})
    reply = http.post("/v1/completions", content=body, headers={"content-type": "application/json"})
    assert reply.status_code == 422
    assert "very-secret-words" not in reply.text


def test_metrics_by_route(http):
    http.post("/v1/completions", json={"model": "poem", "prompt": "of the sea", "max_tokens": 4})
    text = http.get("/metrics").text
    assert 'weft_requests_total{route="/v1/completions",status="200"}' in text
    assert 'weft_tokens_total{kind="virtual"}' in text
    assert "weft_bank_tasks 4.0" in text
    assert "weft_ready 1.0" in text
    assert "weft_running_answers 0.0" in text
