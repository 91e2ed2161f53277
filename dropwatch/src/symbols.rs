//! Addresses by name.
