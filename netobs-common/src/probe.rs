//! The programs of the eBPF object, and the reasons why one of them loses something.

macro_rules! programs {
    ($($(#[$doc:meta])+ $name:ident = $program:literal,)+) => {
        /// A program of the eBPF object; its number is its index in `PROBE_COUNTS`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum Program { $($(#[$doc])+ $name,)+ }

        impl Program {
            /// Every program, in index order.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];
            /// How many there are.
            #[allow(clippy::cast_possible_truncation, reason = "a handful of programs")]
            pub const COUNT: u32 = Self::ALL.len() as u32;

            /// The program's name in the object and in every metric and message.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $program),+ }
            }
        }
    };
}

programs! {
    /// `tp_btf` on `tcp:tcp_retransmit_skb`.
    TcpRetransmitSkb = "tcp_retransmit_skb",
    /// Classic tracepoint `tcp:tcp_retransmit_skb`, for kernels without BTF.
    TcpRetransmitSkbClassic = "tcp_retransmit_skb_classic",
    /// `tp_btf` on `tcp:tcp_retransmit_synack`.
    TcpRetransmitSynack = "tcp_retransmit_synack",
    /// Classic tracepoint `tcp:tcp_retransmit_synack`, for kernels without BTF.
    TcpRetransmitSynackClassic = "tcp_retransmit_synack_classic",
    /// `tp_btf` on `sock:inet_sock_set_state`.
    InetSockSetState = "inet_sock_set_state",
    /// `tp_btf` on `tcp:tcp_destroy_sock`.
    TcpDestroySock = "tcp_destroy_sock",
    /// `tp_btf` on `skb:kfree_skb`.
    KfreeSkb = "kfree_skb",
    /// `tcp_v4_conn_request`: a SYN for an IPv4 listener.
    TcpV4ConnRequest = "tcp_v4_conn_request",
    /// `tcp_v6_conn_request`: a SYN for an IPv6 listener.
    TcpV6ConnRequest = "tcp_v6_conn_request",
    /// `subflow_v4_conn_request`: a SYN for an MPTCP listener.
    SubflowV4ConnRequest = "subflow_v4_conn_request",
    /// `subflow_v6_conn_request`: the same over IPv6.
    SubflowV6ConnRequest = "subflow_v6_conn_request",
    /// `tcp_check_req`: a packet for a request in the SYN queue.
    TcpCheckReq = "tcp_check_req",
    /// `cookie_v4_check`: the final ACK of a SYN cookie.
    CookieV4Check = "cookie_v4_check",
    /// `cookie_v6_check`: the same over IPv6.
    CookieV6Check = "cookie_v6_check",
    /// `tcp_req_err`: an ICMP error for a request in the SYN queue.
    TcpReqErr = "tcp_req_err",
    /// `inet_csk_reqsk_queue_add`: a connection enters an accept queue.
    AcceptEnqueue = "inet_csk_reqsk_queue_add",
    /// `inet_csk_accept`: a connection leaves one.
    AcceptDequeue = "inet_csk_accept",
    /// Classic tracepoints `syscalls:sys_exit_accept` and `sys_exit_accept4`: the same, by what
    /// the system call returned.
    SysExitAccept = "sys_exit_accept",
    /// `tp_btf` on `tcp:tcp_send_reset`.
    TcpSendReset = "tcp_send_reset",
    /// `tp_btf` on `tcp:tcp_receive_reset`.
    TcpReceiveReset = "tcp_receive_reset",
    /// `tcp_timewait_state_process`: a packet for a TIME_WAIT socket.
    TimeWait = "tcp_timewait_state_process",
    /// Iterator over the TCP sockets of one network namespace.
    ExistingSockets = "existing_sockets",
    /// Iterator over the `LISTENERS` map.
    ListenerReadings = "listener_readings",
    /// Iterator over the `CONNECTIONS` map.
    GoneSockets = "gone_sockets",
    /// `dns_egress` and `dns_ingress`: `cgroup_skb` on the packets of all sockets.
    Dns = "dns",
}

/// Why a program did not deliver something; its number is its index in
/// [`crate::ledger::ProbeCounts::lost`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Loss {
    /// The ring buffer had no room: the event's detail is lost, its count is not.
    RingFull,
    /// A map had no room: what it should have held is not attributed.
    MapFull,
    /// The kernel refused to read memory that the program needed.
    Unreadable,
    /// The event named a listener that is not in the `LISTENERS` map.
    UnknownListener,
    /// A function's exit was not seen after its entry: what it counted is not attributed.
    MissedExit,
}

impl Loss {
    /// Every reason, in index order.
    pub const ALL: [Self; 5] = [
        Self::RingFull,
        Self::MapFull,
        Self::Unreadable,
        Self::UnknownListener,
        Self::MissedExit,
    ];
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The value of the `reason` label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RingFull => "ring_full",
            Self::MapFull => "map_full",
            Self::Unreadable => "unreadable",
            Self::UnknownListener => "unknown_listener",
            Self::MissedExit => "missed_exit",
        }
    }
}

/// A tracepoint with two programs, of which the second stands in where the kernel skips the first;
/// its number is its index in `TURNS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Relieved {
    /// `inet_sock_set_state`.
    SetState = 0,
    /// `kfree_skb`.
    KfreeSkb = 1,
    /// `tcp_send_reset`.
    SendReset = 2,
    /// `tcp_receive_reset`.
    ReceiveReset = 3,
}

impl Relieved {
    /// How many there are.
    pub const COUNT: u32 = 4;

    /// The one of a program, if it has one.
    #[must_use]
    pub const fn of(program: Program) -> Option<Self> {
        match program {
            Program::InetSockSetState => Some(Self::SetState),
            Program::KfreeSkb => Some(Self::KfreeSkb),
            Program::TcpSendReset => Some(Self::SendReset),
            Program::TcpReceiveReset => Some(Self::ReceiveReset),
            _ => None,
        }
    }
}
