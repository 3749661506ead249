#include "cli/completion_command.h"

#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace smartpipe {
namespace {

// One `case` line per command: "ctl freeze" -> its subcommands and options.
void AddCases(const CLI::App& command, const std::string& path, std::string* cases) {
  std::vector<std::string> words;
  for (const CLI::App* sub : command.get_subcommands(nullptr)) words.push_back(sub->get_name());
  for (const CLI::Option* option : command.get_options()) {
    for (const std::string& name : option->get_lnames()) words.push_back("--" + name);
  }
  absl::StrAppend(cases, "    \"", path, "\") words=\"", absl::StrJoin(words, " "), "\" ;;\n");
  for (const CLI::App* sub : command.get_subcommands(nullptr))
    AddCases(*sub, path.empty() ? sub->get_name() : path + " " + sub->get_name(), cases);
}

// Words that are commands lead on; files are completed by the shell where nothing fits.
constexpr char kScript[] = R"sh(_smartpipe() {
  local current="${COMP_WORDS[COMP_CWORD]}" path="" words="" word i
  for ((i = 1; i < COMP_CWORD; i++)); do
    word="${COMP_WORDS[i]}"
    case " $(_smartpipe_words "$path") " in
      *" $word "*) [[ "$word" == -* ]] || path="${path:+$path }$word" ;;
    esac
  done
  words="$(_smartpipe_words "$path")"
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}
complete -o default -F _smartpipe smartpipe
)sh";

}  // namespace

CLI::App* AddCompletionCommand(CLI::App& app, std::string& shell) {
  CLI::App* command =
      app.add_subcommand("completion", "print what a shell needs to complete words");
  command->add_option("SHELL", shell, "bash or zsh")
      ->required()
      ->type_name("")
      ->check(CLI::IsMember({"bash", "zsh"}));
  command->footer(
      "In a shell or its start file:\n"
      "  source <(smartpipe completion bash)");
  return command;
}

std::string CompletionScript(const CLI::App& app, const std::string& shell) {
  std::string cases;
  AddCases(app, "", &cases);
  return absl::StrCat(shell == "zsh" ? "autoload -U +X bashcompinit && bashcompinit\n" : "",
                      "_smartpipe_words() {\n  local words=\"\"\n  case \"$1\" in\n", cases,
                      "  esac\n  echo \"$words\"\n}\n", kScript);
}

}  // namespace smartpipe
