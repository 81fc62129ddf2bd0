//! Shell completions and manual pages, both made from the one definition in `args`.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use super::args::Cli;

/// The completion script for a shell.
#[must_use]
pub fn completions(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "casemate", &mut script);
    script
}

/// A manual page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Its file's name, such as `casemate-run.1`.
    pub file_name: String,
    /// Its text in roff.
    pub roff: Vec<u8>,
}

/// A manual page that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("write the manual page {}", path.display())]
pub struct PageError {
    /// Which.
    pub path: PathBuf,
    /// Why, in the system's words.
    pub source: io::Error,
}

/// The pages of all commands, that of `casemate` itself first.
#[must_use]
pub fn pages() -> Vec<Page> {
    let mut root = Cli::command();
    root.build();
    let mut pages = Vec::new();
    add_pages(&root, &mut pages);
    pages
}

fn add_pages(command: &Command, pages: &mut Vec<Page>) {
    let man = Man::new(command.clone()).manual("casemate");
    let mut roff = Vec::new();
    man.render(&mut roff).expect("a vector takes every byte");
    pages.push(Page { file_name: man.get_filename(), roff });
    for child in command.get_subcommands() {
        add_pages(child, pages);
    }
}

/// Writes a page into a directory, whole or not at all.
///
/// # Errors
/// The file system's.
pub fn write_page(dir: &Path, page: &Page) -> Result<PathBuf, PageError> {
    let path = dir.join(&page.file_name);
    let draft = dir.join(format!(".{}.new", page.file_name));
    let written = File::create(&draft)
        .and_then(|mut file| file.write_all(&page.roff))
        .and_then(|()| std::fs::rename(&draft, &path));
    match written {
        Ok(()) => Ok(path),
        Err(source) => Err(PageError { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command as Process, Stdio};

    use clap::ValueEnum;

    use super::*;

    #[test]
    fn bash_reads_its_completions() {
        let mut bash = Process::new("bash")
            .arg("-n")
            .stdin(Stdio::piped())
            .spawn()
            .expect("bash is needed for this test");
        bash.stdin.take().expect("it is piped").write_all(&completions(Shell::Bash)).unwrap();
        assert!(bash.wait().unwrap().success());
    }

    #[test]
    fn every_shell_completes_every_command() {
        for shell in Shell::value_variants() {
            let script = String::from_utf8(completions(*shell)).unwrap();
            for command in Cli::command().get_subcommands() {
                assert!(script.contains(command.get_name()), "{shell}: {}", command.get_name());
            }
        }
    }

    #[test]
    fn there_is_a_page_for_every_command_and_it_shows_its_examples() {
        let dir = tempfile::tempdir().unwrap();
        let names: Vec<_> =
            pages().iter().map(|page| write_page(dir.path(), page).unwrap()).collect();
        assert!(names[0].ends_with("casemate.1"), "{names:?}");
        assert!(names.iter().any(|path| path.ends_with("casemate-sessions-events.1")), "{names:?}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), names.len(), "no draft is left");
        let run = std::fs::read_to_string(dir.path().join("casemate-run.1")).unwrap();
        assert!(run.contains("make the tests pass"), "{run}");
    }
}
