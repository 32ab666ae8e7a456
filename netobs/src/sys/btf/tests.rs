//! Tests on hand-made BTF, on broken BTF, and on the running kernel's.

use std::path::Path;

use proptest::prelude::*;

use super::{Btf, BtfError, MemberOffset, VMLINUX};

/// Writes BTF by hand.
#[derive(Default)]
struct Builder {
    types: Vec<u8>,
    strings: Vec<u8>,
    layout: Vec<u8>,
    count: u32,
}

const INT: u32 = 1;
const PTR: u32 = 2;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const TYPEDEF: u32 = 8;
const CONST: u32 = 10;
const FUNC: u32 = 12;
const PROTO: u32 = 13;
const ENUM64: u32 = 19;
const FLAG: u32 = 1 << 31;

impl Builder {
    fn string(&mut self, text: &str) -> u32 {
        if self.strings.is_empty() {
            self.strings.push(0);
        }
        if text.is_empty() {
            return 0;
        }
        let at = u32::try_from(self.strings.len()).unwrap();
        self.strings.extend_from_slice(text.as_bytes());
        self.strings.push(0);
        at
    }

    fn add(&mut self, name: &str, kind_and_flag: u32, count: u32, size: u32, extra: &[u32]) -> u32 {
        let name = self.string(name);
        let info = (kind_and_flag & FLAG) | (kind_and_flag & 0x7f) << 24 | count;
        for word in [name, info, size].iter().chain(extra) {
            self.types.extend_from_slice(&word.to_le_bytes());
        }
        self.count += 1;
        self.count
    }

    fn int(&mut self, name: &str, bytes: u32) -> u32 {
        self.add(name, INT, 0, bytes, &[bytes * 8])
    }

    fn aggregate(&mut self, kind: u32, name: &str, size: u32, members: &[(&str, u32, u32)]) -> u32 {
        let mut extra = Vec::new();
        for &(name, type_id, bits) in members {
            extra.extend([self.string(name), type_id, bits]);
        }
        self.add(
            name,
            kind,
            u32::try_from(members.len()).unwrap(),
            size,
            &extra,
        )
    }

    fn function(&mut self, name: &str, parameters: &[(&str, u32)]) -> u32 {
        let mut extra = Vec::new();
        for &(name, type_id) in parameters {
            extra.extend([self.string(name), type_id]);
        }
        let proto = self.add(
            "",
            PROTO,
            u32::try_from(parameters.len()).unwrap(),
            0,
            &extra,
        );
        if name.is_empty() {
            proto
        } else {
            self.add(name, FUNC, 1, proto, &[])
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let types = u32::try_from(self.types.len()).unwrap();
        let layout = u32::try_from(self.layout.len()).unwrap();
        let strings = u32::try_from(self.strings.len()).unwrap();
        let header = if layout == 0 { 24_u32 } else { 32 };
        let mut out = vec![0x9f, 0xeb, 1, 0];
        for word in [header, 0, types, types + layout, strings] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        if layout != 0 {
            out.extend_from_slice(&types.to_le_bytes());
            out.extend_from_slice(&layout.to_le_bytes());
        }
        out.extend_from_slice(&self.types);
        out.extend_from_slice(&self.layout);
        out.extend_from_slice(&self.strings);
        out
    }

    fn btf(&self) -> Btf {
        Btf::from_bytes(self.bytes()).unwrap()
    }
}

/// A kernel in small: sockets, a drop reason, a tracepoint.
fn kernel() -> Builder {
    let mut b = Builder::default();
    let int = b.int("int", 4);
    let byte = b.int("unsigned char", 1);
    let net = b.aggregate(STRUCT, "net", 8, &[("ns", int, 0)]);
    let net_pointer = b.add("", PTR, 0, net, &[]);
    let possible = b.aggregate(STRUCT, "", 8, &[("net", net_pointer, 0)]);
    let possible = b.add("possible_net_t", TYPEDEF, 0, possible, &[]);
    let ports = b.aggregate(STRUCT, "", 4, &[("skc_dport", int, 0)]);
    let either = b.aggregate(UNION, "", 4, &[("skc_portpair", int, 0), ("", ports, 0)]);
    let common = b.aggregate(
        STRUCT,
        "sock_common",
        16,
        &[("", either, 0), ("skc_net", possible, 64)],
    );
    let common = b.add("", CONST, 0, common, &[]);
    let array = b.add("", ARRAY, 0, 0, &[byte, int, 4]);
    b.aggregate(
        STRUCT | FLAG,
        "sock",
        24,
        &[
            ("__sk_common", common, 0),
            ("flags", byte, (16 * 8 + 3) | (5 << 24)),
            ("cb", array, 17 * 8),
        ],
    );
    let old_bits = b.add("", INT, 0, 4, &[2 << 16 | 3]);
    b.aggregate(STRUCT, "old", 4, &[("field", old_bits, 8)]);
    let (none, overflow) = (b.string("REASON_NONE"), b.string("REASON_OVERFLOW"));
    b.add("reason", ENUM, 2, 4, &[none, 0, overflow, 40]);
    let minus = b.string("MINUS");
    b.add("", ENUM | FLAG, 1, 4, &[minus, u32::MAX]);
    let wide = b.string("WIDE");
    b.add("wide", ENUM64, 1, 8, &[wide, 1, 2]);
    let proto = b.function(
        "",
        &[("", net_pointer), ("skb", net_pointer), ("reason", int)],
    );
    let pointer = b.add("", PTR, 0, proto, &[]);
    b.add("btf_trace_kfree_skb", TYPEDEF, 0, pointer, &[]);
    b.function("tcp_v4_rcv", &[("skb", net_pointer)]);
    b.function("printk", &[("fmt", net_pointer), ("", 0)]);
    b
}

#[test]
fn members_are_found_through_anonymous_structs_and_typedefs() {
    let btf = kernel().btf();
    let plain = |byte, size| MemberOffset {
        byte,
        bit: None,
        size,
    };
    assert_eq!(
        btf.member_offset("sock.__sk_common.skc_net.net").unwrap(),
        plain(8, 8)
    );
    assert_eq!(
        btf.member_offset("sock.__sk_common.skc_dport").unwrap(),
        plain(0, 4)
    );
    assert_eq!(btf.member_offset("sock.cb").unwrap(), plain(17, 4));
    let flags = MemberOffset {
        byte: 16,
        bit: Some((3, 5)),
        size: 1,
    };
    assert_eq!(btf.member_offset("sock.flags").unwrap(), flags);
    let old = MemberOffset {
        byte: 1,
        bit: Some((2, 3)),
        size: 4,
    };
    // The declared `int` would reach beyond the struct, the bits themselves do not.
    assert_eq!(btf.member_offset("old.field").unwrap(), old);
}

#[test]
fn errors_name_what_is_missing() {
    let btf = kernel().btf();
    let message = |path: &str| btf.member_offset(path).unwrap_err().to_string();
    assert_eq!(
        message("sock.skc_netx"),
        "struct sock has no member skc_netx"
    );
    assert_eq!(
        message("sock.__sk_common.nope"),
        "struct sock_common has no member nope"
    );
    assert_eq!(
        message("sock.__sk_common.skc_net.nope"),
        "sock.__sk_common.skc_net has no member nope"
    );
    assert_eq!(
        message("sock.__sk_common.skc_net.net.ns"),
        "sock.__sk_common.skc_net.net is a pointer: cannot look for ns in it"
    );
    assert_eq!(
        message("sock.cb.x"),
        "sock.cb is an array: cannot look for x in it"
    );
    assert_eq!(message("socket.x"), "the kernel has no struct socket");
    for path in ["", "sock", "sock.", ".x", "sock..x"] {
        assert!(
            matches!(btf.member_offset(path), Err(BtfError::BadPath { .. })),
            "{path:?}"
        );
    }
    let missing = btf.enum_value("reason", "REASON_X").unwrap_err();
    assert_eq!(missing.to_string(), "enum reason has no value REASON_X");
    let missing = btf.enum_value("nope", "REASON_X").unwrap_err();
    assert_eq!(missing.to_string(), "the kernel has no enum nope");
}

#[test]
fn enums_of_both_widths_are_read() {
    let btf = kernel().btf();
    assert_eq!(btf.enum_value("reason", "REASON_OVERFLOW").unwrap(), 40);
    assert_eq!(btf.enum_value("wide", "WIDE").unwrap(), 2 << 32 | 1);
    let all = btf.enum_values("reason").unwrap();
    assert_eq!(
        all,
        [
            ("REASON_NONE".to_owned(), 0),
            ("REASON_OVERFLOW".to_owned(), 40)
        ]
    );
    assert_eq!(
        btf.enumerator_values(&["WIDE", "MINUS"]).unwrap(),
        [2 << 32 | 1, -1]
    );
    let missing = btf.enumerator_values(&["MINUS", "NOPE"]).unwrap_err();
    assert_eq!(missing.to_string(), "the kernel has no value NOPE");
}

#[test]
fn functions_and_tracepoints_are_counted() {
    let btf = kernel().btf();
    assert_eq!(btf.tracepoint_args("kfree_skb"), Some(2));
    assert_eq!(btf.tracepoint_args("nope"), None);
    assert!(btf.has_function("tcp_v4_rcv") && !btf.has_function("sock"));
    assert_eq!(btf.function_args("tcp_v4_rcv"), Some(1));
    assert_eq!(btf.function_args("printk"), Some(1));
    assert_eq!(btf.function_args("nope"), None);
    assert_eq!(btf.struct_size("sock").unwrap(), 24);
}

#[test]
fn copies_that_disagree_are_ambiguous() {
    let mut b = kernel();
    b.aggregate(STRUCT, "old", 8, &[("other", 1, 0)]);
    // The second has no such member: the first still answers.
    assert!(b.btf().member_offset("old.field").is_ok());
    b.aggregate(STRUCT, "old", 8, &[("field", 1, 32)]);
    assert!(matches!(
        b.btf().member_offset("old.field"),
        Err(BtfError::Ambiguous { .. })
    ));
    assert!(matches!(
        b.btf().struct_size("old"),
        Err(BtfError::Ambiguous { .. })
    ));
}

#[test]
fn loops_and_self_nesting_end() {
    let mut b = Builder::default();
    b.add("loop", TYPEDEF, 0, 1, &[]);
    // A struct that holds itself twice, anonymously: without a budget 2^depth visits.
    b.aggregate(
        STRUCT,
        "self",
        8,
        &[("", 2, 0), ("", 2, 0), ("looped", 1, 0)],
    );
    let btf = b.btf();
    assert!(btf.member_offset("self.nope").is_err());
    assert!(btf.member_offset("self.looped").is_err());
    assert!(btf.member_offset("self.looped.x").is_err());
}

#[test]
fn headers_are_checked() {
    let good = kernel().bytes();
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        Btf::from_bytes(bytes)
    };
    assert!(matches!(Btf::from_bytes(Vec::new()), Err(BtfError::NotBtf)));
    assert!(matches!(
        Btf::from_bytes(vec![0xeb, 0x9f, 1, 0]),
        Err(BtfError::BigEndian)
    ));
    assert!(matches!(with(2, 2), Err(BtfError::Version { version: 2 })));
    assert!(matches!(with(15, 0x7f), Err(BtfError::Malformed { .. })));
    for len in 0..good.len() {
        assert!(Btf::from_bytes(good[..len].to_vec()).is_err());
    }
}

#[test]
fn unknown_kinds_need_the_layout_section() {
    let mut b = Builder::default();
    b.add("", 25, 2, 0, &[0, 1, 1, 2, 2]);
    b.int("int", 4);
    b.aggregate(STRUCT, "s", 4, &[("x", 2, 0)]);
    assert!(matches!(
        Btf::from_bytes(b.bytes()),
        Err(BtfError::UnknownKind { kind: 25, .. })
    ));
    // 4 bytes once and 8 for each of two elements.
    b.layout = vec![0; 26 * 4];
    b.layout[100] = 4;
    b.layout[101] = 8;
    assert_eq!(b.btf().member_offset("s.x").unwrap().byte, 0);
}

#[test]
fn the_running_kernel_answers() {
    let path = Path::new(VMLINUX);
    if !path.exists() {
        assert_ne!(
            std::env::var("NETOBS_REQUIRE").as_deref(),
            Ok("1"),
            "{VMLINUX} is missing"
        );
        eprintln!("skipped: {VMLINUX} is missing");
        return;
    }
    let start = std::time::Instant::now();
    let btf = Btf::from_file(path).unwrap();
    let parsed = start.elapsed();
    assert!(btf.type_count() > 10_000);
    let retrans = btf.member_offset("tcp_sock.total_retrans").unwrap();
    assert_eq!((retrans.bit, retrans.size), (None, 4));
    let first = start.elapsed();
    let state = btf
        .member_offset("inet_connection_sock.icsk_ca_state")
        .unwrap();
    assert!(matches!(state.bit, Some((_, 3..=8))), "{state:?}");
    let net = btf.member_offset("sock.__sk_common.skc_net.net").unwrap();
    assert_eq!(btf.member_offset("sock_common.skc_net.net").unwrap(), net);
    assert!(matches!(
        btf.member_offset("sock.__sk_common.skc_net.net.mib"),
        Err(BtfError::NotTraversable {
            what: "a pointer",
            ..
        })
    ));
    assert!(btf.tracepoint_args("kfree_skb").unwrap() >= 2);
    assert!(btf.function_args("tcp_v4_rcv") == Some(1));
    assert!(
        btf.enum_value("skb_drop_reason", "SKB_DROP_REASON_NO_SOCKET")
            .unwrap()
            > 0
    );
    let mib = btf.enumerator_values(&["LINUX_MIB_LISTENOVERFLOWS", "LINUX_MIB_LISTENDROPS"]);
    assert!(matches!(mib.unwrap()[..], [overflows, drops] if overflows + 1 == drops));
    eprintln!(
        "parsed in {parsed:?}, first name at {first:?}, all in {:?}",
        start.elapsed()
    );
}

/// Asks everything; only panics and endless loops matter.
fn interrogate(bytes: Vec<u8>) {
    let Ok(btf) = Btf::from_bytes(bytes) else {
        return;
    };
    for path in [
        "sock.__sk_common.skc_net.net",
        "sock.flags",
        "sock.cb",
        "old.field",
        "net.ns",
    ] {
        let _ = btf.member_offset(path);
    }
    let _ = btf.enum_values("reason");
    let _ = btf.enum_value("wide", "WIDE");
    let _ = btf.enumerator_values(&["MINUS", "WIDE"]);
    let _ = btf.struct_size("sock");
    let _ = (
        btf.tracepoint_args("kfree_skb"),
        btf.function_args("printk"),
    );
}

proptest! {
    #[test]
    fn any_bytes_are_an_error_or_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        interrogate(bytes);
    }

    #[test]
    fn mutated_btf_is_an_error_or_an_answer(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..24),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = kernel().bytes();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        interrogate(bytes);
    }
}
