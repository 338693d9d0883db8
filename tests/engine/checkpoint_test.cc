#include "engine/checkpoint.h"

#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/temp_model.h"

namespace weft {
namespace {

using ::testing::HasSubstr;

const TestTensor kA = {"a", "F32", {2}, "aaaaAAAA"};
const TestTensor kB = {"b", "BF16", {3}, "b1b2b3"};

constexpr char kShard1[] = "model-00001-of-00002.safetensors";
constexpr char kShard2[] = "model-00002-of-00002.safetensors";
constexpr char kIndex[] = "model.safetensors.index.json";

std::string Index(const std::string& weight_map, const std::string& metadata = R"({"total_size": 14})") {
  return absl::StrCat(R"({"metadata": )", metadata, R"(, "weight_map": )", weight_map, "}");
}

const std::string kGoodMap = absl::StrCat(R"({"a": ")", kShard1, R"(", "b": ")", kShard2, R"("})");

// A good pair of shards; tests then overwrite what they spoil.
void WriteShards(const TempDir& dir) {
  dir.Write(kShard1, SafetensorsFile({kA}));
  dir.Write(kShard2, SafetensorsFile({kB}));
  dir.Write(kIndex, Index(kGoodMap));
}

std::string ReadTensor(const Checkpoint& checkpoint, const std::string& name) {
  const Checkpoint::Entry* entry = checkpoint.Find(name);
  EXPECT_NE(entry, nullptr) << name;
  if (entry == nullptr) return "";
  std::string bytes(entry->info.end - entry->info.begin, '\0');
  EXPECT_TRUE(checkpoint.Read(*entry, 0, bytes.size(), bytes.data()).ok());
  return bytes;
}

void ExpectGood(const std::string& dir) {
  const absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(dir);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(checkpoint->entries().size(), 2u);
  EXPECT_EQ(ReadTensor(*checkpoint, "a"), kA.data);
  EXPECT_EQ(ReadTensor(*checkpoint, "b"), kB.data);
  EXPECT_EQ(checkpoint->Find("c"), nullptr);
}

TEST(CheckpointTest, ReadsASingleFile) {
  const TempDir dir;
  dir.Write("model.safetensors", SafetensorsFile({kA, kB}));
  ExpectGood(dir.path());
}

TEST(CheckpointTest, ReadsShards) {
  const TempDir dir;
  WriteShards(dir);
  ExpectGood(dir.path());
}

TEST(CheckpointTest, AcceptsAnIndexWithoutATotalAndWithAFloat) {
  const TempDir dir;
  WriteShards(dir);
  dir.Write(kIndex, Index(kGoodMap, "{}"));
  ExpectGood(dir.path());
  dir.Write(kIndex, Index(kGoodMap, R"({"total_size": 14.0})"));
  ExpectGood(dir.path());
  dir.Write(kIndex, absl::StrCat(R"({"weight_map": )", kGoodMap, "}"));
  ExpectGood(dir.path());
}

// The layout of the Hugging Face cache: the directory and its files are links.
TEST(CheckpointTest, FollowsLinks) {
  const TempDir blobs, dir;
  blobs.Write("0123abcd", SafetensorsFile({kA, kB}));
  std::filesystem::create_directory(dir.File("snapshot"));
  std::filesystem::create_symlink(blobs.File("0123abcd"), dir.File("snapshot/model.safetensors"));
  std::filesystem::create_directory_symlink(dir.File("snapshot"), dir.File("model"));
  ExpectGood(dir.File("model"));
}

TEST(CheckpointTest, M17RefusesAnIndexThatDisagreesWithItsShards) {
  const auto map = [](const std::string& a, const std::string& b) {
    return absl::StrCat(R"({"a": )", a, R"(, "b": )", b, "}");
  };
  const std::string one = absl::StrCat("\"", kShard1, "\"");
  const std::string two = absl::StrCat("\"", kShard2, "\"");
  struct Case {
    const char* what;
    std::string index;
  };
  const std::vector<Case> cases = {
      {"absent shard", Index(map(one, R"("model-3.safetensors")"))},
      {"parent directory", Index(map(one, R"("../x.safetensors")"))},
      {"absolute path", Index(map(one, R"("/etc/x.safetensors")"))},
      {"subdirectory", Index(map(one, R"("sub/x.safetensors")"))},
      {"empty name", Index(map(one, R"("")"))},
      {"hidden file", Index(map(one, R"(".x.safetensors")"))},
      {"other format", Index(map(one, R"("pytorch_model.bin")"))},
      {"NUL in the name", Index(map(one, R"("x\u0000.safetensors")"))},
      {"no name", Index(map(one, "2"))},
      {"tensor in the other shard", Index(map(two, one))},
      {"tensor not in the shard", Index(absl::StrCat(R"({"a": )", one, R"(, "b": )", two, R"(, "c": )", two, "}"))},
      {"tensor of a shard not in the map", Index(absl::StrCat(R"({"a": )", one, R"(, "c": )", two, "}"))},
      {"total_size too small", Index(kGoodMap, R"({"total_size": 13})")},
      {"total_size negative", Index(kGoodMap, R"({"total_size": -14})")},
      {"total_size a string", Index(kGoodMap, R"({"total_size": "14"})")},
      {"total_size 2^64", Index(kGoodMap, R"({"total_size": 18446744073709551616})")},
      {"metadata a list", Index(kGoodMap, "[]")},
      {"no weight_map", "{}"},
      {"empty weight_map", Index("{}")},
      {"weight_map a list", Index("[]")},
  };
  const TempDir dir;
  WriteShards(dir);
  for (const Case& test : cases) {
    SCOPED_TRACE(test.what);
    dir.Write(kIndex, test.index);
    const absl::Status status = Checkpoint::Open(dir.path()).status();
    EXPECT_EQ(ErrorCode(status.message()), "index_invalid") << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(kIndex));
  }
}

TEST(CheckpointTest, M17RefusesATensorInTwoShards) {
  const TempDir dir;
  WriteShards(dir);
  dir.Write(kShard2, SafetensorsFile({kA, kB}));
  EXPECT_EQ(ErrorCode(Checkpoint::Open(dir.path()).status().message()), "index_invalid");
}

TEST(CheckpointTest, NamesTheBrokenShard) {
  const TempDir dir;
  WriteShards(dir);
  dir.Write(kShard2, SafetensorsFile({kB}) + "x");
  const absl::Status status = Checkpoint::Open(dir.path()).status();
  EXPECT_EQ(ErrorCode(status.message()), "incomplete_buffer");
  EXPECT_THAT(std::string(status.message()), HasSubstr(kShard2));
}

TEST(CheckpointTest, M18ATruncatedFileIsAnErrorAndNoSignal) {
  const TempDir dir;
  dir.Write("model.safetensors", SafetensorsFile({{"big", "F32", {1 << 18}, std::string(1 << 20, 'x')}}));
  const absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(dir.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  std::filesystem::resize_file(dir.File("model.safetensors"), 5000);
  std::string bytes(1 << 20, '\0');
  const absl::Status status = checkpoint->Read(*checkpoint->Find("big"), 0, bytes.size(), bytes.data());
  EXPECT_TRUE(absl::IsDataLoss(status));
  EXPECT_EQ(ErrorCode(status.message()), "io_error");
  EXPECT_THAT(std::string(status.message()), HasSubstr("model.safetensors"));
}

TEST(CheckpointTest, M21RefusesOtherFormats) {
  for (const char* name : {"pytorch_model.bin", "consolidated.00.pth", "model.gguf", "weights.pkl"}) {
    const TempDir dir;
    dir.Write(name, "\x80\x02.");
    const absl::Status status = Checkpoint::Open(dir.path()).status();
    EXPECT_EQ(ErrorCode(status.message()), "refused_format") << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(name));
  }
}

TEST(CheckpointTest, IsNotFoundWithoutWeights) {
  const TempDir dir;
  EXPECT_TRUE(absl::IsNotFound(Checkpoint::Open(dir.path()).status()));
  EXPECT_TRUE(absl::IsNotFound(Checkpoint::Open(dir.File("absent")).status()));
}

TEST(CheckpointTest, RefusesWhatIsNoFileAndDoesNotHangOnIt) {
  const TempDir fifo, directory, loop;
  ASSERT_EQ(mkfifo(fifo.File("model.safetensors").c_str(), 0600), 0);
  EXPECT_EQ(ErrorCode(Checkpoint::Open(fifo.path()).status().message()), "invalid_file");
  std::filesystem::create_directory(directory.File("model.safetensors"));
  EXPECT_EQ(ErrorCode(Checkpoint::Open(directory.path()).status().message()), "invalid_file");
  std::filesystem::create_symlink("model.safetensors", loop.File("model.safetensors"));
  EXPECT_FALSE(Checkpoint::Open(loop.path()).ok());
}

// The names of the files of `dir` that were opened while this object lived.
class OpenWatch {
 public:
  explicit OpenWatch(const std::string& dir) : fd_(inotify_init1(IN_NONBLOCK | IN_CLOEXEC)) {
    EXPECT_GE(inotify_add_watch(fd_, dir.c_str(), IN_OPEN), 0);
  }
  ~OpenWatch() { close(fd_); }

  std::set<std::string> Opened() const {
    std::set<std::string> names;
    alignas(inotify_event) std::array<char, 16384> events{};
    const ssize_t bytes = read(fd_, events.data(), events.size());
    for (ssize_t at = 0; at < bytes;) {
      const auto* event = reinterpret_cast<const inotify_event*>(events.data() + at);
      if (event->len > 0) names.insert(event->name);
      at += static_cast<ssize_t>(sizeof(inotify_event) + event->len);
    }
    return names;
  }

 private:
  int fd_;
};

TEST(CheckpointTest, M21NeverOpensCodeOrPickles) {
  const TempDir dir;
  dir.Write("model.safetensors", SafetensorsFile({kA, kB}));
  dir.Write("modeling_evil.py", "raise SystemExit");
  dir.Write("pytorch_model.bin", "\x80\x02.");
  const OpenWatch watch(dir.path());
  ExpectGood(dir.path());
  EXPECT_EQ(watch.Opened(), std::set<std::string>{"model.safetensors"});
}

}  // namespace
}  // namespace weft
