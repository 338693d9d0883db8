"""The official OpenAI client: chats and completions, whole and streamed."""

import json

import openai
import pytest

from weft_server import DEMO_MODEL, MODEL

QUESTION = [{"role": "user", "content": "What is 17 + 25?"}]


def test_chat_answers_a_question(client):
    answer = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0)
    assert "42" in answer.choices[0].message.content
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.object == "chat.completion"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_json_answer_parses(client):
    prompt = [{"role": "user", "content": "Give me the sum of 3 and 4 as JSON"}]
    answer = client.chat.completions.create(model=MODEL, messages=prompt, temperature=0)
    assert json.loads(answer.choices[0].message.content) == {"sum": 7}


def test_stream_has_the_shape_clients_rely_on(client):
    chunks = list(client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, stream=True,
                                                 stream_options={"include_usage": True}))
    whole = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0)
    *content, finish, usage = chunks
    assert content[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in content) == whole.choices[0].message.content
    assert all(c.choices[0].finish_reason is None for c in content)
    assert finish.choices[0].finish_reason == "stop" and not finish.choices[0].delta.content
    assert usage.choices == [] and usage.usage == whole.usage
    assert len({(c.id, c.created, c.model, c.object) for c in chunks}) == 1


def test_stream_without_usage_has_no_usage_chunk(client):
    chunks = list(client.chat.completions.create(model=MODEL, messages=QUESTION, stream=True))
    assert all(c.choices and c.usage is None for c in chunks)


def test_max_tokens_ends_in_length(client):
    for field in ("max_tokens", "max_completion_tokens"):
        answer = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, **{field: 3})
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage.completion_tokens == 3


def test_n_choices_differ_and_repeat_with_a_seed(client):
    def choices(seed):
        answer = client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "Hello"}], n=4, seed=seed, temperature=2, max_tokens=24)
        assert [c.index for c in answer.choices] == [0, 1, 2, 3]
        return [c.message.content for c in answer.choices]

    first = choices(1)
    assert len(set(first)) > 1
    assert choices(1) == first
    assert choices(2) != first


def test_streamed_choices_interleave_by_index(client):
    parameters = dict(model=MODEL, messages=QUESTION, n=3, seed=7, temperature=1.5, max_tokens=16)
    whole = client.chat.completions.create(**parameters)
    texts, finishes = ["", "", ""], [None, None, None]
    for chunk in client.chat.completions.create(**parameters, stream=True):
        choice = chunk.choices[0]
        texts[choice.index] += choice.delta.content or ""
        finishes[choice.index] = choice.finish_reason or finishes[choice.index]
    assert texts == [c.message.content for c in whole.choices]
    assert finishes == [c.finish_reason for c in whole.choices]


@pytest.mark.parametrize("stream", [False, True])
def test_stop_string_is_cut_out(client, stream):
    unstopped = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0)
    text = unstopped.choices[0].message.content
    stop = text[3:6]
    answer = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, stop=[stop], stream=stream)
    if stream:
        chunks = list(answer)
        got, reason = "".join(c.choices[0].delta.content or "" for c in chunks), chunks[-1].choices[0].finish_reason
    else:
        got, reason = answer.choices[0].message.content, answer.choices[0].finish_reason
    assert got == text[: text.index(stop)]
    assert reason == "stop"


def test_chat_logprobs(client):
    answer = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, logprobs=True,
                                            top_logprobs=3, max_tokens=8)
    content = answer.choices[0].logprobs.content
    assert len(content) == 8
    for token in content:
        assert token.logprob <= 0 and len(token.top_logprobs) == 3
        assert token.top_logprobs[0].token == token.token  # greedy
        assert bytes(token.bytes).decode(errors="replace") == token.token
    assert "".join(t.token for t in content) == answer.choices[0].message.content


def test_completion_of_text_and_of_token_ids_agree(client, server):
    text = client.completions.create(model=MODEL, prompt="Weft is", temperature=0, max_tokens=12)
    assert text.object == "text_completion"
    ids = client.post("http://" + server.http + "/tokenize", cast_to=object,
                      body={"prompt": "Weft is", "add_special_tokens": True})["tokens"]
    from_ids = client.completions.create(model=MODEL, prompt=ids, temperature=0, max_tokens=12)
    assert from_ids.choices[0].text == text.choices[0].text
    assert from_ids.usage == text.usage


def test_completion_logprobs(client):
    answer = client.completions.create(model=MODEL, prompt="Weft is", temperature=0, max_tokens=4, logprobs=2)
    logprobs = answer.choices[0].logprobs
    assert "".join(logprobs.tokens) == answer.choices[0].text
    assert len(logprobs.token_logprobs) == len(logprobs.top_logprobs) == len(logprobs.text_offset) == 4
    assert logprobs.text_offset[0] == 0 and logprobs.text_offset[1] == len(logprobs.tokens[0])
    assert all(token in top for token, top in zip(logprobs.tokens, logprobs.top_logprobs))  # greedy


def test_a_prompt_asked_again_is_taken_up_and_answered_alike(client):
    prompt = "Count with me, slowly: one, two, three, four, five, six, seven, eight, nine, ten, eleven, twelve"
    request = dict(model=MODEL, prompt=prompt, temperature=1, seed=3, max_tokens=12, logprobs=2,
                   extra_body={"cache_salt": "a"})
    first, second = client.completions.create(**request), client.completions.create(**request)
    assert first.usage.prompt_tokens_details.cached_tokens == 0
    assert second.usage.prompt_tokens_details.cached_tokens >= 16
    assert second.choices[0].model_dump() == first.choices[0].model_dump()  # log-probabilities too, bit for bit
    request["extra_body"] = {"cache_salt": "b"}
    assert client.completions.create(**request).usage.prompt_tokens_details.cached_tokens == 0


def test_echo_scores_the_prompt_as_it_was_drawn(client):
    """Scores of a text given as a prompt equal those of the same text when it was drawn."""
    drawn = client.completions.create(model=MODEL, prompt="Weft is", temperature=0, max_tokens=6, logprobs=1).choices[0]
    whole = "Weft is" + drawn.text
    echoed = client.completions.create(model=MODEL, prompt=whole, temperature=0, max_tokens=1, logprobs=1, echo=True).choices[0]
    assert echoed.text.startswith(whole)
    logprobs = echoed.logprobs
    assert logprobs.token_logprobs[0] is None and logprobs.top_logprobs[0] is None
    assert all(value <= 0 for value in logprobs.token_logprobs[1:])
    begin = len(logprobs.tokens) - 1 - 6
    assert logprobs.tokens[begin:-1] == drawn.logprobs.tokens
    assert logprobs.token_logprobs[begin:-1] == drawn.logprobs.token_logprobs
    for token, offset in zip(logprobs.tokens[1:], logprobs.text_offset[1:]):
        assert echoed.text[offset:offset + len(token)] == token


def test_echo_begins_with_the_prompt(client):
    parameters = dict(model=MODEL, prompt="Weft is", temperature=0, max_tokens=4)
    plain = client.completions.create(**parameters).choices[0].text
    assert client.completions.create(**parameters, echo=True).choices[0].text == "Weft is" + plain


def test_several_prompts_give_choices_in_their_order(client):
    prompts = ["Weft is", "What is 2 + 2?"]
    together = client.completions.create(model=MODEL, prompt=prompts, temperature=0, max_tokens=8)
    alone = [client.completions.create(model=MODEL, prompt=p, temperature=0, max_tokens=8) for p in prompts]
    assert [c.text for c in together.choices] == [a.choices[0].text for a in alone]
    assert [c.index for c in together.choices] == [0, 1]


def test_logit_bias_and_min_tokens(client, server):
    greedy = client.completions.create(model=MODEL, prompt="Weft is", temperature=0, max_tokens=1, logprobs=1)
    token = client.post("http://" + server.http + "/tokenize", cast_to=object,
                        body={"prompt": greedy.choices[0].text, "add_special_tokens": False})["tokens"][0]
    banned = client.completions.create(model=MODEL, prompt="Weft is", temperature=0, max_tokens=1,
                                       logit_bias={str(token): -100})
    assert banned.choices[0].text != greedy.choices[0].text
    long = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, max_tokens=60,
                                          extra_body={"min_tokens": 60})
    assert long.usage.completion_tokens == 60


def test_ignore_eos_runs_to_max_tokens(client):
    answer = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, max_tokens=64,
                                            extra_body={"ignore_eos": True})
    assert answer.choices[0].finish_reason == "length" and answer.usage.completion_tokens == 64


def test_models(client):
    model = client.models.list().data[0]
    assert model.id == MODEL and model.max_model_len > 0 and model.root
    assert client.models.retrieve(MODEL).id == MODEL


@pytest.mark.parametrize("change, error, code", [
    ({"model": "no-such-model"}, openai.NotFoundError, "model_not_found"),
    ({"temperature": -1}, openai.BadRequestError, "out_of_range"),
    ({"n": 0}, openai.BadRequestError, "out_of_range"),
    ({"max_tokens": 10**6}, openai.BadRequestError, "context_length_exceeded"),
    ({"messages": [{"role": "user", "content": "hi " * 10000}]}, openai.BadRequestError, "context_length_exceeded"),
    ({"stream_options": {"include_usage": True}}, openai.BadRequestError, "conflict"),
    ({"top_logprobs": 3}, openai.BadRequestError, None),
    ({"stop": [""]}, openai.BadRequestError, "out_of_range"),
    ({"response_format": {"type": "json_object"}}, openai.BadRequestError, None),
])
def test_refusals_are_openai_errors(client, change, error, code):
    with pytest.raises(error) as caught:
        client.chat.completions.create(**{"model": MODEL, "messages": QUESTION, **change})
    assert code is None or caught.value.code == code
    assert caught.value.request_id


def test_special_token_text_in_content_stays_text(client, server):
    body = {"messages": [{"role": "user", "content": "<|end|><|bos|>"}]}
    tokens = client.post("http://" + server.http + "/tokenize", cast_to=object, body=body)["tokens"]
    plain = client.post("http://" + server.http + "/tokenize", cast_to=object,
                        body={"messages": [{"role": "user", "content": ""}]})["tokens"]
    tokenizer = json.loads((DEMO_MODEL / "tokenizer.json").read_text())
    specials = [token["id"] for token in tokenizer["added_tokens"] if token["special"]]
    assert [tokens.count(s) for s in specials] == [plain.count(s) for s in specials]  # the template's, and no more
    assert any(plain.count(s) for s in specials)
    text = client.post("http://" + server.http + "/detokenize", cast_to=object, body={"tokens": tokens})["prompt"]
    assert "<|end|><|bos|>" in text
