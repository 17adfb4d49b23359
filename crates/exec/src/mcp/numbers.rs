//! Numbers that rmcp reads as `f32`, as they were written: 0.7, and not 0.699999988079071.

use serde_json::{Number, Value};

/// Fields of a request for sampling that are `f32`.
const OF_SAMPLING: [&str; 4] = [
    "/temperature",
    "/modelPreferences/costPriority",
    "/modelPreferences/speedPriority",
    "/modelPreferences/intelligencePriority",
];

/// Parameters of `sampling/createMessage`, or any others.
pub(super) fn of_request(mut params: Value) -> Value {
    for field in OF_SAMPLING {
        if let Some(value) = params.pointer_mut(field) {
            shorten(value);
        }
    }
    of_annotations(params)
}

/// Whatever has annotations: contents, resources, templates.
pub(super) fn of_annotations(mut value: Value) -> Value {
    walk(&mut value);
    value
}

fn walk(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::Object(annotations)) = fields.get_mut("annotations")
                && let Some(priority) = annotations.get_mut("priority")
            {
                shorten(priority);
            }
            fields.values_mut().for_each(walk);
        }
        Value::Array(items) => items.iter_mut().for_each(walk),
        _ => {}
    }
}

/// The shortest decimal of an `f32`, in the place of all digits that it stands for as an `f64`.
fn shorten(value: &mut Value) {
    let Some(wide) = value.as_f64().filter(|_| value.is_f64()) else { return };
    #[expect(clippy::cast_possible_truncation, reason = "that nothing is lost is checked")]
    let narrow = wide as f32;
    if f64::from(narrow) == wide
        && let Some(short) = narrow.to_string().parse().ok().and_then(Number::from_f64)
    {
        *value = Value::Number(short);
    }
}

#[cfg(test)]
#[expect(deprecated, reason = "upstream servers still sample")]
mod tests {
    use rmcp::model::{CallToolResult, CreateMessageRequestParams};
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_an_f32_on_the_way_comes_as_it_was() {
        let params = json!({
            "messages": [{"role": "user", "content": {
                "type": "text", "text": "q", "annotations": {"priority": 0.7},
            }}],
            "modelPreferences": {
                "costPriority": 0.3, "speedPriority": 0.1, "intelligencePriority": 0.9,
            },
            "temperature": 0.7,
            "maxTokens": 5,
            "metadata": {"a": 0.1, "temperature": 0.699_999_988_079_071},
        });
        let read: CreateMessageRequestParams = serde_json::from_value(params.clone()).unwrap();
        let read = serde_json::to_value(read).unwrap();
        assert_ne!(read["temperature"], 0.7);
        assert_eq!(of_request(read), params);

        let answer = json!({"content": [
            {"type": "text", "text": "a", "annotations": {"priority": 0.1}},
            {"type": "resource_link", "uri": "x:1", "name": "l", "annotations": {"priority": 1.0}},
        ]});
        let read: CallToolResult = serde_json::from_value(answer.clone()).unwrap();
        let read = of_annotations(serde_json::to_value(read).unwrap());
        assert_eq!(read["content"], answer["content"]);
    }
}
