//! Where the fields that the kernel side reads are, on the running kernel.
//!
//! Rust cannot emit CO-RE field relocations, so the agent resolves each path from the running
//! kernel's BTF at start and passes the offsets in as a read-only global. The verifier sees a
//! constant and checks typed loads against the kernel's own BTF.

macro_rules! offsets {
    ($($name:ident = $path:literal,)+) => {
        /// A field that some program reads; its number is its index in the `OFFSETS` global.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(usize)]
        pub enum Offset {
            $(
                #[doc = concat!("`", $path, "`, in bytes from the start of the outer structure.")]
                $name,
            )+
        }

        impl Offset {
            /// Every offset, in index order.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The field as `structure.member.member`.
            #[must_use]
            pub const fn path(self) -> &'static str {
                match self { $(Self::$name => $path),+ }
            }
        }
    };
}

offsets! {
    SkFamily = "sock.__sk_common.skc_family",
    SkState = "sock.__sk_common.skc_state",
    SkReferences = "sock.__sk_common.skc_refcnt",
    SkNet = "sock.__sk_common.skc_net.net",
    SkLocalPort = "sock.__sk_common.skc_num",
    SkRemotePort = "sock.__sk_common.skc_dport",
    SkLocalAddress = "sock.__sk_common.skc_rcv_saddr",
    SkRemoteAddress = "sock.__sk_common.skc_daddr",
    SkLocalAddress6 = "sock.__sk_common.skc_v6_rcv_saddr",
    SkRemoteAddress6 = "sock.__sk_common.skc_v6_daddr",
    InetLocalPort = "inet_sock.inet_sport",
    SkProtocol = "sock.sk_protocol",
    SkDrops = "sock.sk_drops",
    SkAckBacklog = "sock.sk_ack_backlog",
    SkMaxAckBacklog = "sock.sk_max_ack_backlog",
    SkSocket = "sock.sk_socket",
    SkErr = "sock.sk_err",
    SkCgroup = "sock.sk_cgrp_data",
    CgroupNode = "cgroup.kn",
    CgroupNodeId = "kernfs_node.id",
    SocketSock = "socket.sk",
    FilePrivate = "file.private_data",
    TaskFiles = "task_struct.files",
    FilesTable = "files_struct.fdt",
    TableSize = "fdtable.max_fds",
    TableEntries = "fdtable.fd",
    TaskLeader = "task_struct.group_leader",
    TaskComm = "task_struct.comm",
    TaskCgroups = "task_struct.cgroups",
    CssSetSubsystems = "css_set.subsys",
    CssCgroup = "cgroup_subsys_state.cgroup",
    SocketInode = "socket_alloc.vfs_inode.i_ino",
    SocketAllocSocket = "socket_alloc.socket",
    NetInum = "net.ns.inum",
    NetCookie = "net.net_cookie",
    NetHashMix = "net.hash_mix",
    NetStatistics = "net.mib.net_statistics",
    MibCounters = "linux_mib.mibs",
    ArrayPerCpu = "bpf_array.pptrs",
    IcskQueueLength = "inet_connection_sock.icsk_accept_queue.qlen",
    IcskCaState = "inet_connection_sock.icsk_ca_state",
    IcskPending = "inet_connection_sock.icsk_pending",
    IcskRetransmits = "inet_connection_sock.icsk_retransmits",
    TpTotalRetrans = "tcp_sock.total_retrans",
    TpSndUna = "tcp_sock.snd_una",
    TpSndCwnd = "tcp_sock.snd_cwnd",
    TpSrtt = "tcp_sock.srtt_us",
    TpSegsOut = "tcp_sock.segs_out",
    TpBytesAcked = "tcp_sock.bytes_acked",
    TpBytesReceived = "tcp_sock.bytes_received",
    TpLastSent = "tcp_sock.lsndtime",
    TpLastReceived = "inet_connection_sock.icsk_ack.lrcvtime",
    SkbCb = "sk_buff.cb",
    SkbDevice = "sk_buff.dev",
    SkbTransportHeader = "sk_buff.transport_header",
    SkbNetworkHeader = "sk_buff.network_header",
    DeviceNet = "net_device.nd_net.net",
    SkbHead = "sk_buff.head",
    SkbEnd = "sk_buff.end",
    ShinfoGsoSegs = "skb_shared_info.gso_segs",
    CbSeq = "tcp_skb_cb.seq",
    CbGsoSegs = "tcp_skb_cb.tcp_gso_segs",
    CbFlags = "tcp_skb_cb.tcp_flags",
    RskNumRetrans = "request_sock.num_retrans",
    SkListener = "sock.__sk_common.skc_listener",
    RskRemotePort = "request_sock.__req_common.skc_dport",
    RskRemoteAddress = "request_sock.__req_common.skc_daddr",
    RskRemoteAddress6 = "request_sock.__req_common.skc_v6_daddr",
    TaskTgid = "task_struct.tgid",
}
