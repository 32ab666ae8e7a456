//! One module per probe. Each entry point catches, each `try_` function works.

mod accept_queue;
mod dns;
mod existing_sockets;
mod gone_sockets;
mod inet_sock_set_state;
mod kfree_skb;
mod listen_drops;
mod listener_readings;
pub(crate) mod listeners;
mod resets;
mod sys_exit_accept;
mod tcp_destroy_sock;
mod tcp_retransmit_skb;
mod tcp_retransmit_synack;
mod time_wait;
