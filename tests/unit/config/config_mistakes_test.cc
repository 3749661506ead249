// Every mistake a person can make in a config, with the whole message: it names line and key, and
// says what to do.
#include <ostream>
#include <string>
#include <vector>

#include "absl/strings/str_join.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/config/run_config.h"

namespace smartpipe {
namespace {

struct Mistake {
  const char* name;
  std::string toml;
  std::vector<std::string> sets;
  std::string message;
};

const std::vector<Mistake>& Mistakes() {
  static const auto* const mistakes = new std::vector<Mistake>{
      // Unknown tables and keys.
      {"UnknownKey",
       "[train]\nepoch = 3\n",
       {},
       "c.toml:2: train.epoch: unknown key \"train.epoch\": did you mean \"train.epochs\"?"},
      {"UnknownKeySwapped",
       "[optim]\n\nlr = 0.1\nmometnum = 0.5\n",
       {},
       "c.toml:4: optim.mometnum: unknown key \"optim.mometnum\": did you mean "
       "\"optim.momentum\"?"},
      {"KeyInWrongTable",
       "[train]\nlr = 0.1\n",
       {},
       "c.toml:2: train.lr: unknown key \"train.lr\": did you mean \"optim.lr\"?"},
      {"KeyWithoutTable",
       "epochs = 3\n",
       {},
       "c.toml:1: epochs: unknown key \"epochs\": did you mean \"train.epochs\"?"},
      {"UnknownTable",
       "\n[trian]\nepochs = 3\n",
       {},
       "c.toml:2: trian: unknown table [trian]: did you mean [train]?"},
      {"TableInTable",
       "[train.extra]\na = 1\n",
       {},
       "c.toml:1: train.extra: unknown key \"train.extra\": did you mean \"train.epochs\"?"},
      {"UnknownSetKey",
       "",
       {"frezee.policy=full"},
       "c.toml: frezee.policy: unknown key \"frezee.policy\": did you mean \"freeze.policy\"? "
       "(from --set \"frezee.policy=full\")"},
      {"SetOfTable",
       "",
       {"train=3"},
       "c.toml: train: is a table; set one of its keys, like train.epochs (from --set "
       "\"train=3\")"},
      {"SetWithoutEquals",
       "",
       {"train.epochs"},
       "c.toml: --set \"train.epochs\" must be table.key=value, like train.epochs=3"},
      {"SetWithoutKey",
       "",
       {"=3"},
       "c.toml: --set \"=3\" must be table.key=value, like train.epochs=3"},

      // Not TOML.
      {"Unterminated", "[train]\nepochs = \n", {}, "c.toml:2: not valid TOML: "},
      {"BareWord", "[model]\nname = convnet\n", {}, "c.toml:2: not valid TOML: "},
      {"Duplicate", "[train]\nepochs = 1\nepochs = 2\n", {}, "c.toml:3: not valid TOML: "},
      {"MultiLineString",
       "[data]\npath = \"\"\"\n/data\"\"\"\n",
       {},
       "c.toml:2: multi-line strings are not used here; write it on one line"},
      {"DeepNesting",
       "[pipeline]\ncuts = [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\n",
       {},
       "c.toml:2: nested too deeply; no key needs more than two levels"},
      {"BadSetList", "", {"pipeline.cuts=[1, 2"}, "c.toml: pipeline.cuts: not a TOML value: "},

      // Wrong types.
      {"StringForInteger",
       "[train]\nepochs = \"3\"\n",
       {},
       "c.toml:2: train.epochs: expected an integer, 1 .. 1000000, got the string \"3\"; write it "
       "without quotes"},
      {"WordForInteger",
       "",
       {"train.epochs=many"},
       "c.toml: train.epochs: expected an integer, 1 .. 1000000, got the string \"many\" "
       "(from --set \"train.epochs=many\")"},
      {"FloatForInteger",
       "[train]\nbatch_size = 64.0\n",
       {},
       "c.toml:2: train.batch_size: expected an integer, 1 .. 1048576, got the number 64; write "
       "64"},
      {"BooleanForInteger",
       "[worker]\nthreads = true\n",
       {},
       "c.toml:2: worker.threads: expected an integer, 1 .. 256, got the boolean true"},
      {"StringForNumber",
       "[optim]\nlr = \"fast\"\n",
       {},
       "c.toml:2: optim.lr: expected a number, > 0, <= 1000, got the string \"fast\""},
      {"IntegerForBoolean",
       "[rebalance]\nenabled = 1\n",
       {},
       "c.toml:2: rebalance.enabled: expected a boolean, got the integer 1"},
      {"IntegerForString",
       "[data]\npath = 7\n",
       {},
       "c.toml:2: data.path: expected a string, got the integer 7"},
      {"IntegerForChoice",
       "[optim]\nname = 1\n",
       {},
       "c.toml:2: optim.name: expected one of sgd, adamw, got the integer 1"},
      {"IntegerForList",
       "[pipeline]\ncuts = 3\n",
       {},
       "c.toml:2: pipeline.cuts: expected a list of integers, each 1 .. 4095, got the integer 3"},
      {"StringInList",
       "[pipeline]\nstages = 3\ncuts = [1, \"2\"]\n",
       {},
       "c.toml:3: pipeline.cuts: expected a list of integers, each 1 .. 4095, got an entry that is "
       "the string \"2\""},
      {"FlatSchedule",
       "[freeze]\npolicy = \"schedule\"\nschedule = [100, 2]\n",
       {},
       "c.toml:3: freeze.schedule: expected a list of [step, frontier] like [[100, 1], [200, 3]], "
       "got an entry that "
       "is the integer 100"},
      {"TripleSchedule",
       "[freeze]\npolicy = \"schedule\"\nschedule = [[100, 2, 3]]\n",
       {},
       "c.toml:3: freeze.schedule: expected a list of [step, frontier] like [[100, 1], [200, 3]], "
       "got an entry that "
       "is a list of 3"},
      {"TableAsValue",
       "train = 3\n",
       {},
       "c.toml:1: train: expected a table, written [train], got the integer 3"},
      {"ArrayOfTables",
       "[[train]]\nepochs = 3\n",
       {},
       "c.toml:1: train: expected a table, written [train], got a list of 1"},
      {"Date",
       "[train]\nseed = 2024-01-01\n",
       {},
       "c.toml:2: train.seed: expected an integer, >= 0, got a date or time"},

      // Out of range.
      {"ZeroEpochs",
       "[train]\nepochs = 0\n",
       {},
       "c.toml:2: train.epochs: 0 is out of range, expected an integer, 1 .. 1000000"},
      {"NegativeSeed",
       "[train]\nseed = -1\n",
       {},
       "c.toml:2: train.seed: -1 is out of range, expected an integer, >= 0"},
      {"NegativeMaxSteps",
       "",
       {"train.max_steps=-5"},
       "c.toml: train.max_steps: -5 is out of range, expected an integer, 0 .. 1000000000 "
       "(from --set \"train.max_steps=-5\")"},
      {"ZeroStages",
       "[pipeline]\nstages = 0\n",
       {},
       "c.toml:2: pipeline.stages: 0 is out of range, expected an integer, 1 .. 256"},
      {"ZeroRate",
       "[optim]\nlr = 0\n",
       {},
       "c.toml:2: optim.lr: 0 is out of range, expected a number, > 0, <= 1000"},
      {"NotANumber",
       "[optim]\nlr = nan\n",
       {},
       "c.toml:2: optim.lr: nan is not a finite number, expected a number, > 0, <= 1000"},
      {"Infinite",
       "[freeze]\ntau = inf\n",
       {},
       "c.toml:2: freeze.tau: inf is not a finite number, expected a number, > 0, <= 1000"},
      {"FullMomentum",
       "[optim]\nmomentum = 1.0\n",
       {},
       "c.toml:2: optim.momentum: 1 is out of range, expected a number, >= 0, < 1"},
      {"ZeroTau",
       "[freeze]\ntau = 0.0\n",
       {},
       "c.toml:2: freeze.tau: 0 is out of range, expected a number, > 0, <= 1000"},
      {"BigLambda",
       "[freeze]\nlambda_max = 1.5\n",
       {},
       "c.toml:2: freeze.lambda_max: 1.5 is out of range, expected a number, > 0, <= 1"},
      {"ZeroMinTrainable",
       "[freeze]\nmin_trainable = 0\n",
       {},
       "c.toml:2: freeze.min_trainable: 0 is out of range, expected an integer, 1 .. 4096"},
      {"ZeroHits",
       "[freeze]\nhits = 0\n",
       {},
       "c.toml:2: freeze.hits: 0 is out of range, expected an integer, 1 .. 16"},
      {"ZeroCut",
       "[pipeline]\ncuts = [0]\n",
       {},
       "c.toml:2: pipeline.cuts: entry 0 is out of range, expected a list of integers, each 1 .. "
       "4095"},
      {"NegativeScheduleStep",
       "[freeze]\npolicy = \"schedule\"\nschedule = [[-1, 2]]\n",
       {},
       "c.toml:3: freeze.schedule: entry -1 is out of range, expected a list of [step, frontier], "
       "each 0 .. "
       "1000000000"},
      {"ZeroTimeout",
       "decision_timeout_s = 0\n",
       {},
       "c.toml:1: decision_timeout_s: 0 is out of range, expected a number, > 0, <= 86400"},
      {"LineBreakInPath",
       "[data]\npath = \"a\\nb\"\n",
       {},
       "c.toml:2: data.path: \"a\\u000Ab\" holds a control character; remove it"},

      // Unknown names.
      {"Policy",
       "[freeze]\npolicy = \"smartpip\"\n",
       {},
       "c.toml:2: freeze.policy: unknown value \"smartpip\": did you mean \"smartpipe\"? (full, "
       "fixed, linear, "
       "smartpipe, schedule)"},
      {"Schedule",
       "",
       {"pipeline.schedule=1f2b"},
       "c.toml: pipeline.schedule: unknown value \"1f2b\": did you mean \"1f1b\"? (gpipe, 1f1b, "
       "interleaved_1f1b) "
       "(from --set \"pipeline.schedule=1f2b\")"},
      {"Model",
       "[model]\nname = \"resnet\"\n",
       {},
       "c.toml:2: model.name: unknown value \"resnet\": did you mean \"resnet18\"? (convnet, "
       "resnet18, blocknet)"},
      {"Dataset",
       "[data]\nname = \"fashion-mnist\"\n",
       {},
       "c.toml:2: data.name: unknown value \"fashion-mnist\": did you mean \"fashion_mnist\"? "
       "(fashion_mnist, "
       "synthetic)"},
      {"Optimizer",
       "[optim]\nname = \"adam\"\n",
       {},
       "c.toml:2: optim.name: unknown value \"adam\": did you mean \"adamw\"? (sgd, adamw)"},
      {"Statistic",
       "[freeze]\nstatistic = \"norms\"\n",
       {},
       "c.toml:2: freeze.statistic: unknown value \"norms\": did you mean \"norm\"? (norm, vector, "
       "corrected)"},

      // Impossible combinations.
      {"BatchNotMultiple",
       "[train]\nbatch_size = 60\nmicrobatches = 8\n",
       {},
       "c.toml:2: train.batch_size: 60 is not a multiple of train.microbatches = 8; give 56 or 64"},
      {"BatchBelowMicrobatches",
       "[train]\nbatch_size = 4\nmicrobatches = 8\n",
       {},
       "c.toml:2: train.batch_size: 4 is not a multiple of train.microbatches = 8; give 8"},
      {"BatchAgainstSet",
       "[train]\nbatch_size = 64\n",
       {"train.microbatches=7"},
       "c.toml:2: train.batch_size: 64 is not a multiple of train.microbatches = 7; give 63 or 70 "
       "(from --set \"train.microbatches=7\")"},
      {"TooFewCuts",
       "[pipeline]\nstages = 4\ncuts = [2]\n",
       {},
       "c.toml:3: pipeline.cuts: has 1 entry but pipeline.stages = 4 needs 3; give 3, or [] to let "
       "the planner "
       "choose"},
      {"CutsDescend",
       "[pipeline]\nstages = 3\ncuts = [4, 2]\n",
       {},
       "c.toml:3: pipeline.cuts: entries must ascend, but 2 follows 4; each stage needs at least "
       "one layer"},
      {"CutsEqual",
       "[pipeline]\nstages = 3\ncuts = [2, 2]\n",
       {},
       "c.toml:3: pipeline.cuts: entries must ascend, but 2 follows 2; each stage needs at least "
       "one layer"},
      {"CutBehindModel",
       "[pipeline]\ncuts = [7]\n",
       {},
       "c.toml:2: pipeline.cuts: entry 7 is behind the end of model convnet, which has 7 layers; "
       "give at most 6"},
      {"MoreStagesThanLayers",
       "[pipeline]\nstages = 8\n",
       {},
       "c.toml:2: pipeline.stages: 8 stages need as many layers, but model convnet has 7 layers; "
       "give at most 7"},
      {"ScheduleMissing",
       "[freeze]\npolicy = \"schedule\"\n",
       {},
       "c.toml:2: freeze.policy: policy schedule needs freeze.schedule, a list like [[100, 1], "
       "[200, 3]]"},
      {"ScheduleOfOtherPolicy",
       "[freeze]\npolicy = \"full\"\nschedule = [[10, 1]]\n",
       {},
       "c.toml:3: freeze.schedule: is only for policy schedule, but freeze.policy = full; remove "
       "the list "
       "(freeze.schedule=[]) or set freeze.policy=schedule"},
      {"ScheduleStepsDescend",
       "[freeze]\npolicy = \"schedule\"\nschedule = [[20, 1], [10, 2]]\n",
       {},
       "c.toml:3: freeze.schedule: steps must ascend, but 10 follows 20; sort the list"},
      {"ScheduleFrontiersDescend",
       "[freeze]\npolicy = \"schedule\"\nschedule = [[10, 2], [20, 1]]\n",
       {},
       "c.toml:3: freeze.schedule: frontiers must ascend, but 1 follows 2; a schedule only freezes "
       "more"},
      {"ScheduleOffInterval",
       "[freeze]\npolicy = \"schedule\"\ninterval_steps = 10\nschedule = [[20, 1], [25, 2]]\n",
       {},
       "c.toml:4: freeze.schedule: step 25 is not a multiple of freeze.interval_steps = 10; give "
       "20 or 30"},
      {"ScheduleFreezesHead",
       "[freeze]\npolicy = \"schedule\"\nschedule = [[10, 7]]\n",
       {},
       "c.toml:3: freeze.schedule: cannot freeze up to layer 7: model convnet has 7 layers and "
       "freeze.min_trainable = 1 of them stay trainable; give at most 6"},
      {"FixedFreezesAll",
       "[freeze]\npolicy = \"fixed\"\nfixed_layers = 7\n",
       {},
       "c.toml:3: freeze.fixed_layers: cannot freeze 7: model convnet has 7 layers and "
       "freeze.min_trainable = 1 of "
       "them stay trainable; give at most 6"},
      {"MinTrainableAboveModel",
       "[freeze]\nmin_trainable = 8\n",
       {},
       "c.toml:2: freeze.min_trainable: 8 is more than there are: model convnet has 7 layers"},
      {"LimitBelowBatch",
       "[data]\nlimit_train = 32\n",
       {},
       "c.toml:2: data.limit_train: 32 samples are less than one batch of train.batch_size = 64; "
       "give at least 64, "
       "or 0 for all"},
      {"MomentumOfAdamw",
       "[optim]\nname = \"adamw\"\nmomentum = 0.5\n",
       {},
       "c.toml:3: optim.momentum: adamw has no momentum (its betas are 0.9 and 0.999); remove the "
       "key or give 0"},
      {"TlsWithoutKey",
       "[tls]\nca = \"ca.crt\"\ncert = \"all.crt\"\n",
       {},
       "c.toml: tls.key: is not given, but TLS needs tls.ca, tls.cert and tls.key; give all three "
       "or none"},
      {"PartialWithoutWeights",
       "[model]\nallow_partial = true\n",
       {},
       "c.toml:2: model.allow_partial: has no effect without model.weights; name the file or "
       "remove the key"},
  };
  return *mistakes;
}

void PrintTo(const Mistake& mistake, std::ostream* out) { *out << mistake.name; }

class ConfigMistakeTest : public testing::TestWithParam<Mistake> {};

TEST_P(ConfigMistakeTest, IsOneClearMessage) {
  const Mistake& mistake = GetParam();
  const auto config = ParseRunConfig(mistake.toml, "c.toml", mistake.sets);
  ASSERT_FALSE(config.ok());
  EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument);
  const std::string message(config.status().message());
  if (mistake.message.back() == ' ') {  // what follows is the TOML library's own wording
    EXPECT_THAT(message, testing::StartsWith(mistake.message));
    EXPECT_GT(message.size(), mistake.message.size());
  } else {
    EXPECT_EQ(message, mistake.message);
  }
}

INSTANTIATE_TEST_SUITE_P(All, ConfigMistakeTest, testing::ValuesIn(Mistakes()),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(ConfigMistakesTest, AllAreReportedAtOnceInTheOrderOfLines) {
  const auto config = ParseRunConfig(
      "[train]\nepochs = 0\nbatch = 3\n[optim]\nlr = \"x\"\n[train2]\n[freeze]\npolicy = "
      "\"schedule\"\n",
      "c.toml", {"worker.threads=0"});
  ASSERT_FALSE(config.ok());
  EXPECT_EQ(config.status().message(),
            "c.toml:2: train.epochs: 0 is out of range, expected an integer, 1 .. 1000000\n"
            "c.toml:3: train.batch: unknown key \"train.batch\": did you mean \"train.epochs\"?\n"
            "c.toml:5: optim.lr: expected a number, > 0, <= 1000, got the string \"x\"\n"
            "c.toml:6: train2: unknown table [train2]: did you mean [train]?\n"
            "c.toml:8: freeze.policy: policy schedule needs freeze.schedule, a list like [[100, "
            "1], [200, 3]]\n"
            "c.toml: worker.threads: 0 is out of range, expected an integer, 1 .. 256 "
            "(from --set \"worker.threads=0\")");
}

TEST(ConfigMistakesTest, ABrokenRuleNamesTheSetWordsBehindIt) {
  const auto message = [](const std::string& toml, const std::vector<std::string>& sets) {
    return std::string(ParseRunConfig(toml, "c.toml", sets).status().message());
  };
  // The key itself; of several words the last counts; what is not to blame is not named.
  EXPECT_EQ(
      message("", {"pipeline.stages=4", "pipeline.stages=9", "train.epochs=3"}),
      "c.toml: pipeline.stages: 9 stages need as many layers, but model convnet has 7 layers; "
      "give at most 7 (from --set \"pipeline.stages=9\")");
  // pipeline.stages is no part of the name pipeline.stages_per_worker.
  EXPECT_EQ(message("[pipeline]\nstages = 4\nstages_per_worker = 2\n",
                    {"pipeline.stages=4", "pipeline.schedule=gpipe"}),
            "c.toml: pipeline.schedule: gpipe runs one stage on each worker, but "
            "pipeline.stages_per_worker = 2; set it to 1, or pipeline.schedule = interleaved_1f1b "
            "(from --set \"pipeline.schedule=gpipe\")");
}

TEST(ConfigMistakesTest, ACureIsNoMistakeItself) {
  const auto problems = CheckRunConfig(
      "[pipeline]\nstages = 7\nstages_per_worker = 3\nschedule = \"interleaved_1f1b\"\n", {},
      nullptr);
  ASSERT_EQ(problems.size(), 1u);  // convnet has 7 layers, so not 9 stages
  EXPECT_THAT(problems[0].message, testing::EndsWith("; give 6"));
}

TEST(ConfigMistakesTest, ARefusedValueSilencesTheRulesOverIt) {
  const auto problems = CheckRunConfig("[train]\nbatch_size = -3\nmicrobatches = 2\n", {}, nullptr);
  ASSERT_EQ(problems.size(), 1u);
  EXPECT_EQ(problems[0].line, 2);
  EXPECT_EQ(problems[0].key, "train.batch_size");
}

TEST(ConfigMistakesTest, ManyProblemsAreCounted) {
  std::string toml = "[train]\n";
  for (int i = 0; i < 250; ++i) toml += "k" + std::to_string(i) + " = 1\n";
  const auto problems = CheckRunConfig(toml, {}, nullptr);
  ASSERT_EQ(problems.size(), 101u);
  EXPECT_EQ(problems.back().message, "and 150 more problems");
}

}  // namespace
}  // namespace smartpipe
