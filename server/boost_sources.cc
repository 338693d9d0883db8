// The code of Boost.Asio and Boost.Beast that is no template: compiled here, once.
#include "boost/asio/impl/src.hpp"
#include "boost/asio/ssl/impl/src.hpp"
#include "boost/beast/src.hpp"
