// The IDX reader and Fashion-MNIST: real files if they are there, made ones for everything wrong.
#include <cmath>
#include <filesystem>
#include <functional>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testutil/process.h"
#include "tests/unit/data/idx_files.h"
#include "worker/data/dataset.h"
#include "worker/data/idx.h"

namespace smartpipe {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testutil::Gzip;
using testutil::IdxFile;
using testutil::TempDir;
using testutil::WriteFile;

constexpr char kPackageFolder[] = "/usr/share/datasets/fashion-mnist";

TEST(ReadIdxTest, PlainAndGzip) {
  TempDir folder;
  const std::string file = IdxFile({2, 1, 3}, "abcdef");
  WriteFile(folder.File("plain"), file);
  WriteFile(folder.File("gzip"), Gzip(file));
  for (const char* name : {"plain", "gzip"}) {
    const auto idx = ReadIdx(folder.File(name), 3);
    ASSERT_TRUE(idx.ok()) << idx.status();
    EXPECT_THAT(idx->extents, testing::ElementsAre(2, 1, 3));
    EXPECT_EQ(std::string(idx->values.begin(), idx->values.end()), "abcdef");
  }
}

struct BadFile {
  std::string name, bytes, message;
};

TEST(ReadIdxTest, DamagedFilesSayWhatWasExpected) {
  const std::string good = IdxFile({2, 1, 3}, "abcdef");
  const std::string packed = Gzip(good);
  std::string wrong_checksum = packed;
  wrong_checksum[wrong_checksum.size() - 8] ^= 1;
  const BadFile files[] = {
      {"empty", "", "expected a header of 16 bytes, found 0"},
      {"short header", good.substr(0, 9), "expected a header of 16 bytes, found 9"},
      {"labels", IdxFile({2}, "ab"), "expected magic number 0x00000803, found 0x00000801"},
      {"text", "not an IDX file at all", "expected magic number 0x00000803, found 0x6e6f7420"},
      {"no images", IdxFile({0, 1, 3}, ""), "impossible extents 0"},
      {"huge", IdxFile({0xffffffff, 0xffffffff, 0xffffffff}, "abc"), "impossible extents"},
      {"large", IdxFile({60000, 28, 28}, "abc"),
       "60000 x 28 x 28 = 47040000 bytes after the header"},
      {"large gzip", Gzip(IdxFile({60000, 28, 28}, "abc")), "47040000 bytes after the header"},
      {"truncated", good.substr(0, good.size() - 1), "2 x 1 x 3 = 6 bytes after the header"},
      {"one more byte", good + "g", "expected the end of the file"},
      {"truncated gzip", packed.substr(0, packed.size() - 9),
       "found more bytes or a wrong checksum"},
      {"gzip without its end", packed.substr(0, packed.size() / 2), "expected"},
      {"gzip and more", packed + "g", "expected the end of the file"},
      {"gzip of more", Gzip(good + "g"), "expected the end of the file"},
      {"wrong checksum", wrong_checksum, "wrong checksum"},
  };
  TempDir folder;
  for (const BadFile& file : files) {
    WriteFile(folder.File(file.name), file.bytes);
    const auto idx = ReadIdx(folder.File(file.name), 3);
    ASSERT_FALSE(idx.ok()) << file.name;
    EXPECT_EQ(idx.status().code(), absl::StatusCode::kDataLoss) << file.name;
    EXPECT_THAT(std::string(idx.status().message()),
                AllOf(HasSubstr(folder.File(file.name)), HasSubstr(file.message)));
  }
  EXPECT_EQ(ReadIdx(folder.File("none"), 3).status().code(), absl::StatusCode::kNotFound);
}

/// A folder like the dataset's, with `num_train` and 2 test images.
class FashionMnistTest : public testing::Test {
 protected:
  FashionMnistTest() {
    config_.data.name = "fashion_mnist";
    config_.data.path = folder_.path();
    Write("train", 3, std::string("\x00\x09\x04", 3));
    Write("t10k", 2, std::string("\x01\x02", 2));
  }

  void Write(const std::string& stem, uint32_t num_images, const std::string& labels) {
    std::string pixels;
    for (uint32_t i = 0; i < num_images; ++i) pixels += std::string(28 * 28, static_cast<char>(i));
    WriteFile(Images(stem), IdxFile({num_images, 28, 28}, pixels));
    WriteFile(Labels(stem), IdxFile({static_cast<uint32_t>(labels.size())}, labels));
  }
  std::string Images(const std::string& stem) { return folder_.File(stem + "-images-idx3-ubyte"); }
  std::string Labels(const std::string& stem) { return folder_.File(stem + "-labels-idx1-ubyte"); }

  void ExpectProblem(absl::StatusCode code, const std::string& message) {
    const auto dataset = OpenDataset(config_);
    ASSERT_FALSE(dataset.ok());
    EXPECT_EQ(dataset.status().code(), code);
    EXPECT_THAT(std::string(dataset.status().message()), HasSubstr(message));
  }

  TempDir folder_;
  RunConfig config_;
};

TEST_F(FashionMnistTest, NormalisedImagesAndLabels) {
  const auto dataset = OpenDataset(config_);
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  EXPECT_EQ((*dataset)->size(Split::kTrain), 3);
  EXPECT_EQ((*dataset)->size(Split::kTest), 2);
  EXPECT_EQ((*dataset)->num_classes(), 10);
  EXPECT_THAT((*dataset)->sample_shape(), testing::ElementsAre(1, 28, 28));
  const at::Tensor images = (*dataset)->Images(Split::kTrain, {2, 0});
  EXPECT_EQ(images.sizes(), at::IntArrayRef({2, 1, 28, 28}));
  EXPECT_EQ(images.scalar_type(), at::kFloat);
  EXPECT_TRUE(images.is_contiguous());
  EXPECT_EQ(reinterpret_cast<uintptr_t>(images.const_data_ptr()) % 64, 0u);
  EXPECT_NEAR(images[0][0][27][27].item<float>(), (2 / 255.0 - 0.286) / 0.353, 1e-6);
  EXPECT_NEAR(images[1][0][0][0].item<float>(), -0.286 / 0.353, 1e-6);
  const at::Tensor labels = (*dataset)->Labels(Split::kTrain, {2, 0, 1});
  EXPECT_EQ(labels.scalar_type(), at::kLong);
  for (const auto& [position, label] : {std::pair{0, 4}, {1, 0}, {2, 9}}) {
    EXPECT_EQ(labels[position].item<int64_t>(), label);
  }
  EXPECT_ANY_THROW((*dataset)->Images(Split::kTest, {2}));
  EXPECT_ANY_THROW((*dataset)->Labels(Split::kTest, {-1}));
}

TEST_F(FashionMnistTest, LimitsKeepTheFirstSamples) {
  config_.data.limit_train = 2;
  config_.data.limit_test = 100;
  const auto dataset = OpenDataset(config_).value();
  EXPECT_EQ(dataset->size(Split::kTrain), 2);
  EXPECT_EQ(dataset->size(Split::kTest), 2);
  EXPECT_EQ(dataset->Labels(Split::kTrain, {1}).item<int64_t>(), 9);
}

TEST_F(FashionMnistTest, MissingFileNamesThePackage) {
  std::filesystem::remove(Labels("t10k"));
  ExpectProblem(absl::StatusCode::kNotFound, "install the package dataset-fashion-mnist");
  config_.data.path = folder_.File("nowhere");
  ExpectProblem(absl::StatusCode::kNotFound, "train-images-idx3-ubyte");
}

TEST_F(FashionMnistTest, DamagedFilesAreNamed) {
  WriteFile(Labels("train"), IdxFile({3}, std::string("\x00\x0a\x04", 3)));
  ExpectProblem(
      absl::StatusCode::kDataLoss,
      absl::StrCat(Labels("train"), ": expected labels from 0 to 9, found 10 for sample 1"));
  WriteFile(Labels("train"), IdxFile({2}, std::string("\x00\x01", 2)));
  ExpectProblem(absl::StatusCode::kDataLoss, "expected 3 labels");
  WriteFile(Images("train"), IdxFile({3, 28, 27}, std::string(3 * 28 * 27, 'x')));
  ExpectProblem(absl::StatusCode::kDataLoss, "expected images of 28 x 28, found 28 x 27");
}

TEST_F(FashionMnistTest, TheRealFiles) {
  if (!std::filesystem::exists(kPackageFolder))
    GTEST_SKIP() << "needs package dataset-fashion-mnist";
  config_.data.path = "";
  const auto dataset = OpenDataset(config_);
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  EXPECT_EQ((*dataset)->size(Split::kTrain), 60'000);
  EXPECT_EQ((*dataset)->size(Split::kTest), 10'000);
  std::vector<int64_t> sample;
  for (int64_t i = 0; i < 60'000; i += 20) sample.push_back(i);
  const at::Tensor images = (*dataset)->Images(Split::kTrain, sample);
  EXPECT_NEAR(images.mean().item<float>(), 0, 0.02);
  EXPECT_NEAR(images.std().item<float>(), 1, 0.02);
}

}  // namespace
}  // namespace smartpipe
