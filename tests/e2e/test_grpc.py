"""The gRPC interface: equal in power to the HTTP one."""

from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from weft.v1 import inference_pb2 as pb
from weft.v1 import inference_pb2_grpc

from weft_server import MODEL


@pytest.fixture(scope="module")
def channel(server):
    with grpc.insecure_channel(server.grpc) as opened:
        yield opened


@pytest.fixture(scope="module")
def stub(channel):
    return inference_pb2_grpc.InferenceStub(channel)


def chat(text):
    return pb.ChatPrompt(messages=[pb.ChatMessage(role="user", content=text)])


def collect(stream):
    messages = list(stream)
    texts = {}
    for message in messages:
        texts[message.index] = texts.get(message.index, "") + message.text
    return messages, texts


def test_chat_says_what_http_says(stub, client):
    http = client.chat.completions.create(model=MODEL, temperature=0,
                                          messages=[{"role": "user", "content": "What is 17 + 25?"}])
    messages, texts = collect(stub.Generate(pb.GenerateRequest(chat=chat("What is 17 + 25?"), temperature=0)))
    assert texts == {0: http.choices[0].message.content}
    assert messages[-1].finish.reason == pb.FINISH_REASON_STOP
    assert messages[-1].usage.prompt_tokens == http.usage.prompt_tokens
    assert messages[-1].usage.completion_tokens == http.usage.completion_tokens


def test_text_and_token_ids_agree(stub):
    ids = stub.Tokenize(pb.TokenizeRequest(text="Weft is")).token_ids
    _, from_text = collect(stub.Generate(pb.GenerateRequest(text="Weft is", temperature=0, max_tokens=12)))
    _, from_ids = collect(stub.Generate(pb.GenerateRequest(token_ids=pb.TokenIds(ids=ids), temperature=0, max_tokens=12)))
    assert from_text == from_ids


def test_choices_and_seed(stub):
    request = pb.GenerateRequest(chat=chat("Hello"), n=3, seed=5, temperature=2, max_tokens=16)
    messages, first = collect(stub.Generate(request))
    assert sorted(first) == [0, 1, 2] and len(set(first.values())) > 1
    assert sum(m.HasField("finish") for m in messages) == 3
    assert sum(m.HasField("usage") for m in messages) == 1 and messages[-1].HasField("usage")
    assert collect(stub.Generate(request))[1] == first


def test_logprobs_and_tokens(stub):
    request = pb.GenerateRequest(chat=chat("What is 17 + 25?"), temperature=0, max_tokens=5, logprobs=2)
    messages, texts = collect(stub.Generate(request))
    drawn = [t for m in messages for t in m.logprobs]
    assert len(drawn) == 5 and all(len(t.top) == 2 for t in drawn)
    assert [t.drawn.token_id for t in drawn] == [i for m in messages for i in m.token_ids]
    assert b"".join(t.drawn.text for t in drawn).decode(errors="replace") == texts[0]
    assert stub.Detokenize(pb.DetokenizeRequest(token_ids=[t.drawn.token_id for t in drawn])).text == texts[0]


def test_echo_scores_the_prompt(stub):
    request = pb.GenerateRequest(text="Weft is", temperature=0, max_tokens=3, logprobs=1, echo=True)
    messages, texts = collect(stub.Generate(request))
    prompt_ids = list(stub.Tokenize(pb.TokenizeRequest(text="Weft is")).token_ids)
    tokens = [t for m in messages for t in m.logprobs]
    assert [t.drawn.token_id for t in tokens[: len(prompt_ids)]] == prompt_ids
    assert not tokens[0].drawn.HasField("logprob") and all(t.drawn.HasField("logprob") for t in tokens[1:])
    assert texts[0].startswith("Weft is") and len(tokens) == len(prompt_ids) + 3


def test_template_variables_and_tool_choice(stub):
    plain = stub.Tokenize(pb.TokenizeRequest(chat=chat("Hi"))).token_ids
    prompt = chat("Hi")
    prompt.chat_template_kwargs_json = '{"enable_thinking": false}'
    prompt.tool_choice = "none"
    prompt.tools_json = '[{"type": "function", "function": {"name": "f"}}]'
    assert stub.Tokenize(pb.TokenizeRequest(chat=prompt)).token_ids == plain  # the demo template shows none of them
    prompt.chat_template_kwargs_json = "[]"
    with pytest.raises(grpc.RpcError) as refused:
        stub.Tokenize(pb.TokenizeRequest(chat=prompt))
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_64_streams_say_what_each_says_alone(stub):
    def text(index):
        return collect(stub.Generate(pb.GenerateRequest(chat=chat(f"What is {index} + {index + 7}?"), seed=index,
                                                        max_tokens=32)))[1]

    alone = [text(i) for i in range(64)]
    with ThreadPoolExecutor(64) as pool:
        assert list(pool.map(text, range(64))) == alone


def test_cancel_storm_leaves_nothing_behind(stub, server):
    calls = [stub.Generate(pb.GenerateRequest(text="Weft is", max_tokens=1000, ignore_eos=True)) for _ in range(200)]
    for i, call in enumerate(calls):
        if i % 4 == 0:
            try:
                next(call)  # some have begun to speak
            except grpc.RpcError as refused:  # the queue was full
                assert refused.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        call.cancel()
    server.wait_for_metric("weft_num_requests_running", 0)
    server.wait_for_metric("weft_num_requests_waiting", 0)
    server.wait_for_metric("weft_kv_cache_usage_ratio", 0)
    assert collect(stub.Generate(pb.GenerateRequest(text="Weft is", temperature=0, max_tokens=4)))[1][0]


def test_stop(stub):
    _, whole = collect(stub.Generate(pb.GenerateRequest(chat=chat("What is 17 + 25?"), temperature=0)))
    stop = whole[0][3:6]
    messages, cut = collect(stub.Generate(pb.GenerateRequest(chat=chat("What is 17 + 25?"), temperature=0, stop=[stop])))
    assert cut[0] == whole[0][: whole[0].index(stop)]
    assert messages[-1].finish.stop_text == stop


def test_model(stub):
    model = stub.GetModel(pb.GetModelRequest())
    assert model.names[0] == MODEL and model.vocab_size > 0 and model.max_model_len > 0


@pytest.mark.parametrize("request_, status, code", [
    (pb.GenerateRequest(), grpc.StatusCode.INVALID_ARGUMENT, "missing_field"),
    (pb.GenerateRequest(text="x", model="other"), grpc.StatusCode.NOT_FOUND, "model_not_found"),
    (pb.GenerateRequest(text="x", temperature=float("nan")), grpc.StatusCode.INVALID_ARGUMENT, "out_of_range"),
    (pb.GenerateRequest(text="x", n=1000000000), grpc.StatusCode.INVALID_ARGUMENT, "out_of_range"),
    (pb.GenerateRequest(token_ids=pb.TokenIds(ids=[-1])), grpc.StatusCode.INVALID_ARGUMENT, "invalid_token_id"),
    (pb.GenerateRequest(text="x", max_tokens=10**9), grpc.StatusCode.INVALID_ARGUMENT, "context_length_exceeded"),
])
def test_refusals(stub, request_, status, code):
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.Generate(request_))
    assert caught.value.code() == status
    assert dict(caught.value.trailing_metadata())["weft-error-code"] == code


def test_cancel_frees_blocks(stub, server):
    stream = stub.Generate(pb.GenerateRequest(text="Weft is", max_tokens=1000, ignore_eos=True))
    next(stream)
    stream.cancel()
    server.wait_for_metric("weft_num_requests_running", 0)
    server.wait_for_metric("weft_kv_cache_usage_ratio", 0)


def test_deadline(stub, server):
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.Generate(pb.GenerateRequest(text="Weft is", max_tokens=1900, ignore_eos=True), timeout=0.05))
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    server.wait_for_metric("weft_num_requests_running", 0)


def test_request_id_comes_back(stub):
    call = stub.Generate(pb.GenerateRequest(text="x", max_tokens=1), metadata=[("x-request-id", "my-id")])
    assert dict(call.initial_metadata())["x-request-id"] == "my-id"
    list(call)


def test_health_and_reflection(channel):
    answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="weft.v1.Inference"))
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    services = ProtoReflectionDescriptorDatabase(channel).get_services()
    assert "weft.v1.Inference" in services and "grpc.health.v1.Health" in services
