//! The runs of one host, with real bash and real supervisors, without a network.

mod host;
mod life;
mod restart;
mod stop;
