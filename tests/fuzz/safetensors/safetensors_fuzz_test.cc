// Smoke fuzz of weights files and packed tensors: whatever the bytes, tensors or a clear error.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "ATen/ops/empty.h"
#include "ATen/ops/full.h"
#include "gtest/gtest.h"
#include "tests/testutil/fuzz.h"
#include "tests/testutil/process.h"
#include "worker/model/layer_state.h"

namespace smartpipe {
namespace {

constexpr int kRounds = 3000;

class SafetensorsFuzzTest : public testutil::FuzzTest {
 protected:
  std::string Mutate(std::string bytes) {
    static const std::vector<std::string> kTokens = {"{",
                                                     "}",
                                                     "[",
                                                     "]",
                                                     ":",
                                                     ",",
                                                     "\"",
                                                     "0",
                                                     "-1",
                                                     "1e9",
                                                     "18446744073709551615",
                                                     "null",
                                                     "true",
                                                     "\\u0000",
                                                     "\"shape\"",
                                                     "\"dtype\"",
                                                     "\"data_offsets\"",
                                                     "\"__metadata__\"",
                                                     "{}",
                                                     "[]",
                                                     "\xff",
                                                     "F64",
                                                     "[0,0]"};
    for (size_t edits = 1 + Below(4); edits > 0 && !bytes.empty(); --edits) {
      const size_t at = Below(bytes.size());
      switch (Below(6)) {
        case 0:
          bytes[at] = static_cast<char>(Below(256));
          break;
        case 1:
          bytes[Below(std::min<size_t>(bytes.size(), 8))] = static_cast<char>(Below(256));
          break;
        case 2:
          bytes.erase(at, 1 + Below(8));
          break;
        case 3:
          bytes.insert(at, kTokens[Below(kTokens.size())]);
          break;
        case 4:
          bytes.insert(at, bytes.substr(Below(bytes.size()), Below(60)));
          break;
        default:
          bytes.resize(at);
          break;
      }
    }
    return bytes;
  }

  // Keeps the length of the header right, so that the edits reach the parser.
  static std::string WithHeaderLength(std::string bytes, size_t data_bytes) {
    if (bytes.size() < 8 + data_bytes) return bytes;
    const uint64_t header_bytes = bytes.size() - 8 - data_bytes;
    std::memcpy(bytes.data(), &header_bytes, 8);
    return bytes;
  }

  void Check(const std::string& bytes) {
    // A fresh file: some file systems sync one that is cut to nothing and written again.
    std::filesystem::remove(path_);
    testutil::WriteFile(path_, bytes);
    const auto tensors = ReadSafetensors(path_);
    if (!tensors.ok()) {
      EXPECT_TRUE(tensors.status().code() == absl::StatusCode::kDataLoss ||
                  tensors.status().code() == absl::StatusCode::kInvalidArgument)
          << tensors.status();
      EXPECT_FALSE(tensors.status().message().empty());
      return;
    }
    size_t num_bytes = 0;
    for (const NamedTensor& named : *tensors) num_bytes += named.tensor.nbytes();
    EXPECT_LE(num_bytes, bytes.size());
  }

  const std::vector<NamedTensor> tensors_ = {{"conv.weight", at::full({2, 3}, 1.5, at::kFloat)},
                                             {"conv.counter", at::full({}, 7, at::kLong)},
                                             {"empty", at::empty({0, 4}, at::kFloat)}};
  const size_t data_bytes_ = 6 * 4 + 8;
  testutil::TempDir folder_;
  const std::string path_ = folder_.File("fuzz.safetensors");
};

TEST_F(SafetensorsFuzzTest, MutatedFiles) {
  ASSERT_TRUE(WriteSafetensors(path_, tensors_).ok());
  const std::string good = testutil::ReadFile(path_);
  for (int i = 0; i < kRounds; ++i) {
    const std::string bytes = Mutate(good);
    Check(bytes);
    Check(WithHeaderLength(bytes, data_bytes_));
  }
}

TEST_F(SafetensorsFuzzTest, MutatedPacks) {
  const at::Tensor packed = PackTensors(tensors_);
  const std::string good(static_cast<const char*>(packed.const_data_ptr()), packed.nbytes());
  for (int i = 0; i < kRounds; ++i) {
    const std::string bytes = Mutate(good);
    at::Tensor tensor = at::empty({static_cast<int64_t>(bytes.size())}, at::kByte);
    std::copy(bytes.begin(), bytes.end(), static_cast<char*>(tensor.mutable_data_ptr()));
    EXPECT_EQ(UnpackTensors(tensor).ok(), bytes == good);
  }
}

}  // namespace
}  // namespace smartpipe
