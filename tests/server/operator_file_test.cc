#include "server/operator_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "tests/fakes/temp_dir.h"

namespace weft {
namespace {

constexpr size_t kMost = 16 << 20;

TEST(OperatorFileTest, ReadsAFileAlsoThroughALink) {
  const TempDir dir;
  dir.Write("file", "what it says");
  const std::string link = dir.path() + "/link";
  ASSERT_EQ(symlink((dir.path() + "/file").c_str(), link.c_str()), 0);
  EXPECT_EQ(*ReadOperatorFile("it", link), "what it says");
  dir.Write("large", std::string(kMost, 'x'));
  EXPECT_EQ(ReadOperatorFile("it", dir.path() + "/large")->size(), kMost);
}

TEST(OperatorFileTest, RefusesWhatIsNoFileOrTooLargeWithoutWaiting) {
  const TempDir dir;
  dir.Write("large", std::string(kMost + 1, 'x'));
  dir.Write("empty", "");
  const std::string pipe = dir.path() + "/pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  const auto code = [](const std::string& path) { return ReadOperatorFile("it", path).status().code(); };
  EXPECT_EQ(code(pipe), absl::StatusCode::kInvalidArgument) << "nobody will ever write into it";
  EXPECT_EQ(code("/dev/zero"), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(dir.path()), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(dir.path() + "/large"), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(dir.path() + "/empty"), absl::StatusCode::kNotFound);
  EXPECT_EQ(code(dir.path() + "/absent"), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace weft
