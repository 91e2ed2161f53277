//! The picture of the screen in docs/top.svg: drawn by the program from what is staged. `cargo xtask picture` writes it.

use std::{env, fmt::Write as _, fs, path::Path};

use ratatui::{
    buffer::{Buffer, Cell},
    style::{Color, Modifier},
};

use super::staged::{incident, screen};
use crate::commands::top::draw::look::Look;

/// The size of a cell.
const WIDTH: usize = 8;
const HEIGHT: usize = 17;
/// The margin.
const MARGIN: usize = 12;
const BACKGROUND: &str = "#101418";
const FOREGROUND: &str = "#d6dae0";

fn colour(cell: &Cell) -> &'static str {
    match cell.fg {
        Color::Red => "#f0605a",
        Color::Magenta => "#c58af9",
        Color::Green => "#6fbf73",
        Color::Cyan => "#56c7d6",
        _ => FOREGROUND,
    }
}

/// Cells of one look beside each other are one text.
fn svg(buffer: &Buffer) -> String {
    let (columns, lines) = (usize::from(buffer.area.width), usize::from(buffer.area.height));
    let (width, height) = (columns * WIDTH + 2 * MARGIN, lines * HEIGHT + 2 * MARGIN);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         role=\"img\" aria-label=\"The screen of dropwatch top\">\n\
         <rect width=\"{width}\" height=\"{height}\" rx=\"8\" fill=\"{BACKGROUND}\"/>\n\
         <g font-family=\"ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace\" font-size=\"13\">\n"
    );
    for (y, line) in buffer.content.chunks(columns).enumerate() {
        let mut x = 0;
        for run in line.chunk_by(|one, other| one.style() == other.style()) {
            write_run(&mut svg, run, x, y);
            x += run.len();
        }
    }
    svg + "</g>\n</svg>\n"
}

fn write_run(svg: &mut String, run: &[Cell], x: usize, y: usize) {
    let text: String = run.iter().map(Cell::symbol).collect();
    let cell = &run[0];
    let is_reversed = cell.modifier.contains(Modifier::REVERSED);
    let (left, top, width) = (MARGIN + x * WIDTH, MARGIN + y * HEIGHT, run.len() * WIDTH);
    if is_reversed {
        let _ = writeln!(
            svg,
            "<rect x=\"{left}\" y=\"{top}\" width=\"{width}\" height=\"{HEIGHT}\" fill=\"{}\"/>",
            colour(cell)
        );
    }
    if text.trim().is_empty() {
        return;
    }
    let fill = if is_reversed { BACKGROUND } else { colour(cell) };
    let mut style = String::new();
    if cell.modifier.contains(Modifier::BOLD) {
        style += " font-weight=\"bold\"";
    }
    if cell.modifier.contains(Modifier::DIM) {
        style += " opacity=\"0.65\"";
    }
    if cell.modifier.contains(Modifier::UNDERLINED) {
        style += " text-decoration=\"underline\"";
    }
    let text = text.trim_end().replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    // Not every viewer keeps several blanks.
    let text = text.replace(' ', "\u{a0}");
    let length = text_width(&run.iter().map(Cell::symbol).collect::<String>()) * WIDTH;
    let _ = writeln!(
        svg,
        "<text x=\"{left}\" y=\"{}\" textLength=\"{length}\" fill=\"{fill}\"{style}>{text}</text>",
        top + HEIGHT - 4,
    );
}

fn text_width(text: &str) -> usize {
    unicode_width::UnicodeWidthStr::width(text.trim_end())
}

#[test]
fn the_picture_is_the_screen() {
    let buffer = screen(&mut incident(130), (110, 32), &Look::new(true, false));
    let now = svg(&buffer);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository").join("docs/top.svg");
    if env::var_os("DROPWATCH_WRITE_PICTURE").is_some() {
        fs::write(&path, &now).expect("the picture is written");
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    assert!(there == now, "docs/top.svg is not what the program draws: run `cargo xtask picture`");
}
