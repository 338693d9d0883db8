"""Tenants, their file, and replicas of the model, as operators set them up."""

import hashlib
import json
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
from openai import OpenAI

from weft_server import DEMO_MODEL, MODEL, WeftServer, run_to_exit

FAIRNESS_ID = "x-llm-d-inference-fairness-id"


def client_of(server, key="none", tenant=None):
    return OpenAI(base_url=f"http://{server.http}/v1", api_key=key, max_retries=0, timeout=60,
                  default_headers={FAIRNESS_ID: tenant} if tenant else {})


def say(client, prompt="Weft is", tokens=4, **more):
    return client.completions.create(model=MODEL, prompt=prompt, max_tokens=tokens, temperature=0,
                                     extra_body={"ignore_eos": True, **more}).choices[0].text


def key_line(tenant, key):
    return f"{tenant} {hashlib.sha256(key.encode()).hexdigest()}\n"


def wait_for_log(server, words, count=1):
    deadline = time.monotonic() + 10
    while server.log().count(words) < count:
        assert time.monotonic() < deadline, server.log()
        time.sleep(0.02)


def test_sighup_reads_keys_and_tenants_anew_and_keeps_the_old_of_a_bad_file(tmp_path):
    keys, tenants = tmp_path / "keys", tmp_path / "tenants.json"
    keys.write_text(key_line("team", "sk-one"))
    tenants.write_text(json.dumps({"tenants": {"team": {"max_priority": "high"}}}))
    with WeftServer("--api-keys", keys, "--tenants", tenants) as server:
        assert say(client_of(server, "sk-one"), priority="high")

        keys.write_text(key_line("team", "sk-two"))
        tenants.write_text("{}")
        server.signal(signal.SIGHUP)
        wait_for_log(server, "reloaded tenants")
        with pytest.raises(openai.AuthenticationError):
            say(client_of(server, "sk-one"))
        assert say(client_of(server, "sk-two"))
        with pytest.raises(openai.PermissionDeniedError) as denied:
            say(client_of(server, "sk-two"), priority="high")
        assert denied.value.code == "forbidden" and denied.value.param == "priority"
        assert server.metric("weft_reloads_total") == 2 and server.metric("weft_reload_failures_total") == 0

        keys.write_text("team sk-three\n")
        tenants.write_text(json.dumps({"tenants": {"team": {"max_priority": "high", "weight": 0}}}))
        server.signal(signal.SIGHUP)
        wait_for_log(server, "what was in force stays", 2)
        assert "tenants.team.weight" in server.log() and "sk-three" not in server.log()
        assert say(client_of(server, "sk-two"))
        with pytest.raises(openai.PermissionDeniedError):
            say(client_of(server, "sk-two"), priority="high")
        assert server.metric("weft_reloads_total") == 2 and server.metric("weft_reload_failures_total") == 2
        assert server.stop() == 0


def test_sighup_without_files_changes_nothing():
    with WeftServer() as server:
        server.signal(signal.SIGHUP)
        wait_for_log(server, "reload: neither")
        assert say(client_of(server))


@pytest.mark.parametrize("text, words", [
    ('{"tenants": {"search": {"weight": 1001}}}', ["tenants.search.weight", "1000"]),
    ('{"tenants": {"search": {"wieght": 1}}}', ["tenants.search.wieght"]),
    ('{"tenants": {"search": {}, "search": {}}}', ["search", "twice"]),
    ("tenants", ["invalid_json"]),
])
def test_a_bad_tenants_file_refuses_to_start_in_one_line(tmp_path, text, words):
    tenants = tmp_path / "tenants.json"
    tenants.write_text(text)
    ended = run_to_exit("serve", "--model", DEMO_MODEL, "--port", 0, "--grpc-port", 0, "--tenants", tenants)
    assert ended.returncode == 78 and ended.stdout == ""
    last = ended.stderr.strip().splitlines()[-1]
    assert all(word in last for word in [*words, str(tenants)]), last


def test_only_a_trusted_gateway_names_tenants(tmp_path):
    tenants = tmp_path / "tenants.json"
    tenants.write_text(json.dumps({"tenants": {"limited": {"tokens_per_minute": 1}}}))
    with WeftServer("--tenants", tenants) as server:
        for _ in range(2):
            assert say(client_of(server, tenant="limited"))
    with WeftServer("--tenants", tenants, "--trust-gateway") as server:
        assert say(client_of(server, tenant="limited"))
        with pytest.raises(openai.RateLimitError) as refused:
            say(client_of(server, tenant="limited"))
        assert refused.value.code == "tenant_rate_limited"
        assert 1 <= int(refused.value.response.headers["retry-after"]) <= 60
        assert say(client_of(server, tenant="another"))
        with pytest.raises(openai.BadRequestError) as bad:
            say(client_of(server, tenant="not a name"))
        assert bad.value.param == FAIRNESS_ID


def test_replicas_share_the_work_and_say_what_one_says():
    def say_all(server):
        client = client_of(server)
        with ThreadPoolExecutor(16) as pool:
            return list(pool.map(lambda i: say(client, f"{i} + 5 =", 40), range(32)))

    with WeftServer("--max-num-seqs", 4) as server:
        expected = say_all(server)
    with WeftServer("--max-num-seqs", 4, "--replicas", 2) as server:
        assert say_all(server) == expected
        assert server.metric("weft_replica_up") == 2
        for replica in "01":
            running = f'weft_scheduler_step_seconds_count{{replica="{replica}"}} '
            steps = next(line for line in server.get("/metrics").splitlines() if line.startswith(running))
            assert float(steps.split()[-1]) > 10
        assert server.stop() == 0
