//! The page that lists the faults, made of their files.

use super::plants;
use crate::tree::Tree;

pub(crate) const PAGE: &str = "docs/reference/planted-faults.md";

const HEAD: &str = "\
# Planted faults

A test that was never seen to fail may be one that cannot. `cargo xtask plant` takes out one defence
after another, in a copy of the sources, and sees that the named test fails and passes again without
the fault. `cargo xtask plant NAME` does it for those whose names begin so. Each is a file of
[xtask/plants](../../xtask/plants); this page is made of them. The numbers are those of
[spec/faults.md](../../spec/faults.md).

| planted | fault | what is wrong then | where | `cargo test` that fails |
|---|---:|---|---|---|
";

/// The page as it should be.
pub(crate) fn rewritten(tree: &Tree) -> String {
    let mut text = HEAD.to_owned();
    for plant in plants(tree).filter_map(|(_, plant)| plant.ok()) {
        let fault = plant.fault.map_or(String::new(), |fault| fault.to_string());
        let mut paths: Vec<_> = plant.parts.iter().map(|part| part.path).collect();
        paths.dedup();
        let links = paths.iter().map(|path| format!("[{path}](../../{path})"));
        text.push_str(&format!(
            "| {} | {fault} | {} | {} | `{}` |\n",
            plant.name,
            plant.says,
            links.collect::<Vec<_>>().join(", "),
            plant.caught
        ));
    }
    text
}
