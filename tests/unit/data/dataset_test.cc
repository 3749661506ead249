// The table of datasets, and the generated one.
#include "worker/data/dataset.h"

#include <cstring>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace smartpipe {
namespace {

RunConfig Synthetic(int64_t limit_train, int64_t limit_test) {
  RunConfig config;
  config.data = {
      .name = "synthetic", .path = "", .limit_train = limit_train, .limit_test = limit_test};
  return config;
}

bool SameBytes(const at::Tensor& a, const at::Tensor& b) {
  return a.sizes() == b.sizes() &&
         std::memcmp(a.const_data_ptr(), b.const_data_ptr(), a.nbytes()) == 0;
}

TEST(DatasetTest, UnknownNameGivesTheNearest) {
  RunConfig config;
  config.data.name = "fashion-mnist";
  const auto dataset = OpenDataset(config);
  EXPECT_EQ(dataset.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(dataset.status().message()),
              testing::HasSubstr("did you mean \"fashion_mnist\"?"));
}

TEST(SyntheticTest, Shapes) {
  const auto dataset = OpenDataset(Synthetic(0, 0)).value();
  EXPECT_EQ(dataset->size(Split::kTrain), 4096);
  EXPECT_EQ(dataset->size(Split::kTest), 512);
  EXPECT_EQ(dataset->num_classes(), 10);
  const at::Tensor images = dataset->Images(Split::kTrain, {5, 7});
  EXPECT_EQ(images.sizes(), at::IntArrayRef({2, 3, 32, 32}));
  EXPECT_LT(images.abs().max().item<float>(), 3);
  EXPECT_NEAR(images.mean().item<float>(), 0, 0.1);
}

TEST(SyntheticTest, ASampleDependsOnSeedSplitAndItsNumberAlone) {
  const auto few = OpenDataset(Synthetic(100, 100)).value();
  const auto many = OpenDataset(Synthetic(3000, 0)).value();
  RunConfig config = Synthetic(100, 100);
  config.train.seed = 2;
  const auto other_seed = OpenDataset(config).value();
  EXPECT_TRUE(SameBytes(few->Images(Split::kTrain, {99}), many->Images(Split::kTrain, {99})));
  EXPECT_TRUE(SameBytes(few->Images(Split::kTest, {99}), many->Images(Split::kTest, {99})));
  EXPECT_FALSE(SameBytes(few->Images(Split::kTrain, {9}), few->Images(Split::kTest, {9})));
  EXPECT_FALSE(SameBytes(few->Images(Split::kTrain, {9}), few->Images(Split::kTrain, {10})));
  EXPECT_FALSE(SameBytes(few->Images(Split::kTrain, {9}), other_seed->Images(Split::kTrain, {9})));
}

TEST(SyntheticTest, ALargeSetRepeatsItsImages) {
  const auto dataset = OpenDataset(Synthetic(65'536, 8)).value();
  EXPECT_EQ(dataset->size(Split::kTrain), 65'536);
  EXPECT_TRUE(SameBytes(dataset->Images(Split::kTrain, {3}),
                        dataset->Images(Split::kTrain, {3 + 4096 * 15})));
}

TEST(SyntheticTest, EveryClassIsThere) {
  const auto dataset = OpenDataset(Synthetic(1000, 8)).value();
  std::vector<int> counts(10);
  for (int64_t i = 0; i < 1000; ++i)
    ++counts[static_cast<size_t>(dataset->Labels(Split::kTrain, {i}).item<int64_t>())];
  for (const int count : counts) EXPECT_NEAR(count, 100, 50);
}

}  // namespace
}  // namespace smartpipe
