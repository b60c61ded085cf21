//! The commands of the guides work when they are copied.
#![cfg(test)]

use std::path::Path;
use std::process::Command;

/// What a guide takes for granted: the home of who reads it, with a stream, and somebody else's.
const BEFORE: &str = "
cd \"$HOME\"
export SEALCAST_HOME=home
sealcast init --no-passphrase --bus file:bus
sealcast stream create boiler
sealcast pub boiler -m hot
sealcast --home reader init --no-passphrase
printf 'correct horse' > secret.txt
printf age16h4ytxhr67wk50w7e8wxysar8m6rdnw5utgnjwwsh3vrt5ruw57qt08u9v > age.pub
mkdir stick
";

/// Runs every block that a page has for a shell, in order; what was printed.
fn run(page: &str) -> String {
    let blocks = page.split("```sh\n").skip(1);
    let blocks = blocks.map(|behind| behind.split_once("```").expect("the block ends").0);
    let script: String = std::iter::once(BEFORE).chain(blocks).collect();
    let home = tempfile::tempdir().expect("a folder");
    let program = Path::new(env!("CARGO_BIN_EXE_sealcast"));
    let folder = program.parent().expect("a folder").display().to_string();
    let path = format!("{folder}:{}", std::env::var("PATH").expect("a PATH"));
    let output = Command::new("bash")
        .args(["-eu", "-c", &script])
        .env("PATH", path)
        .env("HOME", home.path())
        .env_remove("SEALCAST_PASSPHRASE_FILE")
        .output()
        .expect("bash runs");
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    assert!(output.status.success(), "{out}\n{err}");
    out
}

#[test]
fn the_guide_to_keeping_keys_ends_as_it_says() {
    let page = include_str!("../../../docs/guides/keep-your-keys.md");
    assert!(page.split_whitespace().count() <= 600, "it is short");
    let out = run(page);
    for line in ["hot", "first sample", "kind          age file"] {
        assert!(out.lines().any(|of| of == line), "{line}: {out}");
    }
}
