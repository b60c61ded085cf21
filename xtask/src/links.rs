//! Every relative link of every page leads somewhere, and every `#heading` to a heading.

use crate::finding::Finding;
use crate::tree::Tree;

/// Follows the links of all Markdown pages.
pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.files().filter(|(path, _)| path.ends_with(".md")) {
        for (number, line) in prose(text) {
            for target in targets(&line) {
                if !leads(tree, path, &target) {
                    let says = format!("this link leads nowhere: {target}");
                    findings.push(Finding::at(path, number, says));
                }
            }
        }
    }
    findings
}

fn leads(tree: &Tree, page: &str, target: &str) -> bool {
    if target.contains("://") || target.starts_with("mailto:") {
        return true;
    }
    let (file, heading) = target.split_once('#').unwrap_or((target, ""));
    let path = if file.is_empty() {
        Some(page.to_owned())
    } else {
        join(page, file)
    };
    let Some(path) = path.filter(|path| tree.holds(path)) else {
        return false;
    };
    let text = tree.text(&path).unwrap_or_default();
    heading.is_empty() || anchors(text).iter().any(|anchor| anchor == heading)
}

/// `file` as seen from `page`, or `None` if it leaves the repository.
fn join(page: &str, file: &str) -> Option<String> {
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in file.trim_end_matches('/').split('/') {
        match part {
            "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// What inline links `[..](target)` and definitions `[..]: target` name.
fn targets(line: &str) -> Vec<String> {
    let inline = line
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split([')', ' ']).next());
    let defined = line
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("]: "));
    let defined = defined.and_then(|(_, rest)| rest.split(' ').next());
    inline.chain(defined).map(str::to_owned).collect()
}

/// Numbered lines outside code blocks, with code in backticks taken out.
fn prose(text: &str) -> impl Iterator<Item = (usize, String)> {
    let mut in_code = false;
    text.lines().enumerate().filter_map(move |(number, line)| {
        let fence = line.trim_start().starts_with("```");
        in_code ^= fence;
        let shown = !fence && !in_code;
        shown.then(|| {
            (
                number + 1,
                line.split('`').step_by(2).collect::<Vec<_>>().join(""),
            )
        })
    })
}

/// The anchors of a page's headings, spelled as GitHub spells them.
fn anchors(text: &str) -> Vec<String> {
    let mut in_code = false;
    let mut anchors = Vec::new();
    for line in text.lines() {
        in_code ^= line.trim_start().starts_with("```");
        if in_code || !line.starts_with('#') {
            continue;
        }
        let title = line
            .trim_start_matches('#')
            .trim()
            .to_lowercase()
            .replace(' ', "-");
        anchors.push(
            title
                .chars()
                .filter(|c| c.is_alphanumeric() || "-_".contains(*c))
                .collect(),
        );
    }
    anchors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::lines;

    fn says(page: &str) -> Vec<String> {
        let other = "# Key tree\n```\n# not a heading\n```\n## 2. `Covers`, and more\n";
        lines(&check(&Tree::of(&[
            ("docs/a.md", page),
            ("docs/b.md", other),
            ("LICENSE", ""),
        ])))
    }

    #[test]
    fn links_that_lead_somewhere_are_fine() {
        let page = "[a](b.md) ![b](../LICENSE) [c](b.md#2-covers-and-more) [d](../docs/)\n\
            # Here\n[e](#here) [f](https://example.org/x.md) `[g](none)`\n\
            ```\n[h](none)\n```\n[i]: b.md#key-tree\n";
        assert_eq!(says(page), [""; 0]);
    }

    #[test]
    fn links_that_lead_nowhere_are_reported() {
        for planted in [
            "c.md",
            "../docs/c.md",
            "b.md#not-a-heading",
            "#gone",
            "../../LICENSE",
            "/LICENSE",
        ] {
            let expected = [format!("docs/a.md:2: this link leads nowhere: {planted}")];
            assert_eq!(says(&format!("\nsee [it]({planted}).\n")), expected);
            assert_eq!(says(&format!("\n[it]: {planted}\n")), expected);
        }
    }
}
