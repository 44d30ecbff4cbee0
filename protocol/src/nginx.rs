//! The language of nginx's configuration: words, directives and blocks.
//!
//! **What it promises.** [`parse`] reads words as nginx does (`ngx_conf_read_token`): quotes, the escapes `\"`, `\'`, `\\`, `\t`,
//! `\r` and `\n`, comments, `${…}`. [`Writer`] writes them so that each value stays the one word that it is, whatever is in it:
//! what `parse` reads of it are the same values. Nothing else in this house puts a value into such a file.
//!
//! **What it does not.** What a directive means, and which words are variables, is the directive's own affair: a `$` in a quoted
//! word is one still. Types of values say where one may stand.

mod lexer;
mod writer;

pub use lexer::{Directive, MAX_DIRECTIVES, Parsed, parse};
pub use writer::Writer;

/// The longest value in a file, in bytes. nginx takes a word of less than 4096 bytes (`NGX_CONF_BUFFER`), and each of these
/// may be escaped.
pub const MAX_VALUE: usize = 2000;
