//! Compares the interface as built with `descriptor.bin`, the one that was released: things may be added, and nothing
//! that is there may change or go. A client of any age must be able to talk to an agent of any age.
//!
//! After an addition, copy the file that the failure of `the_released_descriptor_is_current` names.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use prost::Message as _;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorSet};

/// Each thing that a peer may rely on, and what it relies on.
type Surface = BTreeMap<String, String>;

fn surface(encoded: &[u8]) -> Surface {
    let mut surface = Surface::new();
    for file in FileDescriptorSet::decode(encoded).unwrap().file {
        let package = file.package().to_owned();
        for message in &file.message_type {
            add_message(&mut surface, &package, message);
        }
        for choice in &file.enum_type {
            add_enum(&mut surface, &package, choice);
        }
        for service in &file.service {
            for method in &service.method {
                let shape = format!(
                    "{}({}) returns {}({})",
                    if method.client_streaming() { "stream " } else { "" },
                    method.input_type(),
                    if method.server_streaming() { "stream " } else { "" },
                    method.output_type(),
                );
                surface.insert(format!("rpc {package}.{}/{}", service.name(), method.name()), shape);
            }
        }
    }
    surface
}

fn add_message(surface: &mut Surface, scope: &str, message: &DescriptorProto) {
    let scope = format!("{scope}.{}", message.name());
    surface.insert(format!("message {scope}"), String::new());
    for field in &message.field {
        let oneof = field.oneof_index.map(|at| message.oneof_decl[usize::try_from(at).unwrap()].name());
        let shape = format!(
            "{} {:?} {:?} {} in {oneof:?}",
            field.name(),
            field.label(),
            field.r#type(),
            field.type_name()
        );
        surface.insert(format!("field {scope} = {}", field.number()), shape);
    }
    for nested in &message.nested_type {
        add_message(surface, &scope, nested);
    }
    for choice in &message.enum_type {
        add_enum(surface, &scope, choice);
    }
}

fn add_enum(surface: &mut Surface, scope: &str, choice: &EnumDescriptorProto) {
    for value in &choice.value {
        let key = format!("value {scope}.{} = {}", choice.name(), value.number());
        surface.insert(key, value.name().to_owned());
    }
}

fn released() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("descriptor.bin")
}

fn broken(released: &Surface, built: &Surface) -> Vec<String> {
    released
        .iter()
        .filter(|(thing, shape)| built.get(*thing) != Some(shape))
        .map(|(thing, shape)| match built.get(thing) {
            None => format!("{thing} is gone"),
            Some(now) => format!("{thing} was {shape:?} and is {now:?}"),
        })
        .collect()
}

#[test]
fn nothing_released_changes_or_goes() {
    let released = surface(&std::fs::read(released()).unwrap());
    let broken = broken(&released, &surface(holdfast_proto::DESCRIPTOR));
    assert!(broken.is_empty(), "this breaks clients and agents that are out there: {broken:#?}");
}

#[test]
fn the_released_descriptor_is_current() {
    if std::fs::read(released()).is_ok_and(|bytes| bytes == holdfast_proto::DESCRIPTOR) {
        return;
    }
    let built = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("descriptor.bin");
    std::fs::write(&built, holdfast_proto::DESCRIPTOR).unwrap();
    panic!("the interface grew: cp {} {}", built.display(), released().display());
}

#[test]
fn a_changed_number_type_or_name_is_noticed() {
    let released = surface(holdfast_proto::DESCRIPTOR);
    let mut set = FileDescriptorSet::decode(holdfast_proto::DESCRIPTOR).unwrap();
    let messages = set.file.iter_mut().flat_map(|file| &mut file.message_type);
    let target = messages.into_iter().find(|message| message.name() == "Target").unwrap();
    target.field[0].number = Some(99);
    let now = surface(&set.encode_to_vec());
    assert_eq!(broken(&released, &now), ["field holdfast.v1.Target = 1 is gone"]);
}

#[test]
fn every_enum_begins_with_unspecified() {
    for (key, name) in surface(holdfast_proto::DESCRIPTOR) {
        if key.starts_with("value ") && key.ends_with(" = 0") {
            assert!(name.ends_with("_UNSPECIFIED"), "{key} is {name}");
        }
    }
}
