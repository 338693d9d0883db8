"""Ranks in processes: what a client sees of their deaths, and what an operator does."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import openai
from openai import OpenAI

from weft_server import BINARY, MODEL, REPOSITORY, WeftServer, children_of, run_to_exit, story, wait_for_end


def client_of(server):
    return OpenAI(base_url=f"http://{server.http}/v1", api_key="none", max_retries=0, timeout=60)


def workers_of(server):
    return children_of(server.process.pid)


def test_faults_under_streams_lose_nothing():
    subprocess.run([sys.executable, "-B", REPOSITORY / "tests/chaos/chaos.py", "--binary", BINARY, "--kills", "12",
                    "--streams", "64", "--tokens", "40", "--seed", str(int(time.time())),
                    "--max-gap-ratio", "3"], check=True, timeout=280)


def test_a_stream_outlives_the_only_replica_s_ranks():
    flags = ("--workers", "process", "--tensor-parallel-size", "2", "--pipeline-parallel-size", "2")
    with WeftServer(*flags) as server:
        client = client_of(server)
        expected = "".join(story(client))
        stream = story(client)
        pieces = [next(stream) for _ in range(10)]
        os.kill(workers_of(server)[2], signal.SIGKILL)
        assert "".join(pieces + list(stream)) == expected
        assert server.metric("weft_replica_restarts_total") == 1
        assert "rank 2" in server.log() and "signal 9" in server.log()
        workers = workers_of(server)
        assert server.stop() == 0
        assert not any(pathlib.Path(f"/proc/{worker}").exists() for worker in workers)


def test_workers_end_with_a_server_that_is_killed():
    with WeftServer("--workers", "process", "--replicas", "2") as server:
        workers = workers_of(server)
        assert len(workers) == 2
        server.process.kill()
        server.process.wait()
        wait_for_end(workers)


def test_a_crash_loop_stops_and_says_so():
    with WeftServer("--workers", "process", "--restart-limit", "2", "--restart-backoff", "0s") as server:
        os.kill(workers_of(server)[0], signal.SIGKILL)
        server.wait_for_metric("weft_replica_restarts_total", 1)
        server.wait_for_metric("weft_replica_up", 1)
        os.kill(workers_of(server)[0], signal.SIGKILL)
        server.wait_for_metric("weft_replica_crash_looping", 1)
        try:
            server.get("/ready")
            raise AssertionError("ready")
        except OSError as error:
            assert error.code == 503 and b"crash loop" in error.read()
        try:
            client_of(server).completions.create(model=MODEL, prompt="a", max_tokens=1)
            raise AssertionError("answered")
        except openai.InternalServerError as error:
            assert error.status_code == 503 and error.code == "replica_lost"
        assert server.stop() == 1


def test_settings_that_cannot_work_are_refused_by_name():
    for flags, says in (
            (("--workers", "threads", "--num-nodes", 2), "num-nodes: several hosts need --workers process"),
            (("--workers", "process", "--num-nodes", 2), "coordinator: say host:port"),
            (("--workers", "process", "--num-nodes", 2, "--coordinator", "a:1"), "worker-tls-cert"),
            (("--coordinator", "a:1"), "coordinator: nobody joins there"),
            (("--step-timeout", "0s"), "step-timeout"),
    ):
        ended = run_to_exit("serve", "--model", REPOSITORY / "deploy/demo_model", *flags)
        assert ended.returncode == 78 and says in ended.stderr, ended.stderr
    for flags, says in (((), "--coordinator"), (("--coordinator", "a:1"), "--num-nodes"),
                        (("--coordinator", "a:1", "--num-nodes", 2), "--node-rank"),
                        (("--coordinator", "a:1", "--num-nodes", 2, "--node-rank", 1), "--tls-cert"),
                        (("--coordinator", "unix:/x"), "started by the server")):
        ended = run_to_exit("worker", *flags)
        assert ended.returncode == 78 and says in ended.stderr, ended.stderr
    ended = run_to_exit("worker", env={"LWS_LEADER_ADDRESS": "leader", "LWS_WORKER_INDEX": "x", "LWS_GROUP_SIZE": "2"})
    assert ended.returncode == 78 and "LWS_WORKER_INDEX" in ended.stderr
    # As LeaderWorkerSet has it: all that is missing is what it can't know.
    ended = run_to_exit("worker", env={"LWS_LEADER_ADDRESS": "leader", "LWS_WORKER_INDEX": "1", "LWS_GROUP_SIZE": "2"})
    assert ended.returncode == 78 and "--tls-cert" in ended.stderr
