"""The rules of the house: the folder order, the walls, and what a source file may hold.

Each rule is a function from the tree to what it finds there. Its first line says why it stands. A rule is never
weakened for one file: a file that must be let through a wall is named at that wall.
"""

import re
from typing import Callable, Iterable, Iterator, NamedTuple

from tree import CPP, HEADERS, Tree, line_of


class Finding(NamedTuple):
    path: str
    line: int
    message: str


Rule = Callable[[Tree], Iterable[Finding]]
RULES: dict[str, Rule] = {}


def rule(function: Rule) -> Rule:
    RULES[function.__name__] = function
    return function


SOURCE = ("server", "scheduler", "engine", "kernels")

# The macros that every folder uses; they stand in the last one.
MACROS = ("kernels/check.h", "kernels/status_macros.h")

# A folder includes itself and what stands here; the deepest folder that holds a file decides. Tests include anything.
MAY_INCLUDE = {
    "server": ("scheduler", "engine", "kernels"),
    "server/text": MACROS,  # a library of its own: no sockets, no scheduling
    "scheduler": ("engine/batch.h", "engine/engine.h", *MACROS),
    "engine": ("kernels",),
    "kernels": (),
    "loadtest": MACROS,
}

# What server/ takes from kernels/: names of devices and data types, nothing that holds a tensor's memory.
SERVER_MAY_INCLUDE_OF_KERNELS = (*MACROS, "kernels/dtype.h", "kernels/device.h", "kernels/cpu/isa.h")


class Wall(NamedTuple):
    """Only files that match `allowed` include headers that match `header`."""

    header: str
    allowed: str


CUDA = Wall(
    r"(cuda|cublas|cudnn|curand|cusparse|cutlass|cute/|nccl|nvrtc|nvml|nvtx|cooperative_groups|mma\.h)",
    r"kernels/cuda/|tests/kernels/cuda_on_cpu/",
)
HTTP = Wall(r"boost/(asio|beast)", r"server/|loadtest/|tests/")
TELEMETRY = Wall(r"prometheus/", r"server/|tests/")
FLAGS = Wall(r"CLI/", r"server/|loadtest/|tests/")
WIRE = Wall(
    r"(grpc|grpcpp|google/protobuf|google/rpc|weft/v1)/",
    r"server/|engine/remote/|loadtest/|tests/",
)
# Below server/, JSON is the format of model files alone.
JSON = Wall(r"nlohmann/", r"server/|engine/(model|rope|safetensors|weights)\w*\.(h|cc)$|loadtest/|tests/")
PATTERNS = Wall(r"pcre2", r"server/text/|tests/")
GLOO = Wall(r"gloo/", r"kernels/cpu/gloo_|tests/kernels/")


def folder_of(path: str) -> str:
    """The entry of MAY_INCLUDE that rules a file; empty where none does."""
    return max((f for f in MAY_INCLUDE if path.startswith(f + "/")), key=len, default="")


def within(path: str, places: Iterable[str]) -> bool:
    return any(path == place or path.startswith(place + "/") for place in places)


def behind(tree: Tree, wall: Wall) -> Iterator[Finding]:
    for path in tree.under():
        if re.match(wall.allowed, path):
            continue
        for include in tree.includes(path):
            if re.match(wall.header, include.target):
                yield Finding(path, include.line, f"{include.target} is for {wall.allowed} alone")


def matches(tree: Tree, paths: Iterable[str], pattern: str, message: str) -> Iterator[Finding]:
    for path in paths:
        code = tree.code(path)
        for match in re.finditer(pattern, code, re.MULTILINE):
            yield Finding(path, line_of(code, match.start()), f"{match[0].strip()}: {message}")


# The order of the folders.


@rule
def folder_order(tree: Tree):
    """server -> scheduler -> engine -> kernels: what stands right knows nothing of what stands left."""
    known = set(tree.files)
    for path in tree.under(*MAY_INCLUDE):
        folder = folder_of(path)
        for include in tree.includes(path):
            if include.target not in known:
                continue
            if folder_of(include.target) == folder or within(include.target, MAY_INCLUDE[folder]):
                continue
            if folder == "server" and folder_of(include.target) == "server/text":
                continue
            yield Finding(path, include.line, f"{folder}/ may not include {include.target}")


@rule
def includes_name_files_from_the_root(tree: Tree):
    """A quoted include is a path from the root, so that a reader and these rules know what it names."""
    known = set(tree.files)
    for path in tree.under():
        for include in tree.includes(path):
            if not include.quoted or include.target in known:
                continue
            if "/" not in include.target or include.target.startswith(".") or within(include.target, SOURCE):
                yield Finding(path, include.line, f'"{include.target}" is not a file, as seen from the root')


@rule
def no_include_cycle(tree: Tree):
    """A cycle makes two files one."""
    edges = {path: [i for i in tree.includes(path) if i.target in set(tree.files)] for path in tree.under()}
    done: set[str] = set()
    for start in edges:
        trail: list[str] = []
        stack = [(start, iter(edges[start]))] if start not in done else []
        while stack:
            path, rest = stack[-1]
            trail[len(stack) - 1 :] = [path]
            include = next(rest, None)
            if include is None:
                done.add(path)
                stack.pop()
            elif include.target in trail[: len(stack)]:
                cycle = trail[trail.index(include.target) :] + [include.target]
                yield Finding(path, include.line, " -> ".join(cycle))
            elif include.target not in done:
                stack.append((include.target, iter(edges.get(include.target, ()))))


# The walls.


@rule
def no_tensor_left_of_engine(tree: Tree):
    """The scheduler and the front end never touch a device's memory."""
    yield from matches(
        tree, tree.under("server", "scheduler"), r"\b(Tensor|KvView)\b", "belongs to engine/ and kernels/"
    )
    for path in tree.under("server"):
        for include in tree.includes(path):
            if within(include.target, ["kernels"]) and include.target not in SERVER_MAY_INCLUDE_OF_KERNELS:
                yield Finding(path, include.line, f"server/ may not include {include.target}")


@rule
def no_request_right_of_scheduler(tree: Tree):
    """The engine executes a Batch; it doesn't know who asked."""
    yield from matches(tree, tree.under("engine", "kernels"), r"\bRequest\b", "belongs to scheduler/")


@rule
def cuda_only_in_kernels_cuda(tree: Tree):
    """The rest builds anywhere."""
    yield from behind(tree, CUDA)


@rule
def http_only_in_server(tree: Tree):
    """Sockets are the outside world."""
    yield from behind(tree, HTTP)


@rule
def prometheus_only_in_server(tree: Tree):
    """Metrics leave the core as a plain Stats struct."""
    yield from behind(tree, TELEMETRY)


@rule
def flags_only_in_server(tree: Tree):
    """Configuration is parsed in one place and passed down."""
    yield from behind(tree, FLAGS)


@rule
def environment_only_in_server(tree: Tree):
    """A variable of the environment is a setting like any other: no core reads one."""
    paths = tree.under("scheduler", "engine", "kernels", "server/text")
    yield from matches(tree, paths, r"\b(secure_)?getenv\b|\benviron\b", "only server/ reads the environment")


@rule
def json_only_for_the_api_and_model_files(tree: Tree):
    """JSON of the API stays in server/."""
    yield from behind(tree, JSON)


@rule
def one_wire(tree: Tree):
    """gRPC and protobuf in server/, and where serve and worker processes meet."""
    yield from behind(tree, WIRE)


@rule
def pcre2_only_in_text(tree: Tree):
    """Patterns run on user text, with bounds; those bounds are kept in one place."""
    yield from behind(tree, PATTERNS)


@rule
def gloo_only_in_its_communicator(tree: Tree):
    """It throws, and it adds in its own order."""
    yield from behind(tree, GLOO)


@rule
def backend_ifdef_only_in_device(tree: Tree):
    """CMake picks sources, code doesn't."""
    paths = (p for p in tree.under() if p != "kernels/device.cc" and not p.startswith("kernels/cuda/"))
    pattern = r"^[ \t]*#[ \t]*(if|ifdef|ifndef|elif)\b.*(CUDA|HIP|ROCM|METAL|GPU|BACKEND).*$"
    yield from matches(tree, paths, pattern, "only kernels/device.cc chooses a backend")


# What code may not do.


@rule
def no_std_regex(tree: Tree):
    """It recurses once a character: a long line ends the process."""
    yield from matches(
        tree, tree.under(), r"\b(std|boost)::w?regex\b|#\s*include\s*<(boost/)?regex", "use a scanner or PCRE2"
    )


@rule
def no_detached_thread(tree: Tree):
    """A thread that nobody joins outlives what it uses."""
    yield from matches(tree, tree.under(), r"(\.|->)\s*detach\s*\(", "join it")


@rule
def no_sleep(tree: Tree):
    """A sleep is a wait that does not know for what. Tests wait for events too, but may measure time."""
    pattern = r"\b(sleep_for|sleep_until|usleep|nanosleep|SleepFor)\b|\bsleep\s*\("
    yield from matches(tree, tree.under(*SOURCE), pattern, "wait for the event itself")


@rule
def namespaces(tree: Tree):
    """One flat namespace; inner ones only for the twins of a backend and for the wire."""
    pattern = r"^[ \t]*(inline )?namespace (weft::(?!(cpu|cuda|proto)\b)|(detail|details|internal|impl)\b)\w*"
    yield from matches(tree, tree.under(), pattern, "weft, weft::cpu, weft::cuda, weft::proto, or none with a name")


@rule
def pragma_once(tree: Tree):
    """A header's first directive."""
    for path in tree.under(suffixes=HEADERS):
        directive = re.search(r"^[ \t]*#.*$", tree.code(path), re.MULTILINE)
        if not directive or directive[0].split() != ["#pragma", "once"]:
            yield Finding(path, 1, "a header begins with #pragma once")


@rule
def nothing_left_for_later(tree: Tree):
    """What is not done is an issue, not a comment."""
    words = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b")
    for path in tree.under(suffixes=CPP + (".py", ".proto", "CMakeLists.txt", ".sh")):
        for match in words.finditer(tree.text(path)):
            yield Finding(path, line_of(tree.text(path), match.start()), match[0])


@rule
def proto_fields_have_comments(tree: Tree):
    """The proto is the manual of the wire."""
    statement = re.compile(
        r"^\s*(rpc\s+\w+|((optional|repeated)\s+)?(map\s*<.*>|[\w.]+)\s+\w+\s*=\s*\d+|[A-Z]\w*\s*=\s*\d+)"
    )
    for path in tree.under(suffixes=(".proto",)):
        before = ""
        for number, line in enumerate(tree.text(path).splitlines(), 1):
            if statement.match(line) and "//" not in line and not before.startswith("//"):
                yield Finding(path, number, f"no comment: {line.strip()}")
            before = line.strip()


# The tree.

TOP_LEVEL = {
    *SOURCE, "proto", "deploy", "loadtest", "tests",
    "CMakeLists.txt", "CMakePresets.json", "LICENSE", "README.md", "weft",
}  # fmt: skip


@rule
def top_level_entries(tree: Tree):
    """The root is the table of contents."""
    for path in tree.files:
        entry = path.split("/")[0]
        if entry not in TOP_LEVEL and not entry.startswith("."):
            yield Finding(path, 1, f"'{entry}' has no place in the root")


@rule
def no_folder_for_anything(tree: Tree):
    """What is shared is Abseil; a folder without an idea gathers the rest."""
    for path in tree.files:
        for folder in path.split("/")[:-1]:
            if folder in ("base", "common", "core", "helpers", "misc", "shared", "util", "utils"):
                yield Finding(path, 1, f"a folder named '{folder}'")


@rule
def snake_case_names(tree: Tree):
    """Files are named for the one class or verb inside."""
    for path in tree.under(suffixes=CPP + (".py", ".proto")):
        name = path.split("/")[-1]
        if not re.fullmatch(r"[a-z_][a-z0-9_]*\.[a-z]+", name):
            yield Finding(path, 1, f"'{name}' is not in snake_case")


@rule
def no_generated_file(tree: Tree):
    """The build makes them, in its own folder."""
    generated = re.compile(
        r"(\.pb\.(cc|h)|_pb2(_grpc)?\.pyi?|\.(o|a|so|pyc|gcda|gcno)|compile_commands\.json|CMakeCache\.txt)$"
    )
    for path in tree.files:
        if generated.search(path):
            yield Finding(path, 1, "is generated")


@rule
def no_large_file(tree: Tree):
    """git keeps every version for ever. The demo model is the one that is worth it."""
    for path in tree.files:
        if tree.size(path) > 1 << 20 and not path.startswith("deploy/demo_model/"):
            yield Finding(path, 1, f"{tree.size(path)} bytes, at most {1 << 20}")
