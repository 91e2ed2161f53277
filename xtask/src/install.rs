//! What the tasks need beside a stable Rust, and where it comes from.

/// The packages of the distribution's compiler with a ready `core` for BPF, and of the LLVM it was made with.
pub const BPF_PACKAGES: [&str; 5] =
    ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf", "llvm-22-dev", "libpolly-22-dev"];

/// How to get a compiler and a linker for BPF.
pub fn bpf_toolchain() -> String {
    format!(
        "On Debian, `cargo xtask test --install` gets them, or:\n  \
         apt-get install {}\n  \
         LLVM_PREFIX=/usr/lib/llvm-22 cargo install bpf-linker --version 0.13.0 --locked --no-default-features \
         --features llvm-22\n\
         Elsewhere: `rustup toolchain install nightly --component rust-src` and a bpf-linker whose LLVM is not older \
         than the nightly's",
        BPF_PACKAGES.join(" ")
    )
}
