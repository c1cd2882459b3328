"""`weft serve` as a process: what it says at its start, how it ends, and a real model behind it."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import openai
import pytest
from fake_engine import write_bank

from weft import bank as banks
from weft.bank import from_runs
from weft.bank.writer import change
from weft.cli import main
from weft.errors import ConfigError
from weft.server.keys import read_keys

HERE = Path(__file__).parent
FIXTURE = HERE / "fixtures" / "format-1"
RUNS = FIXTURE / "finished"


@pytest.fixture
def bank(tmp_path):
    return write_bank(tmp_path / "bank", poem={"closed": False}, banking={})


@contextmanager
def process(*command, ready=True):
    """A server as a process; gives it, and where it listens."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent / "src"), str(HERE)])}
    with subprocess.Popen(
        [sys.executable, *map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment,
    ) as one:  # fmt: skip
        try:
            url = one.stdout.readline().split()[-1]
            end = time.monotonic() + 90
            while ready and httpx.get(f"{url}/ready", trust_env=False).status_code != 200:
                assert one.poll() is None, one.stderr.read()
                assert time.monotonic() < end
                time.sleep(0.05)
            yield one, url
        finally:
            one.kill()


def fake(bank, *overrides):
    return process(HERE / "serve_fake.py", bank, 0, *overrides)


def test_sigterm_under_load_loses_no_admitted_request(bank, monkeypatch):
    """S20: not ready at once, nothing new, what is admitted is answered, exit 0."""
    monkeypatch.setenv("WEFT_FAKE_STEP", "0.05")
    with fake(bank) as (one, url):
        replies, lock = [], threading.Lock()
        told = threading.Event()

        def ask():
            with httpx.Client(base_url=url, trust_env=False, timeout=30) as http:
                while not told.is_set():
                    try:
                        reply = http.post("/v1/completions", json={"model": "poem", "prompt": "a b c d e f"})
                    except httpx.TransportError as error:
                        reply = error
                    with lock:
                        replies.append(reply)

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        while len(replies) < 16:
            time.sleep(0.01)
        one.send_signal(signal.SIGTERM)
        statuses = set()
        while one.poll() is None:
            try:
                statuses.add(httpx.get(f"{url}/ready", trust_env=False, timeout=1).status_code)
            except httpx.TransportError:
                break
            time.sleep(0.01)
        told.set()
        for thread in threads:
            thread.join()
        assert one.wait(30) == 0
        assert 503 in statuses
        answered = [reply for reply in replies if isinstance(reply, httpx.Response)]
        assert {reply.status_code for reply in answered} <= {200, 503}
        late = [reply for reply in replies if not isinstance(reply, httpx.Response)]
        # who comes when nobody listens any more is not admitted: refused, never cut off in an answer
        assert all(
            isinstance(error, httpx.ConnectError | httpx.ReadError | httpx.RemoteProtocolError)
            for error in late
        )
        assert sum(reply.status_code == 200 for reply in answered) >= 16
        for reply in answered:
            if reply.status_code == 503:
                assert reply.json()["error"]["code"] == "not_ready"


@pytest.mark.slow
def test_an_answer_that_takes_longer_than_the_drain_is_given_up(bank):
    with fake(bank, "drain_seconds=1") as (one, url):
        replies = []

        def ask():
            body = {"model": "poem", "prompt": "slow " + "word " * 100}
            replies.append(
                httpx.post(f"{url}/v1/completions", json=body, trust_env=False, timeout=30).status_code
            )

        thread = threading.Thread(target=ask)
        thread.start()
        time.sleep(0.5)
        began = time.monotonic()
        one.send_signal(signal.SIGINT)
        assert one.wait(30) == 0
        assert time.monotonic() - began < 10
        thread.join()
        assert replies == [503]


def test_a_killed_server_leaves_no_worker(bank):
    with fake(bank) as (one, _):
        children = Path(f"/proc/{one.pid}/task").glob("*/children")
        pids = [int(word) for path in children for word in path.read_text().split()]
        assert pids
        one.kill()
        one.wait()
        end = time.monotonic() + 10
        while any(_alive(pid) for pid in pids):
            assert time.monotonic() < end
            time.sleep(0.05)


def _alive(pid):
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def said(monkeypatch, capsys, *words):
    """What the command says, and its exit code."""
    monkeypatch.setattr(sys, "argv", ["weft", "serve", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        main()
    return stop.value.code, capsys.readouterr().err


def test_a_port_that_is_taken(bank, monkeypatch, capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        code, told = said(monkeypatch, capsys, bank, "--port", other.getsockname()[1])
    assert code == 5
    assert "WEFT-S31: cannot listen at 127.0.0.1 port" in told
    assert "--port" in told


def test_an_address_of_another_machine(bank, monkeypatch, capsys):
    code, told = said(monkeypatch, capsys, bank, "--host", "192.0.2.1", "--port", 0)
    assert (code, "cannot listen at 192.0.2.1" in told) == (5, True)


def test_no_bank(tmp_path, monkeypatch, capsys):
    code, told = said(monkeypatch, capsys, tmp_path / "none", "--port", 0)
    assert (code, "there is no bank" in told) == (4, True)


@pytest.mark.slow
def test_no_base_model(tmp_path, monkeypatch, capsys):
    """The bank's base model is not on this machine; said by the worker, with its exit code."""
    bank = real_bank(tmp_path)
    code, told = said(monkeypatch, capsys, bank, "--port", 0, "--base", tmp_path / "nowhere")
    assert code == 4
    assert "no base model" in told
    assert "Traceback" not in told


def test_admin_wants_keys(bank, monkeypatch, capsys):
    code, told = said(monkeypatch, capsys, bank, "--allow-admin", "--port", 0)
    assert (code, "--api-key-file" in told) == (2, True)


def test_an_unknown_setting(bank, monkeypatch, capsys):
    code, told = said(monkeypatch, capsys, bank, "--set", "queue_row=5")
    assert (code, "queue_rows" in told) == (2, True)


@pytest.mark.parametrize(
    "text", ["", "# nothing\n\n", "tiny-key\n", "a key with blanks in it\n", "ключ-из-других-букв\n"]
)
def test_key_files_that_are_none(tmp_path, text):
    (tmp_path / "keys").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_keys(tmp_path / "keys")
    assert caught.value.code == "S25"
    assert not text.strip() or text.strip() not in str(caught.value)  # a key is no text for a screen
    with pytest.raises(ConfigError):
        read_keys(tmp_path / "none")


def test_key_file(tmp_path):
    (tmp_path / "keys").write_text("# ours\n0123456789abcdef\n\n  fedcba9876543210 \n")
    assert read_keys(tmp_path / "keys") == ("0123456789abcdef", "fedcba9876543210")


def test_the_server_s_own_process_loads_no_torch():
    """The model is the worker's: what asks and answers starts soon, and takes a quarter of the memory."""
    code = (
        "import sys; from weft.cli.app import places_of; import weft.cli.serve, weft.server.run; "
        "from weft.server.opening import open_engine; places_of(None, None); "
        "sys.exit(', '.join({'torch', 'transformers'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stderr.strip(), done.returncode) == ("", 0)


def real_bank(folder):
    """Tasks of finished runs on a tiny model."""
    names = ["source-alpha+beta-s0-4d4fda07", "adapt-mpt-gamma-s0-32afba04"]
    found = from_runs.of_runs(names, RUNS, "float32")
    banks.create(folder / "bank", found.base)
    change(folder / "bank", found.rows, shared=found.shared)
    return folder / "bank"


def test_a_real_model(tmp_path):
    """A model behind the command: a text under all tasks is what each says of it, and writing streams."""
    bank = real_bank(tmp_path)
    command = ("-m", "weft", "serve", bank, "--port", 0, "--base", FIXTURE / "base")
    with process(*command) as (one, url), openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        assert [model.id for model in client.models.list()] == ["alpha", "beta", "gamma"]
        ask = {"inputs": ["the good film is", {"text": "the bad book was"}]}
        with httpx.Client(base_url=url, trust_env=False, timeout=30) as http:
            names = ["alpha", "beta", "gamma"]
            together = http.post("/v1/classify", json={"model": names, **ask}).json()["data"]
            for name in names:
                alone = http.post("/v1/classify", json={"model": name, **ask}).json()["data"]
                mine = [row for row in together if row["model"] == name]
                for one_row, other in zip(alone, mine, strict=True):
                    assert one_row["answer"] == other["answer"]
                    assert one_row["probabilities"] == pytest.approx(other["probabilities"], abs=1e-4)
                    assert sum(one_row["probabilities"].values()) == pytest.approx(1)
        asked = {"model": "gamma", "prompt": "the good film is", "max_tokens": 5}
        whole = client.completions.create(**asked).choices[0].text
        parts = client.completions.create(**asked, stream=True)
        assert whole == "".join(part.choices[0].text for part in parts)
        assert whole
        one.send_signal(signal.SIGTERM)
        assert one.wait(30) == 0
        assert "Traceback" not in one.stderr.read()


def test_without_the_packages_of_serving(bank, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    for name in [name for name in sys.modules if name.startswith("weft.server.")]:
        monkeypatch.delitem(sys.modules, name)
    code, told = said(monkeypatch, capsys, bank)
    assert code == 2
    assert "pip install 'weft[serve]'" in told


def test_settings_are_described(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["weft", "config", "ServeConfig"])
    with pytest.raises(SystemExit):
        main()
    assert "queue_rows: = 4096" in capsys.readouterr().out
