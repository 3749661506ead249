#include "services/rpc/address.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace smartpipe {
namespace {

absl::Status BadAddress(absl::string_view address, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("\"", address, "\" is not an address: ", why,
                                                 "; write HOST:PORT, for example 127.0.0.1:50051"));
}

}  // namespace

bool HostPort::is_loopback() const {
  in_addr numeric = {};
  const bool is_ipv4 = !is_ipv6 && inet_pton(AF_INET, host.c_str(), &numeric) == 1;
  return host == "localhost" || host == "::1" || (is_ipv4 && (ntohl(numeric.s_addr) >> 24) == 127);
}

std::string HostPort::ToString() const {
  return is_ipv6 ? absl::StrCat("[", host, "]:", port) : absl::StrCat(host, ":", port);
}

absl::StatusOr<HostPort> ParseHostPort(absl::string_view address) {
  const size_t colon = address.rfind(':');
  if (colon == absl::string_view::npos) return BadAddress(address, "the port is missing");
  absl::string_view host = address.substr(0, colon);
  const absl::string_view port = address.substr(colon + 1);
  HostPort result;
  if (absl::StartsWith(host, "[") && absl::EndsWith(host, "]")) {
    host = host.substr(1, host.size() - 2);
    result.is_ipv6 = true;
  }
  if (host.empty()) return BadAddress(address, "the host is missing");
  if (!result.is_ipv6 && host.find(':') != absl::string_view::npos) {
    return BadAddress(address, "an IPv6 address stands in [brackets]");
  }
  for (char c : host) {
    if (!absl::ascii_isalnum(c) && c != '.' && c != '-' && c != '_' && c != ':')
      return BadAddress(address, "the host is malformed");
  }
  if (!absl::SimpleAtoi(port, &result.port) || result.port < 0 || result.port > 65535) {
    return BadAddress(address, "the port is not a number from 0 to 65535");
  }
  result.host = std::string(host);
  return result;
}

absl::Status ProbeListen(const HostPort& address) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  if (int error =
          getaddrinfo(address.host.c_str(), absl::StrCat(address.port).c_str(), &hints, &found);
      error != 0) {
    return absl::UnavailableError(gai_strerror(error));
  }
  absl::Cleanup free_found = [found] { freeaddrinfo(found); };
  const int fd = socket(found->ai_family, found->ai_socktype | SOCK_CLOEXEC, found->ai_protocol);
  if (fd < 0) return absl::UnavailableError(std::strerror(errno));
  absl::Cleanup close_fd = [fd] { close(fd); };
  const int yes = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
  if (bind(fd, found->ai_addr, found->ai_addrlen) == 0 && listen(fd, 1) == 0)
    return absl::OkStatus();
  std::string reason = std::strerror(errno);
  reason[0] = absl::ascii_tolower(reason[0]);
  return absl::UnavailableError(reason);
}

absl::StatusOr<std::string> SourceAddressTo(const HostPort& peer) {
  const auto no_way = [&peer](absl::string_view why) {
    return absl::UnavailableError(
        absl::StrCat("this machine has no address towards ", peer.ToString(), ": ", why));
  };
  addrinfo hints = {};
  hints.ai_socktype = SOCK_DGRAM;
  addrinfo* found = nullptr;
  if (int error = getaddrinfo(peer.host.c_str(), absl::StrCat(peer.port).c_str(), &hints, &found);
      error != 0) {
    return no_way(gai_strerror(error));
  }
  absl::Cleanup free_found = [found] { freeaddrinfo(found); };
  const int fd = socket(found->ai_family, found->ai_socktype | SOCK_CLOEXEC, found->ai_protocol);
  if (fd < 0) return no_way(std::strerror(errno));
  absl::Cleanup close_fd = [fd] { close(fd); };
  sockaddr_storage source = {};
  socklen_t size = sizeof(source);
  // Of datagrams, connecting only chooses the way.
  if (connect(fd, found->ai_addr, found->ai_addrlen) != 0 ||
      getsockname(fd, reinterpret_cast<sockaddr*>(&source), &size) != 0) {
    return no_way(std::strerror(errno));
  }
  char text[NI_MAXHOST] = "";
  if (int error = getnameinfo(reinterpret_cast<const sockaddr*>(&source), size, text, sizeof(text),
                              nullptr, 0, NI_NUMERICHOST);
      error != 0) {
    return no_way(gai_strerror(error));
  }
  return std::string(text);
}

std::string ShortHostName() {
  char name[256] = "";
  gethostname(name, sizeof(name) - 1);
  return absl::AsciiStrToLower(std::string(name, strcspn(name, ".")));
}

}  // namespace smartpipe
