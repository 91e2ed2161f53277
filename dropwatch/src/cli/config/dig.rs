//! The command line of `dig`, validated.

use std::{io::IsTerminal as _, path::PathBuf, time::Duration};

use super::{at_least_one, debug_dir, duration, ready_file, trace, usage};
use crate::{
    cli::{DigArgs, dig::DEPTH},
    dig::DigFormat,
    escape::Escaped,
    evidence::objects::Rules,
    filter::Filter,
    kernel::lookup::Host,
    model::belonging::Belonging,
    process::failure::Failure,
    render::Width,
};

/// The most calls below a root that are followed: each level multiplies the functions.
const DEEPEST: usize = 16;

/// What `dig` is to do.
#[derive(Clone, Debug)]
pub struct DigConfig {
    /// How findings look.
    pub format: DigFormat,
    /// Which drops are of interest.
    pub filter: Option<Filter>,
    /// How far it goes.
    pub search: DigSearch,
    /// How wide explanations are.
    pub width: Width,
    /// Where debug information is looked for first.
    pub debug_dir: Option<PathBuf>,
    /// Created once attached.
    pub ready_file: Option<PathBuf>,
}

/// How far a run goes.
#[derive(Clone, Debug)]
pub struct DigSearch {
    /// Stop after drops in so many different places.
    pub count: u64,
    /// Stop after this long.
    pub duration: Option<Duration>,
    /// The function to begin at.
    pub root: Option<String>,
    /// How many calls below it are followed.
    pub depth: usize,
    /// How the rule that drops packets is found.
    pub rules: Rules,
}

impl Default for DigSearch {
    /// Until one drop has been looked into.
    fn default() -> Self {
        Self { count: 1, duration: None, root: None, depth: DEPTH, rules: Rules::Compare }
    }
}

/// That of a terminal, if standard output is one.
fn width() -> Width {
    if std::io::stdout().is_terminal() { Width::OF_TERMINAL } else { Width::Unlimited }
}

impl DigConfig {
    /// Checks the arguments.
    ///
    /// # Errors
    /// [`Failure::Usage`] with the argument, what is wrong with it, and what is right.
    pub fn new(args: &DigArgs, host: &Host) -> Result<Self, Failure> {
        at_least_one("--count", Some(args.count))?;
        if !(1..=DEEPEST).contains(&args.depth) {
            return Err(usage("--depth", &args.depth, &format!("must be from 1 to {DEEPEST}")));
        }
        Ok(Self {
            format: args.output.unwrap_or(DigFormat::Text),
            filter: filter(args, host)?,
            search: DigSearch {
                count: args.count,
                duration: args.duration.as_deref().map(|text| duration("--duration", text)).transpose()?,
                root: args.root.clone(),
                depth: args.depth,
                rules: if args.nft { Rules::Trace } else { Rules::Compare },
            },
            width: width(),
            debug_dir: debug_dir(args.debug_dir.as_ref())?,
            ready_file: ready_file(&args.run)?,
        })
    }
}

/// The filter, which may not need sockets: walks have none.
fn filter(args: &DigArgs, host: &Host) -> Result<Option<Filter>, Failure> {
    let filter = trace::filter(&args.expression, args.filter.as_deref(), None, host)?;
    let belongings = filter.as_ref().map_or(&[][..], |filter| filter.cases().belongings());
    let Some((word, name)) = belongings.first().map(Belonging::words) else { return Ok(filter) };
    let name = Escaped::new(name);
    Err(Failure::Usage(format!(
        "dig does not know whose sockets packets belong to, and '{word} {name}' requires it: `dropwatch trace {word} \
         {name}` shows their packets, by whose addresses and ports dig can filter"
    )))
}
