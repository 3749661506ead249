#include "freeze_service/core/membership.h"

#include <algorithm>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/core/core_harness.h"

namespace smartpipe {
namespace {

WorkerJoined Join(const std::string& id) {
  return {WorkerId(id), 1, {60, 20, 10}, testutil::MakeLayers(4)};
}

TEST(NaturalLess, ComparesRunsOfDigitsAsNumbers) {
  const std::vector<std::string> ordered = {"1",
                                            "a",
                                            "a1b2",
                                            "a1b10",
                                            "a2",
                                            "w",
                                            "w0",
                                            "w1",
                                            "w01",
                                            "w2",
                                            "w10",
                                            "w99999999999999999999",
                                            "w100000000000000000000",
                                            "x"};
  for (size_t i = 0; i < ordered.size(); ++i) {
    for (size_t j = 0; j < ordered.size(); ++j) {
      // w1 and w01 are the same number; then the plain text decides.
      const bool same_number = ordered[i].substr(0, 1) == "w" && ordered[j].substr(0, 1) == "w" &&
                               std::min(ordered[i], ordered[j]) == "w01" &&
                               std::max(ordered[i], ordered[j]) == "w1";
      if (same_number) continue;
      EXPECT_EQ(NaturalLess(ordered[i], ordered[j]), i < j) << ordered[i] << " " << ordered[j];
    }
  }
  EXPECT_NE(NaturalLess("w1", "w01"), NaturalLess("w01", "w1"));
}

TEST(Membership, RanksFollowTheNaturalOrderWhateverTheOrderOfJoining) {
  std::vector<std::string> ids = {"w0", "w1", "w2", "w10"};
  do {
    Membership membership(4);
    for (const std::string& id : ids) {
      ASSERT_FALSE(*membership.CheckJoin(Join(id)));
      membership.Add(Join(id));
    }
    EXPECT_TRUE(membership.complete());
    EXPECT_THAT(membership.ids(), testing::ElementsAre(WorkerId("w0"), WorkerId("w1"),
                                                       WorkerId("w2"), WorkerId("w10")));
  } while (std::next_permutation(ids.begin(), ids.end()));
}

TEST(Membership, MeanOfTheProfiles) {
  Membership membership(2);
  WorkerJoined slow = Join("w1");
  for (LayerInfo& layer : slow.layers) layer.cost.forward_s *= 3;
  membership.Add(Join("w0"));
  membership.Add(slow);
  EXPECT_DOUBLE_EQ(membership.MeanLayers()[2].cost.forward_s, 0.002);
  EXPECT_DOUBLE_EQ(membership.MeanLayers()[2].cost.weight_grad_s, 0.001);
}

TEST(Membership, MessageSaysWhoIsThereAndHowManyAreMissing) {
  Membership membership(3);
  EXPECT_EQ(membership.Message(), "0 of 3 workers; waiting for 3");
  membership.Add(Join("w2"));
  membership.Add(Join("w0"));
  EXPECT_EQ(membership.Message(), "2 of 3 workers: w0, w2; waiting for 1 more");
  membership.Add(Join("w1"));
  EXPECT_EQ(membership.Message(), "3 of 3 workers: w0, w1, w2");
}

}  // namespace
}  // namespace smartpipe
