"""How fast the server says no, and what that does to those it says yes to: an open loop at ten times the capacity.

Prints a Markdown table; run by hand, with the path of the built server:

  BINARY_UNDER_TEST=build/release/weft python3 tests/e2e/bench_overload.py
"""

import asyncio
import collections
import json
import random
import time

from weft_server import WeftServer

OUTPUT_TOKENS = 200
SECONDS = 15
FLAGS = ("--max-num-seqs", 8, "--max-queued-requests", 16)


def body(index):
    return json.dumps({"model": "weft-demo", "prompt": f"Request {index} tells a story that", "stream": True,
                       "max_tokens": OUTPUT_TOKENS, "ignore_eos": True}).encode()


async def ask(address, index, results):
    host, port = address.split(":")
    payload = body(index)
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        begin = time.perf_counter()
        writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: weft\r\nContent-Type: application/json\r\n"
                     b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(payload) + payload)
        head = await reader.readuntil(b"\r\n\r\n")
        seconds = time.perf_counter() - begin
        status = int(head.split()[1])
        if status != 200:
            assert b"retry-after:" in head.lower(), head
            results[status].append(seconds)
            return
        await reader.readuntil(b"data: ")
        results["first token"].append(time.perf_counter() - begin)
        rest = await reader.read()
        assert b"[DONE]" in rest, rest[-200:]
        results[200].append(time.perf_counter() - begin)
    finally:
        writer.close()


async def closed_loop(address, workers, seconds):
    """Finished requests a second while `workers` ask one after the other."""
    results = collections.defaultdict(list)
    end = time.perf_counter() + seconds

    async def work(worker):
        index = 0
        while time.perf_counter() < end:
            await ask(address, f"{worker}.{index}", results)
            index += 1

    await asyncio.gather(*(work(worker) for worker in range(workers)))
    return len(results[200]) / seconds, results


async def open_loop(address, rate, seconds):
    results = collections.defaultdict(list)
    tasks, due, begin = [], 0.0, time.perf_counter()
    while (due := due + random.expovariate(rate)) < seconds:
        await asyncio.sleep(max(0.0, begin + due - time.perf_counter()))
        tasks.append(asyncio.create_task(ask(address, len(tasks), results)))
    await asyncio.gather(*tasks)
    return len(results[200]) / (time.perf_counter() - begin), results


def quantiles(seconds):
    if not seconds:
        return "| - | - "
    ordered = sorted(seconds)
    return "".join(f"| {1000 * ordered[int(q * (len(ordered) - 1))]:.1f} ms " for q in (0.5, 0.99))


def main():
    random.seed(7)
    with WeftServer(*FLAGS) as server:
        capacity, at_capacity = asyncio.run(closed_loop(server.http, 8, SECONDS))
        finished, overloaded = asyncio.run(open_loop(server.http, 10 * capacity, SECONDS))
    print("| load | finished a second | refused | 429: p50 | 429: p99 | first token p50 | first token p99 |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, rate, results in (("8 clients, one request each", capacity, at_capacity),
                                (f"{10 * capacity:.0f} requests a second", finished, overloaded)):
        print(f"| {name} | {rate:.1f} | {len(results[429])} {quantiles(results[429])}"
              f"{quantiles(results['first token'])}|")
    unexpected = set(overloaded) - {200, 429, "first token"}
    assert not unexpected, unexpected


if __name__ == "__main__":
    main()
