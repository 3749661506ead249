#include "cli/picture.h"

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace smartpipe {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

Picture Small() {
  Picture picture;
  picture.title = "a < b & \"c\"";
  picture.unit = "slots";
  picture.end = 4;
  picture.rows = {{"stage 0", "frozen", 0, 2}, {"stage 1", "", 0, 4}};
  picture.boxes = {{0, 0, 1, BoxKind::kForward, true, "0", ""},
                   {1, 1, 2, BoxKind::kForward, false, "0", "stage 1, <forward> of 0"},
                   {1, 2, 4, BoxKind::kBackward, false, "0", ""}};
  return picture;
}

int Count(const std::string& text, const std::string& word) {
  int count = 0;
  for (size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) ++count;
  return count;
}

TEST(PictureTest, EscapesTextsAndIsDeterministic) {
  const std::string svg = ToSvg(Small());
  EXPECT_EQ(svg, ToSvg(Small()));
  EXPECT_THAT(svg, HasSubstr("a &lt; b &amp; &quot;c&quot;"));
  EXPECT_THAT(svg, HasSubstr("<title>stage 1, &lt;forward&gt; of 0</title>"));
  EXPECT_THAT(svg, Not(HasSubstr("a < b")));
  EXPECT_THAT(svg, ::testing::StartsWith("<svg xmlns="));
  EXPECT_THAT(svg, ::testing::EndsWith("</svg>\n"));
  Picture control = Small();
  control.subtitle = "\x01 bell";
  EXPECT_THAT(ToSvg(control), Not(HasSubstr("\x01")));
}

TEST(PictureTest, TheLegendNamesOnlyWhatOccurs) {
  const std::string svg = ToSvg(Small());
  for (const char* name : {">forward<", ">forward of a frozen stage<", ">backward<", ">bubble"}) {
    EXPECT_EQ(Count(svg, name), 1) << name;
  }
  EXPECT_THAT(svg, Not(HasSubstr("optimizer")));
  Picture bare = Small();
  bare.boxes.resize(1);
  bare.rows[0].end = bare.rows[1].end = 0;
  EXPECT_THAT(ToSvg(bare), Not(HasSubstr("bubble")));
  EXPECT_THAT(ToSvg(bare), Not(HasSubstr(">forward<")));
}

TEST(PictureTest, ForwardsOfALaterStepAreMarked) {
  Picture picture = Small();
  EXPECT_THAT(ToSvg(picture), Not(HasSubstr(">+1: already of the next step<")));
  picture.boxes[0].steps_ahead = 2;
  const std::string svg = ToSvg(picture);
  EXPECT_EQ(Count(svg, ">+1: already of the next step<"), 1);
  EXPECT_EQ(Count(svg, ">0+2<"), 1);
  EXPECT_EQ(Count(svg, ">0<"), 2 + 1) << "one on the axis";
}

TEST(PictureTest, ALabelWithoutRoomIsLeftOut) {
  Picture picture = Small();
  picture.end = 100'000;
  picture.boxes = {{1, 0, 1, BoxKind::kForward, false, "narrow", "tip"},
                   {1, 10, 90'000, BoxKind::kForward, false, "wide", ""}};
  EXPECT_THAT(ToSvg(picture), Not(HasSubstr(">narrow<")));
  EXPECT_THAT(ToSvg(picture), HasSubstr(">wide<"));
  EXPECT_THAT(ToSvg(picture), HasSubstr("<title>tip</title>"));
}

TEST(PictureTest, CrowdedMarksLoseTheirLabelsButNotTheirLines) {
  Picture picture = Small();
  for (int i = 0; i < 50; ++i) picture.marks.push_back({4.0 * i / 50, absl::StrCat("step ", i)});
  const std::string svg = ToSvg(picture);
  EXPECT_EQ(Count(svg, "stroke-dasharray"), 50);
  EXPECT_GE(Count(svg, ">step "), 5);
  EXPECT_LE(Count(svg, ">step "), 40);
}

TEST(PictureTest, TakesAnyScale) {
  for (const double scale : {1e-9, 1.0, 1e9}) {
    Picture picture = Small();
    picture.begin = 7 * scale;
    picture.end = 11 * scale;
    for (PictureBox& box : picture.boxes) {
      box.start = 7 * scale + box.start * scale;
      box.end = 7 * scale + box.end * scale;
    }
    for (PictureRow& row : picture.rows) {
      row.first = 7 * scale;
      row.end = 11 * scale;
    }
    const std::string svg = ToSvg(picture);
    EXPECT_THAT(svg, Not(HasSubstr("nan")));
    EXPECT_THAT(svg, Not(HasSubstr("inf")));
    EXPECT_LT(svg.size(), 20'000u);
  }
}

}  // namespace
}  // namespace smartpipe
