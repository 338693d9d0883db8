// Mutual TLS between the server and workers on other hosts.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/security/server_credentials.h"

namespace weft {

// PEM files.
struct TlsFiles {
  std::string certificate;  // chain of this end
  std::string key;
  std::string authority;  // that has signed the other end's
};

// Errors: InvalidArgument for a file that can't be read.
absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> MutualTlsServer(const TlsFiles& files);
absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> MutualTlsClient(const TlsFiles& files);

}  // namespace weft
