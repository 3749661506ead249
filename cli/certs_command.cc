#include "cli/certs_command.h"

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <system_error>
#include <utility>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "cli/commands.h"
#include "cli/complaint.h"
#include "cli/render.h"
#include "services/base/files.h"
#include "services/base/status_macros.h"

namespace smartpipe {
namespace {

constexpr int64_t kPemBytesMax = 1 << 20;
constexpr absl::Duration kAuthorityLife = absl::Hours(24 * 3650);
constexpr absl::Duration kClockSkew = absl::Minutes(5);

// Where services listen on this machine, and their names in the docs' examples.
const std::vector<std::string>& LocalHosts() {
  static const auto* const hosts = new std::vector<std::string>{
      "localhost", "127.0.0.1", "::1", "freeze_service", "parameter_service"};
  return *hosts;
}

struct Paths {
  Paths(const std::string& dir, const std::string& name)
      : cert(absl::StrCat(dir, "/", name, ".crt")), key(absl::StrCat(dir, "/", name, ".key")) {}
  bool has_cert() const { return Exists(cert); }
  bool has_key() const { return Exists(key); }
  std::string cert, key;

 private:
  static bool Exists(const std::string& path) {
    std::error_code ignored;
    return std::filesystem::exists(std::filesystem::symlink_status(path, ignored));
  }
};

// The key first: a certificate that is there has its key.
absl::Status Write(const Certificate& certificate, const Paths& paths) {
  SP_RETURN_IF_ERROR(WriteSecretAtomically(paths.key, certificate.key));
  return WriteFileAtomically(paths.cert, certificate.cert);
}

absl::StatusOr<Certificate> ReadAuthority(const Paths& paths) {
  Certificate authority;
  SP_ASSIGN_OR_RETURN(authority.cert, ReadSmallFile(paths.cert, kPemBytesMax));
  SP_ASSIGN_OR_RETURN(authority.key, ReadSmallFile(paths.key, kPemBytesMax));
  return authority;
}

absl::Status Half(const std::string& there, const std::string& missing) {
  return absl::FailedPreconditionError(
      absl::StrCat(there, " is there, but ", missing,
                   " is not; bring that back, or move the other away to have both made anew"));
}

/// Adds the hosts of a certificate that is there to its successor; without one it must name all
/// that are asked for.
absl::Status AddHostsOf(const std::string& cert, bool is_renewed, CertificateSubject& subject) {
  if (subject.hosts.empty()) return absl::OkStatus();
  SP_ASSIGN_OR_RETURN(const std::vector<std::string> had, HostsOf(cert));
  for (const std::string& host : subject.hosts) {
    if (is_renewed || std::count(had.begin(), had.end(), host) != 0) continue;
    return absl::FailedPreconditionError(absl::StrCat("it is there and does not name ", host,
                                                      "; give --renew to have it made anew"));
  }
  for (const std::string& host : had) {
    if (std::count(subject.hosts.begin(), subject.hosts.end(), host) == 0)
      subject.hosts.push_back(host);
  }
  return absl::OkStatus();
}

std::string CertsTable(const std::string& dir, const std::vector<CertificateRow>& rows) {
  std::vector<std::vector<std::string>> cells = {{"files", "roles", "good until", ""}};
  for (const CertificateRow& row : rows) {
    cells.push_back({absl::StrCat(dir, "/", row.name, ".crt, .key"), row.what,
                     absl::FormatTime("%Y-%m-%d", row.end, absl::UTCTimeZone()),
                     row.is_new ? "new" : "was there"});
  }
  return FormatColumns(cells);
}

}  // namespace

CLI::App* AddCertsCommand(CLI::App& app, CertsArguments& arguments) {
  CLI::App* command = app.add_subcommand("certs", "make certificates for TLS and roles");
  command->add_option("DIR", arguments.dir, "folder for them; made if it is not there")
      ->required()
      ->type_name("");
  command
      ->add_option("--host", arguments.hosts,
                   "name or address of a machine with services; may be repeated")
      ->type_name("NAME")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command->add_option("--days", arguments.days, "how long they are good")
      ->check(CLI::Range(int64_t{1}, int64_t{3650}))
      ->capture_default_str();
  command->add_flag("--renew", arguments.renew,
                    "make all but the authority anew, with new keys, for the same hosts; running "
                    "processes pick them up");
  command->footer(
      "Makes what is missing: an authority (ca), one certificate for each role (service,\n"
      "worker, operator, viewer), and `all` with every role, for runs on one machine.\n"
      "Whoever has ca.key can make more: keep it off the machines of the run.\n\n"
      "Examples:\n"
      "  smartpipe certs tls --host gpu-7.lan\n"
      "  smartpipe train my.toml --set tls.ca=tls/ca.crt --set tls.cert=tls/all.crt \\\n"
      "      --set tls.key=tls/all.key\n\n"
      "Exit codes: 0 done, 1 they could not be made or written, 2 wrong usage.");
  return command;
}

absl::StatusOr<std::vector<CertificateRow>> MakeCertificates(const CertsArguments& arguments,
                                                             absl::Time now) {
  std::error_code error;
  std::filesystem::create_directories(arguments.dir, error);
  if (error) {
    return absl::ErrnoToStatus(error.value(),
                               absl::StrCat("cannot make the folder ", arguments.dir));
  }
  std::vector<CertificateRow> rows;
  const auto add_row = [&rows](const std::string& name, const std::string& what,
                               const std::string& cert, bool is_new) -> absl::Status {
    SP_ASSIGN_OR_RETURN(const Validity validity, ValidityOf(cert));
    rows.push_back({.name = name, .what = what, .end = validity.end, .is_new = is_new});
    return absl::OkStatus();
  };

  const Paths ca(arguments.dir, "ca");
  if (ca.has_cert() != ca.has_key())
    return ca.has_cert() ? Half(ca.cert, ca.key) : Half(ca.key, ca.cert);
  const bool is_new_ca = !ca.has_cert();
  if (is_new_ca) {
    SP_ASSIGN_OR_RETURN(const Certificate made,
                        MakeAuthority("SmartPipe development CA",
                                      {.begin = now - kClockSkew, .end = now + kAuthorityLife}));
    SP_RETURN_IF_ERROR(Write(made, ca));
  }
  SP_ASSIGN_OR_RETURN(const Certificate authority, ReadAuthority(ca));
  SP_RETURN_IF_ERROR(Annotate(add_row("ca", "-", authority.cert, is_new_ca), ca.cert));

  std::vector<std::string> hosts = LocalHosts();
  for (const std::string& host : arguments.hosts) hosts.push_back(CanonicalHost(host));
  std::vector<CertificateSubject> subjects;
  CertificateSubject all = {.name = "all", .hosts = hosts};
  for (const Role role : kRoles) {
    subjects.push_back({.name = std::string(RoleName(role)), .roles = {role}});
    if (role == Role::kService) subjects.back().hosts = hosts;
    all.roles.Add(role);
  }
  subjects.push_back(all);
  for (CertificateSubject& subject : subjects) {
    const Paths paths(arguments.dir, subject.name);
    // A key alone is what an interrupted call leaves; nothing uses it.
    const bool is_there = paths.has_cert();
    const bool is_made = !is_there || arguments.renew;
    if (!is_made && !paths.has_key()) return Half(paths.cert, paths.key);
    std::string cert;
    if (is_there) {
      SP_ASSIGN_OR_RETURN(cert, ReadSmallFile(paths.cert, kPemBytesMax));
      SP_RETURN_IF_ERROR(Annotate(AddHostsOf(cert, is_made, subject), paths.cert));
    }
    if (is_made) {
      SP_ASSIGN_OR_RETURN(const Certificate made,
                          MakeCertificate(authority, subject,
                                          {.begin = now - kClockSkew,
                                           .end = now + absl::Hours(24 * arguments.days)}));
      SP_RETURN_IF_ERROR(Write(made, paths));
      cert = made.cert;
    }
    SP_RETURN_IF_ERROR(Annotate(
        add_row(subject.name, subject.name == "all" ? "all of these" : subject.name, cert, is_made),
        paths.cert));
  }
  return rows;
}

int CertsCommand(const CertsArguments& arguments) {
  const absl::StatusOr<std::vector<CertificateRow>> rows = MakeCertificates(arguments, absl::Now());
  if (!rows.ok()) {
    return Fail(rows.status(), absl::IsInvalidArgument(rows.status()) ? kExitUsage : kExitFailed);
  }
  const std::string& dir = arguments.dir;
  std::cout << CertsTable(dir, *rows) << "\nA program of role ROLE takes --tls-ca " << dir
            << "/ca.crt --tls-cert " << dir << "/ROLE.crt --tls-key " << dir
            << "/ROLE.key.\nA run on this machine takes tls.ca, tls.cert and tls.key: ca.crt, "
               "all.crt and all.key.\nKeep "
            << dir << "/ca.key to yourself: whoever has it can make certificates of every role.\n";
  return kExitFinished;
}

}  // namespace smartpipe
