//! The wire types of a library, found in rustdoc's JSON: what is public and implements serde's
//! `Serialize`.

use rustdoc_types::{
    Attribute, Crate, GenericArg, GenericArgs, Id, Item, ItemEnum, Type, VariantKind,
};
use std::collections::HashMap;

/// A public type with a form on the wire.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct WireType {
    /// Where it is written, which may be a private module: `countersign_core::hook::point::HookPoint`
    pub(super) path: String,
    /// Under which name others use it: `countersign_core::hook::HookPoint`
    pub(super) public: String,
    /// The variants of an enum; `None` for a struct.
    pub(super) variants: Option<Variants>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Variants {
    /// The member that holds the variant's word, where an attribute of serde says so.
    pub(super) tag: Option<String>,
    /// Nothing on the wire names the variant.
    pub(super) untagged: bool,
    /// Those that may be written, with their place in the enum.
    pub(super) list: Vec<Variant>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Variant {
    pub(super) name: String,
    pub(super) index: usize,
    /// Its word on the wire, where an attribute of serde says so.
    renamed: Option<String>,
    /// The last part of the name of its only, unnamed field's type.
    pub(super) payload: Option<String>,
}

impl WireType {
    /// The name without the path.
    pub(super) fn name(&self) -> &str {
        self.path.rsplit("::").next().unwrap_or(&self.path)
    }

    /// The crate.
    pub(super) fn library(&self) -> &str {
        self.path.split("::").next().unwrap_or(&self.path)
    }
}

impl Variant {
    /// Whether a word on the wire is this variant's, in whatever case it is written there.
    pub(super) fn says(&self, word: &str) -> bool {
        let letters = |text: &str| {
            text.chars().filter(|c| c.is_alphanumeric()).collect::<String>().to_lowercase()
        };
        match &self.renamed {
            Some(renamed) => renamed == word,
            None => letters(&self.name) == letters(word),
        }
    }
}

/// All wire types of a library, sorted. `names` are the public names of its items.
pub(super) fn of(library: &Crate, names: &HashMap<Id, String>) -> Vec<WireType> {
    let mut types: Vec<WireType> = library
        .index
        .values()
        .filter_map(|item| {
            let (impls, variants) = match &item.inner {
                ItemEnum::Struct(found) => (&found.impls, None),
                ItemEnum::Enum(found) => (&found.impls, Some(&found.variants)),
                _ => return None,
            };
            if !impls.iter().any(|block| is_serialize(library, *block)) {
                return None;
            }
            let path = library.paths.get(&item.id)?.path.join("::");
            let variants = variants.map(|list| Variants {
                tag: value(item, "tag"),
                untagged: flag(item, "untagged"),
                list: list
                    .iter()
                    .enumerate()
                    .filter_map(|(index, id)| variant(library, index, *id))
                    .collect(),
            });
            let public = names.get(&item.id).cloned().unwrap_or_else(|| path.clone());
            Some(WireType { path, public, variants })
        })
        .collect();
    types.sort_by(|a, b| a.public.cmp(&b.public));
    types
}

fn is_serialize(library: &Crate, block: Id) -> bool {
    let Some(ItemEnum::Impl(block)) = library.index.get(&block).map(|item| &item.inner) else {
        return false;
    };
    let of = block.trait_.as_ref().and_then(|path| library.paths.get(&path.id));
    of.is_some_and(|of| {
        matches!(of.path.first().map(String::as_str), Some("serde" | "serde_core"))
            && of.path.last().is_some_and(|name| name == "Serialize")
    })
}

fn variant(library: &Crate, index: usize, id: Id) -> Option<Variant> {
    let item = library.index.get(&id)?;
    let ItemEnum::Variant(found) = &item.inner else { return None };
    if flag(item, "skip") || flag(item, "skip_serializing") {
        return None;
    }
    let payload = match &found.kind {
        VariantKind::Tuple(fields) => match fields.as_slice() {
            [Some(field)] => match &library.index.get(field)?.inner {
                ItemEnum::StructField(of) => pointee(of),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    };
    Some(Variant { name: item.name.clone()?, index, renamed: value(item, "rename"), payload })
}

/// The name of a type without its path, looking through pointers that own.
fn pointee(of: &Type) -> Option<String> {
    let Type::ResolvedPath(path) = of else { return None };
    let name = path.path.rsplit("::").next().unwrap_or(&path.path);
    if matches!(name, "Box" | "Arc" | "Rc")
        && let Some(GenericArgs::AngleBracketed { args, .. }) = path.args.as_deref()
        && let [GenericArg::Type(inner), ..] = args.as_slice()
    {
        return pointee(inner);
    }
    Some(name.to_owned())
}

/// What is between the parentheses of an item's `#[serde(…)]`, part by part.
fn serde_attributes(item: &Item) -> impl Iterator<Item = &str> {
    item.attrs.iter().flat_map(|attribute| {
        let text = match attribute {
            Attribute::Other(text) => text.trim(),
            _ => "",
        };
        let inside = text.strip_prefix("#[serde(").and_then(|text| text.strip_suffix(")]"));
        inside.unwrap_or_default().split(',').map(str::trim)
    })
}

fn flag(item: &Item, name: &str) -> bool {
    serde_attributes(item).any(|part| part == name)
}

/// The text in `name = "text"`.
fn value(item: &Item, name: &str) -> Option<String> {
    serde_attributes(item).find_map(|part| {
        let (key, value) = part.split_once('=')?;
        (key.trim() == name).then(|| value.trim().trim_matches('"').to_owned())
    })
}

#[cfg(test)]
impl Variant {
    pub(super) fn new(name: &str, index: usize, payload: Option<&str>) -> Self {
        let payload = payload.map(str::to_owned);
        Self { name: name.to_owned(), index, renamed: None, payload }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// An item of rustdoc's JSON.
    fn item(id: u32, name: Option<&str>, attrs: &[&str], inner: Value) -> Value {
        let attrs: Vec<Value> = attrs.iter().map(|text| json!({ "other": text })).collect();
        json!({
            "id": id, "crate_id": 0, "name": name, "span": null, "visibility": "public",
            "docs": null, "links": {}, "attrs": attrs, "deprecation": null, "inner": inner,
        })
    }

    fn path(name: &str, id: u32, inside: Option<Value>) -> Value {
        let args = inside
            .map(|of| json!({"angle_bracketed": {"args": [{"type": of}], "constraints": []}}));
        json!({ "path": name, "id": id, "args": args })
    }

    fn implemented(id: u32, of: Value) -> Value {
        let generics = json!({ "params": [], "where_predicates": [] });
        let inner = json!({ "impl": {
            "is_unsafe": false, "generics": generics, "provided_trait_methods": [], "trait": of,
            "for": { "primitive": "u8" }, "items": [], "is_negative": false,
            "is_synthetic": false, "blanket_impl": null,
        }});
        item(id, None, &[], inner)
    }

    fn variant(id: u32, name: &str, attrs: &[&str], kind: Value) -> Value {
        item(id, Some(name), attrs, json!({"variant": {"kind": kind, "discriminant": null}}))
    }

    /// A library with one enum, which implements the trait of that path.
    fn library(of: [&str; 3]) -> Crate {
        let generics = json!({ "params": [], "where_predicates": [] });
        let boxed = json!({"resolved_path": path("Box", 8, Some(json!({
            "resolved_path": path("crate::record::Record", 9, None)
        })))});
        let items = [
            item(
                1,
                Some("Mode"),
                &[
                    "#[allow(missing_docs)]",
                    "#[serde(tag = \"mode\", rename_all = \"snake_case\")]",
                ],
                json!({ "enum": {
                    "generics": generics, "has_stripped_variants": false,
                    "variants": [2, 3, 4], "impls": [6],
                }}),
            ),
            variant(2, "Hidden", &["#[serde(skip)]"], json!("plain")),
            variant(3, "Blocking", &["#[serde(rename = \"block\")]"], json!("plain")),
            variant(4, "Other", &[], json!({ "tuple": [5] })),
            item(5, Some("0"), &[], json!({ "struct_field": boxed })),
            implemented(6, path("Serialize", 7, None)),
        ];
        let index: serde_json::Map<String, Value> =
            items.into_iter().map(|item| (item["id"].to_string(), item)).collect();
        serde_json::from_value(json!({
            "root": 0, "crate_version": null, "includes_private": false, "index": index,
            "paths": {
                "1": { "crate_id": 0, "path": ["core", "hook", "spec", "Mode"], "kind": "enum" },
                "7": { "crate_id": 1, "path": of, "kind": "trait" },
            },
            "external_crates": {}, "format_version": rustdoc_types::FORMAT_VERSION,
            "target": { "triple": "", "target_features": [] },
        }))
        .unwrap()
    }

    #[test]
    fn a_wire_type_is_public_and_implements_serialize() {
        let other = Variant::new("Other", 2, Some("Record"));
        let blocking =
            Variant { renamed: Some("block".to_owned()), ..Variant::new("Blocking", 1, None) };
        let expected = WireType {
            path: "core::hook::spec::Mode".to_owned(),
            public: "core::hook::Mode".to_owned(),
            variants: Some(Variants {
                tag: Some("mode".to_owned()),
                untagged: false,
                list: vec![blocking, other],
            }),
        };
        let names = HashMap::from([(Id(1), expected.public.clone())]);
        assert_eq!(of(&library(["serde_core", "ser", "Serialize"]), &names), [expected]);
        assert_eq!(of(&library(["serde_core", "de", "Deserialize"]), &names), []);
        assert_eq!(of(&library(["rkyv", "ser", "Serialize"]), &names), []);
    }

    #[test]
    fn a_word_is_known_in_any_case() {
        let variant = Variant::new("ApprovedForSession", 0, None);
        for word in ["ApprovedForSession", "approved_for_session", "approved-for-session"] {
            assert!(variant.says(word), "{word}");
        }
        assert!(!variant.says("approved"));
        let renamed = Variant { renamed: Some("yes".to_owned()), ..variant };
        assert!(renamed.says("yes") && !renamed.says("ApprovedForSession"));
    }
}
