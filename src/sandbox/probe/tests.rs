//! What `doctor` says on machines that are not this one.

use std::fmt::Write as _;

use super::*;

/// A desktop where everything works.
fn machine() -> Machine {
    Machine {
        program: "/home/u/.local/bin/casemate".into(),
        apparmor_restricts: false,
        unprivileged_off: false,
        max_user_namespaces: Some(95_000),
        container: None,
        wsl: false,
        root: false,
        proc: true,
    }
}

fn refused(doing: &str, errno: i32) -> Outcome {
    let reason = std::io::Error::from_raw_os_error(errno).to_string();
    Outcome::Refused { doing: doing.to_owned(), errno, reason }
}

/// A machine where all mechanisms work but these, and no sandbox of a tier that rests on one of them.
fn told(machine: Machine, broken: &[(Mechanism, Outcome)]) -> String {
    let outcome = |mechanism: Mechanism| {
        let cause = |known: &Mechanism| {
            *known == mechanism
                || *known == Mechanism::UserNamespace && rests_on_user_namespace(mechanism)
        };
        match broken.iter().find(|(known, _)| cause(known)) {
            Some((_, outcome)) => outcome.clone(),
            None => Outcome::Works("seen".to_owned()),
        }
    };
    let mechanisms: Vec<_> = Mechanism::ALL.map(|mechanism| (mechanism, outcome(mechanism))).into();
    let fails = |tier: Tier| {
        let first = mechanisms.iter().find(|(mechanism, outcome)| {
            let of_tier = match tier {
                Tier::Full => about(*mechanism).1,
                Tier::Landlock => matches!(mechanism, Mechanism::Landlock | Mechanism::Seccomp),
                Tier::None => false,
            };
            of_tier && matches!(outcome, Outcome::Refused { .. })
        });
        first.map(|(mechanism, outcome)| {
            let (_, _, stage) = about(*mechanism);
            let Outcome::Refused { errno, reason, .. } = outcome else {
                unreachable!("just matched")
            };
            (format!("{stage}: {reason}"), remedy::on(&machine, stage, *errno))
        })
    };
    let sandboxes = [Tier::Full, Tier::Landlock];
    let sandboxes =
        sandboxes.map(|tier| (tier, fails(tier).map_or(Ok(vec!["layers".to_owned()]), Err))).into();
    let mut text = String::new();
    for check in judge(&Answers { machine, mechanisms, sandboxes }) {
        let mark = match (check.ok, check.required) {
            (true, _) => "ok  ",
            (false, true) => "FAIL",
            (false, false) => "note",
        };
        writeln!(text, "{mark}  {}: {}", check.name, check.detail).unwrap();
        if let Some(remedy) = check.remedy {
            writeln!(text, "      → {remedy}").unwrap();
        }
    }
    text
}

#[test]
fn every_machine_is_told_cause_and_remedy() {
    use Mechanism::{
        ControlGroup, FreshProc, IdmappedMount, Landlock, NetworkDoor, SealedProgram, UserNamespace,
    };
    let no_namespaces = (UserNamespace, refused("making it", libc::EPERM));
    let groups = Outcome::Refused {
        doing: "making one".to_owned(),
        errno: 0,
        reason: "control groups are not delegated to this user".to_owned(),
    };
    let old = (Landlock, Outcome::Works(format!("ABI 3{}", super::super::landlock::lacking(3))));
    let cases = [
        ("everything works", machine(), vec![]),
        ("no user namespaces", machine(), vec![no_namespaces.clone()]),
        (
            "switched off",
            Machine { unprivileged_off: true, ..machine() },
            vec![no_namespaces.clone()],
        ),
        (
            "none allowed",
            Machine { max_user_namespaces: Some(0), ..machine() },
            vec![(UserNamespace, refused("making it", libc::ENOSPC))],
        ),
        (
            "apparmor restricts",
            Machine { apparmor_restricts: true, ..machine() },
            vec![(UserNamespace, refused("using its capabilities", libc::EACCES))],
        ),
        (
            "no landlock",
            machine(),
            vec![(Landlock, refused("asking for its version", libc::ENOSYS))],
        ),
        ("old landlock", machine(), vec![old]),
        ("no delegation", machine(), vec![(ControlGroup, groups.clone())]),
        (
            "inside docker",
            Machine { container: Some("docker".to_owned()), root: true, ..machine() },
            vec![(FreshProc, refused("mounting it", libc::EPERM)), (ControlGroup, groups)],
        ),
        (
            "root of docker",
            Machine { container: Some("docker".to_owned()), root: true, ..machine() },
            vec![(IdmappedMount, refused("taking a directory", libc::EPERM))],
        ),
        (
            "inside a strict docker",
            Machine { container: Some("docker".to_owned()), ..machine() },
            vec![no_namespaces.clone()],
        ),
        (
            "in a pod",
            Machine { container: Some("kubepods".to_owned()), ..machine() },
            vec![no_namespaces],
        ),
        (
            "in a pod with a covered proc",
            Machine { container: Some("kubepods".to_owned()), ..machine() },
            vec![(FreshProc, refused("mounting it", libc::EPERM))],
        ),
        (
            "without proc",
            Machine { proc: false, ..machine() },
            vec![(UserNamespace, refused("starting a child", libc::ENOENT))],
        ),
        (
            "no routes",
            machine(),
            vec![(NetworkDoor, refused("leading everything to the relay", libc::EOPNOTSUPP))],
        ),
        (
            "no memory programs",
            machine(),
            vec![(SealedProgram, refused("starting it", libc::EACCES))],
        ),
    ];
    for (name, machine, broken) in cases {
        let text = told(machine, &broken);
        insta::assert_snapshot!(format!("doctor_{}", name.replace(' ', "_")), text);
    }
}

#[test]
fn no_failure_is_a_bare_number_and_each_has_a_remedy() {
    for mechanism in Mechanism::ALL {
        let check = of_mechanism(&machine(), mechanism, &refused("trying", libc::EPERM), false);
        assert!(check.detail.starts_with("trying failed: "), "{check:?}");
        assert!(check.remedy.is_some(), "{check:?}");
    }
}
