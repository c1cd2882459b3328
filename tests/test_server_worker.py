"""The worker dies, hangs, is poisoned, and gets new generations, while requests are on their way."""

import os
import signal
import statistics
import threading
import time

import httpx
import pytest
from fake_engine import write_bank
from serving_helpers import QUICK, served

from weft.errors import ArtifactError
from weft.server.settings import ServeConfig

POEM = {"closed": False}


@pytest.fixture
def bank(tmp_path):
    return write_bank(tmp_path / "bank", poem=POEM, banking={})


def complete(http, text="x", model="poem"):
    return http.post("/v1/completions", json={"model": model, "prompt": text})


def classify(http, text="x", model="banking"):
    return http.post("/v1/classify", json={"model": model, "inputs": text})


def until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.01)


def ready(http):
    return http.get("/ready").status_code == 200


def pid(running):
    return running.service.supervisor.process.pid


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_dead_or_hung_worker_is_replaced(bank, number):
    """S19: in-flight requests get 503, liveness is not readiness, and the next worker answers."""
    with served(bank) as running, running.client() as http:
        first = pid(running)
        replies = []
        thread = threading.Thread(target=lambda: replies.append(complete(http, "slow " + "word " * 200)))
        thread.start()
        until(lambda: running.service.batcher.running)
        os.kill(first, number)
        thread.join(30)
        [reply] = replies
        assert reply.status_code == 503
        assert reply.json()["error"]["code"] == "worker"
        assert int(reply.headers["retry-after"]) > 0
        assert http.get("/health").status_code == 200
        until(lambda: ready(http))
        assert pid(running) != first
        assert complete(http).json()["choices"][0]["text"] == "poem says x"
        assert "weft_worker_restarts_total{" in http.get("/metrics").text


def test_however_slow_it_was_a_server_without_work_answers(bank):
    """A pace that no deadline allows shuts nobody out: who comes alone is asked, and it is measured anew."""
    with served(bank) as running, running.client() as http:
        pace = running.service.batcher.pace
        pace.begin(-1000.0)
        pace.add(1, 0.0)
        pace.end(0.0)
        assert [classify(http).status_code for _ in range(5)] == [200] * 5


def test_while_no_worker_is_there_requests_are_refused_at_once(bank):
    """Before the next worker is there, and long before the deadline: nothing waits."""
    with served(bank) as running, running.client() as http:
        os.kill(pid(running), signal.SIGKILL)
        until(lambda: not running.service.ready)
        began = time.monotonic()
        reply = complete(http)
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "not_ready")
        assert time.monotonic() - began < QUICK.deadline_seconds / 4  # a busy machine takes a second
        assert http.get("/ready").status_code == 503


def test_poison_is_refused_and_others_are_served(bank):
    """S16: a request that kills workers is tried twice, the second time alone."""
    with served(bank) as running, running.client() as http:
        for _ in range(2):
            assert complete(http, "please die now").status_code == 503
            until(lambda: ready(http))
        reply = complete(http, "please die now")
        assert (reply.status_code, reply.json()["error"]["code"]) == (422, "poison")
        assert complete(http, "please live").status_code == 200


def test_a_request_beyond_its_deadline_gets_an_answer_all_the_same(bank):
    settings = QUICK.model_copy(update={"deadline_seconds": 0.5})
    with served(bank, settings) as running, running.client() as http:
        began = time.monotonic()
        reply = complete(http, "slow a b c d e f")
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "expired")
        assert time.monotonic() - began < 5
        assert complete(http).status_code == 200
        assert running.service.batcher.idle


def test_a_disconnect_frees_the_worker(bank):
    """S10: the client goes; its rows are dropped, and nothing of them is left."""
    with served(bank) as running:
        body = {"model": "poem", "prompt": "slow " + "word " * 300}
        with running.client() as http:
            http.timeout = 0.5
            with pytest.raises(httpx.ReadTimeout):
                http.post("/v1/completions", json=body)
        until(lambda: running.service.batcher.idle, 2)
        with running.client() as http:
            with http.stream("POST", "/v1/completions", json={**body, "stream": True}) as reply:
                next(reply.iter_lines())
            until(lambda: running.service.batcher.idle, 2)
            assert complete(http).status_code == 200


def test_new_generations_are_taken_up(bank):
    with served(bank) as running, running.client() as http:
        write_bank(bank, poem={**POEM, "numbers": 5}, banking={}, new={})
        until(lambda: http.get("/ready").json()["generation"] == 2)
        assert classify(http, model="new").json()["generation"] == 2
        until(lambda: running.service.at_hand == {2})  # the old one is closed in the worker


def test_a_request_is_answered_by_the_generation_it_was_admitted_with(bank):
    with served(bank) as running, running.client() as http:
        body = {"model": "poem", "prompt": "slow a b", "stream": True}
        with http.stream("POST", "/v1/completions", json=body) as old:
            lines = old.iter_lines()
            next(lines)
            write_bank(bank, banking={"numbers": 7})
            until(lambda: running.service.current.number == 2)
            assert complete(http).status_code == 404  # new requests do not know the task
            assert "poem" in "".join(lines)
        assert running.service.metrics.mismatched._value.get() == 0


def test_a_bad_generation_leaves_the_old_one(bank):
    """S17: no request fails, and it is said."""
    with (
        served(bank, keys=("a-key-of-sixteen-signs",), allow_admin=True) as running,
        running.client() as http,
    ):
        http.headers["authorization"] = "Bearer a-key-of-sixteen-signs"
        write_bank(bank, poem=POEM, unreadable={})
        until(lambda: running.service._refused == 2)
        assert complete(http).status_code == 200
        reply = http.post("/v1/admin/reload")
        assert reply.status_code == 409
        assert "not those that were written" in reply.json()["error"]["message"]
        assert str(bank) not in reply.text
        assert http.get("/ready").json()["generation"] == 1
        write_bank(bank, poem=POEM)
        until(lambda: http.get("/ready").json()["generation"] == 3)


@pytest.mark.slow
def test_a_generation_that_kills_the_worker_is_got_over(bank):
    """A bank has no way back to an older generation: not ready, but alive, until a good one comes."""
    with served(bank) as running, running.client() as http:
        write_bank(bank, poem=POEM, deadly={})
        until(lambda: not running.service.ready)
        assert http.get("/health").status_code == 200
        assert complete(http).json()["error"]["code"] == "not_ready"
        write_bank(bank, poem=POEM)
        until(lambda: ready(http))
        assert http.get("/ready").json()["generation"] == 3
        assert complete(http).status_code == 200


def test_reload_under_load(bank):
    """S18: answers while ten generations come; each is of one generation, none fails."""
    with served(bank) as running:
        stop, faults, seen = threading.Event(), [], set()

        def ask():
            with running.client() as http:
                while not stop.is_set():
                    reply = classify(http)
                    if reply.status_code != 200 or reply.json()["data"][0]["answer"] != "banking-yes":
                        faults.append(reply.text)
                    seen.add((reply.json()["generation"], reply.json()["data"][0]["sha256"]))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for one in threads:
            one.start()
        for number in range(2, 12):
            write_bank(bank, banking={"numbers": number})
            until(lambda number=number: running.service.current.number == number)
        stop.set()
        for one in threads:
            one.join()
        assert not faults
        assert len(seen) == len({number for number, _ in seen}) >= 3  # a generation has one hash


@pytest.mark.parametrize("mutant", ["shift", "other"])
def test_a_broken_engine_is_found_out(bank, monkeypatch, mutant):
    """Answers that go to other requests are withheld, never given (the checks can fail)."""
    monkeypatch.setenv("WEFT_FAKE_MUTANT", mutant)
    with served(bank) as running, running.client() as http:
        body = {"model": ["banking", "banking2"], "inputs": "x"}
        write_bank(bank, banking={}, banking2={}, poem=POEM)
        until(lambda: running.service.current.number == 2)
        reply = http.post("/v1/classify", json=body)
        assert (reply.status_code, reply.json()["error"]["code"]) == (500, "mismatch")
        assert running.service.metrics.mismatched._value.get() == 1


def test_a_bank_that_cannot_be_opened_stops_the_start(tmp_path):
    bank = write_bank(tmp_path / "bank", unreadable={})
    with pytest.raises(ArtifactError, match="not those that were written"), served(bank):
        pass
    with pytest.raises(ArtifactError, match="there is no bank"), served(tmp_path / "nothing"):
        pass


@pytest.mark.slow
def test_a_first_task_that_does_not_answer_stops_the_start(tmp_path):
    bank = write_bank(tmp_path / "bank", broken={}, good={})
    with pytest.raises(ArtifactError, match="does not answer"), served(bank):
        pass


def test_an_empty_bank_is_served_and_filled(tmp_path):
    bank = write_bank(tmp_path / "bank")
    with served(bank) as running, running.client() as http:
        assert classify(http).status_code == 404
        write_bank(bank, banking={})
        until(lambda: running.service.current.number == 2)
        assert classify(http).status_code == 200


def test_overload_is_refused_at_once_and_the_admitted_are_in_time(bank, monkeypatch):
    """S12: ten times what the worker can do: refusals in 100 ms, with a time; answers in time."""
    monkeypatch.setenv("WEFT_FAKE_STEP", "0.1")
    limits = {"queue_rows": 8, "running_rows": 4, "deadline_seconds": 5.0, "share": 1.0}
    settings = ServeConfig.model_validate({**QUICK.model_dump(), **limits})
    with served(bank, settings) as running:
        took = {200: [], 429: [], "health": []}

        def ask():
            with running.client() as http:
                for _ in range(4):
                    began = time.monotonic()
                    reply = classify(http)
                    took[reply.status_code].append(time.monotonic() - began)
                    if reply.status_code == 429:
                        began = time.monotonic()
                        http.get("/health")
                        took["health"].append(time.monotonic() - began)
                        assert int(reply.headers["retry-after"]) >= 1
                        assert reply.json()["error"]["code"] == "queue_full"
                        time.sleep(0.02)

        threads = [threading.Thread(target=ask) for _ in range(24)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        assert len(took[200]) + len(took[429]) == 96
        assert len(took[429]) > 30
        assert len(took[200]) >= 12
        assert max(took[200]) < 5
        # clients share this process and the machine, which /health tells of: the middle one beside it
        assert statistics.median(took[429]) < 0.1 + statistics.median(took["health"])
