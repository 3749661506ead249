// Plays the commands of the core's scenario files against one Coordinator.
//
//   run KEY=VALUE...    a new run. Config: stages microbatches schedule cuts statistic policy tau
//                       lambda warmup hits min_trainable fixed plan (step:frontier,...) rebalance
//                       min_gain recovery restarts. Length: steps epoch interval. Model: layers (a
//                       number).
//   layer I f=MS d=MS w=MS state=BYTES name=N
//                       changes a layer from now on, in joins and in reports
//   join ID [incarnation=N] [steps=N] [layers=N] [speed=X] [rename=I] [state=BYTES of layer 0]
//        [checkpoints=STEP,STEP,...]
//   ready               joins w0, w1, ... until the run starts, options as join
//   report ID interval=I [eta=E,E,...] [generation=G] [epoch=E] [spoil=WHAT]
//          [drain_ms=MS move_ms=MS moved_bytes=N]
//                       eta: one per layer of the model, also nan and inf; missing ones are 1
//   report all ...      the same from every worker
//   lost ID [incarnation=N] WORDS
//   fail ID [generation=G] WORDS
//   fault ID [generation=G] WORDS
//   finish ID [generation=G]
//   order freeze|unfreeze frontier=N | rebalance [cuts=..] | policy [policy=..] [tau=..] [plan=..]
//   |
//         pause | resume | checkpoint | drain worker=W | stop [at=once]
//         [id=r1] [who=alice] [step=S] WORDS
//   preview ...         a dry run of an order
//   resume [step=S] [stages=N] [schedule=NAME] [rebalance=on|off] [cuts=...]
//   state               what people can ask for
//
// Each command that the core refuses is checked to have left the state as it was.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "freeze_service/core/coordinator.h"
#include "tests/testutil/scenario.h"

namespace smartpipe::testutil {

class CorePlayer {
 public:
  std::string Play(const ScenarioCommand& command);

 private:
  std::string Run(const ScenarioCommand& command);
  std::string Resume(const ScenarioCommand& command);
  std::string ChangeLayer(const ScenarioCommand& command);
  std::string Join(const ScenarioCommand& command, const std::string& id);
  std::string Ready(const ScenarioCommand& command);
  std::string Report(const ScenarioCommand& command);
  OrderGiven MakeOrder(const ScenarioCommand& command) const;
  std::string Preview(const ScenarioCommand& command) const;
  std::string State() const;
  IntervalReported MakeOneReport(const ScenarioCommand& command, const std::string& id);
  /// Applies the event; on an error checks that nothing changed.
  std::string Apply(const Event& event);
  int32_t num_layers() const { return static_cast<int32_t>(layers_.size()); }

  CoordinatorOptions options_;
  std::unique_ptr<Coordinator> coordinator_;
  RunLength length_;
  std::vector<LayerInfo> layers_;
  std::vector<WorkerId> members_;
};

}  // namespace smartpipe::testutil
