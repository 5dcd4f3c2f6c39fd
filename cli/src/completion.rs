//! Completion for `kubectl invivo`. kubectl asks a program named `kubectl_complete-invivo` with the
//! words typed so far, the last of them unfinished, and reads candidates line by line, then a directive.

use clap::{Arg, Command};

/// The name that kubectl calls the program by.
pub(crate) const KUBECTL: &str = "kubectl_complete-invivo";

/// Cobra's directive "no file names".
const NO_FILES: &str = ":4";

/// What kubectl reads.
pub(crate) fn answer(command: &Command, words: &[String]) -> String {
    let mut lines = candidates(command, words);
    lines.push(NO_FILES.to_owned());
    lines.join("\n") + "\n"
}

fn candidates(command: &Command, words: &[String]) -> Vec<String> {
    let Some((unfinished, before)) = words.split_last() else { return Vec::new() };
    let mut here = command;
    for word in before {
        if let Some(sub) = here.find_subcommand(word) {
            here = sub;
        }
    }
    let valued = before.last().and_then(|word| here.get_arguments().find(|argument| takes(argument, word)));
    let all: Vec<String> = if let Some(argument) = valued {
        argument.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect()
    } else if unfinished.starts_with('-') {
        here.get_arguments().filter_map(Arg::get_long).map(|long| format!("--{long}")).collect()
    } else {
        here.get_subcommands().map(|sub| sub.get_name().to_owned()).collect()
    };
    all.into_iter().filter(|candidate| candidate.starts_with(unfinished.as_str())).collect()
}

/// Whether `word` is this option, and a value follows it.
fn takes(argument: &Arg, word: &str) -> bool {
    let long = argument.get_long().is_some_and(|long| word.strip_prefix("--") == Some(long));
    let short = argument.get_short().is_some_and(|short| word == format!("-{short}"));
    (long || short) && argument.get_action().takes_values()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn asked(line: &str) -> String {
        let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        answer(&crate::Plugin::command(), &words)
    }

    #[test]
    fn commands_options_and_values_are_completed() {
        assert_eq!(asked("re"), "reject\nresume\n:4\n");
        assert_eq!(asked("expedite workers --r"), "--reason\n:4\n");
        assert_eq!(asked("status -o "), "table\njson\nyaml\n:4\n");
        assert_eq!(asked("why no"), ":4\n");
    }
}
