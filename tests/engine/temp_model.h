// Model directories made up by tests.
#pragma once

#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "gtest/gtest.h"
#include "tests/fakes/temp_dir.h"

namespace weft {

inline std::string FixtureModel(const std::string& name) {
  return std::string(WEFT_SOURCE_DIR) + "/tests/fixtures/models/" + name;
}

inline std::string ReadAll(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

// Eight bytes of length, the header, the data.
inline std::string SafetensorsBytes(absl::string_view header, absl::string_view data) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes.push_back(static_cast<char>(uint64_t{header.size()} >> (8 * i)));
  return absl::StrCat(bytes, header, data);
}

struct TestTensor {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;
  std::string data;
};

inline std::string SafetensorsFile(const std::vector<TestTensor>& tensors) {
  std::string header = R"({"__metadata__":{"format":"pt"})";
  std::string data;
  for (const TestTensor& tensor : tensors) {
    absl::StrAppend(&header, ",\"", tensor.name, R"(":{"dtype":")", tensor.dtype, R"(","shape":[)",
                    absl::StrJoin(tensor.shape, ","), R"(],"data_offsets":[)", data.size(), ",",
                    data.size() + tensor.data.size(), "]}");
    data += tensor.data;
  }
  return SafetensorsBytes(header + "}", data);
}

// The word between "FILE: " and ": detail" of a loading error.
inline std::string ErrorCode(absl::string_view message) {
  const size_t begin = message.find(": ");
  if (begin == absl::string_view::npos) return "";
  const absl::string_view rest = message.substr(begin + 2);
  return std::string(rest.substr(0, rest.find(": ")));
}

}  // namespace weft
