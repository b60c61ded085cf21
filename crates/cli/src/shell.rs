//! Commands to type, as a shell takes them.

/// A name, a URL or a path as one word of a shell: as it is where that will do, and quoted otherwise.
pub(crate) fn quoted(word: &str) -> String {
    let is_plain = |c: u8| c.is_ascii_alphanumeric() || b"-_.,:/@%+=".contains(&c);
    match !word.is_empty() && word.bytes().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn what_needs_no_quotes_has_none() {
        for word in [
            "boiler-2",
            "file:/srv/bus",
            "nats://a.example:4222,b.example/plant",
        ] {
            assert_eq!(quoted(word), word);
        }
        let url = "mqtt://h/p?topics=plant/#&retain=plant/+/state";
        assert_eq!(quoted(url), format!("'{url}'"));
    }

    #[test]
    fn a_shell_takes_every_word_as_it_was() {
        for word in [
            "",
            "boiler-2",
            "kim's room",
            "mqtt://[::1]/p?topics=plant/#&retain=plant/+/state",
            "file:/srv/$HOME/`id`/*",
            "~",
            "one;two",
            "one&two",
            "two\nlines;\\ \"here\"",
        ] {
            let script = format!("printf %s {}", quoted(word));
            let typed = Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(typed.stdout).unwrap(), word);
        }
    }
}
