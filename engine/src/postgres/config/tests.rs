//! What gets into the file, what is refused, and that nothing escapes its quotes.

use super::*;
use crate::links::Upstream;
use holdfast_model::Term;

fn layout() -> Layout {
    Layout {
        bin_dir: "/bin".into(),
        data_dir: "/data/pgdata".into(),
        socket_dir: "/run/a,b".into(),
        conf_dir: "/state/it's".into(),
        port: 5432,
        listen: "127.0.0.1".into(),
    }
}

fn render_with(user: &[(&str, &str)]) -> Result<String, Vec<ConfigError>> {
    render_linked(user, None, &Links::default(), &Ackers::Alone)
}

fn render_linked(
    user: &[(&str, &str)],
    tls: Option<&Tls>,
    links: &Links,
    sync: &Ackers,
) -> Result<String, Vec<ConfigError>> {
    let user = user.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    render(&Settings {
        layout: &layout(),
        version: Version { major: 17, minor: 5 },
        cluster: &"orders".parse().unwrap(),
        sync,
        read_only: false,
        slot_log_max: ByteCount::gib(1),
        tls,
        links,
        user: &user,
    })
}

#[test]
fn no_user_value_can_add_a_line() {
    let err = render_with(&[("work_mem", "4MB'\nfsync = off #")]).unwrap_err();
    assert_eq!(err, [ConfigError::Control { name: "work_mem".into() }]);
    let text = render_with(&[("search_path", r"it's \' fsync=off")]).unwrap();
    assert!(text.contains(r"search_path = 'it''s \\'' fsync=off'"), "{text}");
}

#[test]
fn owned_settings_are_refused_by_name_whatever_their_case() {
    for name in ["fsync", "FSYNC", "Synchronous_Standby_Names", "include", "hba_file", "restore_command"] {
        let errors = render_with(&[(name, "x")]).unwrap_err();
        assert!(
            matches!(&errors[..], [ConfigError::Owned { name: found, .. }] if found == name),
            "{errors:?}"
        );
    }
}

#[test]
fn every_error_is_reported_at_once() {
    let given = [("fsync", "off"), ("bad name", "1"), ("Work_Mem", "1"), ("work_mem", "2"), ("jit", "a\0b")];
    assert_eq!(render_with(&given).unwrap_err().len(), 4);
}

#[test]
fn extension_settings_pass() {
    let text = render_with(&[("pg_stat_statements.max", "100"), ("shared_buffers", "256MB")]).unwrap();
    assert!(text.contains("\npg_stat_statements.max = '100'\nshared_buffers = '256MB'\n"), "{text}");
}

#[test]
fn paths_are_quoted_for_the_file_and_for_lists() {
    let text = render_with(&[]).unwrap();
    assert!(text.contains("hba_file = '/state/it''s/pg_hba.conf'"), "{text}");
    assert!(text.contains("unix_socket_directories = '\"/run/a,b\"'"), "{text}");
}

#[test]
fn alter_system_is_off_where_postgres_knows_the_switch() {
    assert!(render_with(&[]).unwrap().contains("allow_alter_system = 'off'"));
}

fn tls() -> Tls {
    Tls { cert: "/c".into(), key: "/it's".into(), ca: "/a".into() }
}

fn following() -> Links {
    let member = "n2.00000000000000000000000000000007".parse().unwrap();
    let upstream = Upstream {
        node: "n1".parse().unwrap(),
        address: "10.0.0.1:5432".parse().unwrap(),
        member,
        term: Term::FIRST,
    };
    Links { peers: vec![], upstream: Some(upstream) }
}

#[test]
fn a_followers_upstream_is_quoted_for_libpq_and_for_the_file() {
    let text = render_linked(&[], Some(&tls()), &following(), &Ackers::Nobody).unwrap();
    assert!(text.contains(r"sslkey=''/it\\''s''"), "{text}");
    assert!(text.contains("\nprimary_slot_name = 'n2_00000000000000000000000000000007'\n"), "{text}");
    let alone = render_with(&[]).unwrap();
    assert!(alone.contains("\nprimary_conninfo = ''\nprimary_slot_name = ''\n"), "{alone}");
}

#[test]
fn nobody_replicates_without_certificates() {
    let err = render_linked(&[], None, &following(), &Ackers::Nobody).unwrap_err();
    assert_eq!(err, [ConfigError::NoTls]);
}

#[test]
fn a_standbys_ack_list_is_never_empty() {
    let err = render_linked(&[], Some(&tls()), &following(), &Ackers::Alone).unwrap_err();
    assert_eq!(err, [ConfigError::OpenStandby]);
}

#[test]
fn certificates_are_the_operators_until_the_agent_has_some() {
    assert!(render_with(&[("ssl_cert_file", "/mine")]).is_ok());
    let err = render_linked(&[("ssl_cert_file", "/mine")], Some(&tls()), &Links::default(), &Ackers::Alone);
    assert!(matches!(&err.unwrap_err()[..], [ConfigError::Owned { .. }]));
}

#[test]
fn latest_and_an_empty_restore_command_are_on_the_command_line_before_what_a_restore_appends() {
    let settings = Settings {
        layout: &layout(),
        version: Version { major: 15, minor: 13 },
        cluster: &"orders".parse().unwrap(),
        sync: &Ackers::Nobody,
        read_only: false,
        slot_log_max: ByteCount::gib(1),
        tls: None,
        links: &Links::default(),
        user: &BTreeMap::new(),
    };
    let launch = crate::postgres::argv::postgres(&settings).unwrap();
    let last: Vec<_> = launch.args.iter().rev().filter(|arg| *arg != "-c").take(2).collect();
    assert_eq!(last, ["recovery_target_timeline=latest", "restore_command="]);
}
