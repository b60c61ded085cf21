//! Help pages and refusals, as sessions with what they print.

#[test]
fn help_pages_and_refusals_read_as_written() {
    trycmd::TestCases::new()
        .env("SEALCAST_HOME", "no-such-home")
        .env("SEALCAST_PASSPHRASE_FILE", "")
        .env("NO_COLOR", "1")
        .case("tests/cmd/*.trycmd");
}
