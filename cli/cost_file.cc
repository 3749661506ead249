#include "cli/cost_file.h"

#include <cmath>
#include <optional>
#include <set>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "cli/files.h"
#include "nlohmann/json.hpp"
#include "services/base/limits.h"
#include "services/base/nearest_name.h"
#include "services/base/status_macros.h"

namespace smartpipe {
namespace {

using Json = nlohmann::json;

constexpr double kSpeedMin = 1e-3, kSpeedMax = 1e3;

std::string Quote(absl::string_view word) { return absl::StrCat("\"", word, "\""); }

// A value as the file has it, shortened.
std::string Shown(const Json& value) {
  if (value.is_array()) return "a list";
  if (value.is_object()) return "an object";
  const std::string text = value.dump(-1, ' ', /*ensure_ascii=*/true);
  return text.size() <= 40 ? text : absl::StrCat(text.substr(0, 40), "...");
}

absl::StatusOr<Json> ParseJson(absl::string_view text, const std::string& path) {
  std::vector<std::set<std::string>> keys;  // of the objects around
  std::string twice;
  auto watch = [&](int, Json::parse_event_t event, Json& parsed) {
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key) {
      const std::string key = parsed.get<std::string>();
      if (!keys.back().insert(key).second && twice.empty()) twice = key;
    }
    return true;
  };
  // nlohmann tells the place of a mistake only by an exception.
  try {
    Json json = Json::parse(text.begin(), text.end(), watch);
    if (twice.empty()) return json;
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": the key ", Shown(Json(twice)), " stands twice in one object"));
  } catch (const Json::exception& error) {
    absl::string_view why = error.what();
    if (const size_t end = why.find("] "); end != why.npos) why.remove_prefix(end + 2);
    return absl::InvalidArgumentError(absl::StrCat(path, " is not JSON: ", why));
  }
}

// Reads values and keeps the first mistake; after one it returns zeros.
class Reader {
 public:
  explicit Reader(const std::string& path) : path_(path) {}

  const absl::Status& status() const { return status_; }

  // An object with no other keys than these.
  bool IsObject(const Json& json, const std::string& place, const std::vector<std::string>& keys) {
    if (!json.is_object()) return Fail(place, absl::StrCat("is ", Shown(json), ", not an object"));
    for (const auto& [key, value] : json.items()) {
      if (absl::c_linear_search(keys, key)) continue;
      return Fail(place, absl::StrCat("has an unknown key ", Shown(Json(key)), "; did you mean ",
                                      Quote(NearestName(key, keys)), "?"));
    }
    return true;
  }

  // The list json[key]; null if it is missing and may be.
  const Json* List(const Json& json, const std::string& place, const std::string& key,
                   bool required, size_t size_min, size_t size_max) {
    const auto found = json.find(key);
    if (found == json.end()) {
      if (required) Fail(place, absl::StrCat("has no ", Quote(key)));
      return nullptr;
    }
    const std::string at = Join(place, key);
    if (!found->is_array()) {
      Fail(at, absl::StrCat("is ", Shown(*found), ", not a list"));
    } else if (found->size() < size_min || found->size() > size_max) {
      Fail(at, absl::StrCat("has ", found->size(), " entries, not ", size_min, " to ", size_max));
    } else {
      return &*found;
    }
    return nullptr;
  }

  double Number(const Json& value, const std::string& at, double least, double most) {
    if (!value.is_number()) {
      Fail(at, absl::StrCat("is ", Shown(value), ", not a number"));
      return 0;
    }
    const double number = value.get<double>();
    if (std::isfinite(number) && least <= number && number <= most) return number;
    Fail(at, absl::StrCat("is ", Shown(value), ", not in ", least, "..", most));
    return 0;
  }

  // json[key], or the fallback where there is one.
  double Number(const Json& json, const std::string& place, const std::string& key, double most,
                std::optional<double> fallback = std::nullopt) {
    const auto found = json.find(key);
    if (found != json.end()) return Number(*found, Join(place, key), 0, most);
    if (!fallback) Fail(place, absl::StrCat("has no ", Quote(key)));
    return fallback.value_or(0);
  }

  double Seconds(const Json& json, const std::string& place, const std::string& key,
                 std::optional<double> fallback = std::nullopt) {
    return Number(json, place, key, limits::kSecondsMax * 1e6, fallback) / 1e6;
  }

  int64_t Bytes(const Json& json, const std::string& place, const std::string& key,
                std::optional<int64_t> fallback = std::nullopt) {
    if (fallback && !json.contains(key)) return *fallback;
    const double bytes =
        Number(json, place, key, static_cast<double>(limits::kTensorBytesMax), std::nullopt);
    if (bytes != std::floor(bytes)) {
      Fail(Join(place, key), absl::StrCat("is ", Shown(json[key]), ", not a whole number"));
    }
    return static_cast<int64_t>(bytes);
  }

  std::string Name(const Json& json, const std::string& place) {
    const auto found = json.find("name");
    if (found == json.end()) return Fail(place, "has no \"name\""), "";
    const std::string at = Join(place, "name");
    if (!found->is_string())
      return Fail(at, absl::StrCat("is ", Shown(*found), ", not a text")), "";
    const std::string name = found->get<std::string>();
    const bool printable = absl::c_none_of(
        name, [](char c) { return absl::ascii_iscntrl(static_cast<unsigned char>(c)); });
    if (name.empty() || static_cast<int64_t>(name.size()) > limits::kNameBytesMax || !printable) {
      Fail(at, absl::StrCat("is ", Shown(*found), ", not 1 to ", limits::kNameBytesMax,
                            " printable bytes"));
    }
    return name;
  }

  bool Fail(const std::string& place, absl::string_view what) {
    if (status_.ok()) {
      status_ = absl::InvalidArgumentError(
          absl::StrCat(path_, ": ", place.empty() ? "the file" : place, " ", what));
    }
    return false;
  }

 private:
  static std::string Join(const std::string& place, const std::string& key) {
    return place.empty() ? key : absl::StrCat(place, ".", key);
  }

  const std::string& path_;
  absl::Status status_;
};

std::string At(absl::string_view list, size_t index) { return absl::StrCat(list, "[", index, "]"); }

StageCost ReadStage(Reader& reader, const Json& json, const std::string& place) {
  StageCost cost;
  if (!reader.IsObject(json, place,
                       {"forward_us", "input_grad_us", "weight_grad_us", "optimize_us"})) {
    return cost;
  }
  cost.forward_s = reader.Seconds(json, place, "forward_us");
  cost.input_grad_s = reader.Seconds(json, place, "input_grad_us");
  cost.weight_grad_s = reader.Seconds(json, place, "weight_grad_us");
  cost.optimize_s = reader.Seconds(json, place, "optimize_us", 0);
  return cost;
}

LinkCost ReadLink(Reader& reader, const Json& json, const std::string& place) {
  LinkCost link;
  if (!reader.IsObject(json, place, {"latency_us", "forward_us", "backward_us"})) return link;
  link.latency_s = reader.Seconds(json, place, "latency_us", 0);
  link.forward_s = reader.Seconds(json, place, "forward_us");
  link.backward_s = reader.Seconds(json, place, "backward_us");
  return link;
}

LayerCost ReadLayer(Reader& reader, const Json& json, const std::string& place) {
  LayerCost cost;
  cost.forward_s = reader.Seconds(json, place, "forward_us");
  cost.input_grad_s = reader.Seconds(json, place, "input_grad_us");
  cost.weight_grad_s = reader.Seconds(json, place, "weight_grad_us");
  cost.optimize_s = reader.Seconds(json, place, "optimize_us", 0);
  cost.output_bytes = reader.Bytes(json, place, "output_bytes");
  cost.param_bytes = reader.Bytes(json, place, "param_bytes");
  cost.activation_bytes = reader.Bytes(json, place, "activation_bytes");
  cost.state_bytes = reader.Bytes(json, place, "state_bytes", cost.param_bytes);
  return cost;
}

}  // namespace

absl::StatusOr<StageCostFile> ParseStageCosts(absl::string_view text, const std::string& path) {
  SP_ASSIGN_OR_RETURN(const Json json, ParseJson(text, path));
  Reader reader(path);
  StageCostFile file;
  if (!reader.IsObject(json, "", {"stages", "links"})) return reader.status();
  if (const Json* stages = reader.List(json, "", "stages", true, 1, limits::kStagesMax)) {
    for (const Json& stage : *stages) {
      file.stages.push_back(ReadStage(reader, stage, At("stages", file.stages.size())));
    }
  }
  if (const Json* links = reader.List(json, "", "links", false, 0, limits::kStagesMax)) {
    for (const Json& link : *links) {
      file.links.push_back(ReadLink(reader, link, At("links", file.links.size())));
    }
    if (file.links.size() + 1 != file.stages.size()) {
      reader.Fail("links", absl::StrCat("has ", file.links.size(), " entries for ",
                                        file.stages.size(), " stages; there is one less"));
    }
  }
  SP_RETURN_IF_ERROR(reader.status());
  return file;
}

absl::StatusOr<LayerCostFile> ParseLayerCosts(absl::string_view text, const std::string& path) {
  SP_ASSIGN_OR_RETURN(const Json json, ParseJson(text, path));
  Reader reader(path);
  LayerCostFile file;
  if (!reader.IsObject(json, "",
                       {"layers", "link_bytes_per_s", "link_latency_us", "worker_speed"})) {
    return reader.status();
  }
  const std::vector<std::string> keys = {
      "name",        "forward_us",       "input_grad_us", "weight_grad_us", "output_bytes",
      "param_bytes", "activation_bytes", "optimize_us",   "state_bytes"};
  if (const Json* layers = reader.List(json, "", "layers", true, 1, limits::kLayersMax)) {
    for (const Json& layer : *layers) {
      const std::string place = At("layers", file.layers.size());
      if (!reader.IsObject(layer, place, keys)) return reader.status();
      file.names.push_back(reader.Name(layer, place));
      file.layers.push_back(ReadLayer(reader, layer, place));
    }
  }
  file.link_bytes_per_s = reader.Number(json, "", "link_bytes_per_s", 1e15, 0);
  if (file.link_bytes_per_s > 0 && file.link_bytes_per_s < 1) {
    reader.Fail("link_bytes_per_s",
                absl::StrCat("is ", file.link_bytes_per_s,
                             ", less than a byte per second; 0 = infinitely fast"));
  }
  file.link_latency_s = reader.Seconds(json, "", "link_latency_us", 0);
  if (const Json* speeds = reader.List(json, "", "worker_speed", false, 1, limits::kStagesMax)) {
    for (const Json& speed : *speeds) {
      const std::string place = At("worker_speed", file.worker_speed.size());
      file.worker_speed.push_back(reader.Number(speed, place, kSpeedMin, kSpeedMax));
    }
  }
  SP_RETURN_IF_ERROR(reader.status());
  return file;
}

absl::StatusOr<StageCostFile> ReadStageCosts(const std::string& path) {
  SP_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path, kCostFileBytesMax));
  return ParseStageCosts(text, path);
}

absl::StatusOr<LayerCostFile> ReadLayerCosts(const std::string& path) {
  SP_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path, kCostFileBytesMax));
  return ParseLayerCosts(text, path);
}

}  // namespace smartpipe
