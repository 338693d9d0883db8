#include "server/logging.h"

#include <memory>
#include <string>
#include <utility>

#include "absl/strings/string_view.h"
#include "grpc/support/log.h"
#include "nlohmann/json.hpp"
#include "spdlog/pattern_formatter.h"
#include "spdlog/sinks/stdout_sinks.h"
#include "spdlog/spdlog.h"

namespace weft {
namespace {

constexpr char kTextPattern[] = "%Y-%m-%dT%H:%M:%S.%e%z %l %v";
constexpr char kJsonPattern[] = R"({"time":"%Y-%m-%dT%H:%M:%S.%e%z","level":"%l","message":%*})";

// The message as a JSON string, for %*: spdlog's own %v quotes nothing.
class JsonMessage final : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& message, const std::tm&, spdlog::memory_buf_t& out) override {
    const nlohmann::json text = std::string(message.payload.data(), message.payload.size());
    const std::string quoted = text.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    out.append(quoted.data(), quoted.data() + quoted.size());
  }
  std::unique_ptr<custom_flag_formatter> clone() const override { return std::make_unique<JsonMessage>(); }
};

// What gRPC has to say, such as whose certificate it refuses, in our form: its own would break a reader of JSON lines.
// Its threads may outlive main(), so the logger does too.
std::shared_ptr<spdlog::logger>* grpc_logger = nullptr;

void LogForGrpc(gpr_log_func_args* args) {
  const auto level = args->severity == GPR_LOG_SEVERITY_ERROR ? spdlog::level::warn : spdlog::level::debug;
  (*grpc_logger)->log(level, "gRPC: {}", args->message);
}

}  // namespace

void SetUpLogging(const LogOptions& options) {
  auto formatter = std::make_unique<spdlog::pattern_formatter>();
  formatter->add_flag<JsonMessage>('*').set_pattern(options.format == "json" ? kJsonPattern : kTextPattern);
  auto sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();  // shared with the logger, as spdlog wants it
  auto logger = std::make_shared<spdlog::logger>("weft", std::move(sink));
  logger->set_formatter(std::move(formatter));
  logger->set_level(spdlog::level::from_str(options.level));
  logger->flush_on(spdlog::level::trace);
  if (grpc_logger == nullptr) grpc_logger = new std::shared_ptr<spdlog::logger>;
  *grpc_logger = logger;
  spdlog::set_default_logger(std::move(logger));
  gpr_set_log_function(LogForGrpc);
}

}  // namespace weft
