// Digest, packing, and loading weights into layers.
#include "worker/model/layer_state.h"

#include <cstring>
#include <string>
#include <vector>

#include "ATen/ops/arange.h"
#include "ATen/ops/empty.h"
#include "ATen/ops/full.h"
#include "ATen/ops/zeros.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/model/model_util.h"

namespace smartpipe {
namespace {

using testing::HasSubstr;
using testutil::Normal;
using testutil::SameBytes;

std::vector<NamedTensor> Samples() {
  return {{"weight", Normal({4, 3, 2, 2}, 1)},      {"transposed", Normal({5, 3}, 2).t()},
          {"empty", at::empty({0, 7}, at::kFloat)}, {"counter", at::full({}, 42, at::kLong)},
          {"half", Normal({9}, 3).to(at::kHalf)},   {"", at::arange(5, at::kByte)}};
}

TEST(WeightsDigestTest, IsSha256OfTheDocumentedEncoding) {
  WeightsDigest digest;
  // printf
  // '\1\0\0\0\0\0\0\0w\3\0\0\0\0\0\0\0F32\1\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0\0\0\200\77\0\0\0\300' |
  // sha256sum
  at::Tensor tensor = at::zeros({2}, at::kFloat);
  tensor[0] = 1;
  tensor[1] = -2;
  digest.Add(NamedTensor{"w", tensor});
  EXPECT_EQ(digest.Finish(), "8c92f417ae1390ecbe8895d1e00f410e636df33f550d6289fb37eeed8710ee25");
}

TEST(WeightsDigestTest, NameDtypeShapeAndBytesCount) {
  const auto digest_of = [](const std::string& name, const at::Tensor& tensor) {
    WeightsDigest digest;
    digest.Add(NamedTensor{name, tensor});
    return digest.Finish();
  };
  const at::Tensor tensor = Normal({4, 6}, 1);
  const std::string digest = digest_of("w", tensor);
  EXPECT_EQ(digest_of("w", tensor.clone()), digest);
  EXPECT_EQ(digest_of("w", tensor.t().contiguous().t()), digest);
  EXPECT_NE(digest_of("v", tensor), digest);
  EXPECT_NE(digest_of("w", tensor.view({6, 4})), digest);
  EXPECT_NE(digest_of("w", tensor.view(at::kInt)), digest);
  EXPECT_NE(digest_of("w", tensor.add(1e-6)), digest);
}

TEST(PackTest, RoundTrip) {
  for (const std::vector<NamedTensor>& tensors : {Samples(), std::vector<NamedTensor>()}) {
    const at::Tensor packed = PackTensors(tensors);
    EXPECT_EQ(packed.scalar_type(), at::kByte);
    const auto unpacked = UnpackTensors(packed);
    ASSERT_TRUE(unpacked.ok()) << unpacked.status();
    ASSERT_EQ(unpacked->size(), tensors.size());
    for (size_t i = 0; i < tensors.size(); ++i) {
      EXPECT_EQ((*unpacked)[i].name, tensors[i].name);
      EXPECT_TRUE(SameBytes((*unpacked)[i].tensor, tensors[i].tensor.contiguous()))
          << tensors[i].name;
      EXPECT_EQ(reinterpret_cast<uintptr_t>((*unpacked)[i].tensor.const_data_ptr()) % 64, 0u);
    }
  }
}

TEST(PackTest, EveryFlippedBitIsNoticed) {
  const at::Tensor packed =
      PackTensors({{"weight", Normal({3}, 1)}, {"counter", at::full({}, 1, at::kLong)}});
  for (int64_t i = 0; i < packed.numel(); ++i) {
    at::Tensor flipped = packed.clone();
    flipped.mutable_data_ptr<uint8_t>()[i] ^= 0x10;
    const auto code = UnpackTensors(flipped).status().code();
    EXPECT_EQ(code, i < 16 ? absl::StatusCode::kInvalidArgument : absl::StatusCode::kDataLoss)
        << "byte " << i;
  }
}

TEST(PackTest, TornPacksAreRefused) {
  const at::Tensor packed = PackTensors(Samples());
  for (int64_t size = 0; size < packed.numel(); ++size) {
    ASSERT_EQ(UnpackTensors(packed.slice(0, 0, size)).status().code(),
              absl::StatusCode::kInvalidArgument)
        << size;
  }
  EXPECT_EQ(UnpackTensors(at::zeros({100}, at::kFloat)).status().code(),
            absl::StatusCode::kInvalidArgument);
}

class LoadIntoLayerTest : public testing::Test {
 protected:
  LoadIntoLayerTest() {
    const auto model = MakeModel("convnet", {1, 28, 28}, 10).value();
    source_ = model->MakeLayer(LayerIndex(2), 1);
    target_ = model->MakeLayer(LayerIndex(2), 2);
    tensors_ = source_->parameters();
    tensors_.insert(tensors_.end(), source_->buffers().begin(), source_->buffers().end());
    tensors_.push_back({"another.layer.weight", Normal({3}, 1)});
  }

  std::unique_ptr<Layer> source_, target_;
  std::vector<NamedTensor> tensors_;
  int64_t found_ = -1;
};

TEST_F(LoadIntoLayerTest, CopiesByName) {
  ASSERT_TRUE(LoadIntoLayer(tensors_, false, *target_, found_).ok());
  EXPECT_EQ(found_, 6);
  EXPECT_EQ(testutil::Digest(*target_), testutil::Digest(*source_));
  EXPECT_TRUE(target_->parameters()[0].tensor.requires_grad());
}

TEST_F(LoadIntoLayerTest, AMissingNameIsRefusedUnlessPartial) {
  tensors_.erase(tensors_.begin() + 1);
  const std::string before = testutil::Digest(*target_);
  const absl::Status status = LoadIntoLayer(tensors_, false, *target_, found_);
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("\"conv3.bn.weight\""));
  EXPECT_THAT(std::string(status.message()), HasSubstr("model.allow_partial"));
  EXPECT_EQ(testutil::Digest(*target_), before);
  ASSERT_TRUE(LoadIntoLayer(tensors_, true, *target_, found_).ok());
  EXPECT_EQ(found_, 5);
}

TEST_F(LoadIntoLayerTest, AnotherShapeOrDtypeIsRefused) {
  const std::string before = testutil::Digest(*target_);
  for (const at::Tensor& tensor : {Normal({1}, 1), tensors_[1].tensor.to(at::kHalf)}) {
    tensors_[1].tensor = tensor;
    const absl::Status status = LoadIntoLayer(tensors_, true, *target_, found_);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr("\"conv3.bn.weight\""));
  }
  EXPECT_EQ(testutil::Digest(*target_), before);
}

}  // namespace
}  // namespace smartpipe
