// `smartpipe completion`: what a shell needs to complete the command's words.
#pragma once

#include <string>

namespace CLI {
class App;
}

namespace smartpipe {

/// Adds the command; the shell's name is read into `shell`.
CLI::App* AddCompletionCommand(CLI::App& app, std::string& shell);

/// The script for `shell` ("bash" or "zsh"), from the commands and options of `app`.
std::string CompletionScript(const CLI::App& app, const std::string& shell);

}  // namespace smartpipe
