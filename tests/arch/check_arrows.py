#!/usr/bin/env python3
"""Checks which folder includes what: the arrows of the design, as one table.

Usage: check_arrows.py [--root DIR]     every forbidden include as "file:line: message"; exit code 1
       check_arrows.py --self-test      builds a bad tree and expects each mistake to be found

It reads #include lines and, in pure folders, a few names that read a clock, start a thread or draw
random numbers. It does not follow includes: each folder answers for what it names itself.
"""
import argparse
import pathlib
import re
import sys
import tempfile

# Libraries with a rule of their own. Everything else (std, absl, sqlite, ...) is free outside the
# pure folders.
LIBRARIES = {
    "cuda": r"(cuda|nccl|cublas|cudnn)[A-Za-z0-9_]*\.h$|(c10|ATen)/(cuda|cudnn)/",
    "c10d": r"(torch/csrc/distributed|gloo)/",
    "torch": r"(torch|ATen|c10|caffe2)/",
    "grpc": r"(grpc|grpcpp|grpc\+\+)/|.*\.grpc\.pb\.h$",
    "protobuf": r"google/protobuf/|.*\.pb\.h$",
    "spdlog": r"(spdlog|fmt)/",
}

BASE = ["services/base"]
SERVICES = ["services/base", "services/obs", "services/rpc", "services/config"]
WIRE = ["protobuf", "grpc"]
LOG = ["spdlog"]

# folder: (folders that it may include besides itself, libraries with a rule that it may include).
# The longest matching folder counts. A file directly in worker/ or freeze_service/ is a main program.
ARROWS = {
    "services/base": ([], []),
    "services/obs": (BASE, LOG),
    # pipeline: the one translation between plans and their messages, for both sides of the wire.
    # obs: what is refused is logged where it is refused.
    "services/rpc": (BASE + ["services/obs", "pipeline"], WIRE + LOG),
    "services/config": (BASE, []),
    "services/parameter_service": (BASE + ["services/obs", "services/rpc"], WIRE + LOG),
    "pipeline": (BASE, []),
    "freeze_service/core": (BASE + ["pipeline"], []),
    # config: a run's settings are stored as their text.
    "freeze_service/store": (BASE + ["services/obs", "services/config", "pipeline", "freeze_service/core"], LOG),
    "freeze_service/rpc": (SERVICES + ["pipeline", "freeze_service/core", "freeze_service/store"], WIRE + LOG),
    "freeze_service": (SERVICES + ["pipeline", "freeze_service"], WIRE + LOG),
    "worker/data": (SERVICES + ["pipeline"], ["torch"] + LOG),
    "worker/model": (SERVICES + ["pipeline", "worker/data"], ["torch"] + LOG),
    "worker/comm": (SERVICES + ["pipeline"], ["torch", "c10d"] + LOG),
    # The plug-in: nobody includes it, and no other folder may name what it is there to hide.
    "worker/cuda": (SERVICES + ["worker/comm"], ["torch", "cuda"] + LOG),
    "worker/control": (SERVICES + ["services/parameter_service", "pipeline"], WIRE + LOG),
    # Of control the engine sees the interfaces ControlPlane and CheckpointSink, never the gRPC behind them.
    "worker/engine": (SERVICES + ["pipeline", "worker/data", "worker/model", "worker/comm", "worker/control"],
                      ["torch"] + LOG),
    "worker": (SERVICES + ["services/parameter_service", "pipeline", "worker"], WIRE + LOG),
    # core and store: `smartpipe replay` reads a run's log, without a service.
    "cli": (SERVICES + ["services/parameter_service", "pipeline", "freeze_service/core", "freeze_service/store"], WIRE + LOG),
    "tests": (SERVICES + ["services/parameter_service", "pipeline", "freeze_service", "worker", "cli", "tests"],
              list(LIBRARIES)),
}

# Same input, same output: these folders have no door to the outside world. Of foreign headers they
# include the C++ standard library and abseil only, without what is listed here.
PURE = ["pipeline", "freeze_service/core"]
IMPURE_INCLUDES = (
    r"(thread|mutex|shared_mutex|condition_variable|future|atomic|semaphore|latch|barrier|stop_token)$"
    r"|pthread\.h$|(chrono|ctime)$|(time|sys/time|unistd)\.h$|(random|fstream|filesystem)$"
    r"|absl/(synchronization|random)/|absl/time/clock\.h$")
IMPURE_NAMES = r"\babsl::(Now|SleepFor|GetCurrentTimeNanos)\b|\b(std::)?(rand|getenv|clock_gettime)\s*\("

PROJECT = ["services", "pipeline", "freeze_service", "worker", "cli", "tests"]
INCLUDE = re.compile(r'\s*#\s*include\s*([<"])([^>"]+)[>"]')


def folder_of(path, table=tuple(ARROWS)):
    """The row of the table that a project path belongs to, or None."""
    rows = [row for row in table if path == row or path.startswith(row + "/")]
    return max(rows, key=len) if rows else None


def without_comments(text):
    """The text with comments blanked out and line numbers kept; string literals are not parsed."""
    text = re.sub(r"/\*.*?\*/", lambda match: "\n" * match.group().count("\n"), text, flags=re.S)
    return re.sub(r"//[^\n]*", "", text)


def allowed(target, permitted):
    return any(target == folder or target.startswith(folder + "/") for folder in permitted)


def problems_of(path, text):
    """(line, message) of every forbidden include of one file; path is relative to the root."""
    row = folder_of(path)
    if row is None:
        return
    folders, libraries = ARROWS[row]
    pure = folder_of(path, PURE) is not None
    for number, line in enumerate(without_comments(text).splitlines(), 1):
        if pure and re.search(IMPURE_NAMES, line):
            yield number, f"{row} is pure: no clock, thread, random source or environment here"
        match = INCLUDE.match(line)
        if not match:
            continue
        header = match.group(2)
        library = next((name for name, pattern in LIBRARIES.items() if re.match(pattern, header)), None)
        if library:
            if library not in libraries:
                yield number, f"{row} must not include {library} ({header})"
            elif library == "grpc" and "protobuf" not in libraries:
                yield number, f"{row} must not include protobuf ({header})"
        elif header.split("/")[0] in PROJECT and "/" in header:
            if header == "services/base/version.h":
                target = "services/base"
            else:
                target = folder_of(header) or header
            if target != row and not allowed(target, folders):
                yield number, f"{row} must not include {target} ({header}); allowed: {', '.join(folders) or 'nothing'}"
        elif pure:
            if re.match(IMPURE_INCLUDES, header):
                yield number, f"{row} is pure and must not include {header}"
            elif "/" in header and not header.startswith("absl/"):
                yield number, f"{row} is pure: only the standard library and abseil, not {header}"


def check(root):
    found = []
    for top in PROJECT:
        for path in sorted((root / top).rglob("*")):
            if path.suffix in (".h", ".cc", ".inc"):
                name = path.relative_to(root).as_posix()
                text = path.read_text(encoding="utf-8")
                found += [f"{name}:{number}: {message}" for number, message in problems_of(name, text)]
    return found


# file: text of one line each; those in BAD must be reported, those in GOOD must not.
BAD = {
    "services/base/a.h": ['#include "services/obs/log.h"', '#include "pipeline/plan.h"', "#include <spdlog/spdlog.h>"],
    "services/obs/a.h": ['#include "services/rpc/server.h"'],
    "services/config/a.cc": ["#include <spdlog/spdlog.h>", '#include "smartpipe/v1/a.pb.h"', '#include "services/obs/log.h"'],
    "services/rpc/a.cc": ['#include "freeze_service/core/coordinator.h"', '#include "services/config/run_config.h"'],
    "services/parameter_service/a.cc": [
        '#include "services/config/run_config.h"', '#include "freeze_service/core/coordinator.h"', "#include <torch/torch.h>"],
    "pipeline/a.cc": [
        "#include <thread>", "#include <mutex>", "#include <chrono>", "# include <random>", "#include <atomic>",
        '#include "absl/time/clock.h"', '#include "absl/synchronization/mutex.h"', '#include "absl/random/random.h"',
        "absl::Time t = absl::Now();", "int r = rand();", "#include <ATen/ATen.h>", "#include <grpcpp/grpcpp.h>",
        '#include "google/protobuf/message.h"', '#include "smartpipe/v1/a.pb.h"', '#include "spdlog/spdlog.h"',
        '#include "nlohmann/json.hpp"', '#include "freeze_service/core/coordinator.h"', '#include "services/obs/log.h"'],
    "freeze_service/core/a.h": [
        '#include "freeze_service/store/store.h"', '#include "worker/engine/engine.h"', "#include <chrono>",
        '#include "smartpipe/v1/a.grpc.pb.h"', '#include "services/config/run_config.h"'],
    "freeze_service/store/a.cc": ['#include "freeze_service/rpc/service.h"', '#include "smartpipe/v1/a.pb.h"'],
    "freeze_service/rpc/a.cc": ["#include <torch/torch.h>", '#include "worker/comm/transport.h"'],
    "freeze_service/main.cc": ['#include "worker/engine/engine.h"', "#include <torch/torch.h>"],
    "worker/data/a.cc": ['#include "worker/model/model.h"', "#include <grpcpp/grpcpp.h>"],
    "worker/model/a.cc": ['#include "worker/comm/transport.h"', '#include "freeze_service/core/coordinator.h"'],
    "worker/cuda/a.cc": ['#include "worker/engine/engine.h"', "#include <torch/csrc/distributed/c10d/Store.hpp>"],
    "worker/comm/a.cc": ["#include <nccl.h>", "#include <cuda_runtime_api.h>", '#include "c10/cuda/CUDAStream.h"',
                         '#include "worker/engine/engine.h"', '#include "smartpipe/v1/a.grpc.pb.h"'],
    "worker/engine/a.cc": [
        "#include <torch/csrc/distributed/c10d/Store.hpp>", '#include "gloo/algorithm.h"',
        '#include "smartpipe/v1/a.pb.h"', "#include <grpcpp/grpcpp.h>"],
    "worker/control/a.cc": [
        '#include "worker/engine/trainer.h"', "#include <ATen/core/Tensor.h>", '#include "freeze_service/core/coordinator.h"'],
    "worker/main.cc": ['#include "freeze_service/core/coordinator.h"', "#include <torch/torch.h>"],
    "cli/a.cc": [
        "#include <ATen/ATen.h>", '#include "worker/engine/engine.h"', '#include "freeze_service/rpc/service.h"'],
}
GOOD = {
    "services/base/b.h": ["#include <mutex>", '#include "absl/status/status.h"', '#include "services/base/ids.h"'],
    "services/obs/b.cc": ['#include "spdlog/spdlog.h"', '#include "services/base/status_macros.h"'],
    "services/rpc/b.cc": ["#include <grpcpp/grpcpp.h>", '#include "grpc/health/v1/health.pb.h"'],
    "services/parameter_service/b.cc": ["#include <grpcpp/grpcpp.h>", '#include "services/rpc/server.h"'],
    "pipeline/b.cc": [
        "#include <vector>", '#include "absl/time/time.h"', '#include "services/base/ids.h"', '#include "pipeline/plan.h"',
        "// absl::Now() is the caller's business", "/* #include <thread> */", "int operand(int x);"],
    "freeze_service/core/b.cc": ['#include "pipeline/plan.h"', '#include "absl/container/btree_map.h"'],
    "freeze_service/rpc/b.cc": ['#include "smartpipe/v1/a.grpc.pb.h"', '#include "freeze_service/store/store.h"'],
    "freeze_service/main.cc": ['#include "freeze_service/rpc/service.h"', '#include "services/obs/log.h"'],
    "worker/cuda/b.cc": ["#include <nccl.h>", '#include "c10/cuda/CUDAStream.h"', '#include "worker/comm/transport.h"'],
    "worker/comm/b.cc": ["#include <torch/csrc/distributed/c10d/Store.hpp>", '#include "services/base/key_value_store.h"'],
    "worker/engine/b.cc": ["#include <ATen/core/Tensor.h>", '#include "worker/comm/transport.h"', "#include <thread>"],
    "worker/control/b.cc": ['#include "smartpipe/v1/a.grpc.pb.h"', '#include "services/config/run_config.h"'],
    "worker/main.cc": ['#include "worker/engine/engine.h"', '#include "worker/control/session.h"'],
    "cli/b.cc": [
        '#include "pipeline/simulate.h"', "#include <grpcpp/grpcpp.h>", '#include "freeze_service/store/store.h"'],
    "tests/unit/b_test.cc": ["#include <torch/torch.h>", '#include "freeze_service/core/coordinator.h"', "#include <random>"],
}


def write_tree(root, files):
    for name, lines in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def self_test():
    errors = []
    with tempfile.TemporaryDirectory() as bad, tempfile.TemporaryDirectory() as good:
        write_tree(pathlib.Path(bad), BAD)
        write_tree(pathlib.Path(good), GOOD)
        found = check(pathlib.Path(bad))
        for name, lines in BAD.items():
            for number, line in enumerate(lines, 1):
                if not any(problem.startswith(f"{name}:{number}: ") for problem in found):
                    errors.append(f"not found: {name}:{number}: {line}")
        errors += [f"wrongly reported: {problem}" for problem in check(pathlib.Path(good))]
    print("\n".join(errors) if errors else f"{sum(map(len, BAD.values()))} mistakes found, "
          f"{sum(map(len, GOOD.values()))} correct lines accepted.")
    return 1 if errors else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parents[2])
    parser.add_argument("--self-test", action="store_true")
    args = parser.parse_args()
    if args.self_test:
        return self_test()
    found = check(args.root)
    if found:
        print("\n".join(found))
        print(f"{len(found)} includes break the arrows between folders; the table is in {sys.argv[0]}. "
              "Move the code, or pass what it needs through an interface.", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
