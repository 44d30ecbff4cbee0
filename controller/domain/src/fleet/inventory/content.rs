//! What is in a file that should be text: the cases that look like something else than they are.

use fleetward_protocol::action::script::{MAX_CONTENT, names_bash};
use fleetward_protocol::printable::find_hidden;

use super::yaml::shorten;

/// What a file is instead of what its name says, and what to do; `None` if it may be what it says.
pub(super) fn disguise(content: &[u8]) -> Option<&'static str> {
    let begins = |start: &[u8]| content.starts_with(start);
    if begins(b"version https://git-lfs.github.com/spec/") {
        return Some(
            "is a Git LFS pointer, not the file itself; keep it out of LFS: take it out of .gitattributes, then \
             `git add --renormalize .` and commit",
        );
    }
    if begins(b"\0GITCRYPT\0") {
        return Some("is encrypted by git-crypt; the inventory's files have to be readable in git");
    }
    if begins(b"/annex/objects/") || begins(b".git/annex/objects/") {
        return Some("is a git-annex pointer, not the file itself; keep it out of the annex");
    }
    if begins(b"\xff\xfe") || begins(b"\xfe\xff") {
        return Some("is UTF-16; save it as UTF-8 without a byte order mark");
    }
    None
}

/// Why this content may not run, if it may not.
pub(super) fn refuse(content: &[u8]) -> Option<String> {
    if content.len() > MAX_CONTENT {
        return Some(format!("the script is {} bytes long, but {MAX_CONTENT} are allowed", content.len()));
    }
    if let Some(what) = disguise(content) {
        return Some(format!("the script {what}"));
    }
    if content.starts_with("\u{feff}".as_bytes()) {
        return Some(
            "the script begins with a byte order mark (BOM), so that its #! line does not count; save it as UTF-8 \
             without BOM"
                .to_owned(),
        );
    }
    if let Some(index) = content.windows(2).position(|pair| pair == b"\r\n") {
        let line = content[..index].iter().filter(|&&byte| byte == b'\n').count() + 1;
        return Some(format!(
            "line {line} of the script ends in CRLF, which bash takes for part of the command; \
             convert it with dos2unix and commit it"
        ));
    }
    if let Some(index) = content.iter().position(|&byte| byte == 0) {
        return Some(format!("the script has a NUL at byte {index}: it is a binary, not bash"));
    }
    if names_bash(content) {
        return None;
    }
    let first = content.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let first = String::from_utf8_lossy(&first[..first.len().min(200)]).into_owned();
    let Some(interpreter) = first.strip_prefix("#!") else {
        return Some("the script has no #! line, but only bash is run: begin it with #!/bin/bash".to_owned());
    };
    let mut words = interpreter.split_ascii_whitespace().skip_while(|word| word.ends_with("/env"));
    let splits =
        words.next().is_some_and(|word| word.starts_with("-S") || word.starts_with("--split-string"));
    if splits && interpreter.contains("bash") {
        return Some(format!(
            "the script begins with `{}`: `env -S` is not understood here; begin it with #!/bin/bash and set options \
             inside, such as `set -e`",
            shorten(&first)
        ));
    }
    Some(format!(
        "the script begins with `{}`, but only bash is run: begin it with #!/bin/bash",
        shorten(&first)
    ))
}

/// What a reviewer of this script should know, if anything.
pub(super) fn doubt(content: &[u8]) -> Option<String> {
    let (index, c) = find_hidden(std::str::from_utf8(content).ok()?).filter(|(_, c)| !c.is_control())?;
    let line = content[..index].iter().filter(|&&byte| byte == b'\n').count() + 1;
    Some(format!(
        "line {line} of the script has the character U+{:04X}, which hides text or turns its order: what is seen is \
         not what runs",
        u32::from(c)
    ))
}

/// `text` as one word of a POSIX shell, in quotes where it needs them: for remedies that are copied.
#[must_use]
pub fn shell_word(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./=:@%+,".contains(&byte);
    if !text.is_empty() && !text.starts_with(['-', '=']) && text.bytes().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}
