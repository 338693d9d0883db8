// `weft worker --replicas`: this host's worker of each replica, as a process of its own.
#pragma once

#include <string>
#include <vector>

namespace weft {

// In a process that ServeReplicas has started: how many there are.
inline constexpr char kSharingVariable[] = "WEFT_WORKER_SHARING";

// Starts `num_replicas` processes `weft worker ARGS`, and each again when it ends, until one says that its settings
// will never do: then ends this process with that status. They end with this one.
[[noreturn]] void ServeReplicas(int num_replicas, const std::vector<std::string>& args,
                                const std::vector<std::string>& environment);

}  // namespace weft
