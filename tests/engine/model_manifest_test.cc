// What a manifest may say, and that what is loaded is what it says.
#include "engine/model_manifest.h"

#include <filesystem>
#include <string>
#include <vector>

#include "engine/file_reader.h"
#include "engine/model_file.h"
#include "engine/sha256.h"
#include "engine/weights.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/device.h"
#include "tests/engine/temp_model.h"

namespace weft {
namespace {

using ::testing::HasSubstr;

std::string EntryOf(const std::string& name, const std::string& bytes) {
  return absl::StrCat(R"({"path": ")", name, R"(", "size": )", bytes.size(), R"(, "sha256": ")", Sha256Hex(bytes),
                      "\"}");
}

std::string ManifestOf(const std::vector<std::string>& entries) {
  return absl::StrCat(R"({"version": 1, "files": [)", absl::StrJoin(entries, ", "), "]}");
}

ModelDir DirWith(const std::string& dir, const std::string& manifest) {
  return ModelDir(dir, std::make_shared<const ModelManifest>(*ModelManifest::Parse("M", manifest)));
}

// Of all files in it.
ModelDir Manifested(const std::string& dir) {
  std::vector<std::string> entries;
  for (const auto& entry : std::filesystem::directory_iterator(dir)) {
    entries.push_back(EntryOf(entry.path().filename().string(), ReadAll(entry.path().string())));
  }
  return DirWith(dir, ManifestOf(entries));
}

// In place, so that whoever has the file open sees it.
void FlipByte(const std::string& path, int64_t at) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(at);
  const int byte = file.get();
  file.seekp(at);
  file.put(static_cast<char>(byte ^ 1));
  ASSERT_TRUE(file.good());
}

TEST(Sha256Test, IsThatOfTheStandard) {
  EXPECT_EQ(Sha256Hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");  // FIPS 180-2, B.1
  EXPECT_EQ(Sha256Hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

TEST(ModelManifestTest, M20IsReadStrictly) {
  const std::string good = EntryOf("a.json", "x");
  const std::string hex(64, 'a');
  const auto with = [](const std::string& fields) { return ManifestOf({"{" + fields + "}"}); };
  const auto entry = [&](const std::string& path, const std::string& size, const std::string& sha256) {
    return with(absl::StrCat(R"("path": )", path, R"(, "size": )", size, R"(, "sha256": )", sha256));
  };
  const std::string sha = absl::StrCat("\"", hex, "\"");
  ASSERT_TRUE(ModelManifest::Parse("M", ManifestOf({good})).ok());
  ASSERT_TRUE(ModelManifest::Parse("M", entry("\"a\"", "0", sha)).ok());
  struct Case {
    const char* what;
    std::string text;
    const char* code;
  };
  const std::vector<Case> cases = {
      {"empty", "", "invalid_json"},
      {"no JSON", "{", "invalid_json"},
      {"a key twice", R"({"version": 1, "version": 1, "files": []})", "invalid_json"},
      {"a NUL", std::string("{}\0", 3), "invalid_json"},
      {"a list", "[]", "invalid_json"},
      {"nothing in it", "{}", "invalid_manifest"},
      {"another version", absl::StrCat(R"({"version": 2, "files": [)", good, "]}"), "invalid_manifest"},
      {"a version that is no number", absl::StrCat(R"({"version": "1", "files": [)", good, "]}"), "invalid_manifest"},
      {"no version", absl::StrCat(R"({"files": [)", good, "]}"), "invalid_manifest"},
      {"an unknown field", absl::StrCat(R"({"version": 1, "key": 1, "files": [)", good, "]}"), "invalid_manifest"},
      {"no files", ManifestOf({}), "invalid_manifest"},
      {"files is an object", R"({"version": 1, "files": {}})", "invalid_manifest"},
      {"an entry is a string", ManifestOf({"\"a\""}), "invalid_manifest"},
      {"a file twice", ManifestOf({good, good}), "invalid_manifest"},
      {"an unknown field of an entry", with(absl::StrCat(R"("path": "a", "size": 1, "mode": 1, "sha256": )", sha)),
       "invalid_manifest"},
      {"no digest", with(R"("path": "a", "size": 1)"), "invalid_manifest"},
      {"path is a number", entry("7", "1", sha), "invalid_manifest"},
      {"path is empty", entry("\"\"", "1", sha), "invalid_manifest"},
      {"path is the parent", entry("\"..\"", "1", sha), "invalid_manifest"},
      {"path leaves the directory", entry("\"../a\"", "1", sha), "invalid_manifest"},
      {"path is absolute", entry("\"/etc/passwd\"", "1", sha), "invalid_manifest"},
      {"path in a folder", entry("\"b/a\"", "1", sha), "invalid_manifest"},
      {"path with a NUL", entry(R"("a\u0000b")", "1", sha), "invalid_manifest"},
      {"size is negative", entry("\"a\"", "-1", sha), "invalid_manifest"},
      {"size is a fraction", entry("\"a\"", "1.5", sha), "invalid_manifest"},
      {"size is a string", entry("\"a\"", "\"1\"", sha), "invalid_manifest"},
      {"size is 2^63", entry("\"a\"", "9223372036854775808", sha), "invalid_manifest"},
      {"digest is too short", entry("\"a\"", "1", "\"aa\""), "invalid_manifest"},
      {"digest is too long", entry("\"a\"", "1", absl::StrCat("\"", hex, "0\"")), "invalid_manifest"},
      {"digest is in capitals", entry("\"a\"", "1", absl::StrCat("\"", std::string(64, 'A'), "\"")),
       "invalid_manifest"},
      {"digest is no hex", entry("\"a\"", "1", absl::StrCat("\"", std::string(64, 'g'), "\"")), "invalid_manifest"},
      {"digest is null", entry("\"a\"", "1", "null"), "invalid_manifest"},
  };
  for (const Case& test : cases) {
    SCOPED_TRACE(test.what);
    const absl::Status status = ModelManifest::Parse("M", test.text).status();
    EXPECT_EQ(ErrorCode(status.message()), test.code) << status;
    EXPECT_EQ(status.message().find('\n'), absl::string_view::npos);
  }
}

TEST(ModelManifestTest, M20HoldsSmallFilesToIt) {
  const TempDir dir;
  dir.Write("a.json", "right");
  const auto read = [&](const std::string& manifest) {
    return ReadModelFile(DirWith(dir.path(), manifest), "a.json", 100);
  };
  EXPECT_EQ(*read(ManifestOf({EntryOf("a.json", "right")})), "right");
  for (const auto& [manifest, says] : std::vector<std::pair<std::string, const char*>>{
           {ManifestOf({EntryOf("a.json", "wrong")}), "has sha256"},
           {ManifestOf({EntryOf("a.json", "longer")}), "has 5 bytes"},
           {ManifestOf({EntryOf("b.json", "right")}), "is not in the manifest"}}) {
    const absl::Status status = read(manifest).status();
    EXPECT_EQ(ErrorCode(status.message()), "integrity_error") << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(says));
    EXPECT_THAT(std::string(status.message()), HasSubstr("a.json"));
  }
  const ModelDir files = DirWith(dir.path(), ManifestOf({EntryOf("gone.json", "x")}));
  EXPECT_TRUE(ModelFileExists(files, "gone.json")) << "so that nobody passes over it";
  const absl::Status gone = ReadModelFile(files, "gone.json", 100).status();
  EXPECT_EQ(ErrorCode(gone.message()), "integrity_error") << gone;
}

TEST(ModelManifestTest, ChecksBytesThatOthersHaveRead) {
  const ModelManifest manifest = *ModelManifest::Parse("M", ManifestOf({EntryOf("a", "right")}));
  const std::string right = "right";
  const std::string wrong = "wrong";
  EXPECT_TRUE(manifest.Check("D", "a", &right).ok());
  EXPECT_TRUE(manifest.Check("D", "b", nullptr).ok()) << "neither there nor listed";
  EXPECT_EQ(ErrorCode(manifest.Check("D", "a", &wrong).message()), "integrity_error");
  EXPECT_EQ(ErrorCode(manifest.Check("D", "a", nullptr).message()), "integrity_error");
  EXPECT_EQ(ErrorCode(manifest.Check("D", "b", &right).message()), "integrity_error");
}

constexpr int64_t kChunk = FileReader::kChunkBytes;

std::string ThreeChunksAndABit() {
  std::string bytes(3 * kChunk + 17, '\0');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 7 + i / 1000);
  return bytes;
}

TEST(ModelFileTest, ReadsAnyRangeOfAVerifiedFile) {
  const TempDir dir;
  const std::string bytes = ThreeChunksAndABit();
  dir.Write("f", bytes);
  ModelFile file = *ModelFile::Open(Manifested(dir.path()), "f");
  int64_t told = 0;
  ASSERT_TRUE(file.Verify([&](int64_t count) { told += count; }).ok());
  EXPECT_EQ(told, static_cast<int64_t>(bytes.size()));
  FileReader reader(file);
  for (const auto& [begin, count] : std::vector<std::pair<int64_t, int64_t>>{{0, 8},
                                                                             {8, 100},
                                                                             {0, kChunk},
                                                                             {5, kChunk},
                                                                             {kChunk, 2 * kChunk},
                                                                             {kChunk - 1, 2 * kChunk + 2},
                                                                             {3 * kChunk, 17},
                                                                             {3 * kChunk + 16, 1},
                                                                             {0, 3 * kChunk + 17},
                                                                             {2 * kChunk, 0}}) {
    std::string out(static_cast<size_t>(count), '\0');
    ASSERT_TRUE(reader.Read(static_cast<uint64_t>(begin), out.size(), out.data()).ok());
    EXPECT_EQ(out, bytes.substr(static_cast<size_t>(begin), out.size())) << begin << ", " << count;
  }
}

TEST(ModelFileTest, M20NoticesWhatChangesAfterItWasChecked) {
  const TempDir dir;
  const std::string bytes = ThreeChunksAndABit();
  for (const int64_t at : {int64_t{0}, kChunk - 1, kChunk, 3 * kChunk + 16}) {
    dir.Write("f", bytes);
    ModelFile file = *ModelFile::Open(Manifested(dir.path()), "f");
    ASSERT_TRUE(file.Verify([](int64_t) {}).ok());
    FlipByte(dir.File("f"), at);
    const int64_t chunk = at / kChunk;
    char byte = 0;
    for (int64_t c = 0; c < 4; ++c) {
      const absl::Status status = file.Read(static_cast<uint64_t>(c * kChunk), 1, &byte);
      EXPECT_EQ(status.ok(), c != chunk) << at << ": " << status;
      EXPECT_EQ(ErrorCode(status.message()), c == chunk ? "integrity_error" : "");
    }
    std::string whole(bytes.size(), '\0');
    const absl::Status status = file.Read(0, whole.size(), whole.data());
    EXPECT_EQ(ErrorCode(status.message()), "integrity_error") << "also where whole chunks are read";
    EXPECT_THAT(std::string(status.message()), HasSubstr(dir.File("f")));
  }
}

TEST(ModelFileTest, M18IsIoErrorWhenItShrinksAfterItWasChecked) {
  const TempDir dir;
  dir.Write("f", ThreeChunksAndABit());
  ModelFile file = *ModelFile::Open(Manifested(dir.path()), "f");
  ASSERT_TRUE(file.Verify([](int64_t) {}).ok());
  std::filesystem::resize_file(dir.File("f"), 1000);
  char byte = 0;
  EXPECT_TRUE(absl::IsDataLoss(file.Read(10, 1, &byte)));
}

class ManifestedWeightsTest : public ::testing::Test {
 protected:
  ManifestedWeightsTest() {
    std::filesystem::copy(FixtureModel("llama3"), dir_.path());
    config_ = *LoadModelConfig(dir_.path());
  }
  absl::Status Load(const ModelDir& dir) const {
    const auto backend = *OpenDevice({.num_threads = 1});
    return LoadWeights(dir, config_, WholeModel(config_), {}, *backend).status();
  }

  const TempDir dir_;
  ModelConfig config_;
};

TEST_F(ManifestedWeightsTest, LoadAsTheyAreWritten) { EXPECT_TRUE(Load(Manifested(dir_.path())).ok()); }

TEST_F(ManifestedWeightsTest, M20AreRefusedForOneBitAnywhere) {
  const ModelDir dir = Manifested(dir_.path());
  const auto size = static_cast<int64_t>(std::filesystem::file_size(dir_.File("model.safetensors")));
  for (const int64_t at : {int64_t{0}, int64_t{100}, size / 2, size - 1}) {
    FlipByte(dir_.File("model.safetensors"), at);
    const absl::Status status = Load(dir);
    EXPECT_EQ(ErrorCode(status.message()), "integrity_error") << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("model.safetensors"));
    FlipByte(dir_.File("model.safetensors"), at);
  }
  EXPECT_TRUE(Load(dir).ok());
}

TEST_F(ManifestedWeightsTest, M20AShardThatIsNotListedIsNotOpened) {
  std::filesystem::rename(dir_.File("model.safetensors"), dir_.File("one.safetensors"));
  const ModelDir before = Manifested(dir_.path());
  dir_.Write("model.safetensors.index.json", R"({"weight_map": {"model.norm.weight": "one.safetensors"}})");
  EXPECT_EQ(ErrorCode(Load(before).message()), "integrity_error") << "the index isn't listed";
  const ModelDir shards = Manifested(dir_.path());
  EXPECT_EQ(ErrorCode(Load(shards).message()), "index_invalid") << "it is what was listed, though no good";
  std::filesystem::remove(dir_.File("one.safetensors"));
  EXPECT_EQ(ErrorCode(Load(shards).message()), "integrity_error") << "absent";
}

}  // namespace
}  // namespace weft
