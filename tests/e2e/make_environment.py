"""Makes the virtual environment of the end-to-end tests, and in it the Python side of the public proto.

Does nothing when the environment is there and made from the same inputs.
"""

import hashlib
import pathlib
import subprocess
import sys
import venv

HERE = pathlib.Path(__file__).resolve().parent
PROTO = HERE.parents[1] / "proto"
INPUTS = [HERE / "requirements.txt", PROTO / "weft/v1/inference.proto", pathlib.Path(__file__)]


def main(environment: pathlib.Path) -> None:
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in INPUTS)).hexdigest()
    stamp = environment / "made-from"
    if stamp.exists() and stamp.read_text() == digest:
        return
    venv.create(environment, with_pip=True, clear=True)
    python = environment / "bin/python"
    subprocess.run([python, "-m", "pip", "install", "-q", "-r", HERE / "requirements.txt"], check=True)
    packages = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True, capture_output=True, text=True,
    ).stdout.strip()
    subprocess.run(
        [python, "-m", "grpc_tools.protoc", f"-I{PROTO}", f"--python_out={packages}", f"--grpc_python_out={packages}",
         "weft/v1/inference.proto"],
        check=True,
    )
    stamp.write_text(digest)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
