#include "cli/picture.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "cli/render.h"

namespace smartpipe {
namespace {

// All lengths are pixels.
constexpr double kMargin = 18;
constexpr double kRowHeight = 34, kRowGap = 8;
constexpr double kPlotWidthMin = 640, kPlotWidthMax = 1800;
constexpr double kTickGap = 56;      // least distance of two figures on the axis
constexpr double kGlyphWidth = 0.6;  // of the font size; no renderer's sans serif is much wider
constexpr int kLabelSize = 12, kLabelSizeMin = 9;
constexpr int kMarkLevels = 2;  // rows for the labels of marks
constexpr double kMarkHeight = 15;

constexpr absl::string_view kText = "#1f2328", kFaintText = "#57606a";
constexpr absl::string_view kBubble = "#d9dce1", kGrid = "#e4e7eb";

struct Style {
  BoxKind kind;
  absl::string_view name;  // in the legend
  absl::string_view fill, edge;
};
// Light enough for dark text; hues of Okabe and Ito, which colour-blind eyes tell apart, and
// different in lightness too.
constexpr Style kStyles[] = {
    {BoxKind::kForward, "forward", "#a6d5f5", "#2f6f9f"},
    {BoxKind::kBackward, "backward", "#f2a33c", "#8a5200"},
    {BoxKind::kInputGrad, "input gradient", "#f2a33c", "#8a5200"},
    {BoxKind::kWeightGrad, "weight gradient", "#7fcfb2", "#1f7a5c"},
    {BoxKind::kOptimize, "optimizer", "#f3e96b", "#857c00"},
    {BoxKind::kMessage, "message", "#b9a9d6", "#5b4690"},
    {BoxKind::kPause, "pause", "#e3a6bd", "#93375c"},
};

constexpr absl::string_view kAheadFill = "#5e9fd0";  // a forward of a later step

const Style& StyleOf(BoxKind kind) {
  return *std::find_if(std::begin(kStyles), std::end(kStyles),
                       [&](const Style& style) { return style.kind == kind; });
}

std::string Escape(absl::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '&') {
      out += "&amp;";
    } else if (c == '<') {
      out += "&lt;";
    } else if (c == '>') {
      out += "&gt;";
    } else if (c == '"') {
      out += "&quot;";
    } else if (absl::ascii_iscntrl(static_cast<unsigned char>(c))) {
      out += ' ';  // XML 1.0 has no way to write most of them
    } else {
      out += c;
    }
  }
  return out;
}

std::string Px(double value) {
  std::string text = absl::StrFormat("%.2f", value);
  while (text.back() == '0') text.pop_back();
  if (text.back() == '.') text.pop_back();
  return text == "-0" ? "0" : text;
}

std::string LabelOf(const PictureBox& box) {
  if (box.label.empty() || box.steps_ahead == 0) return box.label;
  return absl::StrCat(box.label, "+", box.steps_ahead);
}

absl::string_view FillOf(const PictureBox& box) {
  return box.steps_ahead > 0 ? kAheadFill : StyleOf(box.kind).fill;
}

double TextWidth(absl::string_view text, double size) {
  // Bytes of UTF-8 that begin a character.
  const auto is_begin = [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; };
  return static_cast<double>(std::count_if(text.begin(), text.end(), is_begin)) * size *
         kGlyphWidth;
}

// 1, 2 or 5 times a power of ten, at least `least`.
double NiceStep(double least) {
  const double power = std::pow(10, std::floor(std::log10(least)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= least * (1 - 1e-9)) return factor * power;
  }
  return 10 * power;
}

// Draws one picture from top to bottom; y_ is where the next part begins.
class Drawing {
 public:
  explicit Drawing(const Picture& picture) : picture_(picture) {
    for (const PictureRow& row : picture.rows) {
      left_ = std::max(
          {left_, kMargin + TextWidth(row.name, 13) + 14, kMargin + TextWidth(row.note, 11) + 14});
    }
    plot_width_ = PlotWidth();
    width_ = left_ + plot_width_ + kMargin + 8;
  }

  std::string Draw() {
    DrawHead();
    DrawMarkLabels();
    top_ = y_;
    bottom_ = top_ + static_cast<double>(picture_.rows.size()) * (kRowHeight + kRowGap);
    DrawGrid();
    DrawRows();
    for (const PictureBox& box : picture_.boxes) DrawBox(box);
    DrawMarks();
    y_ = bottom_;
    DrawAxis();
    DrawLegend();
    return absl::StrCat(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"", Px(width_), "\" height=\"", Px(y_),
        "\" viewBox=\"0 0 ", Px(width_), " ", Px(y_),
        "\" font-family=\"Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif\">\n",
        "<title>", Escape(picture_.title), "</title>\n", kHatch,
        "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n", body_, "</svg>\n");
  }

 private:
  static constexpr absl::string_view kHatch =
      "<defs><pattern id=\"frozen\" width=\"7\" height=\"7\" patternUnits=\"userSpaceOnUse\" "
      "patternTransform=\"rotate(45)\"><rect width=\"2.6\" height=\"7\" fill=\"#ffffff\" "
      "fill-opacity=\"0.75\"/></pattern></defs>\n";

  // So wide that the labels of the usual box fit.
  double PlotWidth() const {
    std::vector<double> scales;
    for (const PictureBox& box : picture_.boxes) {
      if (box.label.empty() || !(box.end > box.start)) continue;
      scales.push_back((TextWidth(LabelOf(box), kLabelSize) + 8) / (box.end - box.start));
    }
    if (scales.empty()) return kPlotWidthMin;
    const auto usual = scales.begin() + static_cast<std::ptrdiff_t>(scales.size() * 3 / 4);
    std::nth_element(scales.begin(), usual, scales.end());
    return std::clamp(*usual * (picture_.end - picture_.begin), kPlotWidthMin, kPlotWidthMax);
  }

  double X(double time) const {
    const double share = (time - picture_.begin) / (picture_.end - picture_.begin);
    return left_ + std::clamp(share, 0.0, 1.0) * plot_width_;
  }
  double RowTop(int row) const { return top_ + row * (kRowHeight + kRowGap); }

  void Text(double x, double y, double size, absl::string_view fill, absl::string_view more,
            absl::string_view text) {
    absl::StrAppend(&body_, "<text x=\"", Px(x), "\" y=\"", Px(y), "\" font-size=\"", Px(size),
                    "\" fill=\"", fill, "\"", more, ">", Escape(text), "</text>\n");
  }
  void Rect(double x, double y, double width, double height, absl::string_view fill,
            absl::string_view more) {
    absl::StrAppend(&body_, "<rect x=\"", Px(x), "\" y=\"", Px(y), "\" width=\"", Px(width),
                    "\" height=\"", Px(height), "\" fill=\"", fill, "\"", more);
  }
  void VerticalLine(double x, double y1, double y2, absl::string_view stroke,
                    absl::string_view more) {
    absl::StrAppend(&body_, "<line x1=\"", Px(x), "\" y1=\"", Px(y1), "\" x2=\"", Px(x), "\" y2=\"",
                    Px(y2), "\" stroke=\"", stroke, "\"", more, "/>\n");
  }

  void DrawHead() {
    y_ = kMargin;
    if (!picture_.title.empty()) {
      Text(kMargin, y_ + 14, 16, kText, " font-weight=\"bold\"", picture_.title);
      y_ += 26;
    }
    const int columns = static_cast<int>((width_ - 2 * kMargin) / (12.5 * kGlyphWidth));
    for (absl::string_view line :
         absl::StrSplit(Wrap(picture_.subtitle, columns, 0), '\n', absl::SkipWhitespace())) {
      Text(kMargin, y_ + 10, 12.5, kFaintText, "", line);
      y_ += 17;
    }
    y_ += 8;
  }

  // Each label on the lowest level that has room; without room it is left out.
  void DrawMarkLabels() {
    std::array<double, kMarkLevels> free_from = {};
    const std::vector<PictureMark> marks = SortedMarks();
    int num_levels = 0;
    std::vector<std::pair<double, int>> places;  // left end and level, -1 = none
    for (const PictureMark& mark : marks) {
      const double width = TextWidth(mark.label, 11);
      const double x = std::clamp(X(mark.at) - width / 2, 0.0, std::max(0.0, width_ - width - 4));
      int level = 0;
      while (level < kMarkLevels && x < free_from[level]) ++level;
      if (level == kMarkLevels) level = -1;
      if (level >= 0) free_from[level] = x + width + 8;
      num_levels = std::max(num_levels, level + 1);
      places.emplace_back(x, level);
    }
    if (num_levels == 0) return;
    y_ += num_levels * kMarkHeight + 2;
    for (size_t i = 0; i < places.size(); ++i) {
      const auto [x, level] = places[i];
      if (level < 0) continue;
      Text(x, y_ - level * kMarkHeight - 7, 11, kText, "", marks[i].label);
    }
  }

  std::vector<PictureMark> SortedMarks() const {
    std::vector<PictureMark> marks = picture_.marks;
    std::stable_sort(marks.begin(), marks.end(),
                     [](const PictureMark& a, const PictureMark& b) { return a.at < b.at; });
    return marks;
  }

  void DrawMarks() {
    for (const PictureMark& mark : picture_.marks) {
      VerticalLine(X(mark.at), top_ - 4, bottom_, "#cf222e",
                   " stroke-width=\"1.2\" stroke-dasharray=\"5 3\"");
    }
  }

  double TickStep() const {
    const double per_pixel = (picture_.end - picture_.begin) / plot_width_;
    // Not finer than the figures can say.
    const double figure_width = TextWidth(absl::StrFormat("%.6g", picture_.end), 11) + 12;
    return NiceStep(std::max(kTickGap / 2, figure_width) * per_pixel);
  }
  std::vector<double> Ticks() const {
    const double step = TickStep();
    std::vector<double> ticks;
    for (double i = std::ceil(picture_.begin / step - 1e-9); i * step <= picture_.end + 1e-9 * step;
         ++i) {
      ticks.push_back(i * step);
    }
    return ticks;
  }

  void DrawGrid() {
    for (const double tick : Ticks()) VerticalLine(X(tick), top_ - 4, bottom_, kGrid, "");
  }

  void DrawRows() {
    for (size_t i = 0; i < picture_.rows.size(); ++i) {
      const PictureRow& row = picture_.rows[i];
      const double y = RowTop(static_cast<int>(i));
      const double name_y = y + kRowHeight / 2 + (row.note.empty() ? 4.5 : -2);
      Text(kMargin, name_y, 13, kText, "", row.name);
      if (!row.note.empty()) Text(kMargin, name_y + 14, 11, kFaintText, "", row.note);
      if (!(row.end > row.first)) continue;
      has_bubbles_ = true;
      Rect(X(row.first), y, X(row.end) - X(row.first), kRowHeight, kBubble, "/>\n");
    }
  }

  void DrawBox(const PictureBox& box) {
    const Style& style = StyleOf(box.kind);
    (box.frozen ? has_frozen_ : has_kind_[static_cast<size_t>(box.kind)]) = true;
    has_ahead_ |= box.steps_ahead > 0;
    const double x = X(box.start), width = X(box.end) - x;
    // Messages are narrow: they may lie beside compute.
    const double inset = box.kind == BoxKind::kMessage ? kRowHeight / 3 : 0;
    const double y = RowTop(box.row) + inset, height = kRowHeight - 2 * inset;
    // An edge would hide what is but a few pixels wide.
    const std::string edge =
        width >= 4 ? absl::StrCat(" stroke=\"", style.edge, "\" stroke-width=\"0.8\"") : "";
    Rect(x, y, std::max(width, 0.3), height, FillOf(box), edge);
    absl::StrAppend(&body_, box.tip.empty()
                                ? "/>\n"
                                : absl::StrCat("><title>", Escape(box.tip), "</title></rect>\n"));
    if (box.frozen) {
      Rect(x, y, std::max(width, 0.3), height, "url(#frozen)", " pointer-events=\"none\"/>\n");
    }
    DrawLabel(box, x + width / 2, y + height / 2, width, height);
  }

  void DrawLabel(const PictureBox& box, double x, double y, double width, double height) {
    const std::string label = LabelOf(box);
    if (label.empty()) return;
    int size = kLabelSize;
    while (size >= kLabelSizeMin && TextWidth(label, size) + 2 > width) --size;
    if (size < kLabelSizeMin || size > height) return;
    // On hatching a halo keeps the figure legible.
    Text(x, y + size * 0.36, size, kText,
         absl::StrCat(" text-anchor=\"middle\" pointer-events=\"none\"",
                      box.frozen ? absl::StrCat(" stroke=\"", FillOf(box),
                                                "\" stroke-width=\"4\" paint-order=\"stroke\"",
                                                " stroke-linejoin=\"round\"")
                                 : ""),
         label);
  }

  void DrawAxis() {
    absl::StrAppend(&body_, "<line x1=\"", Px(left_), "\" y1=\"", Px(y_), "\" x2=\"",
                    Px(left_ + plot_width_), "\" y2=\"", Px(y_), "\" stroke=\"", kFaintText,
                    "\"/>\n");
    for (const double tick : Ticks()) {
      VerticalLine(X(tick), y_, y_ + 5, kFaintText, "");
      Text(X(tick), y_ + 18, 11, kFaintText, " text-anchor=\"middle\"",
           absl::StrFormat("%.6g", std::abs(tick) < TickStep() / 2 ? 0 : tick));
    }
    if (!picture_.unit.empty()) {
      Text(left_ + plot_width_ / 2, y_ + 35, 12, kFaintText, " text-anchor=\"middle\"",
           absl::StrCat("time in ", picture_.unit));
      y_ += 18;
    }
    y_ += 30;
  }

  struct Entry {
    absl::string_view name, fill, edge;
    bool hatched = false;
  };
  std::vector<Entry> Legend() const {
    std::vector<Entry> entries;
    for (const Style& style : kStyles) {
      if (has_kind_[static_cast<size_t>(style.kind)]) {
        entries.push_back({style.name, style.fill, style.edge});
      }
      if (style.kind == BoxKind::kForward && has_frozen_) {
        entries.push_back({"forward of a frozen stage", style.fill, style.edge, true});
      }
      if (style.kind == BoxKind::kForward && has_ahead_)
        entries.push_back({"+1: already of the next step", kAheadFill, style.edge});
    }
    if (has_bubbles_) entries.push_back({"bubble (idle)", kBubble, kBubble});
    return entries;
  }

  void DrawLegend() {
    double x = left_;
    y_ += 6;
    for (const Entry& entry : Legend()) {
      const double width = 24 + TextWidth(entry.name, 12) + 18;
      if (x > left_ && x + width > width_) {
        x = left_;
        y_ += 22;
      }
      Rect(x, y_, 18, 14, entry.fill,
           absl::StrCat(" stroke=\"", entry.edge, "\" stroke-width=\"0.8\"/>\n"));
      if (entry.hatched) Rect(x, y_, 18, 14, "url(#frozen)", "/>\n");
      Text(x + 24, y_ + 11.5, 12, kText, "", entry.name);
      x += width;
    }
    y_ += 14 + kMargin;
  }

  const Picture& picture_;
  double left_ = kMargin, plot_width_ = 0, width_ = 0;
  double y_ = 0, top_ = 0, bottom_ = 0;
  bool has_bubbles_ = false, has_frozen_ = false, has_ahead_ = false;
  std::array<bool, std::size(kStyles)> has_kind_ = {};
  std::string body_;
};

}  // namespace

std::string ToSvg(const Picture& picture) { return Drawing(picture).Draw(); }

}  // namespace smartpipe
