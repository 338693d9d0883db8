"""Runs the bench on the emulated device, in small, and holds what it prints and writes to what run.sh relies on."""

import json
import pathlib
import subprocess
import sys
import tempfile

with tempfile.TemporaryDirectory() as directory:
    path = pathlib.Path(directory) / "bench.json"
    table = subprocess.run([sys.argv[1], "--small", "--json", path], check=True, capture_output=True, text=True).stdout
    result = json.loads(path.read_text())
assert result["device"] and result["capability"], result
rows = result["rows"]
assert len(rows) == table.count("\n|") - 2, "each row is in the table and in the file"
for row in rows:
    assert row["seconds"] > 0 and row["roof"] in ("copy", "matmul", "none"), row
    assert (row["of_roof"] is None) == (row["roof"] == "none"), row
assert {"Linear", "Attention", "RmsNorm", "SwiGlu", "Decode step"} <= {row["op"] for row in rows}
