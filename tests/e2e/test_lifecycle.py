"""Start, refuse to start, drain, stop."""

import json
import re
import shutil
import signal
import urllib.error
import urllib.request

import pytest
from openai import OpenAI

from weft_server import DEMO_MODEL, MODEL, REPOSITORY, WeftServer, run_to_exit


def start_stream(server, tokens):
    client = OpenAI(base_url=f"http://{server.http}/v1", api_key="none", max_retries=0)
    stream = client.completions.create(model=MODEL, prompt="Weft is", max_tokens=tokens, stream=True,
                                       extra_body={"ignore_eos": True}, temperature=0)
    return stream, next(stream)


def test_sigterm_lets_streams_finish_and_refuses_new_work():
    with WeftServer() as server:
        stream, _ = start_stream(server, 1500)
        server.signal()
        refused = None
        while refused is None:  # from the signal's arrival on, new work is refused
            try:
                server.get("/ready")
            except urllib.error.HTTPError as error:
                refused = error
        assert refused.code == 503
        body = json.dumps({"model": MODEL, "prompt": "x", "max_tokens": 1}).encode()
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(urllib.request.Request(f"http://{server.http}/v1/completions", body,
                                                          {"Content-Type": "application/json"}))
        assert caught.value.code == 503 and caught.value.headers["Retry-After"]
        assert server.get("/live") is not None
        assert list(stream)[-1].choices[0].finish_reason == "length"
        assert server.process.wait(30) == 0


def test_drain_timeout_ends_streams_in_an_error_event():
    with WeftServer("--drain-timeout", "0s") as server:
        stream, _ = start_stream(server, 1900)
        server.signal()
        with pytest.raises(Exception) as caught:
            list(stream)
        assert caught.value.code == "shutting_down"
        assert server.process.wait(30) == 0


def test_second_signal_is_now():
    with WeftServer() as server:
        stream, _ = start_stream(server, 1900)
        server.signal()
        server.signal(signal.SIGINT)
        with pytest.raises(Exception):
            list(stream)
        server.process.wait(10)


def test_health_endpoints():
    with WeftServer() as server:
        for path in ("/health", "/live", "/ready"):
            server.get(path)
        assert json.loads(server.get("/version"))["version"]


@pytest.mark.parametrize("break_it, words", [
    (lambda d: (d / "config.json").unlink(), ["config.json"]),
    (lambda d: (d / "model.safetensors").write_bytes(b"short"), ["model.safetensors", "header"]),
    (lambda d: (d / "model.safetensors").open("r+b").truncate(1 << 20), ["model.safetensors", "incomplete_buffer"]),
    (lambda d: (d / "tokenizer.json").write_text("{}"), ["tokenizer.json"]),
    (lambda d: (d / "chat_template.jinja").write_text("{% for %}"), ["chat_template.jinja", "template_invalid"]),
    (lambda d: (d / "config.json").write_text((d / "config.json").read_text().replace("llama", "lama")),
     ["config.json", "unsupported_model"]),
])
def test_a_bad_model_directory_never_serves(tmp_path, break_it, words):
    directory = tmp_path / "model"
    shutil.copytree(DEMO_MODEL, directory)
    break_it(directory)
    ended = run_to_exit("serve", "--model", directory, "--port", 0, "--grpc-port", 0)
    assert ended.returncode == 78 and ended.stdout == ""
    last = ended.stderr.strip().splitlines()[-1]
    assert all(word in last for word in words), last


@pytest.mark.parametrize("flags, env, words", [
    (["--max-num-sqs", "4"], {}, ["max-num-sqs", "max-num-seqs"]),
    (["--kv-cache-memory", "8GiBx"], {}, ["kv-cache-memory"]),
    (["--kv-cache-memory", "64KiB"], {}, ["kv-cache-memory", "max-model-len 2048"]),
    (["--max-model-len", "1"], {}, ["max-model-len"]),
    (["--port", "70000"], {}, ["port"]),
    (["--host", "0.0.0.0"], {}, ["host"]),
    ([], {"WEFT_MAX_NUM_SEQ": "4"}, ["WEFT_MAX_NUM_SEQ", "WEFT_MAX_NUM_SEQS"]),
    ([], {"WEFT_PORT": "tcp://10.0.0.1:80"}, ["WEFT_PORT"]),
])
def test_bad_settings_refuse_to_start_in_one_line(flags, env, words):
    ended = run_to_exit("serve", "--model", DEMO_MODEL, "--grpc-port", 0, *flags, env=env)
    assert ended.returncode == 78 and ended.stdout == ""
    lines = ended.stderr.strip().splitlines()
    assert all(word in lines[-1] for word in words), ended.stderr


def test_a_shape_is_served_from_its_config_alone(tmp_path):
    shutil.copy(DEMO_MODEL / "config.json", tmp_path)
    with WeftServer("--load-format", "dummy", model=tmp_path) as server:
        assert "no tokenizer.json" in server.log()
        client = OpenAI(base_url=f"http://{server.http}/v1", api_key="none", max_retries=0)
        answer = client.completions.create(model=MODEL, prompt="any text", max_tokens=8, seed=1,
                                           extra_body={"ignore_eos": True})
        assert answer.usage.prompt_tokens == 8 and answer.usage.completion_tokens == 8
        assert answer.choices[0].text


def test_no_text_in_the_log():
    canary = "xylophone-canary"
    with WeftServer("--log-level", "trace") as server:
        client = OpenAI(base_url=f"http://{server.http}/v1", api_key="none", max_retries=0)
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": canary}], max_tokens=4)
        with pytest.raises(Exception):
            client.chat.completions.create(model=canary, messages=[{"role": canary, "content": canary}])
        server.stop()
        assert canary not in server.log() and server.log()


def test_keys(tmp_path):
    import hashlib

    keys = tmp_path / "keys"
    keys.write_text("# who, and the SHA-256 of the key\nteam-a " + hashlib.sha256(b"sk-secret").hexdigest() + "\n")
    keys.chmod(0o600)
    with WeftServer("--api-keys", keys) as server:
        for key, allowed in (("sk-secret", True), ("sk-wrong", False), ("", False)):
            client = OpenAI(base_url=f"http://{server.http}/v1", api_key=key or "x", max_retries=0)
            if allowed:
                client.models.list()
                continue
            with pytest.raises(Exception) as caught:
                client.models.list()
            assert caught.value.status_code == 401 and caught.value.code == "invalid_api_key"
        server.get("/live")


def test_the_readme_lists_every_setting_with_its_default():
    settings = re.findall(r"^       --(\S+).*\n(?:           .*\n)*?           WEFT_\w+(?:, default: (.+))?$",
                          run_to_exit("serve", "--help").stdout, re.MULTILINE)
    listed = re.findall(r"^\| `--([\w-]+).*?` \| (.*?) ?\|", (REPOSITORY / "README.md").read_text(), re.MULTILINE)
    assert len(settings) > 20 and listed == settings


def test_doctor_and_version():
    assert run_to_exit("doctor").stdout.count("pass") >= 3
    assert run_to_exit("version").stdout.startswith("weft ")
