// Weights files: the format byte by byte, and everything that a damaged one can be.
#include <sys/resource.h>

#include <csignal>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "ATen/ops/arange.h"
#include "ATen/ops/empty.h"
#include "ATen/ops/full.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testutil/process.h"
#include "tests/unit/model/model_util.h"
#include "worker/model/layer_state.h"

namespace smartpipe {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testutil::Normal;
using testutil::SameBytes;

std::string Length(uint64_t value) {
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &value, 8);
  return bytes;
}

std::string File(const std::string& header, const std::string& data) {
  return Length(header.size()) + header + data;
}

class SafetensorsTest : public testing::Test {
 protected:
  absl::StatusOr<std::vector<NamedTensor>> Read(const std::string& bytes) {
    testutil::WriteFile(path_, bytes);
    return ReadSafetensors(path_);
  }

  testutil::TempDir folder_;
  const std::string path_ = folder_.File("model.safetensors");
};

TEST_F(SafetensorsTest, RoundTrip) {
  const std::vector<NamedTensor> tensors = {{"conv.weight", Normal({4, 3, 2, 2}, 1)},
                                            {"transposed", Normal({5, 3}, 2).t()},
                                            {"empty", at::empty({0, 7}, at::kFloat)},
                                            {"conv.counter", at::full({}, 42, at::kLong)},
                                            {"odd", at::arange(5, at::kByte)},
                                            {"name with \"quotes\" and \xc3\xa4", Normal({1}, 3)},
                                            {"after odd", Normal({2}, 4)}};
  ASSERT_TRUE(WriteSafetensors(path_, tensors).ok());
  const auto read = ReadSafetensors(path_);
  ASSERT_TRUE(read.ok()) << read.status();
  ASSERT_EQ(read->size(), tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    EXPECT_EQ((*read)[i].name, tensors[i].name);
    EXPECT_TRUE(SameBytes((*read)[i].tensor, tensors[i].tensor.contiguous())) << tensors[i].name;
  }
  ASSERT_TRUE(WriteSafetensors(path_, {}).ok());
  EXPECT_EQ(ReadSafetensors(path_)->size(), 0u);
}

TEST_F(SafetensorsTest, WritesTheFormatAndNothingElse) {
  ASSERT_TRUE(WriteSafetensors(path_, {{"a", at::arange(3, at::kByte)}}).ok());
  const std::string header = R"({"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}})";
  const std::string padded = header + std::string((8 - header.size() % 8) % 8, ' ');
  EXPECT_EQ(testutil::ReadFile(path_), File(padded, std::string("\0\1\2", 3)));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_.path()), {}), 1);
}

TEST_F(SafetensorsTest, ReadsWhatOthersWrite) {
  // Metadata, padding, another order of keys, tensors not in the order of their bytes.
  const auto read = Read(File(R"({"__metadata__":{"format":"pt"},)"
                              R"("b":{"shape":[2],"data_offsets":[3,5],"dtype":"I8"},)"
                              R"("a":{"dtype":"U8","shape":[3,1],"data_offsets":[0,3]}}    )",
                              "abcde"));
  ASSERT_TRUE(read.ok()) << read.status();
  ASSERT_EQ(read->size(), 2u);
  EXPECT_EQ((*read)[0].name, "a");
  EXPECT_EQ((*read)[0].tensor.sizes(), at::IntArrayRef({3, 1}));
  EXPECT_EQ((*read)[1].tensor[1].item<int>(), 'e');
}

struct BadFile {
  std::string bytes, message;
};

TEST_F(SafetensorsTest, DamagedFilesSayWhatIsWrong) {
  const auto one = [](const std::string& entry, const std::string& data) {
    return File(R"({"a":)" + entry + "}", data);
  };
  const BadFile files[] = {
      {"", "at least 8 bytes"},
      {"short", "at least 8 bytes"},
      {Length(100) + "{}", "expected a header of 100 bytes, found 2"},
      {Length(UINT64_MAX) + "{}", "expected a header of 18446744073709551615 bytes"},
      {Length(uint64_t{1} << 63) + "{}", "expected a header"},
      {File("", ""), "no JSON"},
      {File("[]", ""), "no JSON"},
      {File("{", ""), "no JSON"},
      {File("{}{}", ""), "no JSON"},
      {File(std::string(100'000, '['), ""), "no JSON"},
      {File(R"({"a":[]})", ""), "a list in the wrong place"},
      {File(R"({"a":1})", "1"), "a number in the wrong place"},
      {File(R"({"a":{"dtype":{}}})", ""), "a nested object"},
      {one(R"({"dtype":"U8","shape":[1]})", "1"), "without dtype, shape or data_offsets"},
      {one(R"({"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]})", "1"), "repeated key"},
      {one(R"({"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":1})", "1"), "unknown"},
      {one(R"({"dtype":"U8","shape":[-1],"data_offsets":[0,1]})", "1"), "a negative number"},
      {one(R"({"dtype":"U8","shape":[1.5],"data_offsets":[0,1]})", "1"), "a fraction"},
      {one(R"({"dtype":"U8","shape":[[1]],"data_offsets":[0,1]})", "1"),
       "a list in the wrong place"},
      {one(R"({"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,1]})", "1"),
       "too large"},
      {one(R"({"dtype":"U8","shape":["1"],"data_offsets":[0,1]})", "1"),
       "a string in the wrong place"},
      {one(R"({"dtype":"U8","shape":[4611686018427387904,4],"data_offsets":[0,0]})", ""),
       "does not lie"},
      {one(R"({"dtype":"U8","shape":[0,4611686018427387904,4],"data_offsets":[0,0]})", ""),
       "does not lie"},
      {one(R"({"dtype":"U8","shape":[2],"data_offsets":[0,2]})", "1"), "does not lie"},
      {one(R"({"dtype":"U8","shape":[2],"data_offsets":[0,1]})", "1"), "does not lie"},
      {one(R"({"dtype":"U8","shape":[1],"data_offsets":[1,0]})", "1"), "does not lie"},
      {one(R"({"dtype":"U8","shape":[1],"data_offsets":[0,1,2]})", "1"), "does not lie"},
      {one(R"({"dtype":"U8","shape":[1],"data_offsets":[1,2]})", "12"), "does not lie"},
      {one(R"({"dtype":"U8","shape":[1],"data_offsets":[0,1]})", "12"),
       "expected 1 bytes of tensors, found 2"},
      {File(
           R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
           "12"),
       "there twice"},
      {File(
           R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
           "123"),
       "does not lie"},
  };
  for (const BadFile& file : files) {
    const auto read = Read(file.bytes);
    ASSERT_FALSE(read.ok()) << file.message;
    EXPECT_EQ(read.status().code(), absl::StatusCode::kDataLoss) << read.status();
    EXPECT_THAT(std::string(read.status().message()),
                AllOf(HasSubstr(path_), HasSubstr(file.message)));
  }
}

TEST_F(SafetensorsTest, OtherProblems) {
  const auto other =
      Read(File(R"({"a":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}})", "1"));
  EXPECT_EQ(other.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(other.status().message()), HasSubstr("F8_E4M3"));
  EXPECT_EQ(ReadSafetensors(folder_.File("none")).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(WriteSafetensors(path_, {{"a", Normal({1}, 1)}, {"a", Normal({1}, 2)}}).code(),
            absl::StatusCode::kInvalidArgument);
  const absl::Status nowhere = WriteSafetensors(folder_.File("none/model.safetensors"), {});
  EXPECT_EQ(nowhere.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(nowhere.message()), HasSubstr("none/model.safetensors"));
}

TEST_F(SafetensorsTest, AFailedWriteKeepsTheOldFile) {
  ASSERT_TRUE(WriteSafetensors(path_, {{"a", Normal({3}, 1)}}).ok());
  const std::string before = testutil::ReadFile(path_);
  // As on a full disk, the write ends in the middle: no file may grow beyond 64 KiB.
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit old_limit;
  getrlimit(RLIMIT_FSIZE, &old_limit);
  const rlimit limit = {65'536, old_limit.rlim_max};
  setrlimit(RLIMIT_FSIZE, &limit);
  const absl::Status status = WriteSafetensors(path_, {{"a", Normal({100'000}, 1)}});
  setrlimit(RLIMIT_FSIZE, &old_limit);
  std::signal(SIGXFSZ, SIG_DFL);
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), HasSubstr("cannot write"));
  EXPECT_EQ(testutil::ReadFile(path_), before);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_.path()), {}), 1);
}

}  // namespace
}  // namespace smartpipe
