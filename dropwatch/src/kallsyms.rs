//! The kernel's symbol table.
