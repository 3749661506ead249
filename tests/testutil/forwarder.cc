#include "tests/testutil/forwarder.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <vector>

#include "gtest/gtest.h"

namespace smartpipe::testutil {
namespace {

constexpr int kPollMs = 20;  // how soon it notices that it is to end

sockaddr_in Loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

int Connect(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const sockaddr_in address = Loopback(port);
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0) return fd;
  close(fd);
  return -1;
}

/// False at the end of the connection.
bool Pass(int from, int to) {
  char bytes[65536];
  const ssize_t count = recv(from, bytes, sizeof(bytes), 0);
  for (ssize_t done = 0; done < count;) {
    const ssize_t sent = send(to, bytes + done, static_cast<size_t>(count - done), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    done += sent;
  }
  return count > 0;
}

}  // namespace

Forwarder::Forwarder(const std::string& address)
    : listener_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  sockaddr_in here = Loopback(0);
  socklen_t size = sizeof(here);
  EXPECT_EQ(bind(listener_, reinterpret_cast<sockaddr*>(&here), size), 0);
  EXPECT_EQ(listen(listener_, 16), 0);
  EXPECT_EQ(getsockname(listener_, reinterpret_cast<sockaddr*>(&here), &size), 0);
  address_ = "127.0.0.1:" + std::to_string(ntohs(here.sin_port));
  const int target_port = std::stoi(address.substr(address.rfind(':') + 1));
  thread_ = std::thread([this, target_port] { Loop(target_port); });
}

Forwarder::~Forwarder() {
  stop_ = true;
  thread_.join();
  close(listener_);
}

void Forwarder::Loop(int target_port) {
  std::vector<pollfd> ends;  // two of each connection, one behind the other
  while (!stop_) {
    std::vector<pollfd> all = ends;
    all.push_back({.fd = listener_, .events = POLLIN, .revents = 0});
    if (cut_) {
      poll(nullptr, 0, kPollMs);
      continue;
    }
    if (poll(all.data(), all.size(), kPollMs) <= 0) continue;
    for (size_t i = ends.size(); i-- > 0;) {
      const size_t other = i ^ 1;
      if (all[i].revents == 0 || ends[i].fd < 0 || Pass(ends[i].fd, ends[other].fd)) continue;
      for (const size_t end : {i, other}) {
        close(ends[end].fd);
        ends[end].fd = -1;  // poll leaves it out
      }
    }
    if (all.back().revents == 0) continue;
    const int from = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    const int to = Connect(target_port);
    for (const int fd : {from, to}) ends.push_back({.fd = fd, .events = POLLIN, .revents = 0});
  }
  for (const pollfd& end : ends) {
    if (end.fd >= 0) close(end.fd);
  }
}

}  // namespace smartpipe::testutil
