// Between the messages of inference.proto and the generation service's own types.
#pragma once

#include "absl/status/statusor.h"
#include "server/generate_request.h"
#include "server/generation.h"
#include "server/generation_service.h"
#include "weft/v1/inference.pb.h"

namespace weft {

// Errors are ApiErrors: what the wire's types leave open, such as a prompt that is missing. Ranges are the service's to
// judge. Request id and tenant come from metadata and stay empty.
absl::StatusOr<GenerateRequest> FromProto(const v1::GenerateRequest& message);
absl::StatusOr<ChatPrompt> FromProto(const v1::ChatPrompt& message);

// Requires that the delta doesn't end in an error, which is a status on this wire.
v1::GenerateResponse ToProto(const Delta& delta);
v1::Usage ToProto(const Usage& usage);
v1::GetModelResponse ToProto(const ModelInfo& model);

}  // namespace weft
