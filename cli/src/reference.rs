//! The reference of the command line, from the command line itself.

use std::fmt::Write;

use clap::builder::StyledStr;
use clap::{Arg, Command};

use crate::exit::Exit;

/// Every command as Markdown.
pub(crate) fn page(mut command: Command) -> String {
    command.build();
    let mut page = "# The command line\n\n\
        Generated from the program (`make generate`). `kubectl invivo` is the same program under the name \
        `kubectl-invivo` on the `PATH`; it offers the commands for a cluster alone. For completion in kubectl, \
        link it as `kubectl_complete-invivo` too; elsewhere `source <(invivo completion bash)`.\n\n\
        With `-o json` and `-o yaml` the fields stay; tables and sentences are for people and may change.\n\n\
        ## Exit codes\n\n| code | meaning |\n| --- | --- |\n"
        .to_owned();
    for exit in Exit::ALL {
        push(&mut page, format_args!("| {} | {} |\n", exit.code(), exit.meaning()));
    }
    page.push_str(RIGHTS);
    section(&mut page, &command, "");
    page
}

/// What a caller must be allowed to do.
const RIGHTS: &str = "
## Rights

The commands act with the caller's own rights, and under a field manager of the caller's own.

| commands | rights |
| --- | --- |
| `status`, `history`, `watch` | get, list and watch `patchpolicies`, `patchfeeds`, `nodepatches` |
| `why` | the same, get `nodes` and `services/proxy` of `invivo-operator:metrics`; list `pods` for the names of blockers |
| `plan` | get `patchpolicies` and `services/proxy` of `invivo-operator:metrics` |
| `approve`, `reject`, `withdraw` | list and patch `patchsets`, get `patchfeeds` |
| `pause`, `resume`, `expedite`, `rollback` | get and patch `patchpolicies`, list `patchsets` |
| `hold`, `unhold` | get and patch `nodes` |
| `stop`, `start` | get, create and delete `configmaps` in Invivo's namespace |
| `preflight` | list `nodes`; with `--probe` create, get and delete `pods` and get `pods/log` in the probe's namespace |
";

fn section(page: &mut String, command: &Command, parent: &str) {
    let path = format!("{parent}{}", command.get_name());
    let about = command.get_long_about().or_else(|| command.get_about());
    push(page, format_args!("\n## {path}\n\n{}\n", about.map(sentence).unwrap_or_default()));
    let subcommands: Vec<_> = command.get_subcommands().filter(|sub| sub.get_name() != "help").collect();
    if subcommands.is_empty() {
        push(page, format_args!("\n```text\n{path}{}\n```\n", usage(command)));
        let arguments: Vec<_> = command.get_arguments().filter(|a| a.get_id() != "help").collect();
        if !arguments.is_empty() {
            page.push_str("\n| argument | meaning |\n| --- | --- |\n");
        }
        for argument in arguments {
            push(page, format_args!("| `{}` | {} |\n", signature(argument), meaning(argument)));
        }
        return;
    }
    page.push_str("\n| command | |\n| --- | --- |\n");
    for sub in &subcommands {
        let about = sub.get_about().map(sentence).unwrap_or_default();
        push(
            page,
            format_args!(
                "| [{path} {0}](#{anchor}) | {about} |\n",
                sub.get_name(),
                anchor = format!("{path} {}", sub.get_name()).replace(' ', "-")
            ),
        );
    }
    for sub in subcommands {
        section(page, sub, &format!("{path} "));
    }
}

/// The positional arguments and the options that must be there; the others are in the table.
fn usage(command: &Command) -> String {
    let mut text = String::new();
    for argument in command.get_arguments().filter(|a| a.is_required_set() || a.is_positional()) {
        let signature = signature(argument);
        let signature = if argument.is_required_set() { signature } else { format!("[{signature}]") };
        push(&mut text, format_args!(" {signature}"));
    }
    let optional = command.get_arguments().any(|a| !a.is_required_set() && !a.is_positional());
    text + if optional { " [options]" } else { "" }
}

fn signature(argument: &Arg) -> String {
    let value = argument.get_action().takes_values().then(|| {
        let name = argument.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
        format!("<{}>", name.unwrap_or_else(|| argument.get_id().as_str().to_uppercase()))
    });
    if argument.is_positional() {
        return value.unwrap_or_default();
    }
    let short = argument.get_short().map(|short| format!("-{short}, ")).unwrap_or_default();
    let long = argument.get_long().map(|long| format!("--{long}")).unwrap_or_default();
    let value = value.map(|value| format!(" {value}")).unwrap_or_default();
    format!("{short}{long}{value}")
}

fn meaning(argument: &Arg) -> String {
    let help = argument.get_long_help().or_else(|| argument.get_help());
    let mut text = help.map(sentence).unwrap_or_default();
    let hidden = argument.is_hide_possible_values_set() || !argument.get_action().takes_values();
    let values: Vec<_> = argument
        .get_possible_values()
        .iter()
        .filter(|_| !hidden)
        .map(|value| format!("`{}`", value.get_name()))
        .collect();
    if !values.is_empty() {
        push(&mut text, format_args!(" One of {}.", values.join(", ")));
    }
    if let Some(default) = argument
        .get_default_values()
        .first()
        .filter(|value| !value.is_empty() && argument.get_action().takes_values())
    {
        push(&mut text, format_args!(" Default: `{}`.", default.to_string_lossy()));
    }
    if let Some(name) = argument.get_env() {
        push(&mut text, format_args!(" Environment: `{}`.", name.to_string_lossy()));
    }
    text
}

/// clap takes the last full stop of a help text away.
fn sentence(text: &StyledStr) -> String {
    let text = text.to_string().replace('\n', " ").replace('|', "\\|");
    if text.ends_with(['.', '!', '?']) { text } else { text + "." }
}

/// Writing into a text does not fail.
fn push(text: &mut String, words: std::fmt::Arguments<'_>) {
    let _ = text.write_fmt(words);
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn the_committed_reference_is_the_one_this_program_gives() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/cli.md");
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        let wanted = crate::reference();
        assert!(committed == wanted, "{} is stale: make generate", path.display());
    }

    #[test]
    fn every_command_and_every_exit_code_is_in_it() {
        let page = crate::reference();
        for heading in
            ["## invivo repo publish", "## invivo approve", "## invivo watch", "## invivo completion"]
        {
            assert!(page.contains(&format!("{heading}\n")), "{heading}");
        }
        for exit in crate::Exit::ALL {
            assert!(page.contains(&format!("| {} | {} |", exit.code(), exit.meaning())));
        }
        assert!(
            page.contains("| `-o, --output <OUTPUT>` | Form of the answer. One of `table`, `json`, `yaml`.")
        );
    }
}
