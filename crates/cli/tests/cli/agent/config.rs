//! The config file.

use super::*;
use crate::rig::Rig;

#[test]
fn a_config_file_that_is_wrong_is_refused_with_the_line_and_what_is_known() {
    let rig = Rig::small();
    let kim = rig.person("kim");
    let file = rig.file("wrong.toml", b"[agent]\n\nlisen = \"127.0.0.1:0\"\n");
    let said = kim.refused(2, &["agent", "--config", &file]);
    for part in ["wrong.toml, line 3", "`lisen`", "`listen`", "hint:"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let said = kim.refused(7, &["agent", "--config", "no-such.toml"]);
    assert!(said.contains("no-such.toml"), "{said}");
    // The one in the home is read where none is named.
    std::fs::write(
        kim.home().join("config.toml"),
        "[agent]\nlisten = \"0.0.0.0:1\"\n",
    )
    .unwrap();
    let said = kim.refused(2, &["agent"]);
    assert!(
        said.contains("line 2") && said.contains("loopback"),
        "{said}"
    );
}

#[test]
fn nothing_listens_on_loopback_where_that_is_off_and_logs_may_be_json() {
    let rig = Rig::small();
    let kim = rig.person("kim");
    let text = b"[agent]\nlisten = \"off\"\nlog_format = \"json\"\n";
    let file = rig.file("off.toml", text);
    let serving = Serving::start(&kim, &["--config", &file]);
    assert_eq!(status(&kim)["listen"], Value::Null);
    assert_eq!(get(kim.home(), "/healthz"), (200, "ok\n".to_owned()));
    for line in serving.stop().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert!(
            line["timestamp"].is_string() && line["level"].is_string(),
            "{line}"
        );
    }
}
