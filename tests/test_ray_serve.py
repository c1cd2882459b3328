"""Replicas of the server under Ray Serve: they answer as the plain server does, and take up what is new."""

import socket
import sys
import time

import httpx
import pytest
from test_server_process import FIXTURE, process, real_bank
from tiny_bank import BASE

from weft import bank as banks
from weft.bank.writer import change
from weft.errors import ArtifactError, ConfigError, UnsupportedError

ASK = {"model": ["alpha", "beta", "gamma"], "inputs": ["the good film is", "the bad book was", "a man sees"]}


def answers(client):
    """Answers with their probabilities, in order."""
    found = client.post("/v1/classify", json=ASK)
    assert found.status_code == 200, found.text
    return [(row["model"], row["answer"], row["probabilities"]) for row in found.json()["data"]]


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.mark.slow
@pytest.mark.timeout(900)  # of which most is the start of Ray's processes where others are at work
def test_two_replicas_answer_as_the_plain_server(tmp_path):
    """The same answers whichever replica is asked; a task that is removed is gone from both of them."""
    ray = pytest.importorskip("ray")
    serve = pytest.importorskip("ray.serve")
    from weft.server.ray_app import build

    bank, port = real_bank(tmp_path), free_port()
    command = ("-m", "weft", "serve", bank, "--port", 0, "--base", FIXTURE / "base")
    try:
        begun(ray)
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        options = {"bank": str(bank), "base": str(FIXTURE / "base"), "replicas": "2", "num_cpus": "1"}
        serve.run(build({**options, "poll_seconds": "0.2"}), name="weft", route_prefix="/")
        [deployment] = serve.status().applications["weft"].deployments.values()
        assert deployment.replica_states == {"RUNNING": 2}
        with (
            process(*command, ready=False) as (_, url),
            httpx.Client(base_url=url, trust_env=False, timeout=60) as plain,
            httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as client,
        ):
            while plain.get("/ready").status_code != 200:
                time.sleep(0.1)
            expected = answers(plain)
            for _ in range(12):
                for one, other in zip(answers(client), expected, strict=True):
                    assert one[:2] == other[:2]
                    assert one[2] == pytest.approx(other[2], abs=1e-4)
            assert client.post("/v1/classify", json={**ASK, "model": "none"}).status_code == 404
            change(bank, remove=["beta"])
            gone = 0
            while gone < 20:  # in a row, so that both were asked
                known = [model["id"] for model in client.get("/v1/models").json()["data"]]
                gone = gone + 1 if known == ["alpha", "gamma"] else 0
                time.sleep(0.02)
    finally:
        serve.shutdown()
        ray.shutdown()


def begun(ray):
    """A node of its own; Ray gives its processes 30 s to start, which others at work may take."""
    for left in reversed(range(5)):
        try:
            ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
            return
        except Exception:
            ray.shutdown()
            if not left:
                raise


def test_options_are_checked_before_a_replica_starts(tmp_path, monkeypatch):
    """No bank, one that is none, no replicas; and Ray Serve that is not there."""
    monkeypatch.setitem(sys.modules, "ray", None)
    from weft.server.ray_app import build, checked

    with pytest.raises(UnsupportedError) as caught:
        build({"bank": "bank"})
    assert caught.value.fix == "pip install 'weft[ray-serve]'"
    with pytest.raises(ConfigError, match="no bank is named"):
        checked({})
    with pytest.raises(ArtifactError):
        checked({"bank": str(tmp_path / "none")})
    banks.create(tmp_path / "bank", BASE)
    bank = {"bank": str(tmp_path / "bank")}
    with pytest.raises(ConfigError, match="'0' replicas"):
        checked({**bank, "replicas": "0"})
    with pytest.raises(ConfigError, match="runing_rows"):
        checked({**bank, "runing_rows": "3"})
    found = checked({**bank, "replicas": "3", "num_gpus": "0.5", "running_rows": "7"})
    assert (found.replicas, found.actor, found.settings.running_rows) == (3, {"num_gpus": 0.5}, 7)
