//! One host with real bash and real supervisors: its runs alone, and a whole agent over real QUIC.

mod controller;
mod host;
mod life;
mod link;
mod restart;
mod stop;
