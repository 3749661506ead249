#include "cli/cost_file.h"

#include <functional>
#include <random>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testutil/process.h"
#include "tests/testutil/seed.h"

namespace smartpipe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr char kLayers[] = R"({
  "layers": [
    {"name": "conv1", "forward_us": 400.5, "input_grad_us": 0, "weight_grad_us": 410,
     "output_bytes": 65536, "param_bytes": 9408, "activation_bytes": 131072},
    {"name": "head", "forward_us": 20, "input_grad_us": 30, "weight_grad_us": 10,
     "output_bytes": 40, "param_bytes": 2600.0, "activation_bytes": 4096,
     "optimize_us": 5, "state_bytes": 7800}
  ],
  "link_bytes_per_s": 1.2e9, "link_latency_us": 20, "worker_speed": [1, 0.5]
})";
constexpr char kStages[] = R"({
  "stages": [{"forward_us": 400, "input_grad_us": 300, "weight_grad_us": 410, "optimize_us": 30},
             {"forward_us": 1, "input_grad_us": 2, "weight_grad_us": 3}],
  "links": [{"latency_us": 20, "forward_us": 55, "backward_us": 56}]
})";

TEST(CostFileTest, ReadsLayers) {
  const auto file = ParseLayerCosts(kLayers, "costs.json");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_THAT(file->names, ElementsAre("conv1", "head"));
  EXPECT_DOUBLE_EQ(file->layers[0].forward_s, 400.5e-6);
  EXPECT_EQ(file->layers[0].state_bytes, 9408);
  EXPECT_EQ(file->layers[0].optimize_s, 0);
  EXPECT_DOUBLE_EQ(file->layers[1].optimize_s, 5e-6);
  EXPECT_EQ(file->layers[1].param_bytes, 2600);
  EXPECT_EQ(file->layers[1].state_bytes, 7800);
  EXPECT_EQ(file->layers[1].activation_bytes, 4096);
  EXPECT_EQ(file->link_bytes_per_s, 1.2e9);
  EXPECT_DOUBLE_EQ(file->link_latency_s, 20e-6);
  EXPECT_THAT(file->worker_speed, ElementsAre(1, 0.5));
}

TEST(CostFileTest, ReadsStages) {
  const auto file = ParseStageCosts(kStages, "costs.json");
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_EQ(file->stages.size(), 2u);
  EXPECT_DOUBLE_EQ(file->stages[0].optimize_s, 30e-6);
  EXPECT_DOUBLE_EQ(file->stages[1].weight_grad_s, 3e-6);
  ASSERT_EQ(file->links.size(), 1u);
  EXPECT_DOUBLE_EQ(file->links[0].backward_s, 56e-6);
}

struct Mistake {
  const char* from;
  const char* to;
  const char* want;
};

void ExpectMistakes(const char* good, const std::vector<Mistake>& mistakes,
                    const std::function<absl::Status(const std::string&)>& parse) {
  for (const Mistake& mistake : mistakes) {
    const std::string text = absl::StrReplaceAll(good, {{mistake.from, mistake.to}});
    ASSERT_NE(text, good) << mistake.from;
    const absl::Status status = parse(text);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(status.message()), StartsWith("a/costs.json")) << text;
    EXPECT_THAT(status.message(), HasSubstr(mistake.want)) << text;
  }
}

TEST(CostFileTest, MistakesInLayersAreNamedWithTheirPlace) {
  ExpectMistakes(
      kLayers,
      {
          {"\"input_grad_us\": 30", "\"input_grads_us\": 30",
           "layers[1] has an unknown key \"input_grads_us\"; did you mean \"input_grad_us\"?"},
          {"\"link_latency_us\"", "\"latency_us\"",
           "the file has an unknown key \"latency_us\"; did you mean \"link_latency_us\"?"},
          {"\"forward_us\": 400.5, ", "", "layers[0] has no \"forward_us\""},
          {"\"name\": \"head\", ", "", "layers[1] has no \"name\""},
          {"\"head\"", "7", "layers[1].name is 7, not a text"},
          {"\"head\"", "\"he\\nad\"", "layers[1].name is \"he\\nad\", not 1 to 63 printable bytes"},
          {"\"head\"", "\"\"", "layers[1].name is \"\""},
          {"400.5", "-1", "layers[0].forward_us is -1, not in 0..1e+12"},
          {"400.5", "1e13", "layers[0].forward_us is 10000000000000.0, not in"},
          {"400.5", "\"fast\"", "layers[0].forward_us is \"fast\", not a number"},
          {"400.5", "null", "layers[0].forward_us is null"},
          {"400.5", "[1]", "layers[0].forward_us is a list"},
          {"400.5", "true", "layers[0].forward_us is true"},
          {"400.5", "NaN", "is not JSON: parse error at line 3, column"},
          {"400.5", "1e999", "is not JSON: number overflow"},
          {"65536", "65536.5", "layers[0].output_bytes is 65536.5, not a whole number"},
          {"65536", "1e30", "layers[0].output_bytes is 1e+30, not in"},
          {"[1, 0.5]", "[1, 0]", "worker_speed[1] is 0, not in 0.001..1000"},
          {"[1, 0.5]", "1", "worker_speed is 1, not a list"},
          {"[1, 0.5]", "[]", "worker_speed has 0 entries"},
          {"1.2e9", "-1", "link_bytes_per_s is -1"},
          {"\"layers\"", "\"layer\"", "unknown key \"layer\"; did you mean \"layers\"?"},
          {"\"forward_us\": 20, ", "\"forward_us\": 20, \"forward_us\": 30, ",
           "the key \"forward_us\" stands twice"},
          {"\n}", "", "is not JSON"},
      },
      [](const std::string& text) { return ParseLayerCosts(text, "a/costs.json").status(); });
  for (const char* text : {"", "[]", "7", "{}", "{\"layers\": []}", "{\"layers\": [3]}", "\xff"}) {
    EXPECT_FALSE(ParseLayerCosts(text, "costs.json").ok()) << text;
  }
  EXPECT_THAT(ParseLayerCosts("{}", "f").status().message(), HasSubstr("has no \"layers\""));
}

TEST(CostFileTest, MistakesInStagesAreNamedWithTheirPlace) {
  ExpectMistakes(
      kStages,
      {
          {"\"forward_us\": 1,", "\"forward\": 1,",
           "stages[1] has an unknown key \"forward\"; did you mean \"forward_us\"?"},
          {"\"forward_us\": 55, ", "", "links[0] has no \"forward_us\""},
          {"[{\"latency_us\": 20, \"forward_us\": 55, \"backward_us\": 56}]", "[]",
           "links has 0 entries"},
          {"\"backward_us\": 56}", "\"backward_us\": 56}, {\"forward_us\": 1, \"backward_us\": 1}",
           "links has 2 entries for 2 stages; there is one less"},
          {"410", "-410", "stages[0].weight_grad_us is -410"},
      },
      [](const std::string& text) { return ParseStageCosts(text, "a/costs.json").status(); });
}

TEST(CostFileTest, OneStageHasNoLinks) {
  EXPECT_TRUE(ParseStageCosts(R"({"stages": [{"forward_us": 1, "input_grad_us": 2,
                                  "weight_grad_us": 3}], "links": []})",
                              "costs.json")
                  .ok());
}

TEST(CostFileTest, AFileThatCannotBeReadIsNamed) {
  testutil::TempDir dir;
  for (const std::string& path : {dir.File("missing.json"), dir.path()}) {
    EXPECT_THAT(ReadLayerCosts(path).status().message(), HasSubstr(path));
    EXPECT_THAT(ReadStageCosts(path).status().message(), HasSubstr(path));
  }
}

TEST(CostFileTest, NoTextCrashesIt) {
  std::mt19937 random(static_cast<uint32_t>(testutil::TestSeed()));
  constexpr char kPieces[] = "{}[],:\"0-1e9.\\ntrue\xff";
  for (int i = 0; i < 4000; ++i) {
    std::string text = i % 2 ? kLayers : kStages;
    for (unsigned n = 1 + random() % 4; n > 0; --n) {
      text[random() % text.size()] = kPieces[random() % (sizeof(kPieces) - 1)];
    }
    if (random() % 4 == 0) text.resize(random() % text.size());
    for (const absl::Status& status :
         {ParseLayerCosts(text, "f.json").status(), ParseStageCosts(text, "f.json").status()}) {
      if (!status.ok()) {
        EXPECT_THAT(std::string(status.message()), StartsWith("f.json")) << text;
      }
    }
  }
  const std::string deep(1'000'000, '[');
  EXPECT_FALSE(ParseLayerCosts(deep, "f.json").ok());
  EXPECT_FALSE(ParseLayerCosts(deep + std::string(1'000'000, ']'), "f.json").ok());
}

}  // namespace
}  // namespace smartpipe
