#include "server/auth.h"

#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace weft {
namespace {

// printf %s sk-one | sha256sum
constexpr absl::string_view kDigestOne = "456f1612bd25c6c8455039437bf441f43aa3b7d1c0b0047c712d5036dfebef0d";
constexpr absl::string_view kDigestTwo = "5e31278545505db1d65bf1dd696e8eaa1edfb00ba455e21c83200c04ef643c91";

TEST(KeyStoreTest, FindsTheTenantOfEachKey) {
  const auto store = KeyStore::Parse(absl::StrCat("# both keys of one tenant, and one of another's\n\nteam-a ",
                                                  kDigestOne, "\r\n  team-a\t", absl::AsciiStrToUpper(kDigestTwo),
                                                  "\nb.2 ", std::string(64, '0'), "\n"));
  ASSERT_TRUE(store.ok()) << store.status();
  EXPECT_EQ(store->TenantOf("sk-one"), "team-a");
  EXPECT_EQ(store->TenantOf("sk-two"), "team-a");
}

TEST(KeyStoreTest, KnowsNoOtherKey) {
  const auto store = KeyStore::Parse(absl::StrCat("team-a ", kDigestOne));
  ASSERT_TRUE(store.ok()) << store.status();
  const std::string long_key(1 << 20, 'k');
  for (const absl::string_view key :
       {absl::string_view(""), absl::string_view("sk-on"), absl::string_view("sk-one "), absl::string_view("tk-one"),
        absl::string_view("sk-one\0", 7), kDigestOne, absl::string_view("\xC3\xA9"), absl::string_view(long_key)}) {
    EXPECT_FALSE(store->TenantOf(key).has_value()) << key.substr(0, 80);
  }
}

TEST(KeyStoreTest, RefusesFilesThatDoNotSayWhoHoldsWhat) {
  const std::string good = absl::StrCat("a ", kDigestOne, "\n");
  const std::string cases[] = {
      "",                                          // no key at all
      "# only a comment\n",                        //
      "a sk-one\n",                                // in plain text
      std::string(kDigestOne) + "\n",              // no tenant
      good + "a\n",                                //
      good + good,                                 // twice
      absl::StrCat("a ", kDigestOne, " extra\n"),  //
      absl::StrCat("a/b ", kDigestTwo, "\n"),      // not a name
      absl::StrCat(std::string(65, 'a'), " ", kDigestTwo, "\n"),
      absl::StrCat("a ", std::string(64, 'g'), "\n"),
  };
  for (const std::string& text : cases) {
    const auto store = KeyStore::Parse(text);
    ASSERT_FALSE(store.ok()) << text;
    EXPECT_EQ(store.status().message().find("sk-one"), absl::string_view::npos) << "shows a key";
  }
  EXPECT_FALSE(KeyStore::Load("/nonexistent/keys").ok());
}

TEST(BearerKeyTest, TakesTheKeyOfThatSchemeOnly) {
  EXPECT_EQ(BearerKey("Bearer sk-one"), "sk-one");
  EXPECT_EQ(BearerKey("bearer  sk-one "), "sk-one");
  for (const absl::string_view value : {"", "Bearer", "Bearer ", "Basic sk-one", "sk-one", "Bearersk-one"}) {
    EXPECT_FALSE(BearerKey(value).has_value()) << value;
  }
}

}  // namespace
}  // namespace weft
