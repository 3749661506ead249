#include "cli/config_notes.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace smartpipe {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

CheckedConfig Checked(int64_t num_samples) {
  CheckedConfig checked;
  checked.config.train.epochs = 2;
  checked.shape = MakeRunShape(checked.config, num_samples).value();
  return checked;
}

TEST(HeadlineTest, NamesTheWorkersWhereTheyAreFewer) {
  CheckedConfig checked = Checked(640);
  EXPECT_EQ(Headline(checked),
            "convnet on fashion_mnist, 2 stages (1f1b), policy smartpipe, seed 1; 20 steps, 10 an "
            "epoch, decisions every 2 steps");
  checked.config.pipeline.stages = 4;
  checked.config.pipeline.stages_per_worker = 2;
  checked.config.pipeline.schedule = "interleaved_1f1b";
  EXPECT_THAT(Headline(checked), HasSubstr("4 stages on 2 workers (interleaved_1f1b)"));
}

TEST(ConfigNotesTest, MoreThreadsThanCores) {
  CheckedConfig checked = Checked(640);
  EXPECT_THAT(ConfigNotes(checked, 2), IsEmpty());
  EXPECT_THAT(ConfigNotes(checked, 0), IsEmpty());
  checked.config.worker.threads = 2;
  EXPECT_THAT(ConfigNotes(checked, 2),
              ElementsAre(HasSubstr("2 workers with 2 compute threads each share this machine's 2 "
                                    "cores")));
}

TEST(ConfigNotesTest, ARunInWhichNothingCanFreeze) {
  // 10 intervals; the evidence of interval 2 freezes at boundary 4.
  CheckedConfig checked = Checked(640);
  ASSERT_EQ(checked.shape->num_boundaries, 10);
  checked.config.freeze.warmup_intervals = 7;  // boundary 9, the last
  EXPECT_THAT(ConfigNotes(checked, 0), IsEmpty());
  checked.config.freeze.hits = 2;
  EXPECT_THAT(ConfigNotes(checked, 0), ElementsAre(HasSubstr("after 10 intervals")));
  checked.config.freeze.policy = "full";
  EXPECT_THAT(ConfigNotes(checked, 0), IsEmpty());
  checked.config.freeze.policy = "fixed";
  checked.config.freeze.fixed_layers = 0;
  EXPECT_THAT(ConfigNotes(checked, 0), ElementsAre(HasSubstr("fixed_layers")));
  checked.config.freeze.policy = "linear";
  EXPECT_THAT(ConfigNotes(checked, 0), IsEmpty());
  checked.config.train.epochs = 1;
  checked.shape = MakeRunShape(checked.config, 640).value();
  EXPECT_THAT(ConfigNotes(checked, 0), ElementsAre(HasSubstr("second epoch")));
}

}  // namespace
}  // namespace smartpipe
