//! The dependency rule: `core <- seal, post, chain <- cli`, and nothing else.

use cargo_metadata::{DependencyKind, MetadataCommand};

const ALLOWED: &[(&str, &[&str])] = &[
    ("damocles-core", &[]),
    ("damocles-seal", &["damocles-core"]),
    ("damocles-post", &["damocles-core"]),
    ("damocles-chain", &["damocles-core"]),
    ("damocles-cli", &["damocles-core", "damocles-seal", "damocles-post", "damocles-chain"]),
];

#[test]
fn siblings_do_not_know_each_other() {
    let metadata = MetadataCommand::new().no_deps().exec().expect("cargo metadata");
    let mut checked = 0;
    for (name, allowed) in ALLOWED {
        let package = metadata.packages.iter().find(|p| p.name.as_str() == *name).expect("the crate exists");
        let ours = package.dependencies.iter().filter(|d| d.name.starts_with("damocles-"));
        for dependency in ours {
            // A crate may switch on its own features for its tests.
            let itself = dependency.name == *name && dependency.kind == DependencyKind::Development;
            assert!(
                itself || allowed.contains(&dependency.name.as_str()),
                "{name} must not depend on {}: pass a trait object from damocles-cli instead",
                dependency.name
            );
            checked += 1;
        }
    }
    assert!(checked >= 7, "the rule was checked against real edges");
}

#[test]
fn core_has_no_runtime_and_no_io() {
    let metadata = MetadataCommand::new().no_deps().exec().expect("cargo metadata");
    let core = metadata.packages.iter().find(|p| p.name.as_str() == "damocles-core").expect("core exists");
    let normal = core.dependencies.iter().filter(|d| d.kind == DependencyKind::Normal && !d.optional);
    for dependency in normal {
        let banned = ["tokio", "sqlx", "reqwest", "axum", "clap", "anyhow", "tracing", "jsonrpc-core"];
        assert!(!banned.contains(&dependency.name.as_str()), "damocles-core must not depend on {}", dependency.name);
    }
}
