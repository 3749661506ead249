#include "cli/run_views.h"

#include <cmath>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace smartpipe {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

RunView TrainingRun() {
  RunView view;
  v1::Run& run = view.run;
  run.set_run_id("a");
  run.set_state(v1::RUN_STATE_RUNNING);
  run.set_message("2 workers train 7 layers");
  run.set_generation(1);
  run.set_step(125);
  run.set_num_steps(1000);
  run.set_steps_per_epoch(250);
  run.set_batch_size(64);
  run.set_loss(0.5);
  run.set_samples_per_second(1000);
  for (int i = 0; i < 7; ++i) run.add_layers();
  v1::WorkerStatus w0;
  w0.set_worker_id("w0");
  w0.add_stages(0);
  for (int layer : {0, 1, 2, 5}) w0.add_layers(layer);
  w0.set_connected(true);
  w0.set_step_s(0.040);
  w0.set_work_s(0.030);
  view.workers = {w0};
  view.plan.mutable_plan()->set_frontier(2);
  view.plan.mutable_plan()->set_schedule("1f1b");
  view.plan.set_stages("[0,2|4) [4,7)");
  v1::Verdict verdict;
  verdict.set_step(124);
  verdict.set_boundary(2);
  verdict.set_reason("keep: nothing to say");
  view.verdicts = {verdict};
  return view;
}

TEST(RunViews, StatusSaysWhatTheRunDoesAndWhoWaits) {
  const std::string text = StatusText(TrainingRun(), 200);
  EXPECT_THAT(text, HasSubstr("run a: training, generation 1, step 125 of 1000 (epoch 0.50), loss "
                              "0.5000, 1000 samples/s, 56.0 s to go"));
  EXPECT_THAT(text, HasSubstr("layers [0,2|4) [4,7), frontier 2 of 7, 1f1b"));
  EXPECT_THAT(text, HasSubstr("0-2,5  40.0 ms  30.0 ms  25 %"));
  EXPECT_THAT(text,
              HasSubstr("last decision: step 124, boundary 2, keep, frontier 0: keep: nothing"));
  EXPECT_THAT(text, Not(HasSubstr("open orders")));
}

TEST(RunViews, StatusSaysWhyItStands) {
  RunView view = TrainingRun();
  view.run.set_paused(true);
  view.run.set_message("paused from step 124 on, ordered by alice");
  v1::Order order;
  order.set_text("Pause");
  order.set_step(124);
  order.set_request_id("look");
  order.set_who("alice");
  view.orders = {order};
  const std::string text = StatusText(view, 200);
  EXPECT_THAT(text, HasSubstr("run a: paused"));
  EXPECT_THAT(text, Not(HasSubstr("to go")));
  EXPECT_THAT(text, HasSubstr("paused from step 124 on, ordered by alice"));
  EXPECT_THAT(text, HasSubstr("Pause at step 124 (request look, by alice)"));
}

TEST(RunViews, NothingIsWiderThanTheTerminalButTables) {
  RunView view = TrainingRun();
  view.workers.clear();
  view.verdicts.back().set_reason(std::string(100, 'a') + " " + std::string(30, 'b'));
  view.run.set_message("one two three four five six seven eight nine ten eleven twelve thirteen");
  for (const int width : {60, 79}) {
    std::string text = StatusText(view, width), line;
    for (const char c : text) {
      if (c != '\n') {
        line += c;
        continue;
      }
      if (line.find(std::string(100, 'a')) == std::string::npos) {
        EXPECT_LE(line.size(), static_cast<size_t>(width)) << line;
      }
      line.clear();
    }
  }
}

TEST(RunViews, BeforeTheStart) {
  RunView view;
  view.run.set_run_id("a");
  view.run.set_state(v1::RUN_STATE_WAITING);
  view.run.set_message("0 of 2 workers; waiting for 2");
  EXPECT_EQ(StatusText(view, 100), "run a: waiting, generation 0\n0 of 2 workers; waiting for 2\n");
  EXPECT_THAT(LayersText({}, 100), HasSubstr("has not started"));
  EXPECT_EQ(DecisionsText({}, 100), "No decision yet.\n");
}

TEST(RunViews, LayersSaySinceWhenAndWhyTheyAreFrozen) {
  v1::LayerStatus frozen, trains;
  frozen.set_name("conv1");
  frozen.set_frozen(true);
  frozen.set_frozen_since_step(96);
  frozen.set_frozen_reason("freezes layers 0-0: ordered by alice");
  frozen.set_worker_id("w0");
  trains.set_layer(1);
  trains.set_name("conv2");
  trains.set_eta(std::nan(""));
  const std::string text = LayersText({frozen, trains}, 200);
  EXPECT_THAT(text, HasSubstr("frozen at 96"));
  EXPECT_THAT(text, HasSubstr("trains    -"));
  EXPECT_THAT(text, HasSubstr("at step 96: freezes layers 0-0: ordered by alice"));
}

TEST(RunViews, AnOrderSaysWhereItTakesEffectAndADryRunWhatWouldHappen) {
  v1::OrderResult result;
  result.mutable_order()->set_text("FreezeLayers 3");
  result.mutable_order()->set_step(40);
  result.mutable_order()->set_request_id("r1");
  EXPECT_EQ(OrderText(result, false, 100),
            "FreezeLayers 3 is carried out at step 40 (request r1).\n");
  v1::Verdict& preview = *result.mutable_preview();
  preview.set_reason("freezes layers 0-2");
  preview.set_predicted_old_step_s(0.040);
  preview.set_predicted_step_s(0.030);
  preview.set_even_step_s(0.025);
  preview.set_moved_bytes(1000);
  preview.add_moves()->set_from_stage(1);
  EXPECT_EQ(OrderText(result, true, 100),
            "FreezeLayers 3 would be carried out at step 40.\n"
            "By what is known now: freezes layers 0-2\n"
            "Predicted step: 40.0 ms -> 30.0 ms, at best 25.0 ms.\n"
            "Moves 1 layer, 1000 bytes: 0 from stage 1 to 0.\n");
}

}  // namespace
}  // namespace smartpipe
