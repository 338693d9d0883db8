"""The demo model keeps what its README promises, through the running server, in every weight type."""

import subprocess
import sys

from weft_server import DEMO_MODEL, MODEL, WeftServer

FLOOR = "0.95"  # of exact matches; never lowered


def score(*flags):
    with WeftServer(*flags) as server:
        ended = subprocess.run(
            [sys.executable, DEMO_MODEL / "evaluate.py", "--base-url", f"http://{server.http}/v1", "--model", MODEL,
             "--min", FLOOR],
            capture_output=True, text=True)
        print(ended.stdout, ended.stderr)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return float(ended.stdout.split()[-2])


def test_int8_scores_within_a_point_of_bf16(capsys):
    bf16, int8 = score("--weight-dtype", "bf16"), score("--weight-dtype", "int8")
    with capsys.disabled():
        print(f"\nexact match: bf16 {bf16} %, int8 {int8} %, difference {bf16 - int8:+.2f} points")
    assert abs(bf16 - int8) <= 1.0
