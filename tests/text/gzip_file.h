#pragma once

#include <zlib.h>

#include <string>

namespace weft {

// The content of a gzip file; empty if it can't be read.
inline std::string ReadGzip(const std::string& path) {
  std::string content;
  gzFile file = gzopen(path.c_str(), "rb");
  if (file == nullptr) return content;
  char buffer[1 << 16];
  for (int n = gzread(file, buffer, sizeof(buffer)); n > 0; n = gzread(file, buffer, sizeof(buffer))) {
    content.append(buffer, static_cast<size_t>(n));
  }
  gzclose(file);
  return content;
}

}  // namespace weft
