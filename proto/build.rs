//! Compiles `v1/*.proto` in-process (no protoc) and embeds the descriptor set that reflection and the
//! compatibility test read.

use std::path::PathBuf;

use prost::Message as _;

const FILES: [&str; 9] = [
    "v1/target.proto",
    "v1/operation.proto",
    "v1/rule.proto",
    "v1/volume.proto",
    "v1/node.proto",
    "v1/lifecycle.proto",
    "v1/backup.proto",
    "v1/member.proto",
    "v1/cluster.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=v1");
    let set = protox::compile(FILES, ["."])?;
    let mut bare = set.clone();
    for file in &mut bare.file {
        file.source_code_info = None;
    }
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    std::fs::write(out.join("descriptor.bin"), bare.encode_to_vec())?;
    tonic_prost_build::configure().build_transport(false).compile_fds(set)?;
    Ok(())
}
