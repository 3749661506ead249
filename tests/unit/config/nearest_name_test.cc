#include "services/base/nearest_name.h"

#include "gtest/gtest.h"

namespace smartpipe {
namespace {

TEST(EditDistanceTest, CountsEachKindOfSlipOnce) {
  EXPECT_EQ(EditDistance("", ""), 0);
  EXPECT_EQ(EditDistance("", "abc"), 3);
  EXPECT_EQ(EditDistance("abc", ""), 3);
  EXPECT_EQ(EditDistance("epochs", "epoch"), 1);    // missing
  EXPECT_EQ(EditDistance("epochs", "eepochs"), 1);  // extra
  EXPECT_EQ(EditDistance("epochs", "epacks"), 2);   // replaced
  EXPECT_EQ(EditDistance("epochs", "epcohs"), 1);   // swapped
  EXPECT_EQ(EditDistance("SGD", "sgd"), 0);         // case
}

TEST(NearestNameTest, FirstOfEqualsAndNoNames) {
  EXPECT_EQ(NearestName("smartpip", {"full", "smartpipe"}), "smartpipe");
  EXPECT_EQ(NearestName("ab", {"aa", "bb"}), "aa");
  EXPECT_EQ(NearestName("x", {}), "");
  EXPECT_EQ(NearestName(std::string(1'000'000, 'x'), {"a", "b"}), "a");
}

}  // namespace
}  // namespace smartpipe
