//! Who decides on requests that no grant covers, as the config file says.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use sealcast::{Policy, Question, Verdict};
use tokio::time::timeout;

use crate::config::DecisionPolicy;
use crate::hub::now;
use crate::questions::Questions;
use crate::server::{Server, ServerError};

/// Where requests wait for a person. Without one who decides, none ever does.
pub(crate) fn questions(decisions: &DecisionPolicy) -> Arc<Questions> {
    let wait = match decisions {
        DecisionPolicy::Ask { timeout } => *timeout,
        DecisionPolicy::Log | DecisionPolicy::Exec { .. } | DecisionPolicy::Url { .. } => {
            Duration::ZERO
        }
    };
    Arc::new(Questions::new(wait))
}

/// The policy of the config file.
pub(crate) fn policy(
    decisions: &DecisionPolicy,
    questions: &Arc<Questions>,
) -> Result<Policy, ServerError> {
    Ok(match decisions {
        DecisionPolicy::Log => Policy::log(),
        DecisionPolicy::Ask { .. } => {
            let questions = questions.clone();
            Policy::beyond_log(move |question| ready(ask_person(&questions, question)))
        }
        DecisionPolicy::Exec {
            program,
            args,
            timeout,
        } => Policy::exec(program.clone(), args.clone(), *timeout),
        DecisionPolicy::Url { url, ca, timeout } => {
            let server = Arc::new(Server::new(url, ca.as_deref())?);
            let within = *timeout;
            Policy::beyond_log(move |question| ask_server(server.clone(), question, within))
        }
    })
}

fn ask_person(questions: &Questions, question: Question) -> Verdict {
    let mut id = [0; 4];
    if getrandom::fill(&mut id).is_err() {
        return Verdict::No;
    }
    let (verdict, is_new) = questions.ask(now(), u32::from_be_bytes(id), question);
    if is_new {
        tracing::info!("a request waits for a decision");
    }
    verdict
}

/// Whatever goes wrong is a no.
async fn ask_server(server: Arc<Server>, question: Question, within: Duration) -> Verdict {
    match timeout(within, server.ask(question.to_json())).await {
        Ok(Ok(verdict)) => verdict,
        Ok(Err(why)) => {
            tracing::warn!(%why, "the server that decides did not");
            Verdict::No
        }
        Err(_) => {
            tracing::warn!(why = "late", "the server that decides did not");
            Verdict::No
        }
    }
}
