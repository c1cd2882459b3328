"""Requests as bytes on a socket: slow, endless, lying, cut off; and good ones beside them."""

import json
import socket
import time
from contextlib import suppress

import pytest
from fake_engine import write_bank
from serving_helpers import QUICK, served

from weft.server import run

LIMIT = 10_000


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    bank = write_bank(tmp_path_factory.mktemp("bank"), poem={"closed": False}, banking={})
    with served(bank, QUICK.model_copy(update={"body_bytes": LIMIT, "receive_seconds": 0.5})) as running:
        yield running


def connect(server):
    host, port = server.url.removeprefix("http://").split(":")
    found = socket.create_connection((host, int(port)))
    found.settimeout(10)
    return found


def answer(connection):
    """All that comes until the server closes."""
    got = b""
    while part := connection.recv(65536):
        got += part
    return got


def head(*lines, path="/v1/completions"):
    first = [f"POST {path} HTTP/1.1", "host: x", "content-type: application/json"]
    return "\r\n".join([*first, *lines, "", ""]).encode()


GOOD = b'{"model": "poem", "prompt": "x"}'


def good(server, task="poem"):
    with server.client() as http:
        began = time.monotonic()
        assert http.post(
            "/v1/completions",
            content=GOOD.replace(b"poem", task.encode()),
            headers={"content-type": "application/json"},
        ).is_success
        return time.monotonic() - began


def test_a_body_that_says_it_is_too_large_is_not_read(server):
    with connect(server) as one:
        one.sendall(head(f"content-length: {LIMIT + 1}"))
        told = answer(one)
    assert told.startswith(b"HTTP/1.1 413")
    assert b"connection: close" in told
    assert str(LIMIT).encode() in told


def test_endless_chunks_are_stopped(server):
    with connect(server) as one:
        one.sendall(head("transfer-encoding: chunked"))
        sent = 0
        with suppress(OSError):  # reset, or a broken pipe
            while sent < 50 * LIMIT:
                one.sendall(b"400\r\n" + b"x" * 1024 + b"\r\n")
                sent += 1024
                time.sleep(0.001)
    assert sent < 50 * LIMIT


def test_a_body_shorter_than_it_says_is_not_awaited_for_ever(server):
    with connect(server) as one:
        began = time.monotonic()
        one.sendall(head("content-length: 100") + GOOD)
        assert answer(one).startswith(b"HTTP/1.1 408")
        assert 0.4 < time.monotonic() - began < 3


def test_a_body_longer_than_it_says_is_another_request(server):
    with connect(server) as one:
        one.sendall(head(f"content-length: {len(GOOD)}", "connection: close") + GOOD + b"more of it")
        assert answer(one).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "lies", [("content-length: 5", "content-length: 6"), ("content-length: -1",), ("content-length: x",)]
)
def test_lengths_that_are_none(server, lies):
    with connect(server) as one:
        one.sendall(head(*lies) + GOOD)
        assert answer(one).startswith(b"HTTP/1.1 4")


def test_a_length_and_chunks_together(server):
    """What smuggles requests past proxies: chunks count, and the connection is closed or refused."""
    with connect(server) as one:
        chunks = f"{len(GOOD):x}\r\n".encode() + GOOD + b"\r\n0\r\n\r\n"
        one.sendall(head("content-length: 3", "transfer-encoding: chunked", "connection: close") + chunks)
        assert answer(one)[:12] in (b"HTTP/1.1 200", b"HTTP/1.1 400")


def test_slow_heads_and_bodies_end_and_disturb_nobody(server):
    """S08: fifty connections that drip; good requests are answered beside them."""
    drips = [connect(server) for _ in range(50)]
    began = time.monotonic()
    for i, one in enumerate(drips):
        one.sendall(head("content-length: 50") + b"{" if i % 2 else b"POST /v1/comp")
    took = []
    while time.monotonic() - began < 0.4:
        for one in drips:
            one.sendall(b"x")
        took.append(good(server))
        time.sleep(0.05)
    assert max(took) < 0.4
    for one in drips:
        assert answer(one).startswith(b"HTTP/1.1 408")
        one.close()
    assert time.monotonic() - began < 5
    good(server)


def test_silent_connections_are_closed(server):
    with connect(server) as one:
        assert answer(one).startswith(b"HTTP/1.1 408")


def test_the_second_request_of_a_connection_has_its_time_too(server):
    with connect(server) as one:
        one.sendall(head(f"content-length: {len(GOOD)}") + GOOD)
        assert one.recv(65536).startswith(b"HTTP/1.1 200")
        one.sendall(b"POST /v1/comp")
        began = time.monotonic()
        told = answer(one)
        assert b"408" in told
        assert time.monotonic() - began < 3


def test_whoever_leaves_while_sending_leaves_nothing(server):
    for part in (b"PO", head("content-length: 100"), head("content-length: 100") + b"{"):
        with connect(server) as one:
            one.sendall(part)
    good(server)
    assert server.service.batcher.idle


def test_more_requests_than_may_be_open_are_refused_with_a_time(tmp_path):
    """S12: beyond the most that are held, before a body is read; the others are answered."""
    bank = write_bank(tmp_path / "bank", poem={"closed": False})
    with served(bank, QUICK.model_copy(update={"connections": 3})) as server:
        waiting = [connect(server) for _ in range(3)]
        for one in waiting:
            one.sendall(head(f"content-length: {len(GOOD)}"))  # and no body yet
        time.sleep(0.2)
        with server.client() as http:
            reply = http.post("/v1/completions", content=GOOD, headers={"content-type": "application/json"})
            assert (reply.status_code, reply.json()["error"]["code"]) == (503, "too_many_connections")
            assert reply.headers["retry-after"] == "1"
            assert http.get("/health").status_code == 200
        for one in waiting:
            one.sendall(GOOD)
            assert one.recv(65536).startswith(b"HTTP/1.1 200")
            one.close()
        good(server)


def test_whoever_does_not_read_is_cut_off(tmp_path, monkeypatch):
    """S09: an answer waits for its reader as long as the settings say, and then its room is free."""
    bank, bound = write_bank(tmp_path / "bank", banking={}), run.bound

    def narrow(*place):
        found = bound(*place)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return found

    monkeypatch.setattr(run, "bound", narrow)
    body = json.dumps({"model": "banking", "inputs": ["x"] * 256}).encode()
    with served(bank, QUICK.model_copy(update={"send_seconds": 0.5})) as server, silent(server) as one:
        one.sendall(head(f"content-length: {len(body)}", path="/v1/classify") + body)
        whole = int(until_headers(one).partition(b"content-length: ")[2].split(b"\r\n")[0])
        time.sleep(2)
        with suppress(ConnectionResetError):
            assert len(answer(one)) < whole // 2
        assert server.service.batcher.idle
        good(server, "banking")


def silent(server):
    """A connection that has next to no room for answers."""
    host, port = server.url.removeprefix("http://").split(":")
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    found.settimeout(10)
    found.connect((host, int(port)))
    return found


def until_headers(connection):
    """The first bytes of an answer."""
    got = b""
    while b"\r\n\r\n" not in got:
        got += connection.recv(64)
    return got


def test_heads_that_are_too_large(server):
    with connect(server) as one:
        one.sendall(b"GET /health HTTP/1.1\r\nx: " + b"y" * 70_000)
        with suppress(ConnectionResetError):
            assert answer(one).startswith(b"HTTP/1.1 4")
    good(server)
