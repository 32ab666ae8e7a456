//! Questions to one server: over UDP from one socket, as the C library sends them, and over TCP
//! where the answer was cut short.

use std::{io, net::SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UdpSocket,
    time::{Instant, timeout_at},
};

use super::message::{Answer, Question, Reply, code_name};
use crate::path::{
    cause::ErrorType,
    connect,
    course::Course,
    kernel::Ends,
    outcome::{Query, QueryOutcome, Transport},
};

/// The largest datagram that is looked at; an answer without EDNS has 512 bytes.
const DATAGRAM_BYTES: usize = 4096;
/// Datagrams that answer nothing before the socket is given up: somebody floods it.
const MAX_STRANGERS: u32 = 1000;

/// What became of one question.
pub(super) struct Asked {
    pub(super) query: Query,
    pub(super) answer: Option<Answer>,
}

impl Asked {
    fn new(course: &Course<'_>, server: SocketAddr, question: &Question) -> Self {
        Self {
            query: Query {
                server,
                local: None,
                transport: Transport::Udp,
                name: question.name.to_string(),
                record_type: question.record_type.to_string(),
                start: course.now(),
                length: std::time::Duration::ZERO,
                outcome: QueryOutcome::NoAnswer,
                response_code: None,
                strange_answers: 0,
            },
            answer: None,
        }
    }

    fn end(&mut self, course: &Course<'_>, outcome: QueryOutcome) {
        self.query.length = course.now().saturating_sub(self.query.start);
        self.query.outcome = outcome;
    }

    fn take(&mut self, course: &Course<'_>, answer: Answer) {
        self.end(course, QueryOutcome::Answered);
        self.query.response_code = Some(code_name(answer.code));
        self.answer = Some(answer);
    }
}

/// Asks all questions of one server and waits until each is answered, at most until `until`.
/// A question whose answer was cut short is asked once more over TCP; its answer stands in the
/// result for that.
pub(super) async fn ask(
    course: &Course<'_>,
    server: SocketAddr,
    questions: &[Question],
    until: Instant,
) -> Vec<Asked> {
    let mut asked: Vec<Asked> = questions
        .iter()
        .map(|question| Asked::new(course, server, question))
        .collect();
    if let Err(error) = by_datagram(course, server, questions, &mut asked, until).await {
        let outcome = match ErrorType::of_io(&error) {
            ErrorType::Refused => QueryOutcome::Refused,
            _ => QueryOutcome::NotSent,
        };
        for waiting in unanswered(&mut asked) {
            waiting.end(course, outcome);
        }
    }
    for waiting in unanswered(&mut asked) {
        if waiting.query.length.is_zero() {
            waiting.end(course, QueryOutcome::NoAnswer);
        }
    }
    let mut again = Vec::new();
    for (question, first) in questions.iter().zip(&asked) {
        if first.query.outcome == QueryOutcome::Truncated {
            let mut second = Asked::new(course, server, question);
            second.query.transport = Transport::Tcp;
            by_stream(course, question, &mut second, until).await;
            again.push(second);
        }
    }
    asked.extend(again);
    asked
}

fn unanswered(asked: &mut [Asked]) -> impl Iterator<Item = &mut Asked> {
    asked.iter_mut().filter(|it| {
        !matches!(
            it.query.outcome,
            QueryOutcome::Answered | QueryOutcome::Truncated
        )
    })
}

async fn by_datagram(
    course: &Course<'_>,
    server: SocketAddr,
    questions: &[Question],
    asked: &mut [Asked],
    until: Instant,
) -> io::Result<()> {
    // Connected: the kernel lets through what comes from the server alone, and reports its
    // host's "port unreachable" on this socket.
    let socket = Socket::new(
        Domain::for_address(server),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    socket.set_nonblocking(true)?;
    socket.connect(&server.into())?;
    let local = socket.local_addr()?.as_socket();
    for it in &mut *asked {
        it.query.local = local;
    }
    if let Some(local) = local {
        course.kernel.watch(Ends {
            local,
            remote: server,
            transport: Transport::Udp,
        });
    }
    let socket = UdpSocket::from_std(socket.into())?;
    for (question, it) in questions.iter().zip(&mut *asked) {
        let bytes = question
            .encode()
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        it.query.start = course.now();
        socket.send(&bytes).await?;
    }
    let mut buffer = vec![0; DATAGRAM_BYTES];
    let mut strangers = 0;
    while unanswered(asked).next().is_some() && strangers < MAX_STRANGERS {
        let Ok(received) = timeout_at(until, socket.recv(&mut buffer)).await else {
            break;
        };
        let bytes = buffer.get(..received?).unwrap_or_default();
        let pairs = questions.iter().zip(&mut *asked);
        let mut open = pairs.filter(|(_, it)| it.query.outcome == QueryOutcome::NoAnswer);
        let known = open.any(|(question, it)| match question.judge(bytes) {
            Reply::Answer(answer) => {
                it.take(course, answer);
                true
            }
            Reply::Truncated => {
                it.end(course, QueryOutcome::Truncated);
                true
            }
            Reply::Stranger => false,
        });
        if !known {
            strangers += 1;
            for it in unanswered(asked) {
                it.query.strange_answers += 1;
            }
        }
    }
    Ok(())
}

async fn by_stream(course: &Course<'_>, question: &Question, asked: &mut Asked, until: Instant) {
    let (attempt, stream) = connect::open(course, asked.query.server, until).await;
    asked.query.local = attempt.local;
    let Some(mut stream) = stream else {
        let outcome = match attempt.error_type {
            Some(ErrorType::Refused) => QueryOutcome::Refused,
            Some(ErrorType::TimedOut) => QueryOutcome::NoAnswer,
            _ => QueryOutcome::NotSent,
        };
        return asked.end(course, outcome);
    };
    let exchange = async {
        let bytes = question.encode()?;
        let length = u16::try_from(bytes.len()).ok()?;
        stream.write_all(&length.to_be_bytes()).await.ok()?;
        stream.write_all(&bytes).await.ok()?;
        let mut answer = vec![0; stream.read_u16().await.ok()?.into()];
        stream.read_exact(&mut answer).await.ok()?;
        Some(question.judge(&answer))
    };
    match timeout_at(until, exchange).await {
        Ok(Some(Reply::Answer(answer))) => asked.take(course, answer),
        Ok(Some(Reply::Truncated | Reply::Stranger)) => {
            asked.query.strange_answers += 1;
            asked.end(course, QueryOutcome::NoAnswer);
        }
        Ok(None) | Err(_) => asked.end(course, QueryOutcome::NoAnswer),
    }
}
