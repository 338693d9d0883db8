"""Starts and stops `weft serve`, and reads what it says of itself."""

import os
import pathlib
import re
import signal
import subprocess
import tempfile
import time
import urllib.request

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
DEMO_MODEL = REPOSITORY / "deploy/demo_model"
BINARY = os.environ["BINARY_UNDER_TEST"]
MODEL = "weft-demo"


class WeftServer:
    """`weft serve` on the demo model, on ports that the system picks. A context manager; `stop` tells the exit code.
    prefix: words before the command."""

    def __init__(self, *flags, model=DEMO_MODEL, env=None, prefix=()):
        self._log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [*prefix, BINARY, "serve", "--model", model, "--served-model-name", MODEL, "--port", "0", "--grpc-port", "0",
             *map(str, flags)],
            stdout=subprocess.PIPE, stderr=self._log, text=True, env={**os.environ, **(env or {})},
        )
        ready = self.process.stdout.readline()
        match = re.fullmatch(r"weft ready http=(\S+) grpc=(\S+)\n", ready)
        if match is None:
            self.process.kill()
            self.process.wait()
            raise RuntimeError(f"not ready: {ready!r}\n{self.log()}")
        self.http, self.grpc = match.groups()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.stop()
        self.process.stdout.close()
        self._log.close()

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def stop(self, timeout=60):
        self.signal()
        return self.process.wait(timeout)

    def log(self):
        self._log.flush()
        self._log.seek(0)
        return self._log.read()

    def get(self, path):
        with urllib.request.urlopen(f"http://{self.http}{path}", timeout=10) as answer:
            return answer.read().decode()

    def metric(self, name):
        """The sum over a metric's series."""
        values = re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", self.get("/metrics"), re.MULTILINE)
        assert values, f"no metric {name}"
        return sum(map(float, values))

    def wait_for_metric(self, name, value, timeout=10):
        """Waits until a metric has a value; metrics are all that a client sees of the scheduler."""
        deadline = time.monotonic() + timeout
        while (seen := self.metric(name)) != value:
            assert time.monotonic() < deadline, f"{name} is {seen}, not {value}"
            time.sleep(0.02)


def children_of(pid):
    """Process ids, in their order."""
    return sorted(int(child) for task in os.listdir(f"/proc/{pid}/task")
                  for child in pathlib.Path(f"/proc/{pid}/task/{task}/children").read_text().split())


def wait_for_end(pids, timeout=10):
    """Of processes that the system ends, and then reaps."""
    deadline = time.monotonic() + timeout
    while any(pathlib.Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline, f"of {pids} some are there still"
        time.sleep(0.02)


def run_to_exit(*arguments, env=None):
    """Runs `weft` with arguments that end it by themselves."""
    return subprocess.run([BINARY, *map(str, arguments)], capture_output=True, text=True, timeout=60,
                          env={**os.environ, **(env or {})})


def story(client, tokens=120):
    """A stream of one seed, piece by piece."""
    for event in client.completions.create(model=MODEL, prompt="Weft is", max_tokens=tokens, temperature=0.9, seed=5,
                                           stream=True, extra_body={"ignore_eos": True}):
        yield event.choices[0].text
