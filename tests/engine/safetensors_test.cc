#include "engine/safetensors.h"

#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_replace.h"
#include "gtest/gtest.h"
#include "tests/engine/temp_model.h"

namespace weft {
namespace {

using std::string_literals::operator""s;

// The header of one F32 tensor "a" of two elements, its parts replaceable.
std::string One(const std::string& shape = "[2]", const std::string& offsets = "[0,8]",
                const std::string& dtype = "\"F32\"") {
  return absl::StrCat(R"({"a":{"dtype":)", dtype, R"(,"shape":)", shape, R"(,"data_offsets":)", offsets, "}}");
}

// Tensors "a" and "b" of two F32 elements each at the given places.
std::string Two(const std::string& a, const std::string& b) {
  return absl::StrCat(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":)", a,
                      R"(},"b":{"dtype":"F32","shape":[2],"data_offsets":)", b, "}}");
}

std::string Repeat(const std::string& text, int times) {
  std::string all;
  for (int i = 0; i < times; ++i) all += text;
  return all;
}

std::string ManyTensors(int count) {
  std::string header = "{";
  for (int i = 0; i < count; ++i) {
    absl::StrAppend(&header, i == 0 ? "" : ",", "\"", i, R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})");
  }
  return absl::StrCat(header, "}");
}

struct Case {
  const char* id;  // of the bad-input catalogue
  std::string file;
  const char* code;  // "": accepted
};

std::vector<Case> Catalogue() {
  const std::string d8(8, 'x');
  const std::string d16(16, 'x');
  const auto file = [](const std::string& header, const std::string& data) { return SafetensorsBytes(header, data); };
  return {
      {"plain", file(One(), d8), ""},
      {"no tensors", file("{}", ""), ""},
      {"M01 empty", "", "header_too_small"},
      {"M01 7 bytes", std::string(7, '\0'), "header_too_small"},
      {"M01 8 bytes", std::string(8, '\0'), "header_too_small"},
      {"M02 length 2^64-1", absl::StrCat(std::string(8, '\xff'), One()), "header_too_large"},
      {"M02 beyond the file", absl::StrCat("\x64\0\0\0\0\0\0\0"s, One()), "invalid_header_length"},
      {"M02 cap + 1", absl::StrCat("\x01\0\0\x01\0\0\0\0"s, One()), "header_too_large"},
      {"M03 not UTF-8", file("{\"\xff\":1}", d8), "invalid_header"},
      {"M03 overlong UTF-8", file("{\"\xc0\xaf\":1}", d8), "invalid_header"},
      {"M03 not JSON", file("{not json", d8), "invalid_header"},
      {"M03 NUL padding", file(absl::StrCat(One(), std::string(3, '\0')), d8), "invalid_header"},
      {"M03 NUL and more", file(absl::StrCat(One(), "\0\0}"s), d8), "invalid_header"},
      {"M03 text after the object", file(absl::StrCat(One(), "{}"), d8), "invalid_header"},
      {"spaces after the object", file(absl::StrCat(One(), "   "), d8), ""},
      {"M04 leading whitespace", file(absl::StrCat(" \n\t", One()), d8), ""},
      {"M05 array", file(absl::StrCat("[", One(), "]"), d8), "invalid_header_start"},
      {"M05 byte order mark", file(absl::StrCat("\xef\xbb\xbf", One()), d8), "invalid_header_start"},
      {"M05 nothing but spaces", file("   ", d8), "invalid_header_start"},
      {"M06 tensor twice", file(absl::StrReplaceAll(Two("[0,8]", "[8,16]"), {{"\"b\"", "\"a\""}}), d16),
       "duplicate_key"},
      {"M06 escaped twin", file(absl::StrReplaceAll(Two("[0,8]", "[8,16]"), {{"\"b\"", "\"\\u0061\""}}), d16),
       "duplicate_key"},
      {"M06 metadata twice", file(R"({"__metadata__":{},"__metadata__":{}})", ""), "duplicate_key"},
      {"M06 metadata key twice", file(R"({"__metadata__":{"a":"1","a":"2"}})", ""), "duplicate_key"},
      {"M06 field twice", file(R"({"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}})", d8),
       "duplicate_key"},
      {"M07 too many tensors", file(ManyTensors(200'001), ""), "header_too_complex"},
      {"M07 long name", file(absl::StrCat("{\"", std::string(1 << 20, 'n'), "\":{}}"), ""), "header_too_complex"},
      {"M07 deep list", file(One(absl::StrCat(Repeat("[", 1000), Repeat("]", 1000))), d8), "header_too_complex"},
      {"M07 deep object", file(absl::StrCat(Repeat("{\"a\":", 1000), "1", Repeat("}", 1000)), d8),
       "header_too_complex"},
      {"M08 overlap", file(Two("[0,8]", "[4,12]"), std::string(12, 'x')), "invalid_offset"},
      {"M08 same place", file(Two("[0,8]", "[0,8]"), d8), "invalid_offset"},
      {"M08 gap", file(Two("[0,8]", "[12,20]"), std::string(20, 'x')), "invalid_offset"},
      {"M08 gap at the start", file(One("[2]", "[4,12]"), std::string(12, 'x')), "invalid_offset"},
      {"M08 unsorted but contiguous", file(Two("[8,16]", "[0,8]"), d16), ""},
      {"M09 begin after end", file(One("[2]", "[8,0]"), d8), "invalid_offset"},
      {"M09 beyond the file", file(One("[2]", "[1000,1008]"), d8), "invalid_offset"},
      {"M09 2^64-1", file(One("[2]", "[18446744073709551607,18446744073709551615]"), d8), "invalid_offset"},
      {"M09 negative", file(One("[2]", "[-8,0]"), d8), "invalid_offset"},
      {"M09 float", file(One("[2]", "[0,8.0]"), d8), "invalid_offset"},
      {"M09 beyond 64 bits", file(One("[2]", "[0,18446744073709551616]"), d8), "invalid_offset"},
      {"M09 one offset", file(One("[2]", "[8]"), d8), "invalid_offset"},
      {"M09 three offsets", file(One("[2]", "[0,8,8]"), d8), "invalid_offset"},
      {"M10 trailing bytes", file(One(), d8 + "xx"), "incomplete_buffer"},
      {"M10 two bytes missing", file(One(), d8.substr(2)), "incomplete_buffer"},
      {"M10 data without tensors", file("{}", d8), "incomplete_buffer"},
      {"M11 product overflows", file(One("[2,18446744073709551614]"), d8), "overflow"},
      {"M11 bits overflow", file(One("[2305843009213693952]", "[0,0]"), ""), "overflow"},
      {"M12 shape against range", file(One("[3]"), d8), "invalid_tensor_info"},
      {"M12 scalar of 8 bytes", file(One("[]"), d8), "invalid_tensor_info"},
      {"scalar", file(One("[]", "[0,4]"), "xxxx"), ""},
      {"no elements", file(One("[2,0]", "[0,0]"), ""), ""},
      {"M13 unknown dtype", file(One("[2]", "[0,8]", "\"F31\""), d8), "unknown_dtype"},
      {"M13 dtype no string", file(One("[2]", "[0,8]", "32"), d8), "invalid_header"},
      {"M13 within a byte", file(One("[3]", "[0,1]", "\"F4\""), "x"), "misaligned"},
      {"two to a byte", file(One("[4]", "[0,2]", "\"F4\""), "xx"), ""},
      {"M14 rank 1000", file(One(absl::StrCat("[1", Repeat(",1", 999), "]"), "[0,4]"), "xxxx"), "rank_too_large"},
      {"rank 8", file(One("[2,1,1,1,1,1,1,1]"), d8), ""},
      {"M14 2^63 beside 0", file(One("[9223372036854775808,0]", "[0,0]"), ""), "overflow"},
      {"M14 0 before 2^63", file(One("[0,9223372036854775808]", "[0,0]"), ""), "overflow"},
      {"M14 negative dimension", file(One("[-2]"), d8), "invalid_header"},
      {"M15 metadata number", file(R"({"__metadata__":{"a":1}})", ""), "invalid_metadata"},
      {"M15 metadata object", file(R"({"__metadata__":{"a":{}}})", ""), "invalid_metadata"},
      {"M15 metadata list", file(R"({"__metadata__":{"a":[]}})", ""), "invalid_metadata"},
      {"metadata no object", file(R"({"__metadata__":"a"})", ""), "invalid_header"},
      {"M21 zip", "PK\x03\x04\x14\0\0\0\x08\x08"s + d16, "invalid_header"},
      {"M21 pickle", "\x80\x02\x8a\x0al\xfc\x9c\x46\xf9 j"s + d16, "invalid_header"},
      {"missing field", file(R"({"a":{"dtype":"F32","shape":[2]}})", d8), "invalid_header"},
      {"unknown field", file(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1}})", d8), "invalid_header"},
      {"tensor no object", file(R"({"a":7})", d8), "invalid_header"},
      {"number too long", file(R"({"a":1e999})", d8), "invalid_header"},
  };
}

absl::StatusOr<SafetensorsHeader> ReadFile(const TempDir& dir, const std::string& bytes) {
  dir.Write("a.safetensors", bytes);
  absl::StatusOr<ModelFile> file = ModelFile::Open(dir.path(), "a.safetensors");
  if (!file.ok()) return file.status();
  return ReadSafetensorsHeader(*file);
}

TEST(SafetensorsTest, AnswersTheCatalogue) {
  const TempDir dir;
  for (const Case& test : Catalogue()) {
    SCOPED_TRACE(test.id);
    const absl::StatusOr<SafetensorsHeader> header = ReadFile(dir, test.file);
    EXPECT_EQ(header.ok() ? "" : ErrorCode(header.status().message()), test.code) << header.status();
    EXPECT_EQ(header.status().message().find('\n'), absl::string_view::npos) << "an error is one line";
  }
}

TEST(SafetensorsTest, ReadsNamesTypesShapesAndPlaces) {
  const TempDir dir;
  const std::string header =
      R"({"b":{"dtype":"BF16","shape":[2,3],"data_offsets":[8,20]},"a\"\u00e9":{"data_offsets":[0,8],"shape":[2],"dtype":"F32"}})";
  const absl::StatusOr<SafetensorsHeader> read = ReadFile(dir, SafetensorsBytes(header, std::string(20, 'x')));
  ASSERT_TRUE(read.ok()) << read.status();
  ASSERT_EQ(read->tensors.size(), 2u);
  EXPECT_EQ(read->data_begin, 8 + header.size());
  EXPECT_EQ(read->tensors[0].name, "a\"\xc3\xa9");
  EXPECT_EQ(read->tensors[0].type->dtype, DType::kF32);
  EXPECT_EQ(read->tensors[1].name, "b");
  EXPECT_EQ(read->tensors[1].type->dtype, DType::kBF16);
  EXPECT_EQ(read->tensors[1].shape, (std::vector<uint64_t>{2, 3}));
  EXPECT_EQ(read->tensors[1].begin, 8u);
  EXPECT_EQ(read->tensors[1].end, 20u);
}

TEST(SafetensorsTest, LimitsCanBeRaised) {
  const std::string header = ManyTensors(3);
  SafetensorsLimits limits;
  limits.max_tensors = 2;
  EXPECT_FALSE(ParseSafetensorsHeader("f", header, 0, limits).ok());
  limits.max_tensors = 3;
  EXPECT_TRUE(ParseSafetensorsHeader("f", header, 0, limits).ok());
}

// Whatever was accepted must describe `data_bytes` bytes exactly; computed apart from the reader's own arithmetic.
void ExpectSound(const SafetensorsHeader& header, uint64_t data_bytes) {
  uint64_t end = 0;
  for (const TensorInfo& tensor : header.tensors) {
    double bits = static_cast<double>(tensor.type->bits);  // can't overflow, and is exact where it matters
    for (const uint64_t dim : tensor.shape) bits *= static_cast<double>(dim);
    EXPECT_EQ(tensor.begin, end);
    EXPECT_EQ(bits, static_cast<double>(tensor.end - tensor.begin) * 8) << tensor.name;
    EXPECT_LE(tensor.shape.size(), 8u);
    end = tensor.end;
  }
  EXPECT_EQ(end, data_bytes);
}

// One random edit: a byte changed, dropped or doubled, a piece of the grammar put in, or a number replaced.
void Mutate(std::mt19937_64& random, std::string& text) {
  static const std::vector<std::string> kPieces = {"{",
                                                   "}",
                                                   "[",
                                                   "]",
                                                   ",",
                                                   ":",
                                                   "\"",
                                                   "\\",
                                                   "\\u0000",
                                                   "null",
                                                   "-1",
                                                   "1e9",
                                                   "18446744073709551615",
                                                   "0",
                                                   "\"shape\"",
                                                   "\"dtype\":\"F4\"",
                                                   "\"a\"",
                                                   "__metadata__",
                                                   " ",
                                                   std::string(1, '\0'),
                                                   "\xff",
                                                   "\xef\xbb\xbf"};
  const size_t at = random() % (text.size() + 1);
  switch (random() % 5) {
    case 0:
      if (at < text.size()) text[at] = static_cast<char>(random());
      break;
    case 1:
      if (at < text.size()) text.erase(at, 1 + random() % 4);
      break;
    case 2:
      text.insert(at, text.substr(at, 1 + random() % 40));
      break;
    case 3:
      text.insert(at, kPieces[random() % kPieces.size()]);
      break;
    case 4:
      if (const size_t digit = text.find_first_of("0123456789", at); digit != std::string::npos) {
        text[digit] = static_cast<char>('0' + random() % 10);
      }
      break;
  }
}

TEST(SafetensorsTest, NoMutationIsAcceptedWithWrongContent) {
  const std::string original =
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
      R"("b":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]},"c":{"dtype":"I8","shape":[],"data_offsets":[32,33]}})";
  constexpr uint64_t kDataBytes = 33;
  std::mt19937_64 random(20240607);
  int accepted = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::string text = original;
    for (uint64_t edits = 1 + random() % 3; edits > 0; --edits) Mutate(random, text);
    const absl::StatusOr<SafetensorsHeader> header = ParseSafetensorsHeader("f", text, kDataBytes);
    if (!header.ok()) {
      EXPECT_FALSE(ErrorCode(header.status().message()).empty()) << text;
      continue;
    }
    ++accepted;
    ExpectSound(*header, kDataBytes);
  }
  EXPECT_GT(accepted, 100) << "the mutations must reach past the first check";
}

}  // namespace
}  // namespace weft
