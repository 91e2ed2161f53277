//! Drop reasons by name.
