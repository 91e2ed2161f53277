//! What the tests read in a page of Markdown: its fenced blocks with what stands before them, its links and headings.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A fenced block.
#[derive(Debug)]
pub struct Block {
    /// Where it begins, for messages: `docs/ci.md:12`.
    pub place: String,
    /// What the fence says it is.
    pub kind: String,
    /// The text of the comment right before it, `<!-- … -->`.
    pub comment: Option<String>,
    pub text: String,
}

/// A page of the repository.
pub struct Page {
    pub path: PathBuf,
    name: String,
    text: String,
}

pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository")
}

/// The README, what stands beside it, and all of docs.
pub fn pages() -> Vec<Page> {
    let in_folder = |folder: &str| {
        let entries = fs::read_dir(repository().join(folder)).expect("a folder");
        let files = entries.map(|entry| entry.expect("an entry").path());
        files.filter(|file| file.extension().is_some_and(|extension| extension == "md")).collect::<Vec<_>>()
    };
    let mut files = [in_folder("."), in_folder("docs")].concat();
    files.sort();
    files.into_iter().map(Page::read).collect()
}

impl Page {
    fn read(path: PathBuf) -> Self {
        let name = path.strip_prefix(repository()).expect("in the repository").display().to_string();
        let name = name.trim_start_matches("./").to_owned();
        let text = fs::read_to_string(&path).expect("a page");
        Self { path, name, text }
    }

    pub fn named(name: &str) -> Self {
        Self::read(repository().join(name))
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its fenced blocks.
    pub fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut before = "";
        let mut lines = self.text.lines().enumerate();
        while let Some((number, line)) = lines.next() {
            if let Some(kind) = line.strip_prefix("```") {
                let text = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```");
                let comment = before.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->"));
                blocks.push(Block {
                    place: format!("{}:{}", self.name, number + 1),
                    kind: kind.to_owned(),
                    comment: comment.map(ToOwned::to_owned),
                    text: text.collect::<Vec<_>>().join("\n"),
                });
            }
            before = line;
        }
        blocks
    }

    /// Its lines outside of fenced blocks.
    fn prose(&self) -> impl Iterator<Item = &str> {
        let mut is_inside = false;
        self.text.lines().filter(move |line| {
            let is_fence = line.starts_with("```");
            is_inside ^= is_fence;
            !is_inside && !is_fence
        })
    }

    /// The targets of its links.
    pub fn links(&self) -> Vec<&str> {
        let parts = self.prose().flat_map(|line| line.split("](").skip(1));
        parts.filter_map(|rest| rest.split_once(')')).map(|(target, _)| target).collect()
    }

    /// What a link may add to its name, `#so-many-words`.
    pub fn anchors(&self) -> Vec<String> {
        let headings = self.prose().filter(|line| line.starts_with('#'));
        headings.map(|line| anchor(line.trim_start_matches('#').trim_start())).collect()
    }

    /// What looks like a command among its indented lines, without a comment at the end.
    pub fn indented(&self) -> Vec<&str> {
        let lines = self.prose().filter_map(|line| line.strip_prefix("    "));
        let commands = lines.filter(|line| line.starts_with("dropwatch ") || line.starts_with("sudo "));
        commands.map(|line| line.split(" #").next().unwrap_or(line).trim_end()).collect()
    }

    /// The spans of code in its paragraphs.
    pub fn code(&self) -> Vec<&str> {
        self.prose().flat_map(|line| line.split('`').skip(1).step_by(2)).collect()
    }
}

/// A heading as the hosts of repositories make an anchor of it.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}

impl Block {
    /// The commands in it: each line of a script, with those that continue it; of a session, what follows a prompt.
    pub fn commands(&self) -> Vec<String> {
        let joined = self.text.replace("\\\n", " ");
        let lines = joined.lines();
        match self.kind.as_str() {
            "sh" => lines
                .filter(|line| !line.is_empty() && !line.starts_with('#'))
                .map(ToOwned::to_owned)
                .collect(),
            "console" => lines
                .filter_map(|line| line.strip_prefix("# ").or_else(|| line.strip_prefix("$ ")))
                .map(ToOwned::to_owned)
                .collect(),
            _ => Vec::new(),
        }
    }

    /// Why its commands are not run, if they are not.
    pub fn not_run(&self) -> Option<&str> {
        self.comment.as_deref()?.strip_prefix("not run: ")
    }

    /// The status that its commands end with.
    pub fn status(&self) -> i32 {
        let status = self.comment.as_deref().and_then(|comment| comment.strip_prefix("status "));
        status.map_or(0, |status| status.parse().expect("a status is a number"))
    }
}
