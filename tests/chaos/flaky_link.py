"""A worker behind a link that can be broken: `weft serve --worker-wrapper "python3 flaky_link.py"` starts it.

Runs the rest of its command with another socket in the place of the server's, and passes bytes between the two. SIGUSR1
closes the link; SIGUSR2 puts garbage into what the server reads. Ends as the worker ends, or with the link.
"""

import ctypes
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading

PR_SET_PDEATHSIG = 1


def die_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def pump(source, sink):
    try:
        while data := source.recv(1 << 16):
            sink.sendall(data)
    except OSError:
        pass
    for end in (source, sink):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def main():
    command = sys.argv[1:]
    place = command.index("--coordinator") + 1
    server_path = command[place].removeprefix("unix:")
    with tempfile.TemporaryDirectory(prefix="weft-flaky-") as directory:
        own_path = os.path.join(directory, "link")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(own_path)
        listener.listen()
        command[place] = f"unix:{own_path}"
        # Open files are the worker's shared memory.
        worker = subprocess.Popen(command, close_fds=False, preexec_fn=die_with_parent)
        links = []

        def close(*_):
            for link in links:
                link.shutdown(socket.SHUT_RDWR)

        def garble(*_):
            links[-1].send(random.randbytes(4096))

        signal.signal(signal.SIGUSR1, close)
        signal.signal(signal.SIGUSR2, garble)
        threading.Thread(target=accept, args=(listener, server_path, links), daemon=True).start()
        status = worker.wait()
    if status < 0:
        os.kill(os.getpid(), -status)
    sys.exit(status)


def accept(listener, server_path, links):
    while True:
        near, _ = listener.accept()
        far = socket.socket(socket.AF_UNIX)
        far.connect(server_path)
        links.append(far)
        threading.Thread(target=pump, args=(near, far), daemon=True).start()
        threading.Thread(target=pump, args=(far, near), daemon=True).start()


if __name__ == "__main__":
    main()
