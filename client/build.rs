//! Has the linker put the data path's code together: `fast-path.ld` says what, and why.

use std::env;

/// Leaves it out, for linkers that have no such scripts (mold).
const PLAIN: &str = "GATEREEVE_PLAIN_LAYOUT";

fn main() {
    println!("cargo:rerun-if-changed=fast-path.ld");
    println!("cargo:rerun-if-env-changed={PLAIN}");
    // An addition to the script of ld and lld; other systems have others.
    let is_linux = env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux");
    if is_linux && env::var_os(PLAIN).is_none() {
        let folder = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        println!("cargo:rustc-link-arg-bins=-T");
        println!("cargo:rustc-link-arg-bins={folder}/fast-path.ld");
    }
}
