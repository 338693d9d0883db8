// Routes that parse a body and ask the model: completions, chat, tokenize, detokenize.
#pragma once

#include "boost/asio/awaitable.hpp"
#include "server/http_exchange.h"

namespace weft {

// Parsing, templating and tokenizing happen on the context's pool. A generation is admitted before any byte of the
// answer: what is refused gets its own status, never an event inside a 200. The 200 of a stream goes out with the first
// token, or after HttpOptions::keep_alive_interval, since clients give up on an answer without headers.
//
// A client that leaves ends its generation at once, streamed or not.
asio::awaitable<void> ServeChatCompletions(HttpExchange& exchange);
asio::awaitable<void> ServeCompletions(HttpExchange& exchange);

asio::awaitable<void> ServeTokenize(HttpExchange& exchange);
asio::awaitable<void> ServeDetokenize(HttpExchange& exchange);

}  // namespace weft
