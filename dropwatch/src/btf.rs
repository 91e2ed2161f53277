//! The kernel's type information (BTF).
