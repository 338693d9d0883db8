// Who was started by this process.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <vector>

namespace weft {

// The processes that this one has started, and that live; by rank, since they are started in that order.
inline std::vector<pid_t> Children() {
  std::set<pid_t> children;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream file(task.path() / "children");
    for (pid_t pid = 0; file >> pid;) children.insert(pid);
  }
  return {children.begin(), children.end()};
}

}  // namespace weft
