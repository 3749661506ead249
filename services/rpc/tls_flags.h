// The flags that name a program's certificates.
#pragma once

#include "services/rpc/tls.h"

namespace smartpipe {

/// Adds --tls-ca, --tls-cert and --tls-key to a CLI::App.
template <typename App>
void AddTlsFlags(App& app, TlsFiles& files) {
  app.add_option("--tls-ca", files.ca,
                 "PEM file of the authorities that vouch for the other side; with --tls-cert and "
                 "--tls-key: use TLS")
      ->type_name("FILE");
  app.add_option("--tls-cert", files.cert, "PEM file of this program's certificate")
      ->type_name("FILE");
  app.add_option("--tls-key", files.key, "PEM file of its private key")->type_name("FILE");
}

}  // namespace smartpipe
