//! A question as bytes, and what a datagram that comes back is to it.

use std::net::IpAddr;

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, RecordType},
};

/// Records of one answer that are looked at.
const MAX_RECORDS: usize = 64;
/// Records whose data is kept as text, and how much of each.
const SHOWN_RECORDS: usize = 8;
const SHOWN_CHARACTERS: usize = 128;

/// A question to be sent, and sent again.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) name: Name,
    pub(super) record_type: RecordType,
    id: u16,
}

/// What a datagram is to a question.
#[derive(Debug)]
pub(super) enum Reply {
    /// Its answer.
    Answer(Answer),
    /// Its answer, cut short.
    Truncated,
    /// Not its answer: another's, or no message at all.
    Stranger,
}

/// An answer, as far as it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) code: ResponseCode,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) records: Vec<String>,
}

impl Question {
    /// A question with an id that nobody can guess.
    pub(super) fn new(name: Name, record_type: RecordType) -> Self {
        Self {
            name,
            record_type,
            id: Message::query().metadata.id,
        }
    }

    /// As it goes over the wire. Without EDNS, as the C library asks by default: what netobs
    /// measures is what programs get.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        let mut message = Message::new(self.id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(self.name.clone(), self.record_type));
        message.to_vec().ok()
    }

    /// What `bytes` are to this question.
    pub(super) fn judge(&self, bytes: &[u8]) -> Reply {
        let Ok(message) = Message::from_vec(bytes) else {
            return Reply::Stranger;
        };
        let head = message.metadata;
        if head.id != self.id || head.message_type != MessageType::Response {
            return Reply::Stranger;
        }
        let same = match message.queries.as_slice() {
            [asked] => asked.name() == &self.name && asked.query_type() == self.record_type,
            // A server that could not read the question has none to repeat.
            [] => head.response_code != ResponseCode::NoError,
            _ => false,
        };
        if !same {
            return Reply::Stranger;
        }
        if head.truncation {
            return Reply::Truncated;
        }
        Reply::Answer(self.read(&message))
    }

    /// The records of the name and of the names that it stands for.
    fn read(&self, message: &Message) -> Answer {
        let records = || message.answers.iter().take(MAX_RECORDS);
        let mut names = vec![&self.name];
        for record in records() {
            if let RData::CNAME(target) = &record.data
                && names.contains(&&record.name)
            {
                names.push(&target.0);
            }
        }
        let own: Vec<_> = records()
            .filter(|record| {
                record.record_type() == self.record_type && names.contains(&&record.name)
            })
            .collect();
        let addresses = own.iter().filter_map(|record| match &record.data {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            RData::AAAA(address) => Some(IpAddr::V6(address.0)),
            _ => None,
        });
        let shown = |record: &&hickory_proto::rr::Record| {
            let text = record.data.to_string();
            text.chars().take(SHOWN_CHARACTERS).collect()
        };
        Answer {
            code: message.metadata.response_code,
            addresses: addresses.collect(),
            records: own.iter().take(SHOWN_RECORDS).map(shown).collect(),
        }
    }
}

/// Response codes with the names of the IANA registry.
const CODES: [(ResponseCode, &str); 11] = [
    (ResponseCode::NoError, "NOERROR"),
    (ResponseCode::FormErr, "FORMERR"),
    (ResponseCode::ServFail, "SERVFAIL"),
    (ResponseCode::NXDomain, "NXDOMAIN"),
    (ResponseCode::NotImp, "NOTIMP"),
    (ResponseCode::Refused, "REFUSED"),
    (ResponseCode::YXDomain, "YXDOMAIN"),
    (ResponseCode::YXRRSet, "YXRRSET"),
    (ResponseCode::NXRRSet, "NXRRSET"),
    (ResponseCode::NotAuth, "NOTAUTH"),
    (ResponseCode::NotZone, "NOTZONE"),
];

/// The name of a code.
pub(super) fn code_name(code: ResponseCode) -> &'static str {
    let found = CODES.iter().find(|(known, _)| *known == code);
    found.map_or("OTHER", |(_, name)| name)
}

/// The code that somebody named, as [`code_name`] has it; in any case of letters.
#[must_use]
pub fn response_code(text: &str) -> Option<&'static str> {
    let found = CODES
        .iter()
        .find(|(_, name)| name.eq_ignore_ascii_case(text));
    found.map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::{Record, rdata};
    use proptest::prelude::*;

    use super::*;

    fn question() -> Question {
        Question::new(Name::from_utf8("a.example.").unwrap(), RecordType::A)
    }

    fn answer_to(question: &Question) -> Message {
        let mut message = Message::from_vec(&question.encode().unwrap()).unwrap();
        message.metadata.message_type = MessageType::Response;
        message
    }

    fn address(owner: &str, last: u8) -> Record {
        let name = Name::from_utf8(owner).unwrap();
        Record::from_rdata(name, 60, RData::A(rdata::A::new(10, 0, 0, last)))
    }

    #[test]
    fn aliases_are_followed_and_strangers_left_out() {
        let question = question();
        let mut message = answer_to(&question);
        let alias = Name::from_utf8("b.example.").unwrap();
        message.add_answer(Record::from_rdata(
            Name::from_utf8("A.example.").unwrap(),
            60,
            RData::CNAME(rdata::CNAME(alias)),
        ));
        message.add_answer(address("b.example.", 1));
        message.add_answer(address("evil.example.", 2));
        let Reply::Answer(answer) = question.judge(&message.to_vec().unwrap()) else {
            panic!("not taken");
        };
        assert_eq!(answer.addresses, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(answer.records, ["10.0.0.1"]);
    }

    #[test]
    fn lies_are_strangers() {
        let question = question();
        let stranger = |change: &dyn Fn(&mut Message)| {
            let mut message = answer_to(&question);
            change(&mut message);
            matches!(question.judge(&message.to_vec().unwrap()), Reply::Stranger)
        };
        assert!(!stranger(&|_| {}));
        assert!(stranger(&|message| message.metadata.id ^= 1));
        assert!(stranger(
            &|message| message.metadata.message_type = MessageType::Query
        ));
        assert!(stranger(&|message| message.queries.clear()));
        assert!(stranger(&|message| {
            message.queries[0].set_query_type(RecordType::AAAA);
        }));
        assert!(!stranger(&|message| {
            message.queries.clear();
            message.metadata.response_code = ResponseCode::FormErr;
        }));
        assert!(matches!(question.judge(b"garbage"), Reply::Stranger));
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = question().judge(&bytes);
        }

        #[test]
        fn a_flipped_answer_is_judged(at in 0_usize..200, to in any::<u8>()) {
            let question = question();
            let mut message = answer_to(&question);
            message.add_answer(address("a.example.", 1));
            let mut bytes = message.to_vec().unwrap();
            let at = at % bytes.len();
            bytes[at] = to;
            let _ = question.judge(&bytes);
        }
    }

    #[test]
    fn codes_have_names() {
        assert_eq!(code_name(ResponseCode::NXDomain), "NXDOMAIN");
        assert_eq!(code_name(ResponseCode::Unknown(999)), "OTHER");
        assert_eq!(response_code("nxdomain"), Some("NXDOMAIN"));
        assert_eq!(response_code("x"), None);
    }
}
