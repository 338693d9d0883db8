#include "scheduler/kv_block_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <list>
#include <map>
#include <optional>
#include <random>
#include <vector>

namespace weft {
namespace {

constexpr int kBlockSize = 2;

// Content number n: two tokens, and a key that stands for a prefix.
std::vector<int32_t> Tokens(int content) { return {content, content + 1}; }
PrefixKey Key(int content) { return NextPrefixKey(PrefixKey(), Tokens(content)); }

TEST(KvBlockPoolTest, TakesUpWhatWasRegisteredAndNothingElse) {
  KvBlockPool pool(4, kBlockSize);
  std::vector<int32_t> ids;
  ASSERT_TRUE(pool.Take(2, ids));
  pool.Register(ids[0], Key(7), Tokens(7));
  std::vector<int32_t> found;
  EXPECT_TRUE(pool.TakeUp(Key(7), Tokens(7), found));  // shared while it is held
  EXPECT_FALSE(pool.TakeUp(Key(8), Tokens(8), found));
  EXPECT_FALSE(pool.TakeUp(Key(7), Tokens(8), found)) << "a key alone is not trusted";
  EXPECT_EQ(found, std::vector<int32_t>({ids[0]}));
  pool.Give(ids);
  EXPECT_EQ(pool.num_cached(), 0) << "somebody still holds it";
  pool.Give(found);
  EXPECT_EQ(pool.num_cached(), 1);
  EXPECT_EQ(pool.num_available(), 4);
  pool.CheckInvariants();
}

TEST(KvBlockPoolTest, EvictsWhatWasGivenBackLongestAgoAndTheTailOfASequenceFirst) {
  KvBlockPool pool(3, kBlockSize);
  std::vector<int32_t> ids;
  ASSERT_TRUE(pool.Take(3, ids));
  for (int i = 0; i < 3; ++i) pool.Register(ids[static_cast<size_t>(i)], Key(i), Tokens(i));
  pool.Give(absl::MakeConstSpan(ids).subspan(2));
  pool.Give(absl::MakeConstSpan(ids).first(2));
  std::vector<int32_t> fresh;
  for (const int expected : {2, 1, 0}) {
    ASSERT_TRUE(pool.Take(1, fresh));
    EXPECT_EQ(fresh.back(), ids[static_cast<size_t>(expected)]);
  }
  EXPECT_EQ(pool.num_evictions(), 3);
  EXPECT_FALSE(pool.Take(1, fresh));
}

TEST(KvBlockPoolTest, KeepsTheFirstOfEqualBlocks) {
  KvBlockPool pool(2, kBlockSize);
  std::vector<int32_t> ids, found;
  ASSERT_TRUE(pool.Take(2, ids));
  pool.Register(ids[0], Key(5), Tokens(5));
  pool.Register(ids[1], Key(5), Tokens(5));
  pool.Give(ids);
  EXPECT_EQ(pool.num_free(), 1);
  EXPECT_TRUE(pool.TakeUp(Key(5), Tokens(5), found));
  EXPECT_EQ(found[0], ids[0]);
}

// The pool by its definition: maps and lists, every question answered by a search.
class NaivePool {
 public:
  explicit NaivePool(int num_blocks) {
    for (int id = 0; id < num_blocks; ++id) holders_[id] = 0;
  }

  int num_free() const {
    return static_cast<int>(std::count_if(holders_.begin(), holders_.end(), [this](const auto& block) {
      return block.second == 0 && content_.count(block.first) == 0;
    }));
  }
  int num_cached() const { return static_cast<int>(cached_.size()); }

  // The ids that the real pool chose; it may choose any free one, but only the oldest cached one.
  void Take(const std::vector<int32_t>& ids) {
    for (const int32_t id : ids) {
      ASSERT_EQ(holders_[id], 0);
      if (content_.count(id) > 0) {
        ASSERT_EQ(num_free(), 0) << "evicted though a block was free";
        ASSERT_EQ(cached_.front(), id) << "not the oldest";
        cached_.pop_front();
        content_.erase(id);
      }
      holders_[id] = 1;
    }
  }
  void Give(const std::vector<int32_t>& ids) {
    for (auto id = ids.rbegin(); id != ids.rend(); ++id) {
      if (--holders_[*id] == 0 && content_.count(*id) > 0) cached_.push_back(*id);
    }
  }
  void Register(int32_t id, int content) {
    if (!Find(content).has_value()) content_[id] = content;
  }
  std::optional<int32_t> Find(int content) const {
    for (const auto& [id, has] : content_) {
      if (has == content) return id;
    }
    return std::nullopt;
  }
  void TakeUp(int32_t id) {
    if (holders_[id]++ == 0) cached_.remove(id);
  }
  bool IsRegistered(int32_t id) const { return content_.count(id) > 0; }

 private:
  std::map<int32_t, int> holders_;
  std::map<int32_t, int> content_;  // of registered blocks
  std::list<int32_t> cached_;       // oldest first
};

// WEFT_POOL_OPERATIONS: how many; 100 million on demand.
int64_t NumOperations() {
  const char* const asked = std::getenv("WEFT_POOL_OPERATIONS");
  return asked == nullptr ? 1'000'000 : std::atoll(asked);
}

TEST(KvBlockPoolTest, AgreesWithTheNaivePoolOverAMillionOperations) {
  constexpr int kNumBlocks = 13;
  std::mt19937 rng(20261123);
  const auto uniform = [&rng](int low, int high) { return low + static_cast<int>(rng() % (high - low + 1u)); };
  KvBlockPool pool(kNumBlocks, kBlockSize);
  NaivePool naive(kNumBlocks);
  std::vector<std::vector<int32_t>> tables(6);  // as sequences have them
  for (int64_t i = 0; i < NumOperations(); ++i) {
    std::vector<int32_t>& table = tables[static_cast<size_t>(uniform(0, 5))];
    const size_t before = table.size();
    const int content = uniform(0, 30);
    switch (uniform(0, 3)) {
      case 0: {
        const int count = uniform(1, 4);
        const bool enough = count <= naive.num_free() + naive.num_cached();
        ASSERT_EQ(pool.Take(count, table), enough);
        naive.Take({table.begin() + static_cast<std::ptrdiff_t>(before), table.end()});
        break;
      }
      case 1:
        pool.Give(table);
        naive.Give(table);
        table.clear();
        break;
      case 2:
        if (table.empty() || naive.IsRegistered(table.back())) break;
        pool.Register(table.back(), Key(content), Tokens(content));
        naive.Register(table.back(), content);
        break;
      default: {
        const std::optional<int32_t> id = naive.Find(content);
        ASSERT_EQ(pool.TakeUp(Key(content), Tokens(content), table), id.has_value());
        if (!id.has_value()) break;
        ASSERT_EQ(table.back(), *id);
        naive.TakeUp(*id);
      }
    }
    ASSERT_EQ(pool.num_free(), naive.num_free()) << "operation " << i;
    ASSERT_EQ(pool.num_cached(), naive.num_cached()) << "operation " << i;
    pool.CheckInvariants();
  }
}

}  // namespace
}  // namespace weft
