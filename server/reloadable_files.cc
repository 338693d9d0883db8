#include "server/reloadable_files.h"

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/status_macros.h"
#include "server/tenants_file.h"
#include "spdlog/spdlog.h"

namespace weft {
namespace {

constexpr char kKeysSetting[] = "api-keys";
constexpr char kTenantsSetting[] = "tenants";

absl::Status Named(const char* setting, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(setting, ": ", status.message()));
}

}  // namespace

ReloadableFiles::ReloadableFiles(std::string keys_file, std::string tenants_file, Authenticator& auth, FairQueue& queue,
                                 Metrics& metrics)
    : keys_file_(std::move(keys_file)),
      tenants_file_(std::move(tenants_file)),
      auth_(auth),
      queue_(queue),
      metrics_(metrics) {}

absl::Status ReloadableFiles::LoadKeys() {
  absl::StatusOr<KeyStore> keys = KeyStore::Load(keys_file_);
  if (!keys.ok()) return Named(kKeysSetting, keys.status());
  auth_.SetKeys(std::make_shared<const KeyStore>(*std::move(keys)));
  return absl::OkStatus();
}

absl::Status ReloadableFiles::LoadTenantPolicies() {
  absl::StatusOr<TenantPolicies> policies = LoadTenants(tenants_file_);
  if (!policies.ok()) return Named(kTenantsSetting, policies.status());
  queue_.SetPolicies(std::make_shared<const TenantPolicies>(*std::move(policies)));
  return absl::OkStatus();
}

absl::Status ReloadableFiles::Load() {
  if (!keys_file_.empty()) RETURN_IF_ERROR(LoadKeys());
  if (!tenants_file_.empty()) RETURN_IF_ERROR(LoadTenantPolicies());
  return absl::OkStatus();
}

void ReloadableFiles::Reload() {
  if (keys_file_.empty() && tenants_file_.empty()) spdlog::info("reload: neither api-keys nor tenants names a file");
  if (!keys_file_.empty()) Tell(kKeysSetting, keys_file_, LoadKeys());
  if (!tenants_file_.empty()) Tell(kTenantsSetting, tenants_file_, LoadTenantPolicies());
}

void ReloadableFiles::Tell(const char* setting, const std::string& file, const absl::Status& status) {
  metrics_.CountReload(setting, status.ok());
  if (status.ok()) {
    spdlog::info("reloaded {} from {}", setting, file);
  } else {
    spdlog::error("reload: {}; what was in force stays", std::string(status.message()));
  }
}

}  // namespace weft
