//! Writes the manual pages and the completions of shells: `manual DIRECTORY TIME`, TIME in seconds since 1970.
//!
//! Names, options and their help are the program's own; what else a page says is in `packaging/man`, a file for each
//! command: `# HEADING`, paragraphs, and lines that begin with four blanks, which stay as they are.

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use clap::{Command, CommandFactory as _};
use clap_complete::env::{Bash, EnvCompleter, Fish, Zsh};
use clap_mangen::Man;
use dropwatch::internals::Cli;

type Done<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> Done {
    let mut arguments = std::env::args().skip(1);
    let (Some(directory), Some(time)) = (arguments.next(), arguments.next()) else {
        return Err("usage: manual DIRECTORY TIME".into());
    };
    let date = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(time.parse()?)).to_string();
    let date = date.split('T').next().unwrap_or_default().to_owned();
    let directory = PathBuf::from(directory);
    manual(&directory.join("man"), &date)?;
    completions(&directory.join("completions"))
}

fn manual(directory: &Path, date: &str) -> Done {
    fs::create_dir_all(directory)?;
    let mut program = Cli::command().disable_help_subcommand(true);
    program.build();
    let commands: Vec<_> = program.get_subcommands().filter(|of| !of.is_hide_set()).cloned().collect();
    for command in commands {
        let (name, called) = (command.get_name().to_owned(), format!("dropwatch {}", command.get_name()));
        let command = command.display_name(format!("dropwatch-{name}")).bin_name(called);
        fs::write(directory.join(format!("dropwatch-{name}.1")), page(command, &name, date)?)?;
    }
    fs::write(directory.join("dropwatch.1"), page(program, "dropwatch", date)?)?;
    Ok(())
}

/// One page: what clap knows, then what is written about it.
fn page(command: Command, name: &str, date: &str) -> Done<Vec<u8>> {
    let written = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../packaging/man/{name}.txt"));
    let written = fs::read_to_string(&written).map_err(|error| format!("{}: {error}", written.display()))?;
    let (command, laid_out) = take_laid_out(command.after_help("").after_long_help(""));
    let version = format!("dropwatch {}", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command).date(date).source(version).manual("User Commands");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    let (before, after) = written.split_once("# EXAMPLES").unwrap_or((&written, ""));
    page.extend(roff(before).into_bytes());
    man.render_options_section(&mut page)?;
    for (heading, text) in laid_out {
        page.extend(roff(&format!("# {heading}\n{text}")).into_bytes());
    }
    if name == "dropwatch" {
        man.render_subcommands_section(&mut page)?;
    }
    page.extend(roff(&format!("# EXAMPLES{after}")).into_bytes());
    Ok(page)
}

/// Help that is laid out in lines, which a manual page would fill: each option's gets a section of its own.
fn take_laid_out(command: Command) -> (Command, Vec<(String, String)>) {
    let mut sections = Vec::new();
    let command = command.mut_args(|argument| {
        let help = argument.get_long_help().map(ToString::to_string).unwrap_or_default();
        if !help.contains("\n  ") {
            return argument;
        }
        let heading = if argument.get_id() == "filter" {
            "FILTERS".to_owned()
        } else {
            argument.get_id().as_str().to_uppercase()
        };
        let short = argument.get_help().map(ToString::to_string).unwrap_or_default();
        sections.push((heading.clone(), help.lines().map(in_layout).collect()));
        argument.long_help(format!("{short}; see {heading}"))
    });
    (command, sections)
}

/// A line of help as the written pages have it: paragraphs, or lines that stay as they are.
fn in_layout(line: &str) -> String {
    match line.strip_prefix("  ") {
        Some(kept) => format!("    {kept}\n"),
        None => format!("{line}\n"),
    }
}

/// The language of manual pages.
fn roff(text: &str) -> String {
    let (mut page, mut kept) = (String::new(), false);
    for line in text.lines() {
        let is_kept = line.starts_with("    ");
        if is_kept != kept && (is_kept || !line.is_empty()) {
            page += if is_kept { ".PP\n.RS 4\n.nf\n" } else { ".fi\n.RE\n" };
            kept = is_kept;
        }
        let heading = line.strip_prefix("# ");
        page += &match heading {
            Some(heading) => [".SH ", heading, "\n"].concat(),
            None if line.is_empty() && kept => "\n".to_owned(),
            None if line.is_empty() => ".PP\n".to_owned(),
            None => escaped(line.strip_prefix("    ").unwrap_or(line)) + "\n",
        };
    }
    if kept {
        page += ".fi\n.RE\n";
    }
    page
}

/// A line that means itself.
fn escaped(line: &str) -> String {
    let line = line.replace('\\', r"\e").replace('-', r"\-").replace('\'', r"\(aq").replace('…', "...");
    if line.starts_with('.') { format!(r"\&{line}") } else { line }
}

/// What a shell reads: it calls the program for the words themselves.
fn completions(directory: &Path) -> Done {
    fs::create_dir_all(directory)?;
    let shells: [(&str, &dyn EnvCompleter); 3] = [("bash", &Bash), ("fish", &Fish), ("zsh", &Zsh)];
    for (name, shell) in shells {
        let mut script = Vec::new();
        shell.write_registration("COMPLETE", "dropwatch", "dropwatch", "dropwatch", &mut script)?;
        fs::write(directory.join(name), script)?;
    }
    Ok(())
}
