// Serves one connection: request after request, in order.
#pragma once

#include <memory>

#include "boost/asio/awaitable.hpp"
#include "server/http_channel.h"
#include "server/http_context.h"

namespace weft {

// Runs on the channel's strand until the client leaves, a limit ends it, or the server stops; then drops its
// registration. Lets no exception out.
asio::awaitable<void> ServeConnection(std::shared_ptr<HttpChannel> channel,
                                      std::unique_ptr<HttpRegistration> registration, HttpContext& context);

}  // namespace weft
