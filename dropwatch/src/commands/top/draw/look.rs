//! Colours and characters, as far as this terminal has them.

use ratatui::style::{Color, Modifier, Style};

use crate::model::class::Class;

/// What something on the screen is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Lost drops.
    Lost,
    /// Refused drops.
    Refused,
    /// Harmless drops.
    Harmless,
    /// Drops whose class is not known.
    Unclassed,
    /// What matters less.
    Dim,
    /// A title, a header.
    Title,
    /// The selected line.
    Selected,
    /// What is wrong.
    Fault,
    /// What is new or has grown.
    New,
    /// A key to press.
    Key,
    /// Anything else.
    Plain,
}

impl From<Option<Class>> for Role {
    fn from(class: Option<Class>) -> Self {
        match class {
            Some(Class::Lost) => Self::Lost,
            Some(Class::Refused) => Self::Refused,
            Some(Class::Harmless) => Self::Harmless,
            None => Self::Unclassed,
        }
    }
}

/// How things look here.
///
/// The colours are those of sixteen that can be read on light and on dark backgrounds, and the background is the
/// terminal's own. Nothing is shown by colour alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Whether there are colours.
    pub has_colour: bool,
    /// Whether only the characters of ASCII can be shown.
    pub is_ascii: bool,
    /// Bars from nothing to the highest.
    bars: &'static [char; 9],
}

/// Bars of ASCII.
const ASCII_BARS: [char; 9] = [' ', '.', ':', '-', '=', '+', '*', '#', '@'];
/// Bars of eighths of a cell.
const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// What is read of the environment.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Look {
    /// What an environment says of its terminal.
    #[must_use]
    pub fn of(environment: Environment<'_>) -> Self {
        let set = |name: &str| environment(name).filter(|value| !value.is_empty());
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set).unwrap_or_default();
        let locale = locale.to_ascii_lowercase();
        let term = set("TERM").unwrap_or_default();
        let has_colour = set("NO_COLOR").is_none() && term != "dumb" && !term.starts_with("vt");
        Self::new(has_colour, !locale.contains("utf-8") && !locale.contains("utf8"))
    }

    /// One with or without colours, and with or without more characters than those of ASCII.
    #[must_use]
    pub fn new(has_colour: bool, is_ascii: bool) -> Self {
        Self { has_colour, is_ascii, bars: if is_ascii { &ASCII_BARS } else { &BARS } }
    }

    /// How something is drawn.
    #[must_use]
    pub fn style(&self, role: Role) -> Style {
        let style = Style::default();
        let (colour, modifier) = match role {
            Role::Lost => (Some(Color::Red), Modifier::empty()),
            Role::Refused => (Some(Color::Magenta), Modifier::empty()),
            Role::Harmless => (Some(Color::Green), Modifier::empty()),
            Role::Unclassed => (Some(Color::Cyan), Modifier::empty()),
            Role::Dim => (None, Modifier::DIM),
            Role::Title => (None, Modifier::BOLD),
            Role::Selected => (None, Modifier::REVERSED),
            Role::Fault | Role::New => (Some(Color::Red), Modifier::BOLD),
            Role::Key => (Some(Color::Cyan), Modifier::BOLD),
            Role::Plain => (None, Modifier::empty()),
        };
        let style = style.add_modifier(modifier);
        colour.filter(|_| self.has_colour).map_or(style, |colour| style.fg(colour))
    }

    /// A bar of a height from 0 to 1; what is real has one.
    #[must_use]
    pub fn bar(&self, height: f64) -> char {
        if height <= 0.0 {
            return self.bars[0];
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is from 0 to 8")]
        let step = (height.min(1.0) * 8.0).round() as usize;
        self.bars[step.max(1)]
    }

    /// A bar for each value, the highest of all is the highest bar.
    #[must_use]
    pub fn sparkline(&self, values: &[f64]) -> String {
        let highest = values.iter().copied().fold(0.0, f64::max);
        values.iter().map(|value| self.bar(if highest > 0.0 { value / highest } else { 0.0 })).collect()
    }

    /// A full cell of the chart: classes differ without colour, too.
    #[must_use]
    pub fn cell(&self, role: Role) -> char {
        match (role, self.is_ascii, self.has_colour) {
            (_, false, true) | (Role::Lost | Role::Unclassed, false, false) => '█',
            (Role::Refused, false, false) => '▒',
            (_, false, false) => '░',
            (Role::Lost | Role::Unclassed, true, _) => '#',
            (Role::Refused, true, _) => 'o',
            (_, true, _) => '.',
        }
    }

    /// A horizontal line.
    #[must_use]
    pub fn rule(&self) -> char {
        if self.is_ascii { '-' } else { '─' }
    }

    /// What stands for text that has been cut off.
    #[must_use]
    pub fn ellipsis(&self) -> char {
        if self.is_ascii { '~' } else { '…' }
    }

    /// The marks of a row that is new and of one that has grown.
    #[must_use]
    pub fn marks(&self) -> (char, char) {
        if self.is_ascii { ('+', '^') } else { ('+', '↑') }
    }

    /// What separates words of a line.
    #[must_use]
    pub fn dot(&self) -> &'static str {
        if self.is_ascii { " - " } else { " · " }
    }

    /// The set of border characters.
    #[must_use]
    pub fn border(&self) -> ratatui::symbols::border::Set<'static> {
        if self.is_ascii {
            ratatui::symbols::border::Set {
                top_left: "+",
                top_right: "+",
                bottom_left: "+",
                bottom_right: "+",
                vertical_left: "|",
                vertical_right: "|",
                horizontal_top: "-",
                horizontal_bottom: "-",
            }
        } else {
            ratatui::symbols::border::PLAIN
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_decides() {
        let look = |variables: &[(&str, &str)]| {
            let find = |name: &str| variables.iter().find(|(known, _)| *known == name);
            let look = Look::of(&|name| find(name).map(|(_, value)| (*value).to_owned()));
            (look.has_colour, look.is_ascii)
        };
        assert_eq!(look(&[("LANG", "C.UTF-8"), ("TERM", "xterm")]), (true, false));
        assert_eq!(look(&[("LANG", "de_DE.utf8"), ("NO_COLOR", "1")]), (false, false));
        assert_eq!(look(&[("LANG", "en_US.UTF-8"), ("LC_ALL", "C"), ("NO_COLOR", "")]), (true, true));
        assert_eq!(look(&[("TERM", "vt100")]), (false, true), "without a locale it is C");
    }

    #[test]
    fn what_is_real_has_a_bar() {
        let look = Look::new(false, false);
        assert_eq!(look.sparkline(&[0.0, 0.001, 50.0, 100.0]), " ▁▄█");
        assert_eq!(look.sparkline(&[0.0, 0.0]), "  ");
    }
}
