"""Each rule is shown a tree that breaks it, and one that comes close but does not."""

import pathlib
import tempfile
import unittest

from rules import RULES, TOP_LEVEL
from tree import Tree


class RulesTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.trees = 0

    def found(self, rule: str, files: dict[str, str]) -> list[str]:
        """What the rule finds in a tree of these files, as path:line."""
        self.trees += 1
        root = pathlib.Path(self.folder.name) / str(self.trees)
        for path, text in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text, encoding="utf-8")
        return [f"{f.path}:{f.line}" for f in RULES[rule](Tree(root))]

    def include(self, rule: str, path: str, header: str) -> bool:
        """Whether the rule lets `path` include `header`, which exists."""
        files = {path: f'\n#include "{header}"\n', header: "#pragma once\n"}
        found = self.found(rule, files)
        self.assertIn(found, ([], [f"{path}:2"]))
        return not found

    def code(self, rule: str, path: str, line: str) -> bool:
        """Whether the rule lets `line` stand in `path`."""
        found = self.found(rule, {path: f"// {line}\n{line}\n"})
        self.assertIn(found, ([], [f"{path}:2"]))
        return not found

    def test_every_rule_is_tested(self):
        self.assertEqual({f"test_{name}" for name in RULES} - set(dir(self)), set())

    def test_every_rule_says_why(self):
        for name, rule in RULES.items():
            self.assertTrue(rule.__doc__, name)

    def test_a_finding_names_the_line(self):
        text = '/* std::regex\n */\nint a = 1\'000;\nauto s = "std::regex";\nstd::regex r;\n'
        self.assertEqual(self.found("no_std_regex", {"server/a.cc": text}), ["server/a.cc:5"])

    def test_folder_order(self):
        order = ["server", "scheduler", "engine", "kernels"]
        for left, folder in enumerate(order):
            for right, other in enumerate(order):
                if (folder, other) == ("scheduler", "engine") or (folder, other) == ("scheduler", "kernels"):
                    continue
                self.assertEqual(
                    self.include("folder_order", f"{folder}/a.cc", f"{other}/b.h"), left <= right, (folder, other)
                )
        for header, allowed in {
            "engine/batch.h": True,
            "engine/engine.h": True,
            "engine/model.h": False,
            "kernels/status_macros.h": True,
            "kernels/tensor.h": False,
        }.items():
            self.assertEqual(self.include("folder_order", "scheduler/a.cc", header), allowed, header)
        self.assertTrue(self.include("folder_order", "server/a.cc", "server/text/b.h"))
        self.assertFalse(self.include("folder_order", "server/text/a.cc", "server/b.h"))
        self.assertFalse(self.include("folder_order", "loadtest/a.cc", "engine/b.h"))
        self.assertFalse(self.include("folder_order", "server/a.cc", "tests/fakes/b.h"))
        self.assertTrue(self.include("folder_order", "tests/server/a.cc", "engine/b.h"))

    def test_includes_name_files_from_the_root(self):
        for target, allowed in {
            "engine/b.h": True,
            "absl/b.h": True,
            "b.h": False,
            "../engine/b.h": False,
            "engine/c.h": False,
        }.items():
            found = self.found(
                "includes_name_files_from_the_root", {"engine/a.cc": f'#include "{target}"\n', "engine/b.h": ""}
            )
            self.assertEqual(found, [] if allowed else ["engine/a.cc:1"], target)

    def test_no_include_cycle(self):
        def ring(*names):
            return {f"engine/{a}.h": f'#include "engine/{b}.h"\n' for a, b in zip(names, names[1:])}

        self.assertEqual(self.found("no_include_cycle", ring("a", "b", "c", "d")), [])
        self.assertEqual(len(self.found("no_include_cycle", ring("a", "b", "c", "a"))), 1)
        self.assertEqual(self.found("no_include_cycle", ring("a", "a")), ["engine/a.h:1"])
        diamond = {"engine/a.h": '#include "engine/b.h"\n#include "engine/c.h"\n', **ring("b", "d"), **ring("c", "d")}
        self.assertEqual(self.found("no_include_cycle", diamond), [])

    def test_no_tensor_left_of_engine(self):
        self.assertFalse(self.code("no_tensor_left_of_engine", "scheduler/a.h", "Tensor hidden;"))
        self.assertFalse(self.code("no_tensor_left_of_engine", "server/a.h", "const KvView& view;"))
        self.assertTrue(self.code("no_tensor_left_of_engine", "server/a.h", "TensorParallelism plan;"))
        self.assertTrue(self.code("no_tensor_left_of_engine", "engine/a.h", "Tensor hidden;"))
        self.assertTrue(self.include("no_tensor_left_of_engine", "server/a.cc", "kernels/cpu/isa.h"))
        self.assertFalse(self.include("no_tensor_left_of_engine", "server/a.cc", "kernels/backend.h"))

    def test_no_request_right_of_scheduler(self):
        self.assertFalse(self.code("no_request_right_of_scheduler", "engine/a.cc", "Run(const Request& request);"))
        self.assertTrue(self.code("no_request_right_of_scheduler", "scheduler/a.cc", "Run(const Request& request);"))
        self.assertTrue(self.code("no_request_right_of_scheduler", "engine/a.cc", "StepRequest request;"))

    def wall(self, rule: str, header: str, inside: list[str], outside: list[str]):
        for path in inside:
            self.assertTrue(self.include(rule, path, header), path)
        for path in outside:
            self.assertFalse(self.include(rule, path, header), path)

    def test_cuda_only_in_kernels_cuda(self):
        for header in ("cuda_runtime.h", "cublasLt.h", "nccl.h"):
            self.wall(
                "cuda_only_in_kernels_cuda", header, ["kernels/cuda/a.cu"], ["kernels/a.cc", "engine/a.h", "tests/a.cc"]
            )

    def test_http_only_in_server(self):
        for header in ("boost/beast/http.hpp", "boost/asio.hpp"):
            self.wall(
                "http_only_in_server",
                header,
                ["server/a.cc", "loadtest/a.cc"],
                ["scheduler/a.cc", "engine/a.cc", "kernels/a.h"],
            )

    def test_prometheus_only_in_server(self):
        self.wall(
            "prometheus_only_in_server", "prometheus/counter.h", ["server/a.cc"], ["scheduler/a.cc", "engine/a.cc"]
        )

    def test_flags_only_in_server(self):
        self.wall(
            "flags_only_in_server", "CLI/CLI.hpp", ["server/a.cc", "loadtest/a.cc"], ["scheduler/a.cc", "engine/a.cc"]
        )

    def test_environment_only_in_server(self):
        for line in ('const char* v = std::getenv("X");', "char** all = environ;"):
            self.assertTrue(self.code("environment_only_in_server", "server/a.cc", line))
            self.assertFalse(self.code("environment_only_in_server", "server/text/a.cc", line))
            self.assertFalse(self.code("environment_only_in_server", "kernels/cpu/a.cc", line))

    def test_json_only_for_the_api_and_model_files(self):
        inside = ["server/a.cc", "engine/model_config.cc", "engine/safetensors.cc"]
        self.wall(
            "json_only_for_the_api_and_model_files", "nlohmann/json.hpp", inside, ["engine/worker.cc", "scheduler/a.h"]
        )

    def test_one_wire(self):
        inside = ["server/a.cc", "engine/remote/remote_engine.h", "engine/remote/worker_process.cc"]
        for header in ("grpcpp/grpcpp.h", "google/protobuf/message.h", "weft/v1/inference.pb.h"):
            self.wall("one_wire", header, inside, ["engine/worker.cc", "scheduler/a.cc", "kernels/a.cc"])

    def test_pcre2_only_in_text(self):
        self.wall("pcre2_only_in_text", "pcre2.h", ["server/text/a.cc"], ["server/a.cc", "engine/a.cc"])

    def test_gloo_only_in_its_communicator(self):
        inside = ["kernels/cpu/gloo_link.h", "tests/kernels/file_rendezvous.h"]
        self.wall("gloo_only_in_its_communicator", "gloo/context.h", inside, ["kernels/cpu/a.cc", "engine/a.cc"])

    def test_backend_ifdef_only_in_device(self):
        for line in ("#ifdef WEFT_CUDA", "#if defined(__CUDACC__)"):
            self.assertTrue(self.code("backend_ifdef_only_in_device", "kernels/device.cc", line))
            self.assertFalse(self.code("backend_ifdef_only_in_device", "engine/worker.cc", line))
        self.assertTrue(self.code("backend_ifdef_only_in_device", "kernels/cpu/a.cc", "#ifdef __AVX512F__"))

    def test_no_std_regex(self):
        self.assertFalse(self.code("no_std_regex", "server/a.cc", "#include <regex>"))
        self.assertFalse(self.code("no_std_regex", "tests/a.cc", "std::regex word;"))
        self.assertTrue(self.code("no_std_regex", "server/a.cc", "CompiledRegex regex;"))

    def test_no_detached_thread(self):
        self.assertFalse(self.code("no_detached_thread", "server/a.cc", "std::thread(Run).detach();"))
        self.assertFalse(self.code("no_detached_thread", "tests/a.cc", "thread->detach();"))
        self.assertTrue(self.code("no_detached_thread", "server/a.cc", "co_spawn(io, Run(), boost::asio::detached);"))

    def test_no_sleep(self):
        for line in ("std::this_thread::sleep_for(delay);", "absl::SleepFor(delay);", "sleep(1);", "usleep(5);"):
            self.assertFalse(self.code("no_sleep", "scheduler/a.cc", line), line)
            self.assertTrue(self.code("no_sleep", "tests/a.cc", line), line)
        self.assertTrue(self.code("no_sleep", "scheduler/a.cc", "asleep(1);"))

    def test_namespaces(self):
        for line in ("namespace weft {", "namespace weft::cpu {", "namespace {", "namespace grpc {"):
            self.assertTrue(self.code("namespaces", "kernels/a.h", line), line)
        for line in ("namespace weft::engine {", "namespace internal {", "namespace detail {"):
            self.assertFalse(self.code("namespaces", "kernels/a.h", line), line)

    def test_pragma_once(self):
        self.assertEqual(
            self.found("pragma_once", {"a/b.h": "// What it is.\n\n#pragma once\n#include <string>\n"}), []
        )
        self.assertEqual(self.found("pragma_once", {"a/b.h": "#include <string>\n#pragma once\n"}), ["a/b.h:1"])
        self.assertEqual(self.found("pragma_once", {"a/b.h": "// #pragma once\n"}), ["a/b.h:1"])

    def test_nothing_left_for_later(self):
        mark = "TO" + "DO"
        self.assertEqual(self.found("nothing_left_for_later", {"a/b.cc": f"\n// {mark}: x\n"}), ["a/b.cc:2"])
        self.assertEqual(self.found("nothing_left_for_later", {"a/b.cc": "// what else to do\n"}), [])

    def test_proto_fields_have_comments(self):
        good = (
            'syntax = "proto3";\n// M.\nmessage M {\n  // One.\n  repeated string a = 1;\n  int32 b = 2;  // Two.\n}\n'
        )
        self.assertEqual(self.found("proto_fields_have_comments", {"proto/a.proto": good}), [])
        for line in (
            "string a = 1;",
            "map<string, int32> a = 1;",
            "optional a.B c = 3;",
            "KIND_A = 0;",
            "rpc Get(A) returns (B);",
        ):
            text = f"message M {{\n  {line}\n}}\n"
            self.assertEqual(
                self.found("proto_fields_have_comments", {"proto/a.proto": text}), ["proto/a.proto:2"], line
            )

    def test_top_level_entries(self):
        self.assertEqual(self.found("top_level_entries", {f"{name}/a": "" for name in TOP_LEVEL} | {".ci/run": ""}), [])
        self.assertEqual(self.found("top_level_entries", {"notes.md": ""}), ["notes.md:1"])

    def test_no_folder_for_anything(self):
        self.assertEqual(self.found("no_folder_for_anything", {"engine/utils/a.h": ""}), ["engine/utils/a.h:1"])
        self.assertEqual(self.found("no_folder_for_anything", {"server/utils.md": "", "server/text/a.h": ""}), [])

    def test_snake_case_names(self):
        self.assertEqual(self.found("snake_case_names", {"engine/LocalEngine.cc": ""}), ["engine/LocalEngine.cc:1"])
        self.assertEqual(self.found("snake_case_names", {"engine/local_engine.cc": "", "README.md": ""}), [])

    def test_no_generated_file(self):
        for path in ("proto/a.pb.cc", "tests/a_pb2.py", "a.o", "kernels/compile_commands.json"):
            self.assertEqual(self.found("no_generated_file", {path: ""}), [f"{path}:1"])
        self.assertEqual(self.found("no_generated_file", {"proto/a.proto": "", "server/pb.cc": ""}), [])

    def test_no_large_file(self):
        large = "x" * ((1 << 20) + 1)
        self.assertEqual(self.found("no_large_file", {"tests/fixtures/a.bin": large}), ["tests/fixtures/a.bin:1"])
        self.assertEqual(self.found("no_large_file", {"deploy/demo_model/a.bin": large, "b": large[:-1]}), [])


if __name__ == "__main__":
    unittest.main()
