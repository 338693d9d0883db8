"""A worker behind a link that can be broken: `weft serve --worker-wrapper "python3 flaky_link.py"` starts it.

Runs the rest of its command with another socket in the place of the server's, and passes bytes between the two. SIGUSR1
closes the link; SIGUSR2 puts garbage into what the server reads; SIGHUP lets the worker say what makes no sense, in whole
messages that can be read. Ends as the worker ends, or with the link.
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

# Of weft.v1.WorkerMessage: nothing; a second Hello; StepDone of step 2^40; Loaded; Ready; a StepDone that is no message.
SENSELESS = [b"", b"\x0a\x00", b"\x2a\x07\x08\x80\x80\x80\x80\x80\x20", b"\x1a\x00", b"\x22\x00", b"\x2a\x05\xff"]
# HTTP/2 (RFC 9113)
PREFACE_BYTES, FRAME_HEADER_BYTES, DATA_FRAME = 24, 9, 0
GRPC_HEADER_BYTES = 5


def die_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def pump(source, sink):
    try:
        while data := source.recv(1 << 16):
            sink.sendall(data)
    except OSError:
        pass
    end(source, sink)


def read_exactly(source, size):
    data = b""
    while len(data) < size:
        more = source.recv(size - len(data))
        if not more:
            raise OSError("the link ends")
        data += more
    return data


class Speech:
    """What a worker says, frame by frame, and where in it another message can be put."""

    def __init__(self):
        self.stream = None  # the worker's one call, once it has said something
        self.rest = b""  # of a message that has begun
        self.shall_be_senseless = False

    def follow(self, header, payload):
        if header[3] != DATA_FRAME:
            return
        self.stream = header[5:9]
        self.rest += payload
        while len(self.rest) >= GRPC_HEADER_BYTES:
            size = GRPC_HEADER_BYTES + int.from_bytes(self.rest[1:GRPC_HEADER_BYTES], "big")
            if len(self.rest) < size:
                break
            self.rest = self.rest[size:]

    def senseless_frame(self):
        """If it is time for one, and the last message is complete."""
        if not self.shall_be_senseless or self.stream is None or self.rest:
            return b""
        self.shall_be_senseless = False
        words = random.choice(SENSELESS)
        message = b"\0" + len(words).to_bytes(4, "big") + words
        return len(message).to_bytes(3, "big") + bytes([DATA_FRAME, 0]) + self.stream + message

    def pump(self, source, sink):
        try:
            sink.sendall(read_exactly(source, PREFACE_BYTES))
            while True:
                header = read_exactly(source, FRAME_HEADER_BYTES)
                payload = read_exactly(source, int.from_bytes(header[:3], "big"))
                self.follow(header, payload)
                sink.sendall(header + payload + self.senseless_frame())
        except OSError:
            pass
        end(source, sink)


def end(*links):
    for link in links:
        try:
            link.shutdown(socket.SHUT_RDWR)
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
        links, speeches = [], []

        def close(*_):
            for link in links:
                link.shutdown(socket.SHUT_RDWR)

        def garble(*_):
            links[-1].send(random.randbytes(4096))

        def confuse(*_):
            speeches[-1].shall_be_senseless = True

        signal.signal(signal.SIGUSR1, close)
        signal.signal(signal.SIGUSR2, garble)
        signal.signal(signal.SIGHUP, confuse)
        threading.Thread(target=accept, args=(listener, server_path, links, speeches), daemon=True).start()
        status = worker.wait()
    if status < 0:
        os.kill(os.getpid(), -status)
    sys.exit(status)


def accept(listener, server_path, links, speeches):
    while True:
        near, _ = listener.accept()
        far = socket.socket(socket.AF_UNIX)
        far.connect(server_path)
        links.append(far)
        speeches.append(Speech())
        threading.Thread(target=speeches[-1].pump, args=(near, far), daemon=True).start()
        threading.Thread(target=pump, args=(far, near), daemon=True).start()


if __name__ == "__main__":
    main()
