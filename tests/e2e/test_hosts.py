"""A replica over four hosts, which are network namespaces: one is cut off in the middle of a stream."""

import contextlib
import ctypes
import os
import signal
import subprocess
import threading
import time

import pytest
from openai import OpenAI

from weft_server import BINARY, WeftServer, children_of, story, wait_for_end

CLONE_NEWNET = 0x40000000
NUM_HOSTS = 4
NET = f"10.{64 + os.getpid() % 64}.{os.getpid() // 64 % 250}"


def run(*words):
    return subprocess.run(list(map(str, words)), check=True, capture_output=True, text=True)


def name_of(host):
    return f"weft{os.getpid()}-{host}"


@contextlib.contextmanager
def inside(namespace):
    """This thread's sockets are made in a namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{namespace}") as away:
        assert libc.setns(away.fileno(), CLONE_NEWNET) == 0
        try:
            yield
        finally:
            assert libc.setns(home.fileno(), CLONE_NEWNET) == 0


def make_hosts():
    """Namespaces 0 .. 3 on one bridge, which has a namespace of its own."""
    switch = name_of("switch")
    run("ip", "netns", "add", switch)
    run("ip", "-n", switch, "link", "add", "bridge", "type", "bridge")
    run("ip", "-n", switch, "link", "set", "bridge", "up")
    for host in range(NUM_HOSTS):
        name = name_of(host)
        run("ip", "netns", "add", name)
        run("ip", "-n", name, "link", "set", "lo", "up")
        run("ip", "-n", switch, "link", "add", f"port{host}", "type", "veth", "peer", "name", "eth0", "netns", name)
        run("ip", "-n", switch, "link", "set", f"port{host}", "master", "bridge", "up")
        run("ip", "-n", name, "addr", "add", f"{NET}.{host + 1}/24", "dev", "eth0")
        run("ip", "-n", name, "link", "set", "eth0", "up")


def remove_hosts():
    for host in [*range(NUM_HOSTS), "switch"]:
        subprocess.run(["ip", "netns", "del", name_of(host)], capture_output=True)


@pytest.fixture
def hosts():
    try:
        make_hosts()
    except (OSError, subprocess.CalledProcessError) as error:
        remove_hosts()
        pytest.skip(f"no network namespaces here: {getattr(error, 'stderr', '') or error}")
    yield [("ip", "netns", "exec", name_of(host)) for host in range(NUM_HOSTS)]
    remove_hosts()


@pytest.fixture
def certificates(tmp_path):
    """An authority, and a certificate for each host: flags of the server, and of each worker."""
    def openssl(*words):
        run("openssl", *words)

    ca, ca_key = tmp_path / "ca.pem", tmp_path / "ca.key"
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", ca_key,
            "-out", ca, "-subj", "/CN=weft test", "-days", "2")
    files = []
    for host in range(NUM_HOSTS):
        key, request, cert, names = (tmp_path / f"{host}.{kind}" for kind in ("key", "csr", "pem", "ext"))
        names.write_text(f"subjectAltName=IP:{NET}.{host + 1}")
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out",
                request, "-subj", f"/CN=host {host}")
        openssl("x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial", "-out", cert, "-days",
                "2", "-extfile", names)
        files.append((cert, key, ca))
    return files


class Worker:
    def __init__(self, prefix, host, certificates, log, *flags, num_nodes=NUM_HOSTS):
        cert, key, ca = certificates[host]
        self.process = subprocess.Popen(
            [*prefix, BINARY, "worker", "--coordinator", f"{NET}.1:9100", "--node-rank", str(host), "--num-nodes",
             str(num_nodes), "--tls-cert", cert, "--tls-key", key, "--tls-ca", ca, *flags], stderr=log)

    def stop(self):
        self.process.terminate()
        self.process.wait(20)


def flags_of_server(certificates, num_nodes=NUM_HOSTS):
    cert, key, ca = certificates[0]
    return ("--host", f"{NET}.1", "--insecure", "--workers", "process", "--num-nodes", num_nodes, "--coordinator",
            f"{NET}.1:9100", "--worker-tls-cert", cert, "--worker-tls-key", key, "--worker-tls-ca", ca,
            "--restart-backoff", "0s", "--restart-limit", 100)


def test_a_host_is_cut_off_in_the_middle_of_a_stream(hosts, certificates, tmp_path):
    logs = [open(tmp_path / f"worker{host}.log", "w") for host in range(NUM_HOSTS)]
    workers = [Worker(hosts[host], host, certificates, logs[host]) for host in range(1, NUM_HOSTS)]
    flags = (*flags_of_server(certificates), "--tensor-parallel-size", 2, "--pipeline-parallel-size", 2)
    try:
        with inside(name_of(0)), WeftServer(*flags, prefix=hosts[0]) as server:
            client = OpenAI(base_url=f"http://{server.http}/v1", api_key="none", max_retries=0, timeout=120)
            expected = "".join(story(client, 60))
            stream = story(client, 60)
            pieces = [next(stream) for _ in range(10)]
            port = ("ip", "-n", name_of("switch"), "link", "set", "port2")
            run(*port, "down")
            back = threading.Timer(8, lambda: run(*port, "up"))
            back.start()
            assert "".join(pieces + list(stream)) == expected
            back.join()
            assert server.metric("weft_replica_restarts_total") >= 1
            assert server.metric("weft_replica_up") == 1
            assert server.stop() == 0
    finally:
        for worker in workers:
            worker.stop()
        for log in logs:
            log.close()


def thread_of(process, name):
    """Its kernel id."""
    for task in (f"/proc/{process.pid}/task/{tid}" for tid in os.listdir(f"/proc/{process.pid}/task")):
        with open(f"{task}/comm") as comm:
            if comm.read().strip() == name:
                return int(task.rsplit("/", 1)[1])
    raise AssertionError(f"no thread is called {name}")


def hold_until_it_ends(thread, timeout):
    """One thread of a process stands still; the others go on, until the process ends."""
    seize, interrupt, any_thread = 0x4206, 0x4207, 0x40000000
    libc = ctypes.CDLL(None, use_errno=True)
    for request in (seize, interrupt):
        if libc.ptrace(request, thread, 0, 0) != 0:
            pytest.skip(f"no ptrace here: {os.strerror(ctypes.get_errno())}")
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        pid, status = os.waitpid(thread, os.WNOHANG | any_thread)
        if pid != 0 and not os.WIFSTOPPED(status):
            return
        time.sleep(0.1)
    raise AssertionError("it hangs, and its process does not end")


def test_a_rank_that_hangs_on_another_host_ends_with_its_process(hosts, certificates, tmp_path):
    log = open(tmp_path / "worker.log", "w")
    workers = [Worker(hosts[1], 1, certificates, log, num_nodes=2)]
    flags = (*flags_of_server(certificates, 2), "--tensor-parallel-size", 2, "--step-timeout", "1s")
    try:
        with inside(name_of(0)), WeftServer(*flags, prefix=hosts[0]) as server:
            client = OpenAI(base_url=f"http://{server.http}/v1", api_key="none", max_retries=0, timeout=120)
            expected = "".join(story(client, 60))
            stream = story(client, 60)
            pieces = [next(stream) for _ in range(10)]
            hold_until_it_ends(thread_of(workers[0].process, "rank 1"), timeout=60)
            assert workers[0].process.wait(20) == 1
            workers.append(Worker(hosts[1], 1, certificates, log, num_nodes=2))
            assert "".join(pieces + list(stream)) == expected
            assert server.metric("weft_replica_up") == 1
            assert server.stop() == 0
    finally:
        for worker in workers:
            worker.stop()
        log.close()


def test_replicas_over_two_hosts_go_on_with_each_others_streams(hosts, certificates, tmp_path):
    log = open(tmp_path / "worker.log", "w")
    worker = Worker(hosts[1], 1, certificates, log, "--replicas", "2", num_nodes=2)
    flags = (*flags_of_server(certificates, 2), "--replicas", 2, "--tensor-parallel-size", 2)
    try:
        with inside(name_of(0)), WeftServer(*flags, prefix=hosts[0]) as server:
            client = OpenAI(base_url=f"http://{server.http}/v1", api_key="none", max_retries=0, timeout=120)
            expected = "".join(story(client, 60))
            streams = [story(client, 60) for _ in range(4)]
            pieces = [[next(stream) for _ in range(10)] for stream in streams]
            shares = children_of(worker.process.pid)  # `ip netns exec` has become it
            assert len(shares) == 2
            os.kill(shares[0], signal.SIGKILL)
            assert ["".join(begun + list(stream)) for begun, stream in zip(pieces, streams)] == [expected] * 4
            server.wait_for_metric("weft_replica_up", 2, timeout=60)
            assert server.metric("weft_replica_restarts_total") == 1
            assert server.stop() == 0
            worker.stop()
            wait_for_end(shares)
    finally:
        worker.stop()
        log.close()


def test_a_worker_without_the_right_certificate_is_turned_away(hosts, certificates, tmp_path):
    cert, key, _ = certificates[1]
    other = tmp_path / "other.pem"
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
        tmp_path / "other.key", "-out", other, "-subj", "/CN=somebody else", "-days", "2")
    # Its own certificate is not of the server's authority.
    stranger = [(cert, key, None), (other, tmp_path / "other.key", certificates[0][2])]
    log = open(tmp_path / "stranger.log", "w")
    worker = Worker(hosts[1], 1, stranger, log, num_nodes=2)
    try:
        with pytest.raises(RuntimeError, match="has not joined") as refusal, inside(name_of(0)):
            WeftServer(*flags_of_server(certificates, 2), "--tensor-parallel-size", 2, "--join-timeout", "3s",
                       prefix=hosts[0])
        assert "certificate" in str(refusal.value), "who is turned away is logged"
    finally:
        worker.stop()
        log.close()
