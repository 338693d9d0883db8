// CHECK(condition, "why it must hold"): ends the process where a correct program can't be. On in every build.
#pragma once

#include <cstdio>
#include <cstdlib>

#define CHECK(condition, why)                                                                \
  do {                                                                                       \
    if (!(condition)) {                                                                      \
      std::fprintf(stderr, "%s:%d: CHECK(%s): %s\n", __FILE__, __LINE__, #condition, (why)); \
      std::abort();                                                                          \
    }                                                                                        \
  } while (false)
