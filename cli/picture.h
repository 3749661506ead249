// Pictures of pipelines as SVG: a row per stage or worker, boxes in time, grey where nothing runs.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace smartpipe {

/// More boxes, no browser draws gladly.
inline constexpr int64_t kPictureBoxesMax = 20'000;

/// Each kind has its colour and its line in the legend (only kinds that occur are listed).
enum class BoxKind { kForward, kBackward, kInputGrad, kWeightGrad, kOptimize, kMessage, kPause };

struct PictureBox {
  int row = 0;
  double start = 0, end = 0;  // in the picture's unit
  BoxKind kind = BoxKind::kForward;
  bool frozen = false;  // hatched: forward of a frozen stage
  std::string label;    // inside the box if it fits: the micro-batch number
  std::string tip;      // shown when the pointer rests on it; may be empty
  // Darker, "+1" behind the label: of so many steps later than the one that the marks show.
  int steps_ahead = 0;
};

/// A vertical line over all rows.
struct PictureMark {
  double at = 0;
  std::string label;
};

struct PictureRow {
  std::string name;  // "stage 0"
  std::string note;  // small, under the name: "frozen", "layers 0-3"; may be empty
  // Where idle time counts as a bubble: grey. Outside it stays white.
  double first = 0, end = 0;
};

struct Picture {
  std::string title, subtitle;
  std::string unit;  // under the time axis: "slots", "ms"
  double begin = 0, end = 0;
  std::vector<PictureRow> rows;
  std::vector<PictureBox> boxes;
  std::vector<PictureMark> marks;
};

/// One self-contained SVG file (no script, no outside font). Deterministic. Texts are escaped.
/// Requires end > begin and rows of boxes that exist.
std::string ToSvg(const Picture& picture);

}  // namespace smartpipe
