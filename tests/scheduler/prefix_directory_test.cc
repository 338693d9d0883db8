#include "scheduler/prefix_directory.h"

#include <gtest/gtest.h>

#include <vector>

namespace weft {
namespace {

std::vector<PrefixKey> Keys(int count) { return PrefixKeys(ScopeKey("a", "", ""), std::vector<int32_t>(count, 7), 1); }

CacheChanges Changes(const std::vector<PrefixKey>& keys, size_t begin, size_t end, bool present) {
  CacheChanges changes;
  for (size_t i = begin; i < end; ++i) changes.changes.push_back({keys[i], present});
  return changes;
}

TEST(PrefixDirectoryTest, KnowsTheLongestPrefixElsewhere) {
  const std::vector<PrefixKey> keys = Keys(8);
  PrefixDirectory directory;
  directory.Apply(0, Changes(keys, 0, 3, true));
  directory.Apply(1, Changes(keys, 0, 5, true));
  EXPECT_EQ(directory.LongestElsewhere(0, keys), 5);
  EXPECT_EQ(directory.LongestElsewhere(1, keys), 3);
  EXPECT_EQ(directory.LongestElsewhere(2, keys), 5);
}

TEST(PrefixDirectoryTest, ForgetsWhatIsEvicted) {
  const std::vector<PrefixKey> keys = Keys(8);
  PrefixDirectory directory;
  directory.Apply(0, Changes(keys, 0, 6, true));
  directory.Apply(1, Changes(keys, 0, 4, true));
  directory.Apply(0, Changes(keys, 5, 6, false));
  EXPECT_EQ(directory.LongestElsewhere(1, keys), 5);
  directory.Apply(0, Changes(keys, 0, 5, false));
  EXPECT_EQ(directory.LongestElsewhere(1, keys), 0);
  EXPECT_EQ(directory.size(), 4u);
  directory.Apply(1, Changes(keys, 0, 8, false));
  EXPECT_EQ(directory.size(), 0u);
}

}  // namespace
}  // namespace weft
