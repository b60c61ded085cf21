//! Who decides about requests for keys.

use std::fmt;
use std::fmt::Write as _;
use std::future::ready;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use sealcast_protocol::{
    DeviceId, Interval, Name, Position, RefusalReason, RequestId, SessionId, StreamId, UserId,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Questions that one policy asks at a time, where whoever decides is asked beyond the log only.
const ASKED_MAX: usize = 4;
/// Bytes of a program's answer that are read.
const ANSWER_MAX: u64 = 64;

type Deciding = Pin<Box<dyn Future<Output = Decision> + Send>>;

/// Decides whether to answer a request for keys.
///
/// Whatever it says, nobody is given what the access log does not allow: a yes beyond it is a grant.
#[derive(Clone)]
pub struct Policy(Kind);

#[derive(Clone)]
enum Kind {
    Log,
    Asks(Arc<dyn Fn(Question) -> Deciding + Send + Sync>),
}

/// What somebody asks for, and what the access log says to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The stream.
    pub stream: StreamId,
    /// Its name in this home.
    pub name: Name,
    /// Who asks; known to be so.
    pub user: UserId,
    /// The device that asks.
    pub device: DeviceId,
    /// The request.
    pub request: RequestId,
    /// What is asked for.
    pub wants: Vec<AskedFor>,
    /// What the access log has of who asks.
    pub standing: AskerStanding,
}

/// What the access log has of somebody who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskerStanding {
    /// Nothing: no grant names the user.
    Stranger,
    /// Grants that stand. What they do not cover is another time or another lane, or needs another
    /// role.
    Granted,
    /// Grants that were taken back, and none that stands.
    Revoked,
}

/// One thing that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AskedFor {
    /// The lane.
    pub lane: UserId,
    /// The session; none for all of the lane.
    pub session: Option<SessionId>,
    /// The positions.
    pub interval: Interval,
    /// Why the access log, or this device, gives nothing of it; none where it is given.
    pub refused: Option<RefusalReason>,
}

/// What to do about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Give what the access log allows, and refuse the rest.
    ByLog,
    /// Write a grant of reading what the access log does not allow, then give all of it. Where this
    /// user may not write it, the log decides.
    Grant,
    /// Give nothing.
    Refuse(RefusalReason),
}

/// What whoever is asked says to what the access log does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Write a grant of reading it.
    Yes,
    /// The log decides.
    No,
    /// Somebody else is asked; a yes will be a grant.
    Later,
}

impl Verdict {
    fn parse(said: &[u8]) -> Option<Self> {
        match said.trim_ascii() {
            b"yes" => Some(Self::Yes),
            b"no" => Some(Self::No),
            b"later" => Some(Self::Later),
            _ => None,
        }
    }
}

impl Policy {
    /// The access log decides alone: who may read something is given its keys, and nobody else.
    pub fn log() -> Self {
        Self(Kind::Log)
    }

    /// The application decides about every request. Where that takes longer than the request lives,
    /// a yes is a grant all the same, and its keys come as those of any grant do.
    ///
    /// ```
    /// use sealcast::{Decision, Policy, RefusalReason};
    ///
    /// // Somebody looks at the requests later; whom the log names gets keys at once.
    /// let policy = Policy::asking(|question| async move {
    ///     match question.exceeds_log() {
    ///         true => Decision::Refuse(RefusalReason::PendingApproval),
    ///         false => Decision::ByLog,
    ///     }
    /// });
    /// # drop(policy);
    /// ```
    pub fn asking<F>(decide: impl Fn(Question) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Decision> + Send + 'static,
    {
        Self(Kind::Asks(Arc::new(move |question| {
            Box::pin(decide(question))
        })))
    }

    /// The application decides about what the access log does not allow, and is asked about nothing
    /// else, four questions at a time.
    pub fn beyond_log<F>(decide: impl Fn(Question) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Verdict> + Send + 'static,
    {
        let (decide, asked) = (Arc::new(decide), Arc::new(Semaphore::new(ASKED_MAX)));
        Self::asking(move |question| {
            let (decide, asked) = (decide.clone(), asked.clone());
            async move {
                if !question.exceeds_log() {
                    return Decision::ByLog;
                }
                let is_allowed_some = question.is_allowed_some();
                let Ok(_turn) = asked.acquire().await else {
                    return Decision::ByLog;
                };
                match decide(question).await {
                    Verdict::Yes => Decision::Grant,
                    // What the log allows is given whatever becomes of the rest.
                    Verdict::Later if !is_allowed_some => {
                        Decision::Refuse(RefusalReason::PendingApproval)
                    }
                    Verdict::Later | Verdict::No => Decision::ByLog,
                }
            }
        })
    }

    /// A program decides about what the access log does not allow. It gets the question as one line
    /// of JSON ([`Question::to_json`]) on its standard input, and says `yes`, `no` or `later` on its
    /// output. Anything else, a failure, and no answer in time are a no.
    pub fn exec(program: PathBuf, args: Vec<String>, within: Duration) -> Self {
        Self::beyond_log(move |question| {
            let asked = run(program.clone(), args.clone(), question.to_json());
            async move {
                let said = timeout(within, asked).await.ok().flatten();
                said.unwrap_or(Verdict::No)
            }
        })
    }

    pub(super) fn is_log(&self) -> bool {
        matches!(self.0, Kind::Log)
    }

    pub(super) fn decide(&self, question: Question) -> Deciding {
        match &self.0 {
            Kind::Log => Box::pin(ready(Decision::ByLog)),
            Kind::Asks(decide) => decide(question),
        }
    }
}

/// The access log decides.
impl Default for Policy {
    fn default() -> Self {
        Self::log()
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Log => "Policy(log)",
            Kind::Asks(_) => "Policy(asks)",
        })
    }
}

impl Question {
    /// Whether anything is asked for that the access log does not allow.
    pub fn exceeds_log(&self) -> bool {
        self.beyond_log().next().is_some()
    }

    /// What the access log does not allow.
    pub fn beyond_log(&self) -> impl Iterator<Item = &AskedFor> {
        let not_entitled = Some(RefusalReason::NotEntitled);
        self.wants
            .iter()
            .filter(move |of| of.refused == not_entitled)
    }

    fn is_allowed_some(&self) -> bool {
        self.wants.iter().any(|of| of.refused.is_none())
    }

    /// The question as one line of JSON: `stream`, `name`, `user`, `device`, `request`, `standing`
    /// (`stranger`, `granted` or `revoked`) and `wants`, each of these with `lane`, `session` where it
    /// is one, `from`, `until` where there is an end, both in Unix milliseconds, and `refused` where
    /// the log does not allow it.
    pub fn to_json(&self) -> String {
        let mut json = format!(
            r#"{{"stream":"{}","name":{},"user":"{}","device":"{}","request":"{}","standing":"{}","wants":["#,
            self.stream,
            quoted(self.name.as_str()),
            self.user,
            self.device,
            hex(&self.request.0),
            self.standing.word(),
        );
        for (at, want) in self.wants.iter().enumerate() {
            json.push_str(if at == 0 { "{" } else { ",{" });
            let _ = write!(json, r#""lane":"{}""#, want.lane);
            if let Some(session) = want.session {
                let _ = write!(json, r#","session":"{session}""#);
            }
            let _ = write!(json, r#","from":{}"#, want.interval.from.0);
            if want.interval.until != Position::END {
                let _ = write!(json, r#","until":{}"#, want.interval.until.0);
            }
            let refused = match want.refused {
                None => "",
                Some(RefusalReason::NotEntitled) => r#","refused":"not-entitled""#,
                Some(RefusalReason::UnknownSession) => r#","refused":"unknown-session""#,
                Some(RefusalReason::PendingApproval) => r#","refused":"pending-approval""#,
            };
            json.push_str(refused);
            json.push('}');
        }
        json.push_str("]}\n");
        json
    }
}

impl AskerStanding {
    /// The stable name of it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Stranger => "stranger",
            Self::Granted => "granted",
            Self::Revoked => "revoked",
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A string of JSON.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Asks a program; nothing where it fails. It is ended when nobody waits for it any more.
async fn run(program: PathBuf, args: Vec<String>, question: String) -> Option<Verdict> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .ok()?;
    let (mut stdin, stdout) = (child.stdin.take()?, child.stdout.take()?);
    let ask = async move {
        // A program need not read the question.
        let _written = stdin.write_all(question.as_bytes()).await;
    };
    let listen = async move {
        let mut said = Vec::new();
        let read = stdout.take(ANSWER_MAX).read_to_end(&mut said).await;
        read.ok().map(|_| said)
    };
    let ((), said) = tokio::join!(ask, listen);
    let is_done = child.wait().await.is_ok_and(|status| status.success());
    said.filter(|_| is_done)
        .and_then(|said| Verdict::parse(&said))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(refused: &[Option<RefusalReason>]) -> Question {
        let want = |refused: &Option<RefusalReason>| AskedFor {
            lane: UserId([1; 32]),
            session: Some(SessionId([2; 16])),
            interval: Interval {
                from: Position(5),
                until: Position::END,
            },
            refused: *refused,
        };
        Question {
            stream: StreamId([3; 32]),
            name: "kim's \"room\"".parse().unwrap(),
            user: UserId([4; 32]),
            device: DeviceId([5; 16]),
            request: RequestId([6; 16]),
            wants: refused.iter().map(want).collect(),
            standing: AskerStanding::Granted,
        }
    }

    const NO: Option<RefusalReason> = Some(RefusalReason::NotEntitled);
    const LATER: Decision = Decision::Refuse(RefusalReason::PendingApproval);
    const UNKNOWN: Option<RefusalReason> = Some(RefusalReason::UnknownSession);

    fn shell(script: &str, within: Duration) -> Policy {
        Policy::exec("sh".into(), vec!["-c".into(), script.into()], within)
    }

    #[test]
    fn a_question_is_one_line_of_json_with_its_names_escaped() {
        let json = question(&[None, NO]).to_json();
        assert!(json.ends_with("]}\n") && json.lines().count() == 1);
        assert!(
            json.contains(r#""name":"kim's \"room\"","user":"sc1"#),
            "{json}"
        );
        let standing = format!(
            r#""request":"{}","standing":"granted","wants":["#,
            "06".repeat(16)
        );
        assert!(json.contains(&standing), "{json}");
        let want = format!(
            r#","session":"{}","from":5,"refused":"not-entitled"}}"#,
            "02".repeat(16)
        );
        assert!(json.contains(&want), "{json}");
        assert_eq!(quoted("a\u{1}\\"), r#""a\u0001\\""#);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_program_decides_and_whatever_goes_wrong_is_a_no() {
        let long = Duration::from_secs(60);
        for (script, says) in [
            ("grep -q not-entitled && echo yes", Decision::Grant),
            ("echo no", Decision::ByLog),
            ("echo later", LATER),
            ("echo yes; exit 1", Decision::ByLog),
            ("echo yes and no", Decision::ByLog),
            ("true", Decision::ByLog),
            ("yes", Decision::ByLog),
        ] {
            let decided = shell(script, long).decide(question(&[NO])).await;
            assert_eq!(decided, says, "{script}");
        }
        let missing = Policy::exec("/no/such/program".into(), Vec::new(), long);
        assert_eq!(missing.decide(question(&[NO])).await, Decision::ByLog);
        let late = shell("exec sleep 60", Duration::from_millis(1));
        assert_eq!(late.decide(question(&[NO])).await, Decision::ByLog);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_program_takes_nothing_of_what_the_log_allows_and_is_not_asked_then() {
        let long = Duration::from_secs(60);
        for script in ["echo no", "echo later", "exit 1"] {
            let decided = shell(script, long).decide(question(&[NO, None])).await;
            assert_eq!(decided, Decision::ByLog, "{script}");
        }
        let asked = shell("echo yes", long).decide(question(&[UNKNOWN])).await;
        assert_eq!(asked, Decision::ByLog);
    }
}
