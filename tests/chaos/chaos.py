#!/usr/bin/env python3
"""Breaks workers of a running server at random moments, under many streams, and holds each stream to what an undisturbed
run gave: no stream lost, no token missing or twice, no KV block leaked. `./weft chaos` runs it; --seed repeats it."""

import argparse
import collections
import http.client
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
FAULTS = ("kill", "stop", "close", "garbage", "nonsense")
SIGNALS = {"close": signal.SIGUSR1, "garbage": signal.SIGUSR2, "nonsense": signal.SIGHUP}  # of flaky_link.py


class Server:
    """`weft serve` with its ranks in processes, each behind a link that can be broken."""

    def __init__(self, binary, options):
        self.log = tempfile.TemporaryFile("w+")
        # Links that are killed leave sockets there. Not wherever TMPDIR says: a socket's path is short.
        self.directory = tempfile.TemporaryDirectory(prefix="weft-chaos-", dir="/tmp")
        self.process = subprocess.Popen(
            [binary, "serve", "--model", REPOSITORY / "deploy/demo_model", "--port", "0", "--grpc-port", "0",
             "--workers", "process", "--replicas", str(options.replicas),
             "--tensor-parallel-size", str(options.tensor_parallel_size),
             "--pipeline-parallel-size", str(options.pipeline_parallel_size),
             "--max-num-seqs", "48", "--max-queued-requests", "1000", "--step-timeout", f"{options.step_timeout}s",
             "--restart-limit", "1000000", "--restart-backoff", "0s", "--log-level", "warn",
             "--worker-wrapper", f"{sys.executable} -S {HERE / 'flaky_link.py'}"],
            stdout=subprocess.PIPE, stderr=self.log, text=True,
            env={**os.environ, "XDG_RUNTIME_DIR": self.directory.name})
        ready = re.match(r"weft ready http=(\S+):(\d+) ", self.process.stdout.readline())
        if ready is None:
            self.process.kill()
            raise SystemExit(f"chaos: the server doesn't start:\n{self.text()}")
        self.host, self.port = ready[1], int(ready[2])

    def text(self):
        self.log.flush()
        self.log.seek(0)
        return self.log.read()

    def metrics(self):
        connection = http.client.HTTPConnection(self.host, self.port, timeout=30)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        return dict(re.findall(r"^(\w+(?:\{[^}]*\})?) (\S+)$", text, re.MULTILINE))

    def total(self, name, label=""):
        """The sum of a metric's series, of those with a label."""
        return sum(float(value) for series, value in self.metrics().items()
                   if series.partition("{")[0] == name and label in series)

    def links(self):
        """Process ids of the links, each with its worker's, of those that are there in full."""
        pairs = []
        for link in children_of(self.process.pid):
            pairs += [(link, worker) for worker in children_of(link)]
        return pairs

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(120)

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.directory.cleanup()


def children_of(pid):
    try:
        return [int(child) for task in os.listdir(f"/proc/{pid}/task")
                for child in pathlib.Path(f"/proc/{pid}/task/{task}/children").read_text().split()]
    except OSError:
        return []


def signal_if_alive(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def break_worker(fault, link, worker):
    if fault == "kill":
        signal_if_alive(worker, signal.SIGKILL)
    elif fault == "stop":
        signal_if_alive(worker, signal.SIGSTOP)
    else:
        signal_if_alive(link, SIGNALS[fault])


Answer = collections.namedtuple("Answer", "text num_tokens finish gaps")


def ask(server, number, tokens):
    """One stream, to its end: what it said, and when its pieces came."""
    body = json.dumps({"prompt": f"Tell me story {number} of the sea.", "max_tokens": tokens, "temperature": 0.8,
                       "seed": number, "stream": True, "ignore_eos": True, "stream_options": {"include_usage": True}})
    connection = http.client.HTTPConnection(server.host, server.port, timeout=300)
    try:
        connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            raise AssertionError(f"status {response.status}: {response.read()[:300]}")
        return read_stream(response)
    finally:
        connection.close()


def read_stream(response):
    text, num_tokens, finishes, gaps, last, done = "", None, [], [], None, False
    for line in response:
        if not line.startswith(b"data: "):
            continue
        assert not done, "something comes after [DONE]"
        now = time.monotonic()
        if line.strip() == b"data: [DONE]":
            done = True
            continue
        event = json.loads(line[len(b"data: "):])
        assert "error" not in event, f"an error event: {event}"
        if event.get("usage"):
            num_tokens = event["usage"]["completion_tokens"]
        for choice in event["choices"]:
            if choice["finish_reason"]:
                finishes.append(choice["finish_reason"])
            if choice["text"]:
                text += choice["text"]
                if last is not None:
                    gaps.append((last, now - last))
                last = now
    assert done, "the stream ends without [DONE]"
    assert len(finishes) == 1, f"finished {finishes}"
    return Answer(text, num_tokens, finishes[0], gaps)


class Streams:
    """Clients that ask again and again, and compare."""

    def __init__(self, server, options):
        self.server, self.options = server, options
        self.expected = {}
        self.problems, self.gaps, self.num_done = [], [], 0
        self.lock = threading.Lock()
        self.stopping = threading.Event()

    def learn(self):
        """What each request gives when nothing breaks, many at a time."""
        self.in_threads(lambda number: self.expected.__setitem__(number, self.ask(number)))

    def start(self):
        self.threads = [threading.Thread(target=self.run, args=(number,)) for number in range(self.options.streams)]
        for thread in self.threads:
            thread.start()

    def finish(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join()

    def in_threads(self, work):
        threads = [threading.Thread(target=work, args=(number,)) for number in range(self.options.streams)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def ask(self, number):
        return ask(self.server, number, self.options.tokens)

    def run(self, number):
        while not self.stopping.is_set():
            problem, gaps = None, []
            try:
                answer = self.ask(number)
                gaps = answer.gaps
                if answer[:3] != self.expected[number][:3]:
                    problem = f"stream {number} differs:\n  {answer[:3]}\n  {self.expected[number][:3]}"
            except Exception as error:  # whatever it is, this stream is not what it should be
                problem = f"stream {number}: {type(error).__name__}: {error}"
            with self.lock:
                self.num_done += 1
                self.gaps.append(gaps)
                if problem:
                    self.problems.append(problem)


def wait_until(what, seconds):
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def quantile(values, q):
    values = sorted(values)
    return values[min(len(values) - 1, int(q * len(values)))] if values else float("nan")


def chaos(server, options):
    """Breaks workers one by one: (when it was broken, when all replicas were up again) for each."""
    rng = random.Random(options.seed)
    outages = []
    for count in range(options.kills):
        time.sleep(rng.uniform(0, options.pause))
        links = []
        if not wait_until(lambda: links.extend(server.links()) or links, 60):
            raise SystemExit(f"chaos: no worker for a minute:\n{server.text()[-4000:]}")
        fault, (link, worker) = rng.choice(options.faults), rng.choice(links)
        start, restarts = time.monotonic(), server.total("weft_replica_restarts_total")
        break_worker(fault, link, worker)
        is_back = lambda: (server.total("weft_replica_restarts_total") > restarts
                           and server.total("weft_replica_up") == options.replicas)
        # Sometimes the next one comes while this one is being recovered from.
        if rng.random() < 0.8 and not wait_until(is_back, 120):
            raise SystemExit(f"chaos: no recovery from {fault} within two minutes:\n{server.text()[-4000:]}")
        outages.append((start, time.monotonic()))
        if options.verbose:
            print(f"{count + 1}: {fault}, {outages[-1][1] - start:.2f} s", flush=True)
    if not wait_until(lambda: server.total("weft_replica_up") == options.replicas, 120):
        raise SystemExit(f"chaos: not all replicas came back:\n{server.text()[-4000:]}")
    return outages


def report(streams, outages):
    """Gaps during recovery, but for the longest of each stream and recovery, in which it may have moved to another
    replica, beside those without."""
    during, outside = [], []
    for gaps in streams.gaps:
        overlapping = [[gap for begin, gap in gaps if begin <= end and begin + gap >= start] for start, end in outages]
        during += [gap for own in overlapping for gap in sorted(own)[:-1]]
        outside += [gap for begin, gap in gaps
                    if not any(begin <= end and begin + gap >= start for start, end in outages)]
    took = [end - start for start, end in outages]
    ratio = quantile(during, .99) / quantile(outside, .99)
    print(f"recovery p50 {quantile(took, .5):.2f} s, longest {max(took):.2f} s; gap between tokens p99 "
          f"{quantile(outside, .99) * 1e3:.0f} ms, while a replica recovers {quantile(during, .99) * 1e3:.0f} ms, {ratio:.2f} times")
    return ratio


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", default=REPOSITORY / "build/release/weft")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=60, help="of each stream")
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--tensor-parallel-size", type=int, default=1)
    parser.add_argument("--pipeline-parallel-size", type=int, default=1)
    parser.add_argument("--pause", type=float, default=1.0, help="longest, in seconds, before the next fault")
    parser.add_argument("--step-timeout", type=float, default=2.0, help="seconds")
    parser.add_argument("--max-gap-ratio", type=float, default=1.5,
                        help="of the p99 gap between tokens while a replica recovers, to that outside")
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=FAULTS)
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()

    server = Server(options.binary, options)
    streams = Streams(server, options)
    try:
        streams.learn()
        if len(streams.expected) < options.streams:
            raise SystemExit("chaos: the undisturbed run has failed")
        streams.start()
        outages = chaos(server, options)
        streams.finish()
        leaked = not wait_until(lambda: server.total("weft_kv_blocks", 'state="held"') == 0, 20)
        status = server.stop()
    finally:
        streams.stopping.set()
        server.end()
    is_slow = bool(outages) and not report(streams, outages) <= options.max_gap_ratio  # of too few gaps it is no number
    if options.verbose:
        print(server.text())
    for problem in streams.problems[:10]:
        print(problem)
    print(f"seed {options.seed}: {options.kills} faults under {options.streams} streams: {streams.num_done} answers, "
          f"{len(streams.problems)} wrong or lost, {'blocks leaked' if leaked else 'no block leaked'}, exit {status}")
    if is_slow:
        print(f"gaps were more than {options.max_gap_ratio} times as long while replicas recovered, or too few to tell")
    sys.exit(bool(streams.problems or leaked or status or streams.num_done < options.streams or is_slow))


if __name__ == "__main__":
    main()
