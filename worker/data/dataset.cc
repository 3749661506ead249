#include "worker/data/dataset.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "services/base/nearest_name.h"
#include "worker/data/datasets.h"

namespace smartpipe {
namespace {

struct DatasetRow {
  const char* name;
  absl::StatusOr<std::unique_ptr<Dataset>> (*open)(const RunConfig& config);
};

constexpr DatasetRow kDatasets[] = {
    {"fashion_mnist", OpenFashionMnist},
    {"synthetic", OpenSynthetic},
};

}  // namespace

absl::StatusOr<std::unique_ptr<Dataset>> OpenDataset(const RunConfig& config) {
  std::vector<std::string> names;
  for (const DatasetRow& row : kDatasets) {
    if (config.data.name == row.name) return row.open(config);
    names.push_back(row.name);
  }
  return absl::InvalidArgumentError(absl::StrCat("unknown dataset \"", config.data.name,
                                                 "\": did you mean \"",
                                                 NearestName(config.data.name, names), "\"?"));
}

}  // namespace smartpipe
