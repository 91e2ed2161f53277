//! The README and the pages in docs: their size, their links, and their commands, each of which is run, or says why not.

mod docs {
    pub mod markdown;
    pub mod scene;
    pub mod schema;
}
#[path = "support/alone.rs"]
mod alone;

use std::{fs, sync::Mutex, thread};

use alone::alone;
use clap::Parser as _;
use docs::{
    markdown::{Block, Page, pages, repository},
    scene::Scene,
    schema::Schema,
};
use dropwatch::internals::Cli;
use serde_json::Value;

/// Other names for blocks with commands, in which no test would look.
const UNREAD: [&str; 4] = ["bash", "shell", "shell-session", "zsh"];

#[test]
fn the_readme_is_short() {
    let lines = Page::named("README.md").text().lines().count();
    assert!(
        lines <= 150,
        "the README has {lines} lines, 150 are allowed: what explains more belongs in docs"
    );
}

/// A newcomer types what the CI runs.
#[test]
fn the_readme_has_the_command_of_the_ci() {
    let script = fs::read_to_string(repository().join(".ci/run")).expect("the CI's script");
    let command = script.lines().find_map(|line| line.strip_prefix("exec ")).expect("what it ends with");
    let command = command.split(" <").next().expect("a first part");
    let readme = Page::named("README.md");
    let said = readme.blocks().iter().flat_map(Block::commands).any(|said| said.starts_with(command));
    assert!(said, "the README does not have `{command}`");
}

#[test]
fn links_lead_somewhere() {
    for page in pages() {
        for link in page.links() {
            if link.contains("://") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = page.path.parent().expect("a folder").join(path);
            let target = if path.is_empty() { page.path.clone() } else { target };
            assert!(target.exists(), "{}: nothing at {link}", page.name());
            if !anchor.is_empty() {
                let name = target.canonicalize().expect("a path");
                let name =
                    name.strip_prefix(repository().canonicalize().expect("a path")).expect("a page of ours");
                let anchors = Page::named(&name.to_string_lossy()).anchors();
                assert!(anchors.iter().any(|known| known == anchor), "{}: no heading {link}", page.name());
            }
        }
    }
}

/// A command in a block of another kind would be read by no test.
#[test]
fn commands_are_in_blocks_that_are_read() {
    for page in pages() {
        for block in page.blocks() {
            let Block { place, kind, text, .. } = &block;
            assert!(
                !UNREAD.contains(&kind.as_str()),
                "{place}: a block of the kind `{kind}`: it must be `sh`"
            );
            let is_read = !block.commands().is_empty();
            assert!(
                is_read || !["# ", "$ ", "sudo ", "dropwatch "].iter().any(|start| text.starts_with(start)),
                "{place}: a command, but no `sh`"
            );
            assert!(
                is_read || block.comment.as_deref().is_none_or(|c| !c.starts_with("not run")),
                "{place}: no command to leave out"
            );
        }
    }
}

/// The words of a command, of dropwatch's alone.
fn words(command: &str) -> Option<Vec<String>> {
    let words = shlex::split(command).unwrap_or_else(|| panic!("no shell can read {command}"));
    let words = words.into_iter().skip_while(|word| word == "sudo");
    let words: Vec<_> =
        words.take_while(|word| !["|", ">", "&&", ";", "2>&1", "&"].contains(&word.as_str())).collect();
    words.first().is_some_and(|word| word == "dropwatch").then_some(words)
}

fn parses(words: &[String]) -> Result<(), String> {
    match Cli::try_parse_from(words) {
        Err(error) if error.use_stderr() => Err(error.to_string()),
        _ => Ok(()),
    }
}

/// Also what is not run, and what stands in the text, unless it stands for something else.
#[test]
fn the_program_understands_all_command_lines() {
    for page in pages().into_iter().filter(|page| page.name() != "CHANGELOG.md") {
        for block in page.blocks() {
            for command in block.commands() {
                let result = words(&command).map_or(Ok(()), |words| parses(&words));
                assert_eq!(result, Ok(()), "{}: {command}", block.place);
            }
        }
        for command in page.indented() {
            let result = words(command).map_or(Ok(()), |words| parses(&words));
            assert_eq!(result, Ok(()), "{}: {command}", page.name());
        }
        // The name of a command alone is no command line.
        let is_whole = |code: &&str| !code.contains(['…', '[', ']', '{']) && code.split(' ').count() > 2;
        for code in page.code().into_iter().filter(|code| code.starts_with("dropwatch ")).filter(is_whole) {
            let result = words(code).map_or(Ok(()), |words| parses(&words));
            assert_eq!(result, Ok(()), "{}: {code}", page.name());
        }
    }
}

/// How many commands run side by side.
const AT_ONCE: usize = 4;

/// Every command of every page, in a private network, for a moment; or the page says why it is not run.
#[test]
fn the_commands_run() {
    if !is_allowed() {
        return dropwatch_testing::skip("the commands of the documentation need root");
    }
    let pages = pages();
    let blocks: Vec<Block> =
        pages.iter().flat_map(Page::blocks).filter(|block| block.not_run().is_none()).collect();
    let commands =
        blocks.iter().flat_map(|block| block.commands().into_iter().map(move |command| (block, command)));
    let queue = Mutex::new(commands);
    let failed = Mutex::new(Vec::new());
    let _alone = alone();
    // Each in a scene of its own: checks would count the drops of others.
    let work = || {
        let scene = Scene::new();
        loop {
            let Some((block, command)) = queue.lock().expect("a queue").next() else { return };
            let output = scene.run(&command);
            let said = String::from_utf8_lossy(&output.stderr);
            // Some kernels cannot report calls; the command line of `dig` has been understood by then.
            let is_refused = output.status.code() == Some(3) && said.contains("this kernel cannot report");
            if output.status.code() != Some(block.status()) && !is_refused {
                let fault = format!("{}: {command}: {}: {said}", block.place, output.status);
                failed.lock().expect("a list").push(fault);
            }
        }
    };
    thread::scope(|scope| (0..AT_ONCE).for_each(|_| drop(scope.spawn(work))));
    let failed = failed.into_inner().expect("a list");
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// What is to be copied works elsewhere: the scripts, with a test that loses packets and with one that does not.
#[test]
fn the_examples_for_a_ci_run() {
    if !is_allowed() {
        return dropwatch_testing::skip("the examples for a CI need root");
    }
    let examples = repository().join("examples/ci").canonicalize().expect("the examples");
    let folder = examples.display();
    let _alone = alone();
    let (lossy, fine, usage, syntax, report) = thread::scope(|scope| {
        let work = || {
            let scene = Scene::new();
            let lossy = scene.run(&format!("GITHUB_ACTIONS=true {folder}/check-drops {folder}/smoke-test"));
            let report = scene.file("drops.xml");
            let fine = scene.run(&format!("{folder}/check-drops true"));
            let usage = scene.run(&format!("{folder}/check-drops"));
            (lossy, fine, usage, scene.run(&format!("bash -n {folder}/check-drops-vm")), report)
        };
        scope.spawn(work).join().expect("a scene")
    });
    let said = String::from_utf8_lossy(&lossy.stderr);
    assert_eq!(lossy.status.code(), Some(4), "{said}");
    assert!(said.contains("::error") && said.contains("25 drops seen"), "{said}");
    assert!(report.contains("<failure message=\"FAILED  --max lost:0: 25 drops seen"), "{report}");
    assert_eq!([fine, usage, syntax].map(|output| output.status.code()), [Some(0), Some(2), Some(0)]);
}

fn is_allowed() -> bool {
    nix::unistd::geteuid().is_root() && std::env::var_os("DROPWATCH_NO_LIVE").is_none()
}

/// What the program prints of real drops, with as many keys and options as there are, is what the schema says.
#[test]
fn output_is_as_the_schema_says() {
    if !is_allowed() {
        return dropwatch_testing::skip("drops need root");
    }
    let _alone = alone();
    let objects = thread::scope(|scope| scope.spawn(objects).join().expect("a scene"));
    let schema = Schema::of_the_documentation();
    let mut kinds: Vec<_> = objects.iter().filter_map(|object| object["type"].as_str()).collect();
    for object in &objects {
        assert_eq!(schema.fault(object), None, "{object}");
    }
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds, ["check", "drop", "explanation", "report", "summary"]);
    let rows: usize = objects.iter().filter_map(|object| object["rows"].as_array()).map(Vec::len).sum();
    assert!(rows > 5, "{rows} rows do not show much");
}

fn objects() -> Vec<Value> {
    const IN_WEB: &str = "-f 'netns web'";
    let scene = Scene::new();
    let _drops = scene.drops();
    let all = "location,reason,function,class,iface,netns,protocol,ipproto,saddr,daddr,sport,dport,cpu,socket,process,container,stack";
    let lines: Vec<_> = [
        format!("watch -o json --peak 10ms -b {all} {IN_WEB}"),
        format!("watch -o json --explain {IN_WEB}"),
        "watch -o json -t 1".to_owned(),
        format!("trace -o json --stack --socket {IN_WEB}"),
        "explain -o json NO_SOCKET SOCKET_RCVBUFF".to_owned(),
    ]
    .into_iter()
    .map(|line| scene.run(&format!("dropwatch {line}")))
    .inspect(|output| assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)))
    .flat_map(|output| {
        String::from_utf8(output.stdout).expect("text").lines().map(ToOwned::to_owned).collect::<Vec<_>>()
    })
    .collect();
    let check = scene.run(&format!(
        "dropwatch check --report report.json --max lost:0 --max reason=NO_SOCKET:0 {IN_WEB} -- sleep 0.3"
    ));
    assert_eq!(check.status.code(), Some(4));
    lines
        .into_iter()
        .chain([scene.file("report.json")])
        .map(|line| serde_json::from_str(&line).expect("JSON"))
        .collect()
}

/// A schema that allows everything would pass, too.
#[test]
fn what_is_not_in_the_schema_is_a_fault() {
    let schema = Schema::of_the_documentation();
    let summary = serde_json::json!({"schema": 1, "type": "summary", "host": "web1", "shown": 3, "not_shown": 0, "elapsed_s": 0.5});
    assert_eq!(schema.fault(&summary), None);
    for (field, value) in [
        ("shown", Value::from(-1)),
        ("shown", Value::Null),
        ("more", Value::from(1)),
        ("type", Value::from("sum")),
    ] {
        let mut wrong = summary.clone();
        wrong[field] = value;
        assert!(schema.fault(&wrong).is_some(), "{wrong}");
    }
    let mut incomplete = summary;
    incomplete.as_object_mut().expect("an object").remove("host");
    assert!(schema.fault(&incomplete).is_some());
}

/// `dig` needs a kernel that reports calls; what it prints is in a snapshot of its own tests.
#[test]
fn the_example_of_dig_is_as_the_schema_says() {
    let path = "dropwatch/src/dig/snapshots/dropwatch__dig__output__tests__a_finding_is_an_object.snap";
    let text = fs::read_to_string(repository().join(path)).expect("the snapshot");
    let example = text.split_once("\n{").expect("an object").1;
    let example: Value = serde_json::from_str(&format!("{{{example}")).expect("JSON");
    assert_eq!(Schema::of_the_documentation().fault(&example), None);
}
