//! Has the linker put the data path's code together: `fast-path.ld` says what, and why.

fn main() {
    println!("cargo:rerun-if-changed=fast-path.ld");
    println!("cargo:rerun-if-changed=build.rs");
    // An addition to the script of ld and lld; other systems have others.
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        println!("cargo:rustc-link-arg-bins=-Wl,-T,{folder}/fast-path.ld");
    }
}
