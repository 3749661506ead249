// Loading the CUDA plug-in, choosing a device, and who may use NCCL; without a GPU.
#include "worker/comm/device_plugin.h"

#include <cstdlib>
#include <fstream>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/base/memory_key_value_store.h"

namespace smartpipe {
namespace {

using ::testing::HasSubstr;

constexpr char kVariable[] = "SMARTPIPE_CUDA_PLUGIN";

class PluginTest : public ::testing::Test {
 protected:
  PluginTest() {
    for (const char* name : {kVariable, "LOCAL_RANK", "SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK",
                             "MPI_LOCALRANKID"}) {
      const char* value = std::getenv(name);
      if (value != nullptr) kept_[name] = value;
      unsetenv(name);
    }
  }
  ~PluginTest() override {
    unsetenv(kVariable);
    unsetenv("LOCAL_RANK");
    unsetenv("SLURM_LOCALID");
    for (const auto& [name, value] : kept_) setenv(name.c_str(), value.c_str(), 1);
  }

 private:
  std::map<std::string, std::string> kept_;
};

std::string Refusal(const absl::StatusOr<DevicePlugin*>& plugin) {
  EXPECT_EQ(plugin.status().code(), absl::StatusCode::kFailedPrecondition) << plugin.status();
  return std::string(plugin.status().message());
}

TEST_F(PluginTest, AMissingPluginIsASentenceWithACure) {
  const std::string named = Refusal(LoadDevicePlugin("/nowhere/libsmartpipe_cuda.so"));
  EXPECT_THAT(named, HasSubstr("/nowhere/libsmartpipe_cuda.so"));
  EXPECT_THAT(named, HasSubstr("./dev cuda"));
  EXPECT_THAT(named, HasSubstr("worker.device = \"cpu\""));
  setenv(kVariable, "/elsewhere.so", 1);
  EXPECT_THAT(Refusal(LoadDevicePlugin()), HasSubstr("/elsewhere.so"));
}

TEST_F(PluginTest, WhatIsNoPluginIsRefused) {
  const std::string path = absl::StrCat(testing::TempDir(), "/not_a_plugin.so");
  std::ofstream(path) << "not a library";
  EXPECT_THAT(Refusal(LoadDevicePlugin(path)), HasSubstr("cannot be loaded"));
  // A library without the entry point.
  EXPECT_THAT(Refusal(LoadDevicePlugin("libz.so.1")), HasSubstr("is not the CUDA plug-in"));
}

TEST_F(PluginTest, TheDeviceFollowsFromTheNumberOrTheEnvironment) {
  EXPECT_EQ(DeviceIndex(5, 4), 1);
  EXPECT_EQ(DeviceIndex(-1, 4), 0);
  setenv("SLURM_LOCALID", "3", 1);
  EXPECT_EQ(DeviceIndex(-1, 4), 3);
  EXPECT_EQ(DeviceIndex(-1, 1), 0) << "each task sees a GPU of its own";
  setenv("LOCAL_RANK", "2", 1);
  EXPECT_EQ(DeviceIndex(-1, 4), 2);
  setenv("LOCAL_RANK", "two", 1);
  EXPECT_EQ(DeviceIndex(-1, 4), 3) << "what is no number is passed over";
  EXPECT_EQ(DeviceIndex(0, 4), 0);
}

TEST_F(PluginTest, TheCpuNeedsNoPlugin) {
  setenv(kVariable, "/elsewhere.so", 1);
  const absl::StatusOr<UsedDevice> device = UseDevice("cpu", -1);
  ASSERT_TRUE(device.ok()) << device.status();
  EXPECT_EQ(device->name, "cpu");
  EXPECT_EQ(device->plugin, nullptr);
  EXPECT_EQ(UseDevice("cuda", -1).status().code(), absl::StatusCode::kFailedPrecondition);
}

// Stands for the real one: says when its transport is asked for.
class FakePlugin final : public DevicePlugin {
 public:
  absl::StatusOr<int32_t> NumDevices() override { return 2; }
  absl::StatusOr<DeviceInfo> Describe(int32_t index) override {
    return DeviceInfo{.index = index, .name = "fake", .uuid = absl::StrCat(index)};
  }
  absl::Status Use(int32_t /*index*/) override { return absl::OkStatus(); }
  absl::StatusOr<std::unique_ptr<Transport>> MakeTransport(
      const TransportOptions& options) override {
    return absl::UnimplementedError(absl::StrCat("NCCL on ", options.device));
  }
};

std::vector<absl::StatusOr<std::unique_ptr<Transport>>> MakeGroup(
    const std::vector<std::string>& uuids, absl::Duration connect_timeout = absl::Seconds(30),
    size_t num_present = SIZE_MAX) {
  const auto store = std::make_shared<MemoryKeyValueStore>();
  std::vector<absl::StatusOr<std::unique_ptr<Transport>>> transports(uuids.size());
  std::vector<std::thread> ranks;
  for (size_t rank = 0; rank < std::min(uuids.size(), num_present); ++rank) {
    ranks.emplace_back([&, rank] {
      static FakePlugin plugin;
      transports[rank] = MakeDeviceTransport(plugin,
                                             {.rank = Rank(static_cast<int32_t>(rank)),
                                              .size = static_cast<int32_t>(uuids.size()),
                                              .member_names = {"w0", "w1", "w2"},
                                              .store = store,
                                              .connect_timeout = connect_timeout,
                                              .device = absl::StrCat("cuda:", rank)},
                                             uuids[rank]);
    });
  }
  for (std::thread& rank : ranks) rank.join();
  return transports;
}

TEST(DeviceTransportTest, DevicesOfTheirOwnUseThePlugin) {
  const auto transports = MakeGroup({"a", "b", "c"});
  for (size_t rank = 0; rank < transports.size(); ++rank) {
    EXPECT_EQ(transports[rank].status(),
              absl::UnimplementedError(absl::StrCat("NCCL on cuda:", rank)));
  }
  EXPECT_EQ(MakeGroup({"a"})[0].status().code(), absl::StatusCode::kUnimplemented);
}

TEST(DeviceTransportTest, ASharedDeviceMeansGlooForAll) {
  testing::internal::CaptureStderr();
  auto transports = MakeGroup({"a", "b", "a"});
  const std::string log = testing::internal::GetCapturedStderr();
  for (const auto& transport : transports) ASSERT_TRUE(transport.ok()) << transport.status();
  EXPECT_THAT(log, HasSubstr("rank 0 (w0) and rank 2 (w2) share a GPU"));
  EXPECT_EQ(log.find("share a GPU"), log.rfind("share a GPU")) << "one line of one rank: " << log;
}

TEST(DeviceTransportTest, AMissingRankIsNamed) {
  const auto transports = MakeGroup({"a", "b"}, absl::Milliseconds(100), /*num_present=*/1);
  EXPECT_EQ(transports[0].status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(transports[0].status().message()), HasSubstr("rank 1 (w1)"));
}

}  // namespace
}  // namespace smartpipe
