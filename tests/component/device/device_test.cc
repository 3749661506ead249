// The built CUDA plug-in, and what a worker says that cannot use it.
#include <cstdlib>
#include <filesystem>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testutil/process.h"
#include "worker/comm/device_plugin.h"

namespace smartpipe {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;
using testutil::Binary;
using testutil::Process;

// Beside the programs, as it is looked for.
std::string BuiltPlugin() {
  return std::filesystem::path(Binary("stage_worker")).parent_path().parent_path() / "lib" /
         kDevicePluginFile;
}

TEST(DeviceTest, ThePluginIsLoadedOrSaysWhatIsMissing) {
  if (!std::filesystem::exists(BuiltPlugin()))
    GTEST_SKIP() << "the CUDA plug-in is not built: no headers of CUDA and NCCL here";
  const absl::StatusOr<DevicePlugin*> plugin = LoadDevicePlugin(BuiltPlugin());
  if (!plugin.ok()) {
    EXPECT_EQ(plugin.status().code(), absl::StatusCode::kFailedPrecondition);
    // A library that is there, but does not fit, would name a symbol.
    EXPECT_THAT(std::string(plugin.status().message()),
                testing::AllOf(HasSubstr(".so"), HasSubstr("cannot open shared object file"),
                               HasSubstr("./dev cuda-deps")));
    return;
  }
  const absl::StatusOr<int32_t> num_devices = (*plugin)->NumDevices();
  if (num_devices.ok()) {
    EXPECT_GE(*num_devices, 1);
    EXPECT_TRUE((*plugin)->Describe(0).ok()) << (*plugin)->Describe(0).status();
    EXPECT_EQ((*plugin)->Describe(*num_devices).status().code(),
              absl::StatusCode::kInvalidArgument);
    return;
  }
  EXPECT_EQ(num_devices.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(
      std::string(num_devices.status().message()),
      testing::AllOf(HasSubstr("no GPU that can be used"), HasSubstr("worker.device = \"cpu\"")));
}

TEST(DeviceTest, AWorkerListsItsDevicesOrSaysWhyThereAreNone) {
  Process worker({Binary("stage_worker"), "devices"});
  const auto code = worker.Wait(absl::Seconds(60));
  ASSERT_TRUE(code.has_value());
  EXPECT_THAT(worker.output(), *code == 0 ? HasSubstr("cuda:0  ") : HasSubstr("\"cpu\""));
  EXPECT_THAT(*code, AnyOf(0, 1));
}

TEST(DeviceTest, AWorkerWithoutPluginNamesTheFile) {
  setenv("SMARTPIPE_CUDA_PLUGIN", "/nowhere/plugin.so", 1);
  Process worker({Binary("stage_worker"), "devices"});
  EXPECT_EQ(worker.Wait(absl::Seconds(60)), 1);
  unsetenv("SMARTPIPE_CUDA_PLUGIN");
  EXPECT_THAT(worker.output(), HasSubstr("/nowhere/plugin.so"));
  EXPECT_THAT(worker.output(), HasSubstr("./dev cuda"));
}

}  // namespace
}  // namespace smartpipe
