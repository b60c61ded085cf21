//! The guide to topics of a broker's users.
#![cfg(target_os = "linux")]

use sealcast_brokers::mosquitto::Server;

use super::run_after;

/// Ends with one that everybody may have and nobody can read.
const STORY: &str = r#"```sh
for seconds in 5 60; do
    mosquitto_sub -p 1883 -u plant -P change-me -t '#' -W $seconds -F '%t %x' > seen || true
    if grep -q plant/7/state seen && grep -q sealed/log seen; then break; fi
done
grep -q plant/7/state seen
grep -q sealed/log seen
for secret in '61.4 C' running; do
    hex=$(printf %s "$secret" | od -An -tx1 | tr -d ' \n')
    for shown in "$secret" "$(printf %s "$secret" | base64)" "$hex"; do
        if grep -qaF -e "$shown" seen envelope; then echo "found: $secret"; exit 1; fi
    done
done
if sealcast pub plant -t other/7 -m no --json 2> refused; then exit 1; fi
grep -q '"code":"message.topic"' refused
if sealcast pub plant -t 'plant/+' -m no 2> refused; then exit 1; fi
sealcast inspect envelope --stream plant --topic plant/7/state --json | grep -c '"signed":true'
sealcast inspect envelope --stream plant --json | grep -c '"signed":false'
seq 3 | sealcast pub plant -t plant/9/t -l
sealcast --home reader read plant --json | grep -c '"topic":"plant/9/t"'
echo nothing found
```
"#;

#[test]
fn the_guide_to_topics_ends_as_it_says_and_its_broker_sees_nothing_readable() {
    let page = include_str!("../../../../docs/guides/keep-your-mqtt-topics.md");
    assert!(page.split_whitespace().count() <= 700, "it is short");
    let server = Server::start();
    let before = "
cd \"$HOME\"
export SEALCAST_HOME=home
";
    let page = format!("{page}{STORY}").replace("1883", &server.port().to_string());
    let out = run_after(before, &page);
    let opened = r#""topic":"plant/7/state","state":"opened","text":"running""#;
    let rejected = r#""state":"rejected","reason":"bad-signature""#;
    let lines = |wanted: &str| out.lines().filter(|line| line.contains(wanted)).count();
    assert_eq!((lines(opened), lines(rejected)), (2, 1), "{out}");
    assert_eq!(
        (lines("exit code 3"), lines("nothing found")),
        (1, 1),
        "{out}"
    );
    let numbers = |number: &str| out.lines().filter(|line| *line == number).count();
    assert_eq!((numbers("1"), numbers("3")), (2, 1), "{out}");
}
