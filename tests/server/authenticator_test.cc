#include "server/authenticator.h"

#include <memory>
#include <string>

#include "gtest/gtest.h"
#include "server/api_error.h"

namespace weft {
namespace {

// printf %s sk-one | sha256sum
constexpr char kKeys[] = "team 456f1612bd25c6c8455039437bf441f43aa3b7d1c0b0047c712d5036dfebef0d\n";
constexpr char kGoodKey[] = "Bearer sk-one";

std::shared_ptr<const KeyStore> Keys() { return std::make_shared<const KeyStore>(*KeyStore::Parse(kKeys)); }

TEST(AuthenticatorTest, WithoutKeysEverybodyIsTheDefaultTenant) {
  const Authenticator auth;
  EXPECT_EQ(auth.TenantOf({}).value(), "default");
  EXPECT_EQ(auth.TenantOf({{kGoodKey}, {}}).value(), "default");
}

TEST(AuthenticatorTest, AsksForOneKeyOnceThereAreSome) {
  Authenticator auth;
  auth.SetKeys(Keys());
  EXPECT_EQ(auth.TenantOf({{kGoodKey}, {}}).value(), "team");
  for (const Credentials& wrong : {Credentials{}, Credentials{{"Bearer sk-two"}, {}}, Credentials{{"sk-one"}, {}},
                                   Credentials{{kGoodKey, kGoodKey}, {}}}) {
    EXPECT_EQ(ErrorCode(auth.TenantOf(wrong).status()), "invalid_api_key");
  }
}

TEST(AuthenticatorTest, AClientCanNotChooseItsTenant) {
  Authenticator auth;
  EXPECT_EQ(auth.TenantOf({{}, {"rich"}}).value(), "default");
  EXPECT_EQ(auth.TenantOf({{}, {"not a name"}}).value(), "default");
  auth.SetKeys(Keys());
  EXPECT_EQ(auth.TenantOf({{kGoodKey}, {"rich"}}).value(), "team");
}

TEST(AuthenticatorTest, ATrustedGatewayNamesTheTenantButTheKeyMustBeValid) {
  Authenticator auth(/*trust_gateway=*/true);
  EXPECT_EQ(auth.TenantOf({{}, {"rich"}}).value(), "rich");
  EXPECT_EQ(auth.TenantOf({}).value(), "default");
  auth.SetKeys(Keys());
  EXPECT_EQ(auth.TenantOf({{kGoodKey}, {"rich"}}).value(), "rich");
  EXPECT_EQ(auth.TenantOf({{kGoodKey}, {}}).value(), "team");
  EXPECT_EQ(ErrorCode(auth.TenantOf({{"Bearer sk-two"}, {"rich"}}).status()), "invalid_api_key");
  const std::string long_name(65, 'a');
  for (const Credentials& wrong : {Credentials{{kGoodKey}, {""}}, Credentials{{kGoodKey}, {"a b"}},
                                   Credentials{{kGoodKey}, {long_name}}, Credentials{{kGoodKey}, {"a", "a"}}}) {
    const absl::Status status = auth.TenantOf(wrong).status();
    EXPECT_EQ(ErrorCode(status), "out_of_range");
    EXPECT_EQ(ErrorParam(status), kFairnessIdHeader);
    EXPECT_EQ(HttpStatus(status), 400);
  }
}

}  // namespace
}  // namespace weft
