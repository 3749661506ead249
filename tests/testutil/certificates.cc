#include "tests/testutil/certificates.h"

#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "services/base/files.h"

namespace smartpipe::testutil {

TestAuthority::TestAuthority()
    : certificate_(MakeAuthority("test CA", {.begin = absl::Now() - absl::Hours(24),
                                             .end = absl::Now() + absl::Hours(60 * 24)})
                       .value()) {
  WriteFile(dir_.File("ca.crt"), certificate_.cert);
}

TlsFiles TestAuthority::Make(const CertificateSubject& subject, absl::Duration begin,
                             absl::Duration end) const {
  const absl::Time now = absl::Now();
  const Certificate made =
      MakeCertificate(certificate_, subject, {.begin = now + begin, .end = now + end}).value();
  const TlsFiles files = {.ca = dir_.File("ca.crt"),
                          .cert = dir_.File(subject.name + ".crt"),
                          .key = dir_.File(subject.name + ".key")};
  EXPECT_TRUE(WriteSecretAtomically(files.key, made.key).ok());
  EXPECT_TRUE(WriteFileAtomically(files.cert, made.cert).ok());
  return files;
}

}  // namespace smartpipe::testutil
