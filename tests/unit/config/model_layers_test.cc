// The config checks cuts and frontiers against the number of layers before any model is built: the
// two must agree.
#include "gtest/gtest.h"
#include "services/config/key_table.h"
#include "worker/model/model.h"

namespace smartpipe {
namespace {

TEST(ModelLayersTest, TheConfigKnowsTheNumberOfLayersOfEachModel) {
  for (const std::string& name : kModelNames) {
    const auto model = MakeModel(name, {3, 32, 32}, 10);
    ASSERT_TRUE(model.ok()) << model.status();
    EXPECT_EQ((*model)->num_layers(), NumModelLayers(name)) << name;
  }
}

}  // namespace
}  // namespace smartpipe
