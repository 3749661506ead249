// A link that can be cut in silence: bytes go in and none come out, and nobody is told.
#pragma once

#include <atomic>
#include <string>
#include <thread>

namespace smartpipe::testutil {

/// Listens on a free loopback port and forwards each connection to `address`.  Threads: one of its
/// own.
class Forwarder {
 public:
  /// `address`: 127.0.0.1:PORT.
  explicit Forwarder(const std::string& address);
  ~Forwarder();
  Forwarder(const Forwarder&) = delete;
  Forwarder& operator=(const Forwarder&) = delete;

  const std::string& address() const { return address_; }
  /// From now on nothing is forwarded any more; connections stay open.
  void Cut() { cut_ = true; }

 private:
  void Loop(int target_port);

  int listener_ = -1;
  std::string address_;
  std::atomic<bool> cut_{false}, stop_{false};
  std::thread thread_;
};

}  // namespace smartpipe::testutil
