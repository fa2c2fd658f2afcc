//! `berth completion`: scripts that complete this command's words in bash, zsh and fish, and the names of containers, images,
//! volumes and networks, which they ask the machine for.
//!
//! clap_complete knows no words of ours for what a value may be. So a hint that no flag has stands for each kind: zsh's
//! script gets our function in the place of the hint's, the others get a list of the commands whose names are of that kind.

use clap::{Arg, Command, CommandFactory, ValueHint};
use clap_complete::Shell;

/// A kind of names.
struct Kind {
    hint: ValueHint,
    /// zsh's function for the hint.
    of_hint: &'static str,
    name: &'static str,
    /// What lists them.
    command: &'static str,
}

const KINDS: [Kind; 4] = [
    Kind { hint: ValueHint::Hostname, of_hint: "_hosts", name: "containers", command: "berth ps -aq" },
    Kind { hint: ValueHint::Username, of_hint: "_users", name: "images", command: "berth images -q" },
    Kind { hint: ValueHint::Url, of_hint: "_urls", name: "volumes", command: "berth volume ls -q" },
    Kind {
        hint: ValueHint::EmailAddress,
        of_hint: "_email_addresses",
        name: "networks",
        command: "berth network ls -q",
    },
];

/// The script.
pub fn script(shell: Shell) -> String {
    let mut command = hinted(super::Arguments::command(), "");
    // To memory first: the library panics where it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "berth", &mut script);
    let script = String::from_utf8(script).unwrap_or_default();
    match shell {
        Shell::Bash => script + &bash(&places(&command, "")),
        Shell::Zsh => zsh(script),
        Shell::Fish => script + &fish(&places(&command, "")),
        _ => script,
    }
}

/// The command with a hint for each value that is the name of something which is there.
fn hinted(command: Command, parent: &str) -> Command {
    let name = command.get_name().to_owned();
    let of_arg = |arg: Arg| match (kind_of(&arg, &name, parent), arg.get_value_hint()) {
        (Some(kind), ValueHint::Unknown) => arg.value_hint(KINDS[kind].hint),
        _ => arg,
    };
    command.mut_args(of_arg).mut_subcommands(|sub| hinted(sub, &name))
}

fn kind_of(arg: &Arg, command: &str, parent: &str) -> Option<usize> {
    let value = arg.get_value_names().and_then(|names| names.first()).map(|name| name.as_str());
    match (value, parent, command) {
        (Some("IMAGE"), ..) => Some(1),
        _ if arg.get_id() == "network" => Some(3),
        // What is named there is new.
        (_, _, "create" | "tag") => None,
        (Some("NAME"), "berth", _) if arg.is_positional() => Some(0),
        (Some("NAME"), "volume", _) => Some(2),
        (Some("NAME"), "network", _) => Some(3),
        _ => None,
    }
}

/// The subcommands with what lists the names behind them: `stop`, `volume rm`.
fn places(command: &Command, before: &str) -> Vec<(String, &'static str)> {
    let mut places = Vec::new();
    for sub in command.get_subcommands() {
        let path = format!("{before}{}", sub.get_name());
        let hints: Vec<ValueHint> = sub.get_positionals().map(Arg::get_value_hint).collect();
        let kind = KINDS.iter().find(|kind| hints.contains(&kind.hint));
        places.extend(kind.map(|kind| (path.clone(), kind.command)));
        places.extend(places_below(sub, &path));
    }
    places
}

fn places_below(command: &Command, path: &str) -> Vec<(String, &'static str)> {
    if command.has_subcommands() { places(command, &format!("{path} ")) } else { Vec::new() }
}

fn bash(places: &[(String, &str)]) -> String {
    let case = |(path, command): &(String, &str)| match path.contains(' ') {
        true => format!("        \"{path}\") ask=\"{command}\" ;;\n"),
        false => format!("        \"{path} \"*) ask=\"{command}\" ;;\n"),
    };
    let cases: String = places.iter().map(case).collect();
    // A colon ends a word there (COMP_WORDBREAKS), and names of images have one: what is before it is typed already.
    format!(
        r#"
_berth_names() {{
    _berth "$@"
    local ask= word="${{COMP_LINE:0:COMP_POINT}}"
    word="${{word##* }}"
    [[ $COMP_CWORD -lt 2 || $word == -* ]] && return
    case "${{COMP_WORDS[1]}} ${{COMP_WORDS[2]}}" in
{cases}    esac
    case "$3" in
        --network|--net) ask="berth network ls -q" ;;
    esac
    [[ -z $ask ]] && return
    COMPREPLY=( $(compgen -W "$($ask 2>/dev/null)" -- "$word") )
    COMPREPLY=( "${{COMPREPLY[@]#"${{word%"${{word##*:}}"}}"}}" )
}}
complete -F _berth_names -o bashdefault -o default berth
"#
    )
}

fn zsh(mut script: String) -> String {
    let mut functions = String::new();
    for Kind { of_hint, name, command, .. } in KINDS {
        script = script.replace(&format!(":{of_hint}"), &format!(":_berth_{name}"));
        functions += &format!(
            "_berth_{name}() {{\n    local -a names; names=(${{(f)\"$({command} 2>/dev/null)\"}})\n    compadd -a names\n}}\n\n"
        );
    }
    // Before the script's last words, which call it when it is loaded for the first time.
    let end = script.rfind("if [ \"$funcstack[1]\"").unwrap_or(script.len());
    script.insert_str(end, &functions);
    script
}

fn fish(places: &[(String, &str)]) -> String {
    // `rm` is behind `volume` too, where it is another command.
    let mut parents: Vec<&str> = places.iter().filter_map(|(path, _)| Some(path.split_once(' ')?.0)).collect();
    parents.dedup();
    let parents = parents.join(" ");
    let line = |(path, command): &(String, &str)| {
        let seen = match path.split_once(' ') {
            Some((parent, word)) => {
                format!("__fish_seen_subcommand_from {parent}; and __fish_seen_subcommand_from {word}")
            }
            None => format!("not __fish_seen_subcommand_from {parents}; and __fish_seen_subcommand_from {path}"),
        };
        format!("complete -c berth -n \"{seen}\" -f -a \"({command} 2>/dev/null)\"\n")
    };
    places.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_shells_learn_the_words_and_ask_for_names() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = script(shell);
            let words = ["status", "reexec", "no-stream", "detach-keys"];
            for word in words.into_iter().chain(KINDS.map(|kind| kind.command)) {
                assert!(script.contains(word), "{shell} has no {word}");
            }
            assert!(
                !script.contains("_hosts") && !script.contains("_users") && !script.contains("fish_print_hostnames")
            );
        }
    }

    #[test]
    fn fish_tells_the_commands_of_one_name_apart() {
        let script = script(Shell::Fish);
        let line =
            |seen: &str, command: &str| format!("complete -c berth -n \"{seen}\" -f -a \"({command} 2>/dev/null)\"\n");
        let from = |words: &str| format!("__fish_seen_subcommand_from {words}");
        assert!(script.contains(&line(&format!("{}; and {}", from("volume"), from("rm")), "berth volume ls -q")));
        let alone = format!("not {}; and {}", from("image volume network"), from("rm"));
        assert!(script.contains(&line(&alone, "berth ps -aq")));
    }

    /// In place of the program, for shells that complete names.
    const ANSWERS: &str = "case \"$*\" in 'ps -aq') echo web-1 web-2 db | tr ' ' '\\n';; \
        'images -q') echo a:1 a:2 b:1 | tr ' ' '\\n';; 'volume ls -q') echo data;; 'network ls -q') echo back;; esac";

    /// What a shell says to a script, with the completions in a file and a program `berth` to ask for names; `None` where
    /// there is no such shell.
    fn said(shell: Shell, program: &[&str], script: &str) -> Option<String> {
        use std::os::unix::fs::PermissionsExt;
        let folder = std::env::temp_dir().join(format!("berth-completion-{shell}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let berth = folder.join("berth");
        std::fs::write(&berth, format!("#!/bin/sh\n{ANSWERS}\n")).unwrap();
        std::fs::set_permissions(&berth, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::write(folder.join("completions"), super::script(shell)).unwrap();
        let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
        let mut command = std::process::Command::new(program[0]);
        command.args(&program[1..]).arg(script).current_dir(&folder).env("PATH", path).env("HOME", &folder);
        let output = command.output();
        std::fs::remove_dir_all(&folder).unwrap();
        match output {
            Ok(output) => Some(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
            Err(_) => {
                berth_tests::skips::skip(&format!("{shell} is not installed"));
                None
            }
        }
    }

    #[test]
    fn fish_completes_commands_and_names() {
        for (line, expected) in [
            ("berth stop we", "web-1 web-2"),
            ("berth logs -f d", "db"),
            ("berth rmi b", "b:1"),
            ("berth volume rm d", "data"),
            ("berth network inspect ", "back"),
            ("berth stat", "stats status"),
        ] {
            // Each with a tab and what it is.
            let ask = format!("source completions; complete -C '{line}' | string split -f 1 \\t");
            let Some(said) = said(Shell::Fish, &["fish", "--no-config", "-c"], &ask) else { return };
            assert_eq!(said.replace('\n', " "), expected, "{line}");
        }
    }

    /// Types a line and a tab into a zsh at a terminal, which then says what has become of it.
    const ZSH: &str = r#"
        zmodload zsh/zpty
        zpty shell zsh -f -i
        zpty -w shell 'PROMPT=; autoload -Uz compinit; compinit -u -D; . ./completions'
        zpty -w shell 'told() { print -r -- "<<$BUFFER>>" }; zle -N told; bindkey "^X" told'
        zpty -w shell 'print read''y'
        zpty -r shell out '*ready*'
        zpty -w -n shell "$LINE_TO_TYPE"$'\t\x18'
        zpty -r shell out '*<<*>>*'
        out=${out##*<<}; print -r -- ${out%%>>*}
    "#;

    #[test]
    fn zsh_completes_commands_and_names() {
        for (line, expected) in [
            ("berth stop d", "berth stop db "),
            ("berth rest", "berth restart "),
            ("berth logs -f d", "berth logs -f db "),
            ("berth rmi b", "berth rmi b:1 "),
            ("berth volume rm d", "berth volume rm data "),
            ("berth network inspect ", "berth network inspect back "),
        ] {
            let script = ZSH.replace("$LINE_TO_TYPE", line);
            let Some(said) = said(Shell::Zsh, &["zsh", "-f", "-c"], &script) else { return };
            assert_eq!(said.trim_end().replace('\\', ""), expected.trim_end(), "{line}");
        }
    }

    /// What bash offers for a line whose last word is being typed.
    fn completed(line: &str) -> String {
        let words: Vec<&str> = line.split(' ').collect();
        let (last, before) = (words[words.len() - 1], words[words.len() - 2]);
        // As bash takes them apart.
        let typed = last.rsplit(':').next().unwrap();
        let answers = "berth() { case \"$*\" in 'ps -aq') echo web-1 web-2 db;; 'images -q') echo a:1 a:2 b:1;; \
            'volume ls -q') echo data;; 'network ls -q') echo back;; esac; }";
        let call = format!(
            "COMP_WORDS=({line}); COMP_LINE='{line}'; COMP_POINT=${{#COMP_LINE}}; COMP_CWORD={}; \
             _berth_names berth '{typed}' '{before}'; echo ${{COMPREPLY[@]}}",
            words.len() - 1
        );
        let script = format!("{}\n{answers}\n{call}", script(Shell::Bash));
        // It is longer than what one argument may be.
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), script).unwrap();
        let output = std::process::Command::new("bash").arg(file.path()).output().unwrap();
        assert!(output.stderr.is_empty(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    #[test]
    fn bash_completes_commands_and_names() {
        assert_eq!(completed("berth st"), "status stats start stop");
        assert_eq!(completed("berth stop we"), "web-1 web-2");
        assert_eq!(completed("berth logs -f d"), "db");
        assert_eq!(completed("berth rmi a:"), "1 2");
        assert_eq!(completed("berth run --network b"), "back");
        assert_eq!(completed("berth volume rm d"), "data");
        assert_eq!(completed("berth image rm b"), "b:1");
        assert_eq!(completed("berth network inspect "), "back");
        assert!(completed("berth stop --ti").contains("--timeout"));
    }
}
