// Smoke fuzz of the IDX reader: whatever the bytes, it gives a whole file or DATA_LOSS.
#include <cstdint>
#include <filesystem>
#include <functional>
#include <numeric>
#include <string>

#include "gtest/gtest.h"
#include "tests/testutil/fuzz.h"
#include "tests/testutil/process.h"
#include "tests/unit/data/idx_files.h"
#include "worker/data/idx.h"

namespace smartpipe {
namespace {

constexpr int kRounds = 2000;

class IdxFuzzTest : public testutil::FuzzTest {
 protected:
  std::string Mutate(std::string bytes) {
    for (size_t edits = 1 + Below(4); edits > 0 && !bytes.empty(); --edits) {
      // Half of the edits hit the header.
      const size_t at = Below(Below(2) == 0 ? std::min<size_t>(bytes.size(), 20) : bytes.size());
      switch (Below(5)) {
        case 0:
          bytes[at] = static_cast<char>(Below(256));
          break;
        case 1:
          bytes[at] = Below(2) == 0 ? '\xff' : '\0';
          break;
        case 2:
          bytes.erase(at, 1 + Below(8));
          break;
        case 3:
          bytes.insert(at, bytes.substr(Below(bytes.size()), Below(40)));
          break;
        default:
          bytes.resize(at);
          break;
      }
    }
    return bytes;
  }

  void Check(const std::string& bytes, int num_dimensions) {
    // A fresh file: some file systems sync one that is cut to nothing and written again.
    std::filesystem::remove(folder_.File("file"));
    testutil::WriteFile(folder_.File("file"), bytes);
    const auto idx = ReadIdx(folder_.File("file"), num_dimensions);
    if (!idx.ok()) {
      EXPECT_EQ(idx.status().code(), absl::StatusCode::kDataLoss) << idx.status();
      return;
    }
    const int64_t count =
        std::accumulate(idx->extents.begin(), idx->extents.end(), int64_t{1}, std::multiplies<>());
    EXPECT_EQ(static_cast<int64_t>(idx->values.size()), count);
  }

  testutil::TempDir folder_;
};

TEST_F(IdxFuzzTest, MutatedFiles) {
  const std::string images = testutil::IdxFile({3, 4, 5}, std::string(60, 'p'));
  const std::string labels = testutil::IdxFile({60}, std::string(60, 'l'));
  for (int i = 0; i < kRounds; ++i) {
    Check(Mutate(images), 3);
    Check(Mutate(labels), 1);
  }
}

TEST_F(IdxFuzzTest, MutatedGzip) {
  std::string values(3000, '\0');
  for (char& value : values) value = static_cast<char>(Below(256));
  const std::string packed = testutil::Gzip(testutil::IdxFile({30, 10, 10}, values));
  for (int i = 0; i < kRounds; ++i) Check(Mutate(packed), 3);
}

TEST_F(IdxFuzzTest, GzipOfMutatedFiles) {
  const std::string images = testutil::IdxFile({3, 4, 5}, std::string(60, 'p'));
  for (int i = 0; i < kRounds; ++i) Check(testutil::Gzip(Mutate(images)), 3);
}

}  // namespace
}  // namespace smartpipe
