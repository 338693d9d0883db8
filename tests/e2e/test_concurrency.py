"""Many at once: nobody's tokens depend on who shares the server, and whoever leaves gives everything back."""

import http.client
import json
import socket
import struct
from concurrent.futures import ThreadPoolExecutor

from weft_server import MODEL


def stream_text(client, index, **parameters):
    request = dict(model=MODEL, messages=[{"role": "user", "content": f"What is {index} + {index + 7}?"}], seed=index,
                   max_tokens=32, **parameters)
    return "".join(c.choices[0].delta.content or "" for c in client.chat.completions.create(**request, stream=True))


def test_64_streams_say_what_each_says_alone(client, server):
    for temperature in (0, 1):
        alone = [stream_text(client, i, temperature=temperature) for i in range(64)]
        with ThreadPoolExecutor(64) as pool:
            together = list(pool.map(lambda i: stream_text(client, i, temperature=temperature), range(64)))
        assert together == alone
    server.wait_for_metric("weft_kv_cache_usage_ratio", 0)


def open_stream(server, max_tokens=1000):
    host, port = server.http.split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    body = {"model": MODEL, "prompt": "Weft is", "max_tokens": max_tokens, "ignore_eos": True, "stream": True}
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    return connection


def test_a_client_that_goes_away_frees_its_blocks(server):
    for _ in range(10):  # on a busy machine a stream may have ended before anybody looks
        connection = open_stream(server)
        answer = connection.getresponse()
        assert answer.readline().startswith(b"data: ")
        was_running = server.metric("weft_num_requests_running") == 1
        answer.close()
        connection.close()
        if was_running:
            break
    assert was_running
    server.wait_for_metric("weft_num_requests_running", 0)
    server.wait_for_metric("weft_kv_cache_usage_ratio", 0)


def test_cancel_storm_leaves_nothing_behind(server, client):
    connections = [open_stream(server) for _ in range(200)]
    for i, connection in enumerate(connections):
        if i % 2 == 0:  # half of them rudely: a reset instead of an orderly close
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    server.wait_for_metric("weft_num_requests_running", 0)
    server.wait_for_metric("weft_num_requests_waiting", 0)
    server.wait_for_metric("weft_kv_cache_usage_ratio", 0)
    assert stream_text(client, 3, temperature=0)


def test_a_stalled_reader_holds_no_blocks(server):
    connection = open_stream(server, max_tokens=1500)
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    server.wait_for_metric("weft_num_requests_running", 1)
    server.wait_for_metric("weft_num_requests_running", 0, timeout=60)  # it finishes though nobody reads
    server.wait_for_metric("weft_kv_cache_usage_ratio", 0)
    text = connection.getresponse().read().decode()
    assert text.endswith("data: [DONE]\n\n")
    connection.close()
