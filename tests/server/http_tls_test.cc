// The HTTP server behind TLS, with a certificate made for the test.
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <cstdio>
#include <memory>
#include <string>

#include "absl/strings/match.h"
#include "gtest/gtest.h"
#include "server/http_server.h"
#include "tests/fakes/temp_dir.h"
#include "tests/server/raw_http_client.h"

namespace weft {
namespace {

template <auto kFree>
struct Freer {
  template <typename T>
  void operator()(T* object) const {
    kFree(object);
  }
};
using Key = std::unique_ptr<EVP_PKEY, Freer<EVP_PKEY_free>>;
using Certificate = std::unique_ptr<X509, Freer<X509_free>>;

Certificate MakeCertificate(EVP_PKEY* key) {
  Certificate certificate(X509_new());
  X509_set_version(certificate.get(), 2);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate.get()), 1);
  X509_gmtime_adj(X509_getm_notBefore(certificate.get()), -3600);
  X509_gmtime_adj(X509_getm_notAfter(certificate.get()), 3600);
  X509_NAME* const name = X509_get_subject_name(certificate.get());
  X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>("weft"), -1, -1, 0);
  X509_set_issuer_name(certificate.get(), name);
  X509_set_pubkey(certificate.get(), key);
  X509_sign(certificate.get(), key, EVP_sha256());
  return certificate;
}

class HttpTlsTest : public testing::Test {
 protected:
  HttpTlsTest() {
    options_.port = 0;
    options_.tls_cert_file = dir_.File("cert.pem");
    options_.tls_key_file = dir_.File("key.pem");
    const Key key(EVP_EC_gen("P-256"));
    const Certificate certificate = MakeCertificate(key.get());
    std::FILE* file = std::fopen(options_.tls_cert_file.c_str(), "w");
    PEM_write_X509(file, certificate.get());
    std::fclose(file);
    file = std::fopen(options_.tls_key_file.c_str(), "w");
    PEM_write_PrivateKey(file, key.get(), nullptr, nullptr, 0, nullptr, nullptr);
    std::fclose(file);
  }

  const TempDir dir_;
  Metrics metrics_;
  MemoryBudget request_bytes_{1 << 20};
  HttpOptions options_;
};

TEST_F(HttpTlsTest, ServesRequestsAndSaysFarewell) {
  auto server = HttpServer::Start(options_, {metrics_, request_bytes_, [] {
                                               return HealthState{Health::kReady, "", 1};
                                             }});
  ASSERT_TRUE(server.ok()) << server.status();
  RawHttpClient socket((*server)->port());
  const std::unique_ptr<SSL_CTX, Freer<SSL_CTX_free>> context(SSL_CTX_new(TLS_client_method()));
  const std::unique_ptr<SSL, Freer<SSL_free>> tls(SSL_new(context.get()));
  SSL_set_fd(tls.get(), socket.fd());
  ASSERT_EQ(SSL_connect(tls.get()), 1);
  for (const bool last : {false, true}) {
    const std::string request =
        std::string("GET /live HTTP/1.1\r\nHost: a\r\n") + (last ? "Connection: close\r\n" : "") + "\r\n";
    ASSERT_EQ(SSL_write(tls.get(), request.data(), static_cast<int>(request.size())), static_cast<int>(request.size()));
    std::string answer(4096, '\0');
    const int got = SSL_read(tls.get(), answer.data(), static_cast<int>(answer.size()));
    EXPECT_TRUE(got > 0 && absl::StartsWith(answer, "HTTP/1.1 200 OK\r\n")) << answer;
  }
  char byte;
  const int end = SSL_read(tls.get(), &byte, 1);
  EXPECT_EQ(SSL_get_error(tls.get(), end), SSL_ERROR_ZERO_RETURN) << "a proper end, not a cut";
}

TEST_F(HttpTlsTest, OutlivesClientsThatSpeakPlainly) {
  auto server = HttpServer::Start(options_, {metrics_, request_bytes_, [] {
                                               return HealthState{Health::kReady, "", 1};
                                             }});
  ASSERT_TRUE(server.ok()) << server.status();
  for (int i = 0; i < 3; ++i) {
    RawHttpClient plain((*server)->port());
    plain.Send("GET /live HTTP/1.1\r\nHost: a\r\n\r\n");
    EXPECT_EQ(plain.Receive().status, 0);
  }
}

}  // namespace
}  // namespace weft
