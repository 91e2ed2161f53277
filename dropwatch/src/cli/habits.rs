//! What users of other tools type, and how it is said here.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Options of tcpdump, pwru, bpftrace, ip and others, and what they are here. `{}` is the option's value.
///
/// Those that begin with `-f` hold for every command that counts, the others for `watch`.
const OPTIONS: &[(&[&str], &str)] = &[
    (
        &["--interface", "--iface", "--ifname", "--dev", "--filter-ifname", "-I"],
        "-f 'iface {}' selects the drops on that interface",
    ),
    (&["--netns", "--filter-netns", "-N"], "-f 'netns {}' selects the drops in that network namespace"),
    (&["--filter-func", "--func"], "-f 'location {}' selects the drops in that function"),
    (&["--reason"], "-f 'reason {}' selects the drops with that reason"),
    (&["--port"], "-f 'port {}' selects the drops of that port"),
    (&["--host"], "-f 'host {}' selects the drops of that host"),
    (&["--output-tuple"], "-b saddr,daddr,sport,dport makes each flow a row"),
    (&["--output-stack", "--stack", "-g"], "-b stack makes each call chain a row"),
    (&["--output-json", "--json", "-j", "-J"], "-o json prints objects"),
    (&["--output-file"], "reports go to standard output: redirect it"),
    (&["--output-limit-lines", "--count", "-c"], "-n {} stops after so many reports"),
    (&["--kmods", "--all-kmods"], "functions of modules have their names without it"),
    (&["--timestamp"], "each report has its time without it"),
    (&["--write", "-w"], "'dropwatch trace -w {}' writes the packets"),
    (&["-A", "-X", "-x"], "'dropwatch trace' shows packets"),
    (&["-e"], "there is no program to write: -b says what a row stands for, and -f which drops are counted"),
];

/// Words of C dropwatch's prompt.
const WORDS: &[(&[&str], &str)] = &[
    (&["start"], "dropwatch starts at once: leave 'start' out"),
    (&["stop", "exit", "quit"], "Ctrl-C ends dropwatch"),
];

/// Words that a filter begins with.
const FILTER: [&str; 20] = [
    "host",
    "net",
    "port",
    "portrange",
    "src",
    "dst",
    "ip",
    "ip6",
    "arp",
    "tcp",
    "udp",
    "icmp",
    "icmp6",
    "sctp",
    "not",
    "ether",
    "iface",
    "netns",
    "reason",
    "location",
];

/// What a faulty command line was most likely meant to be, as a message.
#[must_use]
pub fn hint(error: &clap::Error, arguments: &[String]) -> Option<String> {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(word)) => Some(word.as_str()),
        _ => None,
    };
    match error.kind() {
        ErrorKind::UnknownArgument => unknown(context(ContextKind::InvalidArg)?, arguments),
        ErrorKind::InvalidSubcommand => word(context(ContextKind::InvalidSubcommand)?, arguments),
        _ => None,
    }
}

/// What to do in place of an option that tcpdump has and `trace` has not.
fn instead(option: &str) -> Option<&'static str> {
    Some(match option {
        "-A" | "-X" | "-x" => {
            "bytes are not printed: write packets with -w FILE, read them with tcpdump -X -r FILE"
        }
        "-r" | "-V" => "drops are shown as they happen: read a capture with tcpdump -r FILE",
        "-t" => "every line begins with the time: cut -d' ' -f2- leaves it out",
        "-D" | "-L" => "ip link lists interfaces",
        "-C" | "-G" | "-W" => "a capture is one file: -c N or -d DUR ends it",
        "-F" => "give the file's text: -f \"$(cat FILE)\"",
        "-Q" => "drops have no direction: choose by 'src host' or 'dst host'",
        "-Z" => "no other user is needed",
        "-N" | "-K" | "-H" | "-a" | "-E" | "-M" | "-T" | "-y" | "-B" | "-j" | "-J" | "-I" | "-z" => {
            "trace has no such option: -w - writes what tcpdump -r - reads"
        }
        _ => return None,
    })
}

/// Options of `watch` that other commands have not, and why.
fn of_watch(option: &str, command: &str) -> Option<&'static str> {
    Some(match (option, command) {
        ("--explain", "check") => "a rule that is broken has its rows explained without it",
        ("--explain", "trace") => {
            "a line shows a packet, and 'dropwatch --explain' what drops mean and which objects cause them"
        }
        ("--nft", "check") => {
            "rules are looked at once, when the command has ended and no packet comes that could be traced, and their \
             counters are compared; 'dropwatch --explain --nft' in another terminal has the kernel tell the rule"
        }
        ("--nft", "trace") => {
            "only packets that come after a drop can be traced, and a line is about the one that was dropped; \
             'dropwatch --explain --nft' has the kernel tell the rule"
        }
        _ => return None,
    })
}

fn unknown(argument: &str, arguments: &[String]) -> Option<String> {
    let command = arguments.get(1).map_or("watch", String::as_str);
    if !argument.starts_with('-') {
        return match command {
            "check" => Some(check(argument, arguments)),
            "trace" | "watch" => word(argument, arguments),
            _ => None,
        };
    }
    let of_tcpdump = || {
        let tip = instead(argument).filter(|_| command == "trace")?;
        Some(format!("trace has no option {argument}\n\n  tip: {tip}"))
    };
    let only_of_watch = || {
        let tip = of_watch(argument, command)?;
        Some(format!("{command} has no option {argument}\n\n  tip: {tip}"))
    };
    option(argument, command, arguments).or_else(of_tcpdump).or_else(only_of_watch)
}

fn option(argument: &str, command: &str, arguments: &[String]) -> Option<String> {
    let name = argument.split('=').next().unwrap_or(argument);
    let value = arguments.iter().enumerate().find_map(|(number, given)| match given.strip_prefix(name)? {
        "" => arguments.get(number + 1).map(String::as_str).filter(|next| !next.starts_with('-')),
        rest => rest.strip_prefix('='),
    });
    let (_, hint) = OPTIONS.iter().find(|(names, _)| names.contains(&name))?;
    let is_for_all = hint.starts_with("-f");
    if !is_for_all && matches!(command, "trace" | "check" | "explain") || command == "explain" {
        return None;
    }
    let hint = hint.replace("{}", value.unwrap_or("…"));
    Some(format!("there is no option '{name}': {hint}"))
}

fn word(word: &str, arguments: &[String]) -> Option<String> {
    if let Some((_, hint)) = WORDS.iter().find(|(words, _)| words.contains(&word)) {
        return Some(format!("there is no command '{word}': {hint}"));
    }
    if !FILTER.contains(&word) {
        return None;
    }
    let (before, expression) = arguments.split_at(arguments.iter().position(|given| given == word)?);
    let line = before.iter().skip(1).map(|word| quoted(word));
    let line: Vec<_> = ["dropwatch".to_owned()].into_iter().chain(line).collect();
    Some(format!("an expression is given with '-f': {} -f {}", line.join(" "), quoted(&expression.join(" "))))
}

/// The same command line with `--` before the command.
fn check(command: &str, arguments: &[String]) -> String {
    let at = arguments.iter().skip(2).position(|given| given == command).map_or(arguments.len(), |at| at + 2);
    let (before, command) = arguments.split_at(at);
    let before = before.iter().skip(1).map(|word| quoted(word));
    let command = command.iter().map(|word| quoted(word));
    let words: Vec<_> =
        ["dropwatch".to_owned()].into_iter().chain(before).chain(["--".to_owned()]).chain(command).collect();
    format!("the command is given after '--': {}", words.join(" "))
}

/// A word quoted for a shell.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_./:=,@%+-".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::Cli;

    fn hint_for(line: &[&str]) -> Option<String> {
        let arguments: Vec<_> = ["dropwatch"].iter().chain(line).map(ToString::to_string).collect();
        hint(&Cli::try_parse_from(&arguments).expect_err("a fault"), &arguments)
    }

    #[test]
    fn a_command_without_its_dashes_gets_them() {
        for (line, words) in [
            (&["check", "true"][..], "dropwatch check -- true"),
            (&["check", "--max", "0", "ls", "-l", "a b"], "dropwatch check --max 0 -- ls -l 'a b'"),
            (&["check", "--max", "iface=a b:0", "it's"], "dropwatch check --max 'iface=a b:0' -- 'it'\\''s'"),
        ] {
            let hint = hint_for(line).expect("a hint");
            assert_eq!(hint, format!("the command is given after '--': {words}"));
        }
    }

    #[test]
    fn options_of_other_tools_are_explained() {
        for (line, words) in [
            (&["--interface", "eth0"][..], "-f 'iface eth0' selects"),
            (&["--filter-netns=blue", "-n", "1"], "-f 'netns blue' selects"),
            (&["trace", "--filter-func", "ip_rcv"], "-f 'location ip_rcv' selects"),
            (&["check", "--netns", "blue", "--", "true"], "-f 'netns blue' selects"),
            (&["--filter-ifname"], "-f 'iface …' selects"),
            (&["-c", "3"], "-n 3 stops"),
            (&["-w", "drops.pcap"], "'dropwatch trace -w drops.pcap' writes"),
            (&["-e", "tracepoint:skb:kfree_skb { @[args.reason] = count(); }"], "-b says"),
            (&["start"], "starts at once"),
            (&["tcp", "port", "80"], "dropwatch -f 'tcp port 80'"),
        ] {
            let hint = hint_for(line).unwrap_or_else(|| panic!("{line:?}"));
            assert!(hint.contains(words), "{line:?}: {hint}");
        }
    }

    #[test]
    fn what_is_not_known_is_left_to_the_parser() {
        for line in
            [&["--no-such-option"][..], &["no-such-command"], &["explain", "--netns", "a"], &["check"]]
        {
            assert_eq!(hint_for(line), None, "{line:?}");
        }
    }

    #[test]
    fn no_entry_shadows_an_option_of_its_own() {
        use clap::CommandFactory as _;
        let command = Cli::command();
        let own: Vec<_> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
        for (names, _) in OPTIONS {
            for name in *names {
                assert!(!own.iter().any(|own| name.strip_prefix("--") == Some(own)), "{name} has a meaning");
            }
        }
    }
}
