// Smoke fuzz of the layer store: whatever its files or the chunks of a put hold, what it gives is
// right or refused.
#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "services/parameter_service/layer_store.h"
#include "tests/testutil/fuzz.h"
#include "tests/testutil/process.h"
#include "tests/unit/parameter_service/store_util.h"

namespace smartpipe {
namespace {

namespace fs = std::filesystem;
using testutil::Get;
using testutil::MakeVersion;
using testutil::Put;

class LayerStoreFuzzTest : public testutil::FuzzTest {
 protected:
  std::string Mutate(std::string text) {
    static const std::vector<std::string> kTokens = {
        "-1",     "0",      "+",       " ",        "\n", "99999999999999999999", "4097", "run ",
        "step 1", "layers", "sha256 ", "\xff\xfe", "\t", std::string(300, 'n'),  "1 ",   ""};
    return Edited(std::move(text), {.edits_max = 3, .copy_max = 120, .tokens = kTokens});
  }

  static std::string Bytes(int64_t step, int32_t layer) {
    return std::string(500 + 10 * step + layer, static_cast<char>('a' + 3 * step + layer));
  }
};

// With the right digest at its end, so that the edits reach the parser.
TEST_F(LayerStoreFuzzTest, MutatedManifests) {
  Manifest manifest{"run", Step(7), Generation(2), 3, {}};
  for (int32_t layer = 0; layer < 3; ++layer) {
    manifest.layers[LayerIndex(layer)] = {"a name", DigestOf("a"), 1000 * layer};
  }
  const std::string good = EncodeManifest(manifest);
  const size_t body_size = good.rfind("sha256 ");
  int num_accepted = 0;
  for (int round = 0; round < 20'000; ++round) {
    const std::string body = Mutate(good.substr(0, body_size));
    const std::string text = absl::StrCat(body, "sha256 ", DigestOf(body).hex(), "\n");
    const absl::StatusOr<Manifest> decoded = DecodeManifest(text);
    if (decoded.ok()) {
      ++num_accepted;
      ASSERT_EQ(EncodeManifest(*decoded), text);
      ASSERT_GE(decoded->size_bytes(), 0);
    } else {
      ASSERT_EQ(decoded.status().code(), absl::StatusCode::kDataLoss) << decoded.status();
    }
  }
  EXPECT_GT(num_accepted, 50) << "the edits are too wild to try the parser";
}

// One file of a store changes while nobody serves it.
TEST_F(LayerStoreFuzzTest, MutatedFiles) {
  for (int round = 0; round < 200 && !HasFailure(); ++round) {
    testutil::TempDir dir;
    {
      auto store = LayerStore::Open({dir.path()}).value();
      for (int64_t step = 0; step < 3; ++step) {
        for (int32_t layer = 0; layer < (step == 2 ? 1 : 2); ++layer) {
          const std::string bytes = Bytes(step, layer);
          ASSERT_TRUE(Put(*store, MakeVersion(step, layer, bytes, 2), bytes).ok());
        }
      }
    }
    std::vector<std::string> files;
    for (const auto& entry : fs::recursive_directory_iterator(dir.path())) {
      if (entry.is_regular_file() && entry.file_size() > 0) files.push_back(entry.path());
    }
    std::sort(files.begin(), files.end());
    const std::string& path = files[Below(files.size())];
    const std::string mutated = Mutate(testutil::ReadFile(path));
    SCOPED_TRACE(absl::StrCat("round ", round, ", ", path, ": ", mutated));
    testutil::WriteFile(path, mutated);
    auto store = LayerStore::Open({dir.path()});
    ASSERT_TRUE(store.ok()) << store.status();
    int num_good = 0;
    for (int64_t step = 0; step < 2; ++step) {
      bool good = true;
      for (int32_t layer = 0; layer < 2; ++layer) {
        const auto bytes = Get(**store, step, layer);
        good = good && bytes.ok();
        if (bytes.ok()) {
          EXPECT_EQ(*bytes, Bytes(step, layer));
        }
      }
      num_good += good;
    }
    EXPECT_GE(num_good, 1) << "one file belongs to one checkpoint";
    EXPECT_TRUE((*store)->GetCheckpoint("run", std::nullopt).ok());
    // Putting again heals all of it; a changed generation may fence the old one.
    const int64_t generation = path.ends_with("/generation") ? INT64_MAX : 1;
    for (int64_t step = 0; step < 3; ++step) {
      for (int32_t layer = 0; layer < 2; ++layer) {
        const std::string bytes = Bytes(step, layer);
        const auto put = Put(**store, MakeVersion(step, layer, bytes, 2, generation), bytes);
        ASSERT_TRUE(put.ok()) << put.status();
      }
    }
    EXPECT_EQ(Get(**store, 2, 1).value(), Bytes(2, 1));
  }
}

// Chunks of a content at random, now and then with a wrong byte.
TEST_F(LayerStoreFuzzTest, RandomChunks) {
  testutil::TempDir dir;
  auto store = LayerStore::Open({dir.path()}).value();
  int num_complete = 0;
  for (int64_t step = 0; step < 200 && !HasFailure(); ++step) {
    std::string bytes(1 + Below(50), 'x');
    for (char& c : bytes) c = static_cast<char>(Below(256));
    const LayerVersion version = MakeVersion(step, 0, bytes, 1);
    auto put = store->BeginPut(version).value();
    for (int i = 0; i < 30 && !put->state().complete; ++i) {
      const size_t offset = Below(bytes.size() + 2);
      std::string chunk = offset < bytes.size() ? bytes.substr(offset, Below(20)) : "y";
      if (!chunk.empty() && Below(40) == 0) chunk[Below(chunk.size())] = '!';
      const int64_t held = put->state().bytes_held;
      const absl::Status status = put->Append(static_cast<int64_t>(offset), chunk);
      if (put->state().complete) continue;
      ASSERT_GE(put->state().bytes_held, held);
      const bool gap = static_cast<int64_t>(offset) > held || offset > bytes.size();
      if (gap) {
        ASSERT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
      }
      if (!status.ok() && !gap) break;  // the digest was wrong
    }
    const absl::StatusOr<std::string> got = Get(*store, step, 0);
    ASSERT_EQ(got.ok(), put->state().complete);
    if (got.ok()) {
      ASSERT_EQ(*got, bytes);
      ++num_complete;
    }
  }
  EXPECT_GT(num_complete, 20);
}

}  // namespace
}  // namespace smartpipe
