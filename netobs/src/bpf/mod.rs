//! The only room that talks to the bpf() system call: loading, attaching, typed maps, rings.
