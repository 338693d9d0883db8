"""A running server for the tests of one file."""

import pytest
from openai import OpenAI

from weft_server import WeftServer


@pytest.fixture(scope="module")
def server():
    with WeftServer() as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    return OpenAI(base_url=f"http://{server.http}/v1", api_key="none", max_retries=0, timeout=60)
