#include "cli/checkpoints_command.h"

#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace smartpipe {
namespace {

CheckpointFiles Checkpoint(int64_t step, const std::vector<std::string>& contents,
                           bool pinned = false) {
  CheckpointFiles files{.pinned = pinned};
  files.manifest.run = "run";
  files.manifest.step = Step(step);
  files.manifest.generation = Generation(1);
  files.manifest.num_layers = 2;
  LayerIndex layer(0);
  for (const std::string& content : contents) {
    files.manifest.layers[layer] = {"block", DigestOf(content),
                                    static_cast<int64_t>(content.size())};
    ++layer;
  }
  return files;
}

std::vector<CheckpointRow> Example() {
  CheckpointFiles damaged = Checkpoint(40, {});
  damaged.manifest.num_layers = 0;
  damaged.problem = "its last line is missing";
  return CheckpointRows({Checkpoint(10, {"aaaa", "bbb"}), Checkpoint(20, {"aaaa", "cc"}, true),
                         Checkpoint(30, {"aaaa"}), damaged});
}

TEST(CheckpointsTest, TableTellsNewAndSharedBytes) {
  EXPECT_EQ(CheckpointsTable(Example()),
            "step  layers  new bytes  shared bytes             state\n"
            "10    2 of 2          7             0          complete\n"
            "20    2 of 2          2             4  complete, pinned\n"
            "30    1 of 2          0             4        incomplete\n"
            "40    0 of 0          0             0           damaged\n"
            "Step 40: its last line is missing.\n");
}

TEST(CheckpointsTest, JsonHoldsTheContract) {
  const nlohmann::json json = nlohmann::json::parse(CheckpointsJson(Example()));
  const nlohmann::json& list = json["checkpoints"];
  ASSERT_EQ(list.size(), 4u);
  EXPECT_EQ(list[1], nlohmann::json::parse(R"({"run": "run", "step": 20, "generation": 1,
      "complete": true, "pinned": true, "num_layers": 2, "num_layers_stored": 2, "new_bytes": 2,
      "shared_bytes": 4, "problem": ""})"));
  EXPECT_EQ(list[2]["complete"], false);
  EXPECT_EQ(list[3]["complete"], false);
  EXPECT_EQ(list[3]["problem"], "its last line is missing");
  EXPECT_EQ(nlohmann::json::parse(CheckpointsJson({}))["checkpoints"].size(), 0u);
}

}  // namespace
}  // namespace smartpipe
