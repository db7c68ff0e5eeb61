//! What gets into the file, what is refused, and that nothing escapes its quotes.

use super::*;

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
    let user = user.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    render(&Settings {
        layout: &layout(),
        version: Version { major: 17, minor: 5 },
        cluster: &"orders".parse().unwrap(),
        sync: &SyncStandbys::Alone,
        read_only: false,
        slot_log_max: ByteCount::gib(1),
        recovery: &BTreeMap::new(),
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
