//! This process among others: how it ends, what it says, its signals, commands, files and privileges.

pub mod command;
pub mod console;
pub mod failure;
pub mod files;
pub mod host;
pub mod limits;
pub mod notice;
pub mod privileges;
pub mod signals;
